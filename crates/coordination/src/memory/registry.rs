//! Replicas in this process.

use super::Shared;
use super::state::Holder;
use crate::{Born, Former, Registry, ReplicaId, Result, SessionKey, Signal, Tick, Ticked};
use async_trait::async_trait;
use tokio::sync::mpsc;
use tokio::time::Instant;

/// How many signals wait for a listener before they are dropped.
const SIGNALS: usize = 1024;

#[async_trait]
impl Registry for Shared {
    async fn join(&self, replica: &ReplicaId, proposal: &Born) -> Result<Born> {
        let mut state = self.state();
        state.beats.entry(replica.clone()).or_insert(0);
        Ok(state.born.get_or_insert_with(|| proposal.clone()).clone())
    }

    async fn set_trial(&self, replica: &ReplicaId, run: Option<&SessionKey>) -> Result<()> {
        let mut state = self.state();
        match run {
            Some(run) => drop(state.trials.insert(replica.clone(), run.clone())),
            None => drop(state.trials.remove(replica)),
        }
        Ok(())
    }

    async fn tick(&self, tick: &Tick) -> Result<Ticked> {
        let mut state = self.state();
        if let Some(born) = state.reborn(&tick.born, &tick.replica, || Born(self.random())) {
            return Ok(Ticked::Reborn(born));
        }
        match state.beats.get_mut(&tick.replica) {
            None => return Ok(Ticked::Buried),
            Some(beat) => *beat += 1,
        }
        if let Some(pokes) = state.pokes.get_mut(&tick.replica) {
            pokes.retain(|key, count| !tick.acknowledged.iter().any(|(acked, seen)| acked == key && seen == count));
        }
        let pokes = state.pokes.get(&tick.replica).into_iter().flatten();
        let pokes = pokes.map(|(key, count)| (key.clone(), *count)).collect();
        let newest = tick.watched.iter().map(|tenant| (tenant.clone(), self.newest_of(&mut state, tenant))).collect();
        Ok(Ticked::Alive {
            beats: state.beats.clone(),
            owned: state.owned(&tick.replica).len() as u64,
            pokes,
            due: state.due() as u64,
            newest,
        })
    }

    async fn bury(&self, replica: &ReplicaId, beat: u64) -> Result<Option<u64>> {
        let mut state = self.state();
        if state.beats.get(replica).is_some_and(|own| *own != beat) {
            return Ok(None);
        }
        state.beats.remove(replica);
        state.pokes.remove(replica);
        let trial = state.trials.remove(replica);
        let mut count = 0;
        for (key, lease) in state.leases.iter_mut().filter(|(_, lease)| lease.owner() == Some(replica)) {
            lease.holder = Holder::Nobody(Instant::now());
            let is_spared = trial.as_ref().is_some_and(|trial| trial != key);
            lease.former = if is_spared { Former::Spared } else { Former::Failed };
            count += 1;
        }
        if count > 0 {
            state.wake();
        }
        Ok(Some(count))
    }

    async fn owned(&self, replica: &ReplicaId) -> Result<Vec<SessionKey>> {
        Ok(self.state().owned(replica).into_iter().collect())
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
