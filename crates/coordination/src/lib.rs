//! The coordination ports: who is working, how to reach them, the flags that everybody looks at, and the event log.
//!
//! Facts live in the store; what is kept here may vanish, and no fact goes with it. These ports decide who *tries*; the
//! store's guards decide who *may*. Every operation is idempotent: one whose caller timed out may still take effect.

#[cfg(feature = "conformance")]
pub mod conformance;
pub mod events;
pub mod keys;
pub mod leases;
pub mod locks;
pub mod memory;
pub mod registry;
pub mod table;

pub use events::{Appended, BatchNumber, Cursor, Entry, EventLog, LogLimits, Read, Subscription};
pub use keys::{Attempt, Born, ReplicaId, SessionKey};
pub use leases::{Adopted, Enter, Entered, Former, Leases, Released};
pub use locks::{LockGuard, Locks};
pub use registry::{Registry, Signal, Tick, Ticked};

use std::sync::Arc;

/// Why a coordination operation gave no answer.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CoordinationError {
    /// The backend did not answer in time or refused the connection. The operation may or may not have taken effect:
    /// try again, the same call does no harm.
    #[error("coordination is unavailable: {0}")]
    Unavailable(String),
    /// A lock was not got within the time that the caller allowed.
    #[error("the lock on {0} was not got in time")]
    Contended(String),
}

/// What an operation gives.
pub type Result<T> = std::result::Result<T, CoordinationError>;

/// All ports of one backend.
#[derive(Clone)]
pub struct Ports {
    /// Leases of sessions.
    pub leases: Arc<dyn Leases>,
    /// Replicas, their beats, and the control channel.
    pub registry: Arc<dyn Registry>,
    /// The event log of each tenant.
    pub events: Arc<dyn EventLog>,
    /// Locks around read-modify-writes.
    pub locks: Arc<dyn Locks>,
}
