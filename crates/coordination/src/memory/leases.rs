//! Leases in this process.

use super::Shared;
use crate::table::{Begun, Holder, Wish};
use crate::{Adopted, Attempt, Born, Enter, Entered, Entry, Former, Leases, Released, ReplicaId, Result, SessionKey};
use async_trait::async_trait;
use run_protocol::Fence;
use std::collections::HashMap;
use wire::ids::SessionId;
use wire::tenant::Tenant;

#[async_trait]
impl Leases for Shared {
    async fn enter(&self, enter: &Enter) -> Result<Entered> {
        let mut state = self.state();
        if let Some(born) = state.table.reborn(&enter.born, &enter.replica, || Born(self.random())) {
            return Ok(Entered::Reborn(born));
        }
        let now = state.now();
        let wish = Wish { ticket: enter.ticket, for_others: enter.for_others };
        let (entered, told) = state.table.enter(&enter.replica, &enter.key, &enter.attempt, wish, now);
        state.tell(told);
        Ok(entered)
    }

    async fn confirm(&self, key: &SessionKey, attempt: &Attempt) -> Result<bool> {
        Ok(self.state().table.confirm(key, attempt))
    }

    async fn begin(&self, key: &SessionKey, attempt: &Attempt, fence: Fence, events: &[Entry]) -> Result<bool> {
        let mut state = self.state();
        let now = state.now();
        let begun = state.table.begin(key, attempt, fence, now);
        if begun == Begun::First {
            self.append(&mut state, &key.tenant, events);
        }
        Ok(begun != Begun::NotMine)
    }

    async fn release(&self, key: &SessionKey, attempt: &Attempt, seen: u64, events: &[Entry]) -> Result<Released> {
        let mut state = self.state();
        if state.table.may_release(key, attempt, seen) == Released::Done {
            self.append(&mut state, &key.tenant, events);
        }
        Ok(state.table.release(key, attempt, seen))
    }

    async fn hand_over(&self, key: &SessionKey, attempt: &Attempt, delay_ms: u64, failed: bool) -> Result<()> {
        let mut state = self.state();
        let due = state.now() + delay_ms;
        let told = state.table.hand_over(key, attempt, due, failed);
        state.tell(told);
        Ok(())
    }

    async fn former(&self, key: &SessionKey) -> Result<Former> {
        Ok(self.state().table.former(key))
    }

    async fn adopt(&self, key: &SessionKey, replica: &ReplicaId, attempt: &Attempt, fence: Fence) -> Result<Adopted> {
        Ok(self.state().table.adopt(key, replica, attempt, fence))
    }

    async fn claim(
        &self,
        replica: &ReplicaId,
        born: &Born,
        attempts: &[Attempt],
    ) -> Result<Vec<(SessionKey, Attempt)>> {
        let mut state = self.state();
        let now = state.now();
        Ok(state.table.claim(replica, born, attempts, now))
    }

    async fn ensure_due(&self, key: &SessionKey, born: &Born) -> Result<bool> {
        let mut state = self.state();
        let now = state.now();
        let told = state.table.ensure_due(key, born, now);
        state.tell(told);
        Ok(state.table.bears(born))
    }

    async fn poke(&self, key: &SessionKey, _abort: bool) -> Result<()> {
        let mut state = self.state();
        let told = state.table.poke(key);
        state.tell(told);
        Ok(())
    }

    async fn forget(&self, key: &SessionKey) -> Result<()> {
        self.state().table.forget(key);
        Ok(())
    }

    async fn append_if_idle(&self, key: &SessionKey, events: &[Entry]) -> Result<()> {
        let mut state = self.state();
        if state.table.lease(key).is_none() {
            self.append(&mut state, &key.tenant, events);
        }
        Ok(())
    }

    async fn statuses(&self, tenant: &Tenant) -> Result<HashMap<SessionId, String>> {
        let state = self.state();
        let of_tenant = state.table.leases().iter().filter(|(key, _)| key.tenant == *tenant);
        Ok(of_tenant.map(|(key, lease)| (key.session.clone(), lease.status.to_string())).collect())
    }

    async fn attempt_of(&self, key: &SessionKey) -> Result<Option<Attempt>> {
        Ok(match self.state().table.lease(key).map(|lease| &lease.holder) {
            Some(Holder::Owner(_, attempt)) => Some(attempt.clone()),
            _ => None,
        })
    }
}
