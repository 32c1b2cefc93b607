//! Leases: who works for a session. A lease has no time-out of its own: it is released, handed over, or its owner is
//! buried. A session is busy while its lease exists or its head is open.

use crate::{Attempt, Born, Entry, ReplicaId, Result, SessionKey};
use async_trait::async_trait;
use run_protocol::Fence;
pub use run_protocol::{Adopted, Former, Released};
use std::collections::HashMap;

/// The status of a session that is worked on or waits for work, as JSON.
pub const BUSY: &str = r#"{"type":"busy"}"#;

/// A wish to become a session's runner.
#[derive(Clone, Debug)]
pub struct Enter {
    /// Who wishes.
    pub replica: ReplicaId,
    /// The mark that it knows the backend by.
    pub born: Born,
    /// Which session.
    pub key: SessionKey,
    /// This attempt.
    pub attempt: Attempt,
    /// The newest ticket that the wish is about.
    pub ticket: u64,
    /// The wisher leaves: another is to run.
    pub for_others: bool,
}

/// The answer to [`Enter`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entered {
    /// The lease is this attempt's. A repeated call says so again.
    Won,
    /// Another replica works; it was told that there is more. Or the wish is for others, or the wisher was buried and does not
    /// know it yet: then the lease is left to whoever claims it.
    Waiting,
    /// The backend bears another mark: it forgot everything.
    Reborn(Born),
}

/// The leases of all sessions.
#[async_trait]
pub trait Leases: Send + Sync {
    /// Asks for a session's lease. While another holds it, its `want` is raised to the ticket and its owner is poked.
    async fn enter(&self, enter: &Enter) -> Result<Entered>;

    /// True while the lease bears this attempt.
    async fn confirm(&self, key: &SessionKey, attempt: &Attempt) -> Result<bool>;

    /// Begins to work under a fence that the store gave: sets fence and status `busy`, and appends the events, all at
    /// once. False if the lease is no longer this attempt's, or if a newer fence has begun: a wish that arrived late gave it
    /// back.
    async fn begin(&self, key: &SessionKey, attempt: &Attempt, fence: Fence, events: &[Entry]) -> Result<bool>;

    /// Gives the lease back if nothing newer than `seen` wants work; the events are appended in the same step.
    async fn release(&self, key: &SessionKey, attempt: &Attempt, seen: u64, events: &[Entry]) -> Result<Released>;

    /// Gives the lease away: ownerless, due at once or after `delay_ms`, status kept; everybody is woken. `failed`: so did
    /// the attempt. Does nothing if the lease is no longer this attempt's.
    async fn hand_over(&self, key: &SessionKey, attempt: &Attempt, delay_ms: u64, failed: bool) -> Result<()>;

    /// How the attempt before the one that has the lease ended. What nothing is known of failed.
    async fn former(&self, key: &SessionKey) -> Result<Former>;

    /// Takes the own lease back after a burial or a rebirth: works if it is missing and no newer fence has begun, or ownerless with the same fence.
    /// A lease that bears the attempt still becomes this replica's, whatever the replica was called before; it bears the fence from
    /// then on unless a newer one has begun, since a failover may have lost that the attempt began.
    async fn adopt(&self, key: &SessionKey, replica: &ReplicaId, attempt: &Attempt, fence: Fence) -> Result<Adopted>;

    /// Takes up to `attempts.len()` of the leases that are due, one per attempt. To be confirmed before the guard is
    /// taken. A repeated call says again what the first one took.
    async fn claim(&self, replica: &ReplicaId, born: &Born, attempts: &[Attempt])
    -> Result<Vec<(SessionKey, Attempt)>>;

    /// Makes sure that somebody will take the session up: where no lease exists, an ownerless one that is due. False: nothing was
    /// done, since the backend bears another mark: owners that live take their leases back first.
    async fn ensure_due(&self, key: &SessionKey, born: &Born) -> Result<bool>;

    /// Tells the owner to look at the store. With `abort`, raises the lease's abort flag, too. Without an owner it does
    /// nothing but raise the flag.
    async fn poke(&self, key: &SessionKey, abort: bool) -> Result<()>;

    /// Drops the lease of a deleted session, whoever holds it.
    async fn forget(&self, key: &SessionKey) -> Result<()>;

    /// Appends the events only if the session has no lease.
    async fn append_if_idle(&self, key: &SessionKey, events: &[Entry]) -> Result<()>;

    /// The status of each session of the tenant that has a lease, as the JSON of `wire::session::SessionStatus`.
    async fn statuses(&self, tenant: &wire::tenant::Tenant) -> Result<HashMap<wire::ids::SessionId, String>>;

    /// The attempt that holds a session's lease; none where it is missing or ownerless. For a replica that owns a lease
    /// of which it knows nothing, since an answer was lost: it hands it over with this.
    async fn attempt_of(&self, key: &SessionKey) -> Result<Option<Attempt>>;
}
