//! The in-process backend: the embedded default.
//!
//! One state behind one mutex that is never held across an await, so every operation is atomic as a script on a Redis
//! is. Time is [`tokio::time::Instant`]: it stands still where a test pauses it.

mod events;
mod leases;
mod locks;
mod registry;
mod state;

pub use locks::{MemoryLockGuard, MemoryLocks};

use crate::{LogLimits, Ports};
use state::State;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use wire::clock::Entropy;

/// A backend in this process. Clones are the same backend.
#[derive(Clone)]
pub struct Memory {
    shared: Arc<Shared>,
    locks: Arc<MemoryLocks>,
}

/// All ports of a new in-process backend with the usual limits.
pub fn ports(entropy: Arc<dyn Entropy>) -> Ports {
    Memory::new(entropy, LogLimits::default()).ports()
}

impl Memory {
    /// A new, empty backend.
    pub fn new(entropy: Arc<dyn Entropy>, limits: LogLimits) -> Self {
        let shared = Shared { state: Mutex::default(), entropy, limits };
        Self { shared: Arc::new(shared), locks: Arc::default() }
    }

    /// Its ports. All that are taken from one backend see the same state: two engines on them are two replicas.
    pub fn ports(&self) -> Ports {
        Ports {
            leases: self.shared.clone(),
            registry: self.shared.clone(),
            events: self.shared.clone(),
            locks: self.locks.clone(),
        }
    }

    /// Forgets everything, as a backend does that is restarted empty. Listeners and subscribers stay.
    pub fn forget_everything(&self) {
        self.shared.state().forget();
    }
}

/// What the ports share.
struct Shared {
    state: Mutex<State>,
    entropy: Arc<dyn Entropy>,
    limits: LogLimits,
}

impl Shared {
    /// The state. No operation leaves it half changed, so one that panicked elsewhere does no harm.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn random(&self) -> String {
        format!("{:016x}", self.entropy.bits())
    }
}
