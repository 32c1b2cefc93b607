//! The registry of replicas, and the control channel, on Redis.

use crate::leases::session_key;
use crate::{Backend, strange};
use async_trait::async_trait;
use coordination::{Born, Cursor, Registry, ReplicaId, Result, SessionKey, Signal, Tick, Ticked};
use redis::{FromRedisValue, Value, from_redis_value};
use run_protocol::Fence;
use std::collections::HashMap;
use tokio::sync::mpsc;

/// How many leases one script frees: a server answers nobody else meanwhile.
const FREED_AT_ONCE: usize = 200;

/// How many signals wait for a listener before they are dropped.
const SIGNALS: usize = 1024;

#[async_trait]
impl Registry for Backend {
    async fn join(&self, replica: &ReplicaId, proposal: &Born) -> Result<Born> {
        let mut script = self.scripts.join.key(self.keys.born());
        self.link.invoke(script.arg(&replica.0).arg(&proposal.0)).await.map(Born)
    }

    async fn set_trial(&self, replica: &ReplicaId, run: Option<&SessionKey>) -> Result<()> {
        let mut script = self.scripts.set_trial.key(self.keys.alive());
        self.link.invoke(script.arg(&replica.0).arg(run.map(SessionKey::to_string).unwrap_or_default())).await
    }

    async fn tick(&self, tick: &Tick) -> Result<Ticked> {
        let mut script = self.scripts.tick.key(self.keys.alive());
        script.arg(&tick.replica.0).arg(&tick.born.0).arg(self.random()).arg(tick.acknowledged.len());
        for (key, count) in &tick.acknowledged {
            script.arg(key.to_string()).arg(*count);
        }
        for tenant in &tick.watched {
            script.arg(tenant.as_str());
        }
        let answer: Vec<Value> = self.beats().invoke(&script).await?;
        let mut answer = answer.into_iter();
        match next::<String>(&mut answer)?.as_str() {
            "reborn" => Ok(Ticked::Reborn(Born(next(&mut answer)?))),
            "buried" => Ok(Ticked::Buried),
            "alive" => alive(tick, answer),
            _ => Err(strange()),
        }
    }

    async fn bury(&self, replica: &ReplicaId, beat: u64) -> Result<Option<u64>> {
        let mut script = self.scripts.bury.key(self.keys.alive());
        script.arg(&replica.0).arg(beat).arg(FREED_AT_ONCE);
        let mut freed = 0;
        loop {
            let mut answer = self.link.invoke::<Vec<Value>>(&script).await?.into_iter();
            let outcome: String = next(&mut answer)?;
            if outcome == "lives" {
                return Ok(None);
            }
            freed += next::<u64>(&mut answer)?;
            if outcome == "done" {
                return Ok(Some(freed));
            }
        }
    }

    async fn owned(&self, replica: &ReplicaId) -> Result<Vec<SessionKey>> {
        let owned: Vec<String> = self.link.query(redis::cmd("SMEMBERS").arg(self.keys.runs(replica))).await?;
        owned.iter().map(|s| session_key(s)).collect()
    }

    async fn is_reachable(&self, replica: &ReplicaId) -> Result<bool> {
        let channel = self.keys.control(replica);
        let (_, listeners): (String, u64) = self.link.query(redis::cmd("PUBSUB").arg("NUMSUB").arg(channel)).await?;
        Ok(listeners > 0)
    }

    async fn listen(&self, replica: &ReplicaId) -> Result<mpsc::Receiver<Signal>> {
        let wake = self.keys.wake();
        let mut messages = self.channels.subscribe(vec![self.keys.control(replica), wake.clone()]).await?;
        let (signals, receiver) = mpsc::channel(SIGNALS);
        tokio::spawn(async move {
            loop {
                let message = tokio::select! {
                    message = messages.recv() => message,
                    () = signals.closed() => None,
                };
                let Some((channel, payload)) = message else { return };
                let signal = if *channel == *wake { Some(Signal::Wake) } else { poke(&payload) };
                if let Some(signal) = signal {
                    let _ = signals.try_send(signal);
                }
            }
        });
        Ok(receiver)
    }

    async fn ping(&self) -> Result<()> {
        self.link.query(&redis::cmd("PING")).await
    }
}

fn next<T: FromRedisValue>(values: &mut impl Iterator<Item = Value>) -> Result<T> {
    values.next().and_then(|value| from_redis_value(value).ok()).ok_or_else(strange)
}

fn alive(tick: &Tick, mut answer: impl Iterator<Item = Value>) -> Result<Ticked> {
    let beats: HashMap<String, u64> = next(&mut answer)?;
    let owned = next(&mut answer)?;
    let pokes: Vec<(String, u64)> = next(&mut answer)?;
    let due = next(&mut answer)?;
    let newest: Vec<String> = next(&mut answer)?;
    let newest = newest.into_iter().map(|id| (!id.is_empty()).then_some(Cursor(id)));
    Ok(Ticked::Alive {
        beats: beats.into_iter().map(|(replica, beat)| (ReplicaId(replica), beat)).collect(),
        owned,
        pokes: pokes.into_iter().map(|(s, count)| Ok((session_key(&s)?, count))).collect::<Result<_>>()?,
        due,
        newest: tick.watched.iter().cloned().zip(newest).collect(),
    })
}

/// Reads `<tenant>/<session> <fence>`, as a poke says it; the fence may be missing.
fn poke(payload: &[u8]) -> Option<Signal> {
    let (s, fence) = std::str::from_utf8(payload).ok()?.split_once(' ')?;
    Some(Signal::Poke(SessionKey::parse(s)?, fence.parse().ok().map(Fence)))
}
