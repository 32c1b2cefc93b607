//! The registry of replicas: beats, pokes and the control channel.

use crate::{Born, Cursor, ReplicaId, Result, SessionKey};
use async_trait::async_trait;
use run_protocol::Fence;
use std::collections::HashMap;
use tokio::sync::mpsc;
use wire::tenant::Tenant;

/// What a replica says once per tick.
#[derive(Clone, Debug)]
pub struct Tick {
    /// Who.
    pub replica: ReplicaId,
    /// The mark that it knows the backend by.
    pub born: Born,
    /// Pokes that it has acted on, with the count it saw.
    pub acknowledged: Vec<(SessionKey, u64)>,
    /// The tenants whose event log it follows.
    pub watched: Vec<Tenant>,
}

/// What it is told.
#[derive(Clone, Debug, PartialEq)]
pub enum Ticked {
    /// It lives.
    Alive {
        /// All beats, its own included.
        beats: HashMap<ReplicaId, u64>,
        /// How many leases it owns.
        owned: u64,
        /// Sessions whose owner (it) must look at the store, with the count to acknowledge.
        pokes: Vec<(SessionKey, u64)>,
        /// How many leases wait for an owner.
        due: u64,
        /// The newest cursor of each log it follows; none where the log is empty.
        newest: HashMap<Tenant, Option<Cursor>>,
    },
    /// Somebody buried it: it must join under a new id, and adopt what it runs.
    Buried,
    /// The backend forgot everything; it bears this mark now. The replica is in the new fleet already, under its id.
    Reborn(Born),
}

/// What comes over the control channel. A hint: it may be lost, which costs one tick.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Signal {
    /// Look at the store for this session; meant for the run with this fence, if one is given.
    Poke(SessionKey, Option<Fence>),
    /// Leases are due.
    Wake,
}

/// The replicas of the fleet.
#[async_trait]
pub trait Registry: Send + Sync {
    /// Enters the fleet. `proposal` becomes the backend's mark if it has none; returns the mark it bears.
    async fn join(&self, replica: &ReplicaId, proposal: &Born) -> Result<Born>;

    /// Notes which run of a replica is on trial, none if nothing is: should the replica be buried, all the others are
    /// spared.
    async fn set_trial(&self, replica: &ReplicaId, run: Option<&SessionKey>) -> Result<()>;

    /// Beats, and learns what there is to learn. One round trip, over a connection of its own, which is driven by the
    /// runtime of the first caller: nothing else is in its way.
    async fn tick(&self, tick: &Tick) -> Result<Ticked>;

    /// Declares a replica dead if its beat is still the one that was seen: its leases become ownerless and due.
    /// Returns how many; nothing if it was not buried.
    async fn bury(&self, replica: &ReplicaId, beat: u64) -> Result<Option<u64>>;

    /// The sessions that a replica owns.
    async fn owned(&self, replica: &ReplicaId) -> Result<Vec<SessionKey>>;

    /// True if somebody listens on the replica's control channel.
    async fn is_reachable(&self, replica: &ReplicaId) -> Result<bool>;

    /// Listens on the replica's control channel and for wakes, until the receiver is dropped. Reconnects by itself;
    /// what was sent meanwhile is lost. Bounded: when the receiver is slow, signals are dropped.
    async fn listen(&self, replica: &ReplicaId) -> Result<mpsc::Receiver<Signal>>;

    /// True if the backend answers within its time-out.
    async fn ping(&self) -> Result<()>;
}
