//! The run guard: held by a session's runner for as long as it runs.

use crate::commit;
use crate::error::{Result, StoreError};
use crate::number;
use crate::record::Write;
use crate::store::TenantStore;
use run_protocol::Fence;
use std::path::PathBuf;
use wire::ids::SessionId;

/// The right to write a run's messages and parts, until somebody else takes it. May be used from many threads.
#[derive(Clone)]
pub struct RunGuard {
    store: TenantStore,
    held: PathBuf,
    fence: Fence,
}

impl TenantStore {
    /// The run guard's number. 0 for a session of OpenCode's that has no guard yet.
    pub fn run_number(&self, session: &SessionId) -> Result<u64> {
        match number::current(&*self.inner.disk, &self.guard(session).join("run")) {
            Err(StoreError::NotFound) => self.old_project(session)?.map(|_| 0).ok_or(StoreError::NotFound),
            number => number,
        }
    }

    /// Takes the run guard if its number is still `number`, else `Fenced`. Durable when this returns.
    pub fn take_run(&self, session: &SessionId, number: u64) -> Result<RunGuard> {
        let disk = &*self.inner.disk;
        let guard = self.guard(session).join("run");
        if !number::is_held(disk, &guard)? {
            self.adopt_old_session(session)?;
        }
        let taken = number::take(disk, &guard, number)?;
        self.inner.sync_directories([&*guard])?;
        Ok(RunGuard { store: self.clone(), held: number::directory(&guard, taken), fence: Fence(taken) })
    }
}

impl RunGuard {
    /// The guard's number.
    pub fn fence(&self) -> Fence {
        self.fence
    }

    /// Makes the writes in their order; the last is the one that makes the others visible.
    ///
    /// `Fenced` if the guard was taken: the run is over here and writes nothing more. After any other error a beginning
    /// of the writes may be there.
    pub fn commit(&self, writes: Vec<Write>) -> Result<()> {
        commit::commit(&self.store.inner, &self.held, &self.store.steps(&writes)?)
    }

    /// True while nobody else has taken the guard, as far as the store can tell.
    pub fn is_held(&self) -> bool {
        number::is_held(&*self.store.inner.disk, &self.held).unwrap_or(false)
    }
}
