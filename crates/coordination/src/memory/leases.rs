//! Leases in this process.

use super::Shared;
use super::state::{Holder, Lease};
use crate::{
    Adopted, Attempt, Born, Enter, Entered, Entry, Former, LeaseKind, Leases, Released, ReplicaId, Result, SessionKey,
};
use async_trait::async_trait;
use run_protocol::Fence;
use std::collections::HashMap;
use std::time::Duration;
use tokio::time::Instant;
use wire::ids::SessionId;
use wire::tenant::Tenant;

#[async_trait]
impl Leases for Shared {
    async fn enter(&self, enter: &Enter) -> Result<Entered> {
        let mut state = self.state();
        if let Some(born) = state.reborn(&enter.born, &enter.replica, || Born(self.random())) {
            return Ok(Entered::Reborn(born));
        }
        let is_exclusive = enter.kind == LeaseKind::Exclusive;
        let is_alive = state.beats.contains_key(&enter.replica);
        let lease = state.leases.get(&enter.key);
        if lease.is_some_and(|lease| lease.is_of(&enter.attempt)) {
            return Ok(Entered::Won);
        }
        if lease.is_some_and(|lease| lease.owner().is_some()) {
            if is_exclusive {
                return Ok(Entered::Busy);
            }
            if let Some(lease) = state.leases.get_mut(&enter.key) {
                lease.want = lease.want.max(enter.ticket);
            }
            state.poke(&enter.key);
            return Ok(Entered::Waiting);
        }
        if is_exclusive && (enter.was_open || !is_alive) {
            return Ok(Entered::Busy);
        }
        let lease = state.leases.entry(enter.key.clone()).or_insert_with(|| Lease::new(Holder::Nobody(Instant::now())));
        lease.want = lease.want.max(enter.ticket);
        if is_alive {
            lease.holder = Holder::Owner(enter.replica.clone(), enter.attempt.clone());
            return Ok(Entered::Won);
        }
        state.wake();
        Ok(Entered::Waiting)
    }

    async fn confirm(&self, key: &SessionKey, attempt: &Attempt) -> Result<bool> {
        Ok(self.state().lease_of(key, attempt).is_some())
    }

    async fn begin(&self, key: &SessionKey, attempt: &Attempt, fence: Fence, events: &[Entry]) -> Result<bool> {
        let mut state = self.state();
        let Some(lease) = state.lease_of(key, attempt) else { return Ok(false) };
        if lease.fence != Some(fence) {
            lease.fence = Some(fence);
            lease.status = crate::leases::BUSY.into();
            self.append(&mut state, &key.tenant, events);
        }
        Ok(true)
    }

    async fn release(&self, key: &SessionKey, attempt: &Attempt, seen: u64, events: &[Entry]) -> Result<Released> {
        let mut state = self.state();
        match state.lease_of(key, attempt) {
            None => Ok(Released::Gone),
            Some(lease) if lease.want > seen => Ok(Released::More),
            Some(_) => {
                self.append(&mut state, &key.tenant, events);
                state.leases.remove(key);
                Ok(Released::Done)
            }
        }
    }

    async fn hand_over(&self, key: &SessionKey, attempt: &Attempt, delay_ms: u64, failed: bool) -> Result<()> {
        let mut state = self.state();
        if let Some(lease) = state.lease_of(key, attempt) {
            lease.holder = Holder::Nobody(Instant::now() + Duration::from_millis(delay_ms));
            lease.former = if failed { Former::Failed } else { Former::HandedOver };
            state.wake();
        }
        Ok(())
    }

    async fn former(&self, key: &SessionKey) -> Result<Former> {
        Ok(self.state().leases.get(key).map(|lease| lease.former).unwrap_or_default())
    }

    async fn adopt(&self, key: &SessionKey, replica: &ReplicaId, attempt: &Attempt, fence: Fence) -> Result<Adopted> {
        let mut state = self.state();
        let holder = Holder::Owner(replica.clone(), attempt.clone());
        match state.leases.get_mut(key) {
            None => {
                state.leases.insert(key.clone(), Lease { fence: Some(fence), ..Lease::new(holder) });
            }
            Some(lease) if lease.is_of(attempt) || (lease.owner().is_none() && lease.fence == Some(fence)) => {
                lease.holder = holder;
            }
            Some(_) => return Ok(Adopted::Lost),
        }
        // Whoever owns a lease has a beat, else nobody could bury it.
        state.beats.entry(replica.clone()).or_insert(0);
        Ok(Adopted::Mine)
    }

    async fn claim(
        &self,
        replica: &ReplicaId,
        born: &Born,
        attempts: &[Attempt],
    ) -> Result<Vec<(SessionKey, Attempt)>> {
        let mut state = self.state();
        if state.born.as_ref() != Some(born) || !state.beats.contains_key(replica) {
            return Ok(Vec::new());
        }
        let mut claimed = Vec::new();
        let mut due = Vec::new();
        for (key, lease) in &state.leases {
            match &lease.holder {
                Holder::Owner(owner, attempt) if owner == replica && attempts.contains(attempt) => {
                    claimed.push((key.clone(), attempt.clone()));
                }
                Holder::Nobody(from) if *from <= Instant::now() => due.push((*from, key.clone())),
                _ => {}
            }
        }
        due.sort();
        let used: Vec<_> = claimed.iter().map(|(_, attempt)| attempt.clone()).collect();
        let unused = attempts.iter().filter(|attempt| !used.contains(attempt));
        for ((_, key), attempt) in due.into_iter().zip(unused) {
            if let Some(lease) = state.leases.get_mut(&key) {
                lease.holder = Holder::Owner(replica.clone(), attempt.clone());
                claimed.push((key, attempt.clone()));
            }
        }
        Ok(claimed)
    }

    async fn ensure_due(&self, key: &SessionKey, born: &Born) -> Result<()> {
        let mut state = self.state();
        if state.born.as_ref() == Some(born) && !state.leases.contains_key(key) {
            state.leases.insert(key.clone(), Lease::new(Holder::Nobody(Instant::now())));
            state.wake();
        }
        Ok(())
    }

    async fn poke(&self, key: &SessionKey, _abort: bool) -> Result<()> {
        self.state().poke(key);
        Ok(())
    }

    async fn forget(&self, key: &SessionKey) -> Result<()> {
        self.state().leases.remove(key);
        Ok(())
    }

    async fn append_if_idle(&self, key: &SessionKey, events: &[Entry]) -> Result<()> {
        let mut state = self.state();
        if !state.leases.contains_key(key) {
            self.append(&mut state, &key.tenant, events);
        }
        Ok(())
    }

    async fn statuses(&self, tenant: &Tenant) -> Result<HashMap<SessionId, String>> {
        let state = self.state();
        let of_tenant = state.leases.iter().filter(|(key, _)| key.tenant == *tenant);
        Ok(of_tenant.map(|(key, lease)| (key.session.clone(), lease.status.clone())).collect())
    }

    async fn attempt_of(&self, key: &SessionKey) -> Result<Option<Attempt>> {
        Ok(match self.state().leases.get(key).map(|lease| &lease.holder) {
            Some(Holder::Owner(_, attempt)) => Some(attempt.clone()),
            _ => None,
        })
    }
}
