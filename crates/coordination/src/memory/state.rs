//! What the in-process backend remembers.

use super::events::Log;
use crate::table::{PortNames, Table, Told};
use crate::{ReplicaId, Signal};
use std::collections::HashMap;
use tokio::sync::mpsc;
use tokio::time::Instant;
use wire::tenant::Tenant;

/// Everything.
pub(super) struct State {
    pub table: Table<PortNames>,
    pub logs: HashMap<Tenant, Log>,
    pub listeners: Vec<(ReplicaId, mpsc::Sender<Signal>)>,
    /// The moment that the table's milliseconds are counted from.
    began: Instant,
}

impl Default for State {
    fn default() -> Self {
        Self { table: Table::default(), logs: HashMap::new(), listeners: Vec::new(), began: Instant::now() }
    }
}

impl State {
    /// Forgets all but who listens: connections outlive what a backend remembers.
    pub fn forget(&mut self) {
        self.table = Table::default();
        self.logs = self.logs.drain().map(|(tenant, log)| (tenant, log.emptied())).collect();
    }

    /// This moment, in milliseconds.
    pub fn now(&self) -> u64 {
        self.began.elapsed().as_millis() as u64
    }

    /// Says something over the control channels. A listener that is full loses it; one that is gone is forgotten.
    pub fn tell(&mut self, told: Option<Told<PortNames>>) {
        let (to, signal) = match told {
            None => return,
            Some(Told::Poke(owner, key, fence)) => (Some(owner), Signal::Poke(key, fence)),
            Some(Told::Wake) => (None, Signal::Wake),
        };
        self.listeners.retain(|(replica, listener)| {
            if to.as_ref().is_none_or(|to| to == replica) {
                !matches!(listener.try_send(signal.clone()), Err(mpsc::error::TrySendError::Closed(_)))
            } else {
                !listener.is_closed()
            }
        });
    }
}
