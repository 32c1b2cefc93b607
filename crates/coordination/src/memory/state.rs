//! What the in-process backend remembers.

use super::events::Log;
use crate::{Attempt, Born, Former, ReplicaId, SessionKey, Signal};
use run_protocol::Fence;
use std::collections::{BTreeSet, HashMap};
use tokio::sync::mpsc;
use tokio::time::Instant;
use wire::tenant::Tenant;

/// Everything. What is derived (who owns what, what is due) is kept in one place only: the lease.
#[derive(Default)]
pub(super) struct State {
    pub born: Option<Born>,
    pub beats: HashMap<ReplicaId, u64>,
    pub leases: HashMap<SessionKey, Lease>,
    pub trials: HashMap<ReplicaId, SessionKey>,
    pub pokes: HashMap<ReplicaId, HashMap<SessionKey, u64>>,
    pub logs: HashMap<Tenant, Log>,
    pub listeners: Vec<(ReplicaId, mpsc::Sender<Signal>)>,
}

/// One lease. There is no abort flag: in one process nobody but its owner could read it, and the owner is poked.
pub(super) struct Lease {
    pub holder: Holder,
    pub fence: Option<Fence>,
    pub want: u64,
    pub former: Former,
    pub status: String,
}

/// Who has a lease.
pub(super) enum Holder {
    /// A replica, by an attempt of its.
    Owner(ReplicaId, Attempt),
    /// Nobody: it may be claimed from this moment on.
    Nobody(Instant),
}

impl Lease {
    pub fn new(holder: Holder) -> Self {
        Self { holder, fence: None, want: 0, former: Former::default(), status: crate::leases::BUSY.into() }
    }

    pub fn is_of(&self, attempt: &Attempt) -> bool {
        matches!(&self.holder, Holder::Owner(_, own) if own == attempt)
    }

    pub fn owner(&self) -> Option<&ReplicaId> {
        match &self.holder {
            Holder::Owner(replica, _) => Some(replica),
            Holder::Nobody(_) => None,
        }
    }
}

impl State {
    /// Forgets all but who listens: connections outlive what a backend remembers.
    pub fn forget(&mut self) {
        let logs = self.logs.drain().map(|(tenant, log)| (tenant, log.emptied())).collect();
        *self = Self { logs, listeners: std::mem::take(&mut self.listeners), ..Self::default() };
    }

    /// The mark to report if the caller knows another one. Who is told is entered into the new fleet at once, so that
    /// what it adopts there can be buried.
    pub fn reborn(&mut self, known: &Born, replica: &ReplicaId, proposal: impl FnOnce() -> Born) -> Option<Born> {
        let born = self.born.get_or_insert_with(proposal).clone();
        if born == *known {
            return None;
        }
        self.beats.entry(replica.clone()).or_insert(0);
        Some(born)
    }

    pub fn lease_of(&mut self, key: &SessionKey, attempt: &Attempt) -> Option<&mut Lease> {
        self.leases.get_mut(key).filter(|lease| lease.is_of(attempt))
    }

    pub fn owned(&self, replica: &ReplicaId) -> BTreeSet<SessionKey> {
        self.leases.iter().filter(|(_, lease)| lease.owner() == Some(replica)).map(|(key, _)| key.clone()).collect()
    }

    pub fn due(&self) -> usize {
        self.leases.values().filter(|lease| lease.owner().is_none()).count()
    }

    /// Tells a session's owner, if it has one, to look at the store.
    pub fn poke(&mut self, key: &SessionKey) {
        let Some(lease) = self.leases.get(key) else { return };
        let Some(owner) = lease.owner().cloned() else { return };
        let signal = Signal::Poke(key.clone(), lease.fence);
        *self.pokes.entry(owner.clone()).or_default().entry(key.clone()).or_default() += 1;
        self.signal(|replica| *replica == owner, &signal);
    }

    pub fn wake(&mut self) {
        self.signal(|_| true, &Signal::Wake);
    }

    /// A listener that is full loses the signal; one that is gone is forgotten.
    fn signal(&mut self, to: impl Fn(&ReplicaId) -> bool, signal: &Signal) {
        self.listeners.retain(|(replica, listener)| {
            if to(replica) {
                !matches!(listener.try_send(signal.clone()), Err(mpsc::error::TrySendError::Closed(_)))
            } else {
                !listener.is_closed()
            }
        });
    }
}
