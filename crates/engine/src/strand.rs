//! Where a replica's work is done: tasks and blocking work on the threads of the runtime, the beat on one of its own; or, in a
//! simulation, all of it on one *strand*, in an order that nothing but handed-in time and randomness decides.

use crate::api::EngineError;
use async_trait::async_trait;
use std::future::Future;
use std::sync::Arc;
use tokio::task::JoinHandle;
use tokio_util::task::TaskTracker;

/// One replica of a simulation, as far as its work goes: what is done on it is done on the thread of whoever polls it, and all
/// of it is dropped when the strand ends.
#[async_trait]
pub trait Strand: Send + Sync {
    /// Waits for as long as a piece of blocking work waits for its thread, and its caller for what came of it.
    async fn pause(&self);

    /// Returns once the strand has ended: the replica is dead.
    async fn ended(&self);
}

tokio::task_local! {
    static STRAND: Arc<dyn Strand>;
}

/// Does `work` on a strand, with all tasks that it spawns and all that blocks in them. None if the strand ended first: then
/// what was left of the work is dropped.
pub async fn on_strand<T>(strand: Arc<dyn Strand>, work: impl Future<Output = T> + Send) -> Option<T> {
    let work = STRAND.scope(strand.clone(), Box::pin(work));
    tokio::select! {
        biased;
        () = strand.ended() => None,
        done = work => Some(done),
    }
}

/// A task that stays on the strand of whoever makes it, if there is one: for what is spawned by other means than the engine's.
pub fn stay<T: Send>(work: impl Future<Output = T> + Send) -> impl Future<Output = T> + Send {
    let strand = STRAND.try_with(Arc::clone).ok();
    async move {
        let Some(strand) = strand else { return work.await };
        match on_strand(strand, work).await {
            Some(done) => done,
            // Who waited for it is gone as well.
            None => std::future::pending().await,
        }
    }
}

/// True on a strand: there is no thread beside it.
pub(crate) fn is_alone() -> bool {
    STRAND.try_with(|_| ()).is_ok()
}

/// Runs what blocks on a thread that may.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, EngineError> + Send + 'static,
) -> Result<T, EngineError> {
    if let Ok(strand) = STRAND.try_with(Arc::clone) {
        strand.pause().await;
        let result = work();
        strand.pause().await;
        return result;
    }
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(EngineError::Store(format!("a store operation did not end: {error}"))),
    }
}

/// The tasks of a replica. Clones are the same.
#[derive(Clone, Default)]
pub(crate) struct Tasks(TaskTracker);

impl Tasks {
    /// Spawns a task that stays where it is spawned.
    pub(crate) fn spawn<T: Send + 'static>(&self, task: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
        self.0.spawn(stay(task))
    }

    /// Waits until all tasks have ended; there will be no more.
    pub(crate) async fn end(&self) {
        self.0.close();
        self.0.wait().await;
    }
}
