//! Locks around guarded read-modify-writes. They keep contenders apart; the store's guard makes the write certain.

use crate::Result;
use async_trait::async_trait;
use std::time::Duration;

/// A lock that is held until it is dropped or its time is over. Dropping releases it without waiting.
pub trait LockGuard: Send + Sync {
    /// Prolongs the lock to a full TTL from now in the background.
    fn extend(&self);
}

/// Redlock over independent masters; one mutex per name in the in-process backend.
///
/// Source: "Distributed Locks with Redis" (the Redlock algorithm).
#[async_trait]
pub trait Locks: Send + Sync {
    /// Takes the lock, waiting up to `patience` with random retry delays.
    ///
    /// Errors: `Contended` when others held it all the time, `Unavailable` when a majority of the masters did not
    /// answer: the caller may go on with the guard alone.
    async fn lock(&self, name: &str, patience: Duration) -> Result<Box<dyn LockGuard>>;
}
