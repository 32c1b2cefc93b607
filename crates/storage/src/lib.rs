//! The store: OpenCode's JSON records, and beside them the guards, heads and tickets that let many replicas write them.
//!
//! The API is synchronous and blocks on the disk; callers on an async runtime go through a blocking thread.
//!
//! Nothing here locks. Who may write is decided by the name of a directory ([`HeadGuard`], [`RunGuard`]): a write goes
//! through that directory, and when somebody else has taken the guard the directory's old name is gone, so the write of
//! a process that slept through it fails. The crate knows neither HTTP nor Redis.

mod adoption;
mod cache;
mod commit;
pub mod disk;
mod error;
mod events;
#[cfg(feature = "forgetful")]
pub mod forgetful;
mod head;
mod history;
mod import;
mod listing;
mod markers;
mod number;
mod reads;
mod record;
mod removal;
mod retention;
mod run;
mod shared;
mod snapshots;
mod store;
mod sync;
mod view;

pub use error::{FileError, Result, StoreError};
pub use head::{HeadGuard, Look};
pub use history::Page;
pub use import::Imported;
pub use listing::SessionFilter;
pub use markers::Marker;
pub use record::{Record, Write};
pub use run::RunGuard;
pub use shared::SharedGuard;
pub use snapshots::{ContentId, Entry, Kind, Snapshot, SnapshotId};
pub use store::{DirectoryLock, Durability, Store, TenantStore};
