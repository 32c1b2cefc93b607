//! Taking in a session that was made elsewhere, with all its records and under its own ids.

use crate::error::{Result, StoreError};
use crate::head::Look;
use crate::record::{Record, Write};
use crate::store::TenantStore;
use run_protocol::{Head, Patience};
use serde_json::Value;
use std::collections::HashSet;
use std::time::{Duration, Instant};
use wire::ids::SessionId;

/// What an import found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Imported {
    /// Nothing of it: it is here now.
    New,
    /// The very same: nothing was written.
    Known,
}

impl TenantStore {
    /// Makes a session with these records: its parts, its messages, and last its own, which makes the others visible.
    ///
    /// `Exists` if one of its ids is in use here with another content, or was deleted. After a crash the same call finishes
    /// what was begun. Replicas may be at work meanwhile. `Contended` if others kept the session's guard busy for a minute:
    /// the same call again finds what they made.
    pub fn import_session(&self, session: &SessionId, head: &Head, records: &[(Record, Vec<u8>)]) -> Result<Imported> {
        for (record, _) in records {
            // Nothing is begun with a name that no record may have.
            self.path(record)?;
        }
        let began = Instant::now();
        let mut patience = Patience::new(self.inner.entropy.bits());
        loop {
            if self.is_here(session)? {
                return if self.is_same(session, records)? { Ok(Imported::Known) } else { Err(StoreError::Exists) };
            }
            for (record, _) in records {
                if let Record::Message { id, .. } = record
                    && self.message_exists(id)?.is_some_and(|owner| owner != *session)
                {
                    return Err(StoreError::Exists);
                }
            }
            match self.create_guard(session, head) {
                Ok(()) | Err(StoreError::Exists) => {}
                Err(error) => return Err(error),
            }
            let Look { number, empty } = self.look_head(session)?;
            let waited = began.elapsed();
            if waited > LONGEST {
                return Err(StoreError::Contended { number, empty });
            }
            // Whoever has begun is left to finish: contenders that depose each other would never come to an end.
            if !patience.may_take(number, empty, waited.as_millis() as u64) {
                std::thread::sleep(Duration::from_millis(patience.pause_ms()));
                continue;
            }
            match self.write_import(session, number, records) {
                Err(StoreError::Contended { .. } | StoreError::Fenced) => patience.was_fenced(),
                Ok(true) => return Ok(Imported::New),
                Ok(false) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Whether the session's own record is here. `Exists` if it was deleted.
    fn is_here(&self, session: &SessionId) -> Result<bool> {
        match self.session(session) {
            Ok(_) => Ok(true),
            Err(StoreError::NotFound) => Ok(false),
            Err(StoreError::Deleted) => Err(StoreError::Exists),
            Err(error) => Err(error),
        }
    }

    /// False: the session came between.
    fn write_import(&self, session: &SessionId, number: u64, records: &[(Record, Vec<u8>)]) -> Result<bool> {
        let guard = self.take_head_at(session, number)?;
        if self.is_here(session)? {
            guard.release();
            return Ok(false);
        }
        let head = guard.head().clone();
        let mut writes: Vec<Write> =
            records.iter().map(|(record, body)| Write::Put(record.clone(), body.clone())).collect();
        // The session's own record is the last, and what makes the others visible.
        if let Some(Write::Put(record, body)) = writes.pop() {
            writes.push(Write::Reveal(record, body));
        }
        guard.commit(writes, head)?;
        Ok(true)
    }

    /// Whether the session has these records and no other messages and parts.
    fn is_same(&self, session: &SessionId, records: &[(Record, Vec<u8>)]) -> Result<bool> {
        let mut here = HashSet::new();
        for message in self.shared_messages(session, None, None)?.items {
            let id = message.info.id();
            here.insert(Record::Message { session: session.clone(), id: id.clone() });
            here.extend(message.parts.iter().map(|part| Record::Part { message: id.clone(), id: part.id.clone() }));
        }
        for (record, body) in records {
            let Some(there) = self.read(record)? else { return Ok(false) };
            let value = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes).ok();
            if value(&there) != value(body) {
                return Ok(false);
            }
            here.remove(record);
        }
        Ok(here.is_empty())
    }
}

/// How long others may keep the session's guard busy.
const LONGEST: Duration = Duration::from_secs(60);
