//! The runs of this replica.

use coordination::{Attempt, SessionKey};
use run_protocol::{Fence, RunHere};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

/// What others may do to a run.
pub(crate) struct RunHandle {
    pub key: SessionKey,
    pub attempt: Attempt,
    /// Under which the run has its lease; 0 while it has none.
    fence: AtomicU64,
    /// "Look at the store": kept until it is taken.
    pub poke: Notify,
    /// The run was lost to another replica: stop at once, write nothing.
    pub lost: CancellationToken,
    /// The replica's time is over: interrupt what runs, record it, hand over.
    pub interrupted: CancellationToken,
}

impl RunHandle {
    /// Notes under which fence the run has its lease: the lease may be taken back in its name.
    pub(crate) fn stand(&self, fence: Option<Fence>) {
        self.fence.store(fence.map_or(0, |fence| fence.0), Ordering::Release);
    }

    fn fence(&self) -> Option<Fence> {
        let fence = self.fence.load(Ordering::Acquire);
        (fence > 0).then_some(Fence(fence))
    }

    fn poke(&self) {
        self.poke.notify_one();
    }
}

pub(crate) struct Runs {
    all: Mutex<BTreeMap<SessionKey, Arc<RunHandle>>>,
    changed: Notify,
    /// Leases are due: whoever claims looks.
    pub due: Notify,
    /// For runs whose former attempts failed: one of them is on trial at a time.
    trials: Arc<Semaphore>,
}

impl Default for Runs {
    fn default() -> Self {
        Self { all: Mutex::default(), changed: Notify::new(), due: Notify::new(), trials: Arc::new(Semaphore::new(1)) }
    }
}

/// A run's place; given up when it is dropped, also by a panic.
pub(crate) struct RunPlace<'a> {
    runs: &'a Runs,
    pub handle: Arc<RunHandle>,
}

impl Runs {
    fn all(&self) -> std::sync::MutexGuard<'_, BTreeMap<SessionKey, Arc<RunHandle>>> {
        self.all.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Takes a place for a run. A former run of the session that is still here has lost its lease: it is told.
    pub(crate) fn enter(&self, key: SessionKey, attempt: Attempt) -> RunPlace<'_> {
        let handle = Arc::new(RunHandle {
            key: key.clone(),
            attempt,
            fence: AtomicU64::new(0),
            poke: Notify::new(),
            lost: CancellationToken::new(),
            interrupted: CancellationToken::new(),
        });
        if let Some(former) = self.all().insert(key, handle.clone()) {
            former.lost.cancel();
        }
        RunPlace { runs: self, handle }
    }

    pub(crate) fn count(&self) -> usize {
        self.all().len()
    }

    /// The runs that have not begun.
    pub(crate) fn entering(&self) -> usize {
        self.all().values().filter(|run| run.fence().is_none()).count()
    }

    /// Waits for the one place that a replica has for a run on trial.
    pub(crate) async fn trial(&self) -> Option<OwnedSemaphorePermit> {
        self.trials.clone().acquire_owned().await.ok()
    }

    /// Waits until a run ends.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Tells a run to look at the store; with a fence, only the run that bears it.
    pub(crate) fn poke(&self, key: &SessionKey, fence: Option<Fence>) {
        if let Some(handle) = self.all().get(key)
            && (fence.is_none() || handle.fence().is_none() || handle.fence() == fence)
        {
            handle.poke();
        }
    }

    pub(crate) fn poke_all(&self) {
        for handle in self.all().values() {
            handle.poke();
        }
    }

    pub(crate) fn interrupt_all(&self) {
        for handle in self.all().values() {
            handle.interrupted.cancel();
        }
    }

    /// Tells a run that it lost its lease.
    pub(crate) fn lose(&self, key: &SessionKey, attempt: &Attempt) {
        if let Some(handle) = self.all().get(key)
            && handle.attempt == *attempt
        {
            handle.lost.cancel();
        }
    }

    /// The runs that work under a fence.
    pub(crate) fn begun(&self) -> Vec<(SessionKey, Attempt, Fence)> {
        let all = self.all();
        let begun = all.values().filter_map(|run| Some((run.key.clone(), run.attempt.clone(), run.fence()?)));
        begun.collect()
    }

    /// True while a run of the session is here, begun or about to.
    pub(crate) fn is_here(&self, key: &SessionKey) -> bool {
        self.run_of(key) != RunHere::No
    }

    /// The run of a session that is here.
    pub(crate) fn run_of(&self, key: &SessionKey) -> RunHere {
        let all = self.all();
        all.get(key).map_or(RunHere::No, |run| run.fence().map_or(RunHere::WithoutLease, RunHere::Works))
    }

    /// The attempt of the run that works under this fence.
    pub(crate) fn attempt_of(&self, key: &SessionKey, fence: Fence) -> Option<Attempt> {
        let all = self.all();
        all.get(key).filter(|run| run.fence() == Some(fence)).map(|run| run.attempt.clone())
    }
}

impl Drop for RunPlace<'_> {
    fn drop(&mut self) {
        let mut all = self.runs.all();
        if all.get(&self.handle.key).is_some_and(|there| Arc::ptr_eq(there, &self.handle)) {
            all.remove(&self.handle.key);
        }
        drop(all);
        self.runs.changed.notify_one();
    }
}
