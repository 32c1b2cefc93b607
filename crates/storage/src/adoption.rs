//! Sessions that OpenCode made: they have no guard until their first write here.

use crate::error::{Result, StoreError};
use crate::number;
use crate::record::{Record, Write};
use crate::store::TenantStore;
use run_protocol::{Head, HeadState};
use wire::ids::SessionId;

impl TenantStore {
    /// Gives a session of OpenCode's its guards and head. One that has them already is fine; `NotFound` if there is no
    /// such session.
    pub fn adopt_old_session(&self, session: &SessionId) -> Result<()> {
        if number::is_held(&*self.inner.disk, &self.guard(session))? {
            return Ok(());
        }
        let mut head = Head::new(self.old_project(session)?.ok_or(StoreError::NotFound)?);
        // A new message must not be created before the newest one.
        head.clock = self.newest_created(session)?.unwrap_or(0);
        match self.make_guard(session, &head, None) {
            Ok(()) | Err(StoreError::Exists) => {}
            Err(error) => return Err(error),
        }
        if self.old_project(session)?.is_some() {
            return Ok(());
        }
        // Somebody removed the session meanwhile; without a record its guard must not look alive.
        let guard = self.take_head(session)?;
        let mut head = guard.head().clone();
        if head.is_live() {
            head.state = HeadState::Deleted;
            guard.commit(vec![Write::Put(Record::Deletion { session: session.clone() }, Vec::new())], head)?;
        }
        Err(StoreError::NotFound)
    }

    /// The project that a session's record is filed under, found by looking through all of them.
    pub(crate) fn old_project(&self, session: &SessionId) -> Result<Option<String>> {
        let file = format!("{session}.json");
        for project in self.projects()? {
            let path = self.directory("storage/session").join(&project).join(&file);
            if number::is_held(&*self.inner.disk, &path)? {
                return Ok(Some(project));
            }
        }
        Ok(None)
    }
}
