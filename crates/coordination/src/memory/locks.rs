//! Locks in this process: a mutex per name, first come, first served.

use crate::{CoordinationError, LockGuard, Locks, Result};
use async_trait::async_trait;
use std::collections::HashMap;
use std::sync::{Arc, PoisonError, Weak};
use std::time::Duration;
use tokio::sync::{Mutex, OwnedMutexGuard};

/// Locks that hold within this process only.
///
/// A lock has no time-out here: who holds it lives in the same process and drops it when its task ends.
#[derive(Default)]
pub struct MemoryLocks {
    names: std::sync::Mutex<Names>,
}

/// The locks that somebody holds or waits for, and how many names there were after the last clean-up.
#[derive(Default)]
struct Names {
    locks: HashMap<String, Weak<Mutex<()>>>,
    kept: usize,
}

impl MemoryLocks {
    fn named(&self, name: &str) -> Arc<Mutex<()>> {
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(lock) = names.locks.get(name).and_then(Weak::upgrade) {
            return lock;
        }
        // Cleaning up each time the number of names has doubled costs a constant per name.
        if names.locks.len() > 64 + 2 * names.kept {
            names.locks.retain(|_, lock| lock.strong_count() > 0);
            names.kept = names.locks.len();
        }
        let lock = Arc::default();
        names.locks.insert(name.to_owned(), Arc::downgrade(&lock));
        lock
    }

    /// Takes the lock, waiting up to `patience`.
    ///
    /// Errors: `Contended` when others held it all the time.
    pub async fn acquire(&self, name: &str, patience: Duration) -> Result<MemoryLockGuard> {
        match tokio::time::timeout(patience, self.named(name).lock_owned()).await {
            Ok(guard) => Ok(MemoryLockGuard { _guard: guard }),
            Err(_) => Err(CoordinationError::Contended(name.to_owned())),
        }
    }
}

/// A lock within this process; dropping it gives it to whoever waits longest.
pub struct MemoryLockGuard {
    _guard: OwnedMutexGuard<()>,
}

impl LockGuard for MemoryLockGuard {
    fn extend(&self) {}
}

#[async_trait]
impl Locks for MemoryLocks {
    async fn lock(&self, name: &str, patience: Duration) -> Result<Box<dyn LockGuard>> {
        Ok(Box::new(self.acquire(name, patience).await?))
    }
}
