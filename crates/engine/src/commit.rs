//! Read-modify-writes under the head guard, with the Redlock around them.

use crate::api::EngineError;
use crate::asks::found;
use crate::engine::{Engine, blocking};
use coordination::{CoordinationError, LockGuard, SessionKey};
use run_protocol::{Fence, Head, HeadState, Patience};
use std::time::Duration;
use storage::{Look, StoreError, TenantStore, Write};
use tokio::time::Instant;
use tracing::Instrument;
use wire::ids::{MessageId, SessionId};
use wire::message::MessageWithParts;
use wire::session::Session;

/// Who commits, and what it does when coordination is away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Committer {
    /// A request: it is refused without the lock.
    Request,
    /// A runner: its run guard must still be held; it goes on without the lock, for the guard makes the write certain.
    Runner(Fence),
    /// A request about a run of this very replica: it goes on without the lock, as the run does.
    Neighbour,
    /// A finisher of a deletion: like a request, but of a session that is no longer live.
    Deleter,
}

/// What a commit decided.
pub(crate) enum Decision<T> {
    /// Write these, then the head.
    Write(Vec<Write>, T),
    /// Write nothing.
    Leave(T),
}

/// Decides what a commit writes, from the head as it stands under the guard.
type Decide<T> = dyn Fn(&mut Head, &Under<'_>) -> Result<Decision<T>, EngineError>;

/// A session's records while its head guard is held.
pub(crate) struct Under<'a> {
    pub store: &'a TenantStore,
    pub id: &'a SessionId,
    /// The head as it stands.
    head: &'a Head,
}

impl Under<'_> {
    /// The session's record as it stands.
    pub(crate) fn session(&self) -> Result<Session, EngineError> {
        match self.store.session_under(self.id, self.head) {
            Err(StoreError::NotFound | StoreError::Deleted) => Err(EngineError::SessionNotFound(self.id.clone())),
            other => Ok(other?),
        }
    }

    /// A message as it stands, if it is there.
    pub(crate) fn message(&self, id: &MessageId) -> Result<Option<MessageWithParts>, EngineError> {
        found(self.store.message_under(self.id, id, self.head))
    }
}

/// How often the whole is done again from take and read when another got between.
const TRIES: u32 = 40;

/// How long a request waits for the lock.
const PATIENCE: Duration = Duration::from_secs(4);

impl Engine {
    /// Changes records under the session's head guard. `decide` sees the head as it stands under the guard and may read
    /// the store; it is called again if another committer got between.
    ///
    /// Returns the head after it, and what `decide` gave.
    pub(crate) async fn head_commit<T, F>(
        &self,
        key: &SessionKey,
        committer: Committer,
        decide: F,
    ) -> Result<(Head, T), EngineError>
    where
        T: Send + 'static,
        F: Fn(&mut Head, &Under<'_>) -> Result<Decision<T>, EngineError> + Send + Sync + 'static,
    {
        let name = format!("head/{key}");
        let lock = self.0.ports.locks.lock(&name, PATIENCE).instrument(crate::trace::lock(&name));
        let lock = match lock.await {
            Ok(lock) => Some(lock),
            Err(_) if matches!(committer, Committer::Runner(_) | Committer::Neighbour) => None,
            Err(error @ CoordinationError::Contended(_)) => return Err(EngineError::Unavailable(error.to_string())),
            Err(CoordinationError::Unavailable(why)) => return Err(EngineError::Unavailable(why)),
        };
        let decide = std::sync::Arc::new(decide);
        let mut last = None;
        let mut patience = Patience::new(self.0.ids.bits());
        for attempt in 0..TRIES {
            let number = match &lock {
                Some(_) => None,
                None => self.stands_still(key, &mut patience).await?,
            };
            let (store, session, decide) = (self.tenant_store(&key.tenant), key.session.clone(), decide.clone());
            let outcome = blocking(move || Ok(once(&store, &session, number, committer, decide.as_ref()))).await?;
            match outcome {
                Ok(done) => return Ok(done),
                Err(Failed::Engine(error)) => return Err(error),
                Err(Failed::Again(error)) => last = Some(error),
            }
            match &lock {
                // The rare end of a holder that slept past the lock.
                Some(lock) => {
                    lock.extend();
                    let spread = 2_u64 << attempt.min(6);
                    tokio::time::sleep(Duration::from_millis(self.0.ids.bits() % spread)).await;
                }
                None => patience.was_fenced(),
            }
        }
        Err(EngineError::Unavailable(last.map_or_else(|| "the session is contended".into(), |error| error.to_string())))
    }

    /// The lock around a record outside any session. Errors: `Unavailable`.
    pub(crate) async fn lock_record(&self, name: &str) -> Result<Box<dyn LockGuard>, EngineError> {
        let lock = self.0.ports.locks.lock(name, PATIENCE).instrument(crate::trace::lock(name));
        lock.await.map_err(|error| EngineError::Unavailable(error.to_string()))
    }

    /// Without the lock: waits until the head guard may be taken. Returns the number to take it from; none for a session
    /// that has no guard yet.
    async fn stands_still(&self, key: &SessionKey, patience: &mut Patience) -> Result<Option<u64>, EngineError> {
        let began = Instant::now();
        loop {
            let (store, session) = (self.tenant_store(&key.tenant), key.session.clone());
            let look = blocking(move || found(store.look_head(&session))).await?;
            let Some(Look { number, empty }) = look else { return Ok(None) };
            // Somebody who is always at work is deposed in the end.
            let waited = began.elapsed();
            if patience.may_take(number, empty, waited.as_millis() as u64) || waited > PATIENCE {
                return Ok(Some(number));
            }
            tokio::time::sleep(Duration::from_millis(patience.pause_ms())).await;
        }
    }
}

enum Failed {
    Again(StoreError),
    Engine(EngineError),
}

fn once<T>(
    store: &TenantStore,
    session: &SessionId,
    number: Option<u64>,
    committer: Committer,
    decide: &Decide<T>,
) -> Result<(Head, T), Failed> {
    let refuse = |error: StoreError| match error {
        again @ (StoreError::Contended { .. } | StoreError::Fenced) => Failed::Again(again),
        StoreError::NotFound => Failed::Engine(EngineError::SessionNotFound(session.clone())),
        other => Failed::Engine(other.into()),
    };
    let taken = match number {
        Some(number) => store.take_head_at(session, number),
        None => store.take_head(session),
    };
    let guard = taken.map_err(refuse)?;
    let mut head = guard.head().clone();
    match committer {
        Committer::Request | Committer::Neighbour if head.state != HeadState::Live => {
            guard.release();
            return Err(Failed::Engine(EngineError::SessionNotFound(session.clone())));
        }
        Committer::Runner(fence) => {
            // Taken first, looked at afterwards: with the taker's order (run, then head) the two guards are one fence.
            if let Err(error) = guard.check_run(fence) {
                guard.release();
                return Err(Failed::Engine(error.into()));
            }
        }
        Committer::Request | Committer::Neighbour | Committer::Deleter => {}
    }
    let decision = decide(&mut head, &Under { store, id: session, head: guard.head() });
    let settled = guard.head().settled;
    match decision {
        // Nothing of a deleted session is written again but its end.
        Ok(Decision::Write(..)) if matches!(committer, Committer::Runner(_)) && !guard.head().is_live() => {
            guard.release();
            Err(Failed::Engine(EngineError::Lost))
        }
        Ok(Decision::Write(writes, value)) => {
            let head = guard.commit(writes, head).map_err(refuse)?;
            remove_markers(store, session, settled, head.settled);
            Ok((head, value))
        }
        Ok(Decision::Leave(value)) => {
            guard.release();
            // What was found done is about to be acknowledged; a runner only goes on.
            if !matches!(committer, Committer::Runner(_)) {
                store.sync_seen(session).map_err(refuse)?;
            }
            Ok((head, value))
        }
        Err(error) => {
            guard.release();
            Err(Failed::Engine(error))
        }
    }
}

/// Removes the markers of the tickets that a commit settled. What a crash leaves is found by the sweep.
fn remove_markers(store: &TenantStore, session: &SessionId, before: u64, settled: u64) {
    for ticket in before + 1..=settled {
        if let Err(error) = store.remove_marker(session, ticket) {
            tracing::warn!(%session, %error, "the marker of a settled ticket stays until the sweep");
        }
    }
}

impl From<StoreError> for EngineError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Full(_) => Self::Full,
            StoreError::Fenced => Self::Lost,
            other => Self::Store(other.to_string()),
        }
    }
}

/// A record as it is stored.
pub(crate) fn body<T: serde::Serialize>(record: &T) -> Result<Vec<u8>, EngineError> {
    let write = || {
        if let Some(bytes) = json_within(record, SMALL)? {
            return Ok(bytes);
        }
        // Measured first: while a text of many megabytes grows, it is there twice.
        let mut bytes = Vec::with_capacity(json_size(record)?);
        serde_json::to_writer(&mut bytes, record)?;
        Ok(bytes)
    };
    write().map_err(|error: serde_json::Error| EngineError::Store(error.to_string()))
}

/// A record that is written without a look at its size.
const SMALL: usize = 16 * 1024;

/// A value as JSON, unless that has more bytes than `limit`: then nothing.
pub(crate) fn json_within<T: serde::Serialize>(value: &T, limit: usize) -> serde_json::Result<Option<Vec<u8>>> {
    struct Limited {
        bytes: Vec<u8>,
        limit: usize,
    }
    impl std::io::Write for Limited {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            if self.bytes.len() + bytes.len() > self.limit {
                return Err(std::io::ErrorKind::FileTooLarge.into());
            }
            self.bytes.extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let mut limited = Limited { bytes: Vec::with_capacity(512), limit };
    match serde_json::to_writer(&mut limited, value) {
        Ok(()) => Ok(Some(limited.bytes)),
        Err(error) if error.is_io() => Ok(None),
        Err(error) => Err(error),
    }
}

/// How many bytes a value is as JSON.
pub(crate) fn json_size<T: serde::Serialize>(value: &T) -> serde_json::Result<usize> {
    struct Count(usize);
    impl std::io::Write for Count {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let mut count = Count(0);
    serde_json::to_writer(&mut count, value)?;
    Ok(count.0)
}
