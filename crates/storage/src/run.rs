//! The run guard: held by a session's runner for as long as it runs.

use crate::commit::{self, Step};
use crate::error::{Result, StoreError};
use crate::number;
use crate::record::Write;
use crate::store::TenantStore;
use crate::sync::lock;
use run_protocol::Fence;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use wire::ids::SessionId;

/// The right to write a run's messages and parts, until somebody else takes it. May be used from many threads.
#[derive(Clone)]
pub struct RunGuard {
    store: TenantStore,
    held: PathBuf,
    fence: Fence,
    /// What was committed lightly and is not durable yet.
    light: Arc<Mutex<BTreeSet<PathBuf>>>,
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
        let held = number::directory(&guard, taken);
        Ok(RunGuard { store: self.clone(), held, fence: Fence(taken), light: Arc::default() })
    }
}

impl RunGuard {
    /// The guard's number.
    pub fn fence(&self) -> Fence {
        self.fence
    }

    /// Makes the writes in their order; the last is the one that makes the others visible. What was committed lightly
    /// before is durable before it.
    ///
    /// `Fenced` if the guard was taken: the run is over here and writes nothing more. After any other error a beginning
    /// of the writes may be there.
    pub fn commit(&self, writes: Vec<Write>) -> Result<()> {
        let light: Vec<PathBuf> = std::mem::take(&mut *lock(&self.light)).into_iter().collect();
        self.store.inner.sync_files(&light)?;
        commit::commit(&self.store.inner, &self.held, &self.store.steps(&writes)?)
    }

    /// Makes the writes without waiting for the disk: they survive the death of every process, and with durability `disk`
    /// a power cut from the next [`RunGuard::commit`] on. For what a step shows before it ends.
    pub fn commit_lightly(&self, writes: Vec<Write>) -> Result<()> {
        let steps = self.store.steps(&writes)?;
        commit::commit_lightly(&self.store.inner, &self.held, &steps)?;
        if self.store.inner.sync.is_some() {
            lock(&self.light).extend(steps.into_iter().filter(Step::is_put).map(|step| step.target));
        }
        Ok(())
    }

    /// True while nobody else has taken the guard, as far as the store can tell.
    pub fn is_held(&self) -> bool {
        number::is_held(&*self.store.inner.disk, &self.held).unwrap_or(false)
    }
}
