//! One event log per tenant: append, read on after a cursor, and be told of what is appended.

use crate::{ReplicaId, Result};
use async_trait::async_trait;
use bytes::Bytes;
use run_protocol::{Fence, RecordVersion};
use serde::{Deserialize, Serialize};
use std::time::Duration;
use tokio::sync::mpsc;
use wire::ids::SessionId;
use wire::tenant::Tenant;

/// A place in a tenant's log: opaque, the same on every replica. It names an entry by a random half, so that a log that
/// went back, began anew or was trimmed cannot match it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Cursor(pub String);

/// Counts the batches of one replica and tenant, from 1: a batch that is sent again is appended once.
pub type BatchNumber = u64;

/// What a log keeps: entries that are older go, and then the oldest while the log is larger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogLimits {
    /// How long an entry is kept. A log that got nothing for so long is gone, unless somebody follows it.
    pub age: Duration,
    /// How many bytes a tenant's entries take together.
    pub bytes: usize,
}

impl Default for LogLimits {
    fn default() -> Self {
        Self { age: Duration::from_secs(600), bytes: 64 << 20 }
    }
}

/// One event to append.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// The session it is about, if any.
    pub session: Option<SessionId>,
    /// The fence of the run that says it: refused if the lease bears another.
    pub fence: Option<Fence>,
    /// The record that it shows, and its version: refused if a newer one is out.
    pub record: Option<(String, RecordVersion)>,
    /// The lease's new status, as JSON, where the event is one of status.
    pub status: Option<String>,
    /// The event as every replica sends it.
    pub body: Bytes,
}

impl Entry {
    /// The one that a log begins with.
    pub fn beginning() -> Self {
        Self { session: None, fence: None, record: None, status: None, body: Bytes::new() }
    }
}

/// What was appended, as subscribers are told.
#[derive(Clone, Debug, PartialEq)]
pub struct Appended {
    /// The newest cursor before it; none if the log was empty.
    pub previous: Option<Cursor>,
    /// The entries, in order.
    pub entries: Vec<(Cursor, Bytes)>,
}

/// What reading on gives.
#[derive(Clone, Debug, PartialEq)]
pub enum Read {
    /// What follows the cursor, in order; empty if nothing does.
    Entries(Vec<(Cursor, Bytes)>),
    /// The cursor is not in the log: heal from the store.
    Reset,
}

/// A subscription to a tenant's log. Begun when it is returned: what is appended afterwards arrives, unless the
/// connection breaks, which shows as an [`Appended`] whose `previous` is not the newest cursor seen, or, when nothing
/// follows, in the next tick's newest cursor. A slow receiver loses messages in the same, visible way.
pub type Subscription = mpsc::Receiver<Appended>;

/// The event log of each tenant.
#[async_trait]
pub trait EventLog: Send + Sync {
    /// Appends a batch in order, at most once. Entries of a fenced-out run and of records that are out in a newer
    /// version are left out.
    /// Returns the indexes of those left out because of their fence: their session's lease bears another, or there is
    /// none. The newest batch, when it is sent again, gets the same answer.
    async fn publish(
        &self,
        tenant: &Tenant,
        replica: &ReplicaId,
        batch: BatchNumber,
        entries: &[Entry],
    ) -> Result<Vec<usize>>;

    /// Appends an entry without a body to a log that is empty. Whoever has read it sees that the log began anew, though nothing
    /// else was told before.
    async fn begin(&self, tenant: &Tenant) -> Result<()>;

    /// The newest cursor; none if the log is empty.
    async fn newest(&self, tenant: &Tenant) -> Result<Option<Cursor>>;

    /// Up to `limit` entries after a cursor; from the oldest one retained if none is given.
    async fn read_after(&self, tenant: &Tenant, cursor: Option<&Cursor>, limit: usize) -> Result<Read>;

    /// Forgets a cursor that the log holds and all before it: whoever comes with one of them is healed. Where the log does
    /// not hold it, nothing is done. For a log that went back behind what its readers have seen: what they miss is not in
    /// it, so that a replay would leave a hole.
    async fn forget_until(&self, tenant: &Tenant, cursor: &Cursor) -> Result<()>;

    /// Subscribes. Returns when the subscription is confirmed.
    async fn subscribe(&self, tenant: &Tenant) -> Result<Subscription>;
}
