//! Event logs in this process.

use super::Shared;
use super::state::State;
use crate::{Appended, BatchNumber, Cursor, Entry, EventLog, LogLimits, Read, ReplicaId, Result, Subscription};
use async_trait::async_trait;
use bytes::Bytes;
use run_protocol::RecordVersion;
use std::collections::{HashMap, VecDeque};
use tokio::sync::mpsc;
use tokio::time::Instant;
use wire::ids::SessionId;
use wire::tenant::Tenant;

/// How many messages wait for a subscriber before they are dropped.
const MESSAGES: usize = 1024;

/// What an entry costs beside its body.
const OVERHEAD: usize = 128;

type Record = (Option<SessionId>, String);

/// One tenant's log.
#[derive(Default)]
pub(super) struct Log {
    entries: VecDeque<Retained>,
    bytes: usize,
    last_number: u64,
    /// The last batch of each replica, and which of its entries were fenced out.
    batches: HashMap<ReplicaId, (BatchNumber, Vec<usize>)>,
    /// The newest version of each record that is out, and when it went out.
    versions: HashMap<Record, (RecordVersion, Instant)>,
    versions_pruned: Option<Instant>,
    subscribers: Vec<mpsc::Sender<Appended>>,
}

struct Retained {
    number: u64,
    cursor: Cursor,
    body: Bytes,
    at: Instant,
}

impl Retained {
    fn cost(&self) -> usize {
        self.body.len() + OVERHEAD
    }
}

impl Log {
    /// The log after everything was forgotten: nothing but its subscribers.
    pub fn emptied(self) -> Self {
        Self { subscribers: self.subscribers, ..Self::default() }
    }

    fn newest(&self) -> Option<Cursor> {
        self.entries.back().map(|entry| entry.cursor.clone())
    }

    /// Where the entry at this cursor is.
    fn place(&self, cursor: &Cursor) -> Option<usize> {
        let number = cursor.0.split_once('-')?.0.parse::<u64>().ok()?;
        let found = self.entries.binary_search_by_key(&number, |entry| entry.number).ok();
        found.filter(|index| self.entries[*index].cursor == *cursor)
    }

    /// True if a newer version of the entry's record, or the same, is out.
    fn is_old(&self, entry: &Entry) -> bool {
        entry.record.as_ref().is_some_and(|(name, version)| {
            let record = (entry.session.clone(), name.clone());
            self.versions.get(&record).is_some_and(|(out, _)| version <= out)
        })
    }

    fn push(&mut self, entry: &Entry, random: u64, now: Instant) -> (Cursor, Bytes) {
        if let Some((name, version)) = &entry.record {
            self.versions.insert((entry.session.clone(), name.clone()), (version.clone(), now));
        }
        self.last_number += 1;
        let cursor = Cursor(format!("{}-{random}", self.last_number));
        let retained = Retained { number: self.last_number, cursor: cursor.clone(), body: entry.body.clone(), at: now };
        self.bytes += retained.cost();
        self.entries.push_back(retained);
        (cursor, entry.body.clone())
    }

    /// Drops what is too old, and then the oldest while all is too large; the newest entry is never too large, nor too old
    /// while somebody follows.
    fn trim(&mut self, limits: &LogLimits, now: Instant) {
        let is_followed = self.subscribers.iter().any(|subscriber| !subscriber.is_closed());
        while let Some(oldest) = self.entries.front() {
            let stays = is_followed && self.entries.len() == 1;
            let is_old = !stays && now.duration_since(oldest.at) >= limits.age;
            if !is_old && (self.bytes <= limits.bytes || self.entries.len() == 1) {
                break;
            }
            self.bytes -= oldest.cost();
            self.entries.pop_front();
        }
        if self.versions_pruned.is_none_or(|pruned| now.duration_since(pruned) >= limits.age / 10) {
            self.versions.retain(|_, (_, at)| now.duration_since(*at) < limits.age);
            self.versions_pruned = Some(now);
        }
    }

    /// A subscriber that is full loses the message and sees that by `previous`; one that is gone is forgotten.
    fn tell(&mut self, appended: &Appended) {
        self.subscribers.retain(|subscriber| {
            !matches!(subscriber.try_send(appended.clone()), Err(mpsc::error::TrySendError::Closed(_)))
        });
    }
}

impl Shared {
    /// Appends what may be appended, in order; returns the indexes of what is fenced out.
    pub(super) fn append(&self, state: &mut State, tenant: &Tenant, entries: &[Entry]) -> Vec<usize> {
        let State { table, logs, .. } = state;
        let log = logs.entry(tenant.clone()).or_default();
        let now = Instant::now();
        log.trim(&self.limits, now);
        let previous = log.newest();
        let (mut refused, mut appended) = (Vec::new(), Vec::new());
        for (index, entry) in entries.iter().enumerate() {
            let key = entry.session.clone().map(|session| crate::SessionKey::new(tenant.clone(), session));
            if !table.admits(key.as_ref(), entry.fence) {
                refused.push(index);
            } else if !log.is_old(entry) {
                if let (Some(key), Some(status)) = (&key, &entry.status) {
                    table.set_status(key, status);
                }
                appended.push(log.push(entry, self.entropy.bits(), now));
            }
        }
        if !appended.is_empty() {
            log.trim(&self.limits, now);
            log.tell(&Appended { previous, entries: appended });
        }
        refused
    }

    pub(super) fn newest_of(&self, state: &mut State, tenant: &Tenant) -> Option<Cursor> {
        let log = state.logs.get_mut(tenant)?;
        log.trim(&self.limits, Instant::now());
        log.newest()
    }
}

#[async_trait]
impl EventLog for Shared {
    async fn publish(
        &self,
        tenant: &Tenant,
        replica: &ReplicaId,
        batch: BatchNumber,
        entries: &[Entry],
    ) -> Result<Vec<usize>> {
        let mut state = self.state();
        let last = state.logs.get(tenant).and_then(|log| log.batches.get(replica));
        match last {
            Some((number, refused)) if *number == batch => return Ok(refused.clone()),
            Some((number, _)) if *number > batch => return Ok(Vec::new()),
            _ => {}
        }
        let refused = self.append(&mut state, tenant, entries);
        let log = state.logs.entry(tenant.clone()).or_default();
        log.batches.insert(replica.clone(), (batch, refused.clone()));
        Ok(refused)
    }

    async fn begin(&self, tenant: &Tenant) -> Result<()> {
        let mut state = self.state();
        if self.newest_of(&mut state, tenant).is_none() {
            self.append(&mut state, tenant, &[Entry::beginning()]);
        }
        Ok(())
    }

    async fn newest(&self, tenant: &Tenant) -> Result<Option<Cursor>> {
        Ok(self.newest_of(&mut self.state(), tenant))
    }

    async fn read_after(&self, tenant: &Tenant, cursor: Option<&Cursor>, limit: usize) -> Result<Read> {
        let mut state = self.state();
        let log = state.logs.entry(tenant.clone()).or_default();
        log.trim(&self.limits, Instant::now());
        let from = match cursor {
            None => 0,
            Some(cursor) => match log.place(cursor) {
                Some(index) => index + 1,
                None => return Ok(Read::Reset),
            },
        };
        let entries = log.entries.iter().skip(from).take(limit);
        Ok(Read::Entries(entries.map(|entry| (entry.cursor.clone(), entry.body.clone())).collect()))
    }

    async fn forget_until(&self, tenant: &Tenant, cursor: &Cursor) -> Result<()> {
        let mut state = self.state();
        let log = state.logs.entry(tenant.clone()).or_default();
        if let Some(place) = log.place(cursor) {
            let dropped: usize = log.entries.drain(..=place).map(|entry| entry.cost()).sum();
            log.bytes -= dropped;
        }
        Ok(())
    }

    async fn subscribe(&self, tenant: &Tenant) -> Result<Subscription> {
        let (sender, receiver) = mpsc::channel(MESSAGES);
        self.state().logs.entry(tenant.clone()).or_default().subscribers.push(sender);
        Ok(receiver)
    }
}
