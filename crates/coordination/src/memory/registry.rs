//! Replicas in this process.

use super::Shared;
use crate::table::{News, Told};
use crate::{Born, Registry, ReplicaId, Result, SessionKey, Signal, Tick, Ticked};
use async_trait::async_trait;
use tokio::sync::mpsc;

/// How many signals wait for a listener before they are dropped.
const SIGNALS: usize = 1024;

#[async_trait]
impl Registry for Shared {
    async fn join(&self, replica: &ReplicaId, proposal: &Born) -> Result<Born> {
        Ok(self.state().table.join(replica, proposal))
    }

    async fn set_trial(&self, replica: &ReplicaId, run: Option<&SessionKey>) -> Result<()> {
        self.state().table.set_trial(replica, run);
        Ok(())
    }

    async fn tick(&self, tick: &Tick) -> Result<Ticked> {
        let mut state = self.state();
        if let Some(born) = state.table.reborn(&tick.born, &tick.replica, || Born(self.random())) {
            return Ok(Ticked::Reborn(born));
        }
        if !state.table.beat(&tick.replica) {
            return Ok(Ticked::Buried);
        }
        let before = state.now().saturating_sub(self.limits.age.as_millis() as u64);
        state.table.forget_begun(before);
        let News { owned, pokes, due } = state.table.news(&tick.replica, &tick.acknowledged);
        let beats = state.table.beats().iter().map(|(replica, beat)| (replica.clone(), *beat)).collect();
        let newest = tick.watched.iter().map(|tenant| (tenant.clone(), self.newest_of(&mut state, tenant))).collect();
        Ok(Ticked::Alive { beats, owned, pokes, due, newest })
    }

    async fn bury(&self, replica: &ReplicaId, beat: u64) -> Result<Option<u64>> {
        let mut state = self.state();
        let now = state.now();
        let buried = state.table.bury(replica, beat, now);
        if buried.is_some_and(|leases| leases > 0) {
            state.tell(Some(Told::Wake));
        }
        Ok(buried)
    }

    async fn owned(&self, replica: &ReplicaId) -> Result<Vec<SessionKey>> {
        Ok(self.state().table.owned(replica).into_iter().collect())
    }

    async fn is_reachable(&self, replica: &ReplicaId) -> Result<bool> {
        Ok(self.state().listeners.iter().any(|(name, listener)| name == replica && !listener.is_closed()))
    }

    async fn listen(&self, replica: &ReplicaId) -> Result<mpsc::Receiver<Signal>> {
        let (sender, receiver) = mpsc::channel(SIGNALS);
        self.state().listeners.push((replica.clone(), sender));
        Ok(receiver)
    }

    async fn ping(&self) -> Result<()> {
        Ok(())
    }
}
