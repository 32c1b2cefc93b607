//! The way of one replica to coordination: calls are delayed, dropped, doubled, come late, overtake each other and fail
//! after their effect; messages of channels are lost. What is under way outlives the replica.

use crate::chronicle::Chronicle;
use crate::dice::Dice;
use crate::mortal::Mortal;
use crate::trace::Trace;
use crate::weather::{Fate, Weather};
use async_trait::async_trait;
use coordination::{
    Adopted, Appended, Attempt, BatchNumber, Born, CoordinationError, Cursor, Enter, Entered, Entry, EventLog, Former,
    Leases, LockGuard, Locks, Ports, Read, Registry, Released, ReplicaId, Result, SessionKey, Signal, Subscription,
    Tick, Ticked,
};
use run_protocol::Fence;
use std::collections::HashMap;
use std::fmt::Debug;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until};
use wire::ids::SessionId;
use wire::tenant::Tenant;

/// How long a caller waits for an answer that does not come.
const PATIENCE: Duration = Duration::from_millis(1_000);
/// How much later than its caller gives up a call may still be done, and how much later it is done again: less than so many
/// milliseconds.
const LATE_MS: u64 = 12_000;
/// How long a lock stays that its holder did not live to release.
const LOCK_TTL: Duration = Duration::from_secs(2);
/// Messages that wait for a replica.
const MESSAGES: usize = 1024;

/// The way of one replica to coordination.
#[derive(Clone)]
pub(crate) struct Link {
    pub who: Arc<Mortal>,
    pub dice: Arc<Dice>,
    pub weather: Arc<Weather>,
    pub trace: Arc<Trace>,
    pub chronicle: Arc<Chronicle>,
    pub to: Ports,
}

/// Entries that a call brings to the log, if it does.
#[derive(Clone)]
struct Saying {
    entries: Vec<Entry>,
    by: Arc<Mortal>,
    chronicle: Arc<Chronicle>,
}

impl Saying {
    /// Does the call, and writes down what came of it before anybody else does anything.
    async fn told<T>(&self, to: &Ports, call: impl Future<Output = T>) -> T {
        let answer = call.await;
        self.chronicle.may_have(&self.by.name, &self.entries, to).await;
        answer
    }
}

/// An answer that the trace leaves out: its maps have no order, or it is long.
struct Untold<T>(T);

impl<T> Debug for Untold<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("..")
    }
}

fn lost<T>() -> Result<T> {
    Err(CoordinationError::Unavailable("no answer".into()))
}

impl Link {
    /// The ports as this replica sees them.
    pub(crate) fn ports(&self) -> Ports {
        let link = Arc::new(self.clone());
        Ports { leases: link.clone(), registry: link.clone(), events: link.clone(), locks: link }
    }

    fn saying(&self, entries: &[Entry]) -> Saying {
        Saying { entries: entries.to_vec(), by: self.who.clone(), chronicle: self.chronicle.clone() }
    }

    /// The next call's fate, once it may set out.
    async fn fate(&self, name: &str) -> Fate {
        self.who.goes_on().await;
        let fate = if self.who.is_cut_off() { Fate::Dropped } else { self.weather.fate(&self.dice) };
        if fate != Fate::Done {
            self.trace.note(format_args!("{} {name}: {fate:?}", self.who.name));
        }
        sleep(self.weather.delay(&self.dice)).await;
        fate
    }

    /// Does a call. `act` is made anew each time that it arrives.
    async fn call<T, Act>(&self, name: &'static str, act: impl Fn(Ports) -> Act + Send + Sync + 'static) -> Result<T>
    where
        T: Debug + Send + 'static,
        Act: Future<Output = Result<T>> + Send + 'static,
    {
        let fate = self.fate(name).await;
        if matches!(fate, Fate::Done | Fate::Unanswered | Fate::Doubled) {
            let answer = act(self.to.clone()).await;
            self.trace.note(format_args!("{} {name} = {answer:?}", self.who.name));
            if fate == Fate::Doubled {
                self.later(name, act);
            }
            sleep(if fate == Fate::Unanswered { PATIENCE } else { self.weather.delay(&self.dice) }).await;
            self.who.goes_on().await;
            return if fate == Fate::Unanswered { lost() } else { answer };
        }
        if fate == Fate::Late {
            self.later(name, act);
        }
        sleep(PATIENCE).await;
        self.who.goes_on().await;
        lost()
    }

    /// Does a call some time after its caller knows what came of it.
    fn later<T, Act>(&self, name: &'static str, act: impl Fn(Ports) -> Act + Send + Sync + 'static)
    where
        T: Debug + Send + 'static,
        Act: Future<Output = Result<T>> + Send + 'static,
    {
        let (link, wait) = (self.clone(), self.dice.ms(0, LATE_MS));
        tokio::spawn(async move {
            sleep(wait).await;
            let answer = act(link.to.clone()).await;
            link.trace.note(format_args!("{} {name}, late = {answer:?}", link.who.name));
        });
    }

    /// What is heard of a channel: some messages are lost.
    fn hear<T: Send + 'static>(&self, mut from: mpsc::Receiver<T>) -> mpsc::Receiver<T> {
        let (to, heard) = mpsc::channel(MESSAGES);
        let link = self.clone();
        tokio::spawn(async move {
            loop {
                let message = tokio::select! {
                    biased;
                    () = link.who.over() => return,
                    () = to.closed() => return,
                    message = from.recv() => message,
                };
                let Some(message) = message else { return };
                if link.who.is_cut_off() || link.weather.loses(&link.dice) {
                    continue;
                }
                sleep(link.weather.delay(&link.dice)).await;
                if to.try_send(message).is_err() {
                    link.weather.strike("message lost");
                }
            }
        });
        heard
    }
}

#[async_trait]
impl Leases for Link {
    async fn enter(&self, enter: &Enter) -> Result<Entered> {
        let enter = enter.clone();
        self.call("enter", move |to| {
            let enter = enter.clone();
            async move { to.leases.enter(&enter).await }
        })
        .await
    }

    async fn confirm(&self, key: &SessionKey, attempt: &Attempt) -> Result<bool> {
        let of = (key.clone(), attempt.clone());
        self.call("confirm", move |to| {
            let (key, attempt) = of.clone();
            async move { to.leases.confirm(&key, &attempt).await }
        })
        .await
    }

    async fn begin(&self, key: &SessionKey, attempt: &Attempt, fence: Fence, events: &[Entry]) -> Result<bool> {
        let of = (key.clone(), attempt.clone(), self.saying(events));
        self.call("begin", move |to| {
            let (key, attempt, events) = of.clone();
            async move { events.told(&to, to.leases.begin(&key, &attempt, fence, &events.entries)).await }
        })
        .await
    }

    async fn release(&self, key: &SessionKey, attempt: &Attempt, seen: u64, events: &[Entry]) -> Result<Released> {
        let of = (key.clone(), attempt.clone(), self.saying(events));
        self.call("release", move |to| {
            let (key, attempt, events) = of.clone();
            async move { events.told(&to, to.leases.release(&key, &attempt, seen, &events.entries)).await }
        })
        .await
    }

    async fn hand_over(&self, key: &SessionKey, attempt: &Attempt, delay_ms: u64, failed: bool) -> Result<()> {
        let of = (key.clone(), attempt.clone());
        self.call("hand over", move |to| {
            let (key, attempt) = of.clone();
            async move { to.leases.hand_over(&key, &attempt, delay_ms, failed).await }
        })
        .await
    }

    async fn former(&self, key: &SessionKey) -> Result<Former> {
        let key = key.clone();
        self.call("former", move |to| {
            let key = key.clone();
            async move { to.leases.former(&key).await }
        })
        .await
    }

    async fn adopt(&self, key: &SessionKey, replica: &ReplicaId, attempt: &Attempt, fence: Fence) -> Result<Adopted> {
        let of = (key.clone(), replica.clone(), attempt.clone());
        self.call("adopt", move |to| {
            let (key, replica, attempt) = of.clone();
            async move { to.leases.adopt(&key, &replica, &attempt, fence).await }
        })
        .await
    }

    async fn claim(
        &self,
        replica: &ReplicaId,
        born: &Born,
        attempts: &[Attempt],
    ) -> Result<Vec<(SessionKey, Attempt)>> {
        let of = (replica.clone(), born.clone(), attempts.to_vec());
        self.call("claim", move |to| {
            let (replica, born, attempts) = of.clone();
            async move { to.leases.claim(&replica, &born, &attempts).await }
        })
        .await
    }

    async fn ensure_due(&self, key: &SessionKey, born: &Born) -> Result<bool> {
        let of = (key.clone(), born.clone());
        self.call("ensure due", move |to| {
            let (key, born) = of.clone();
            async move { to.leases.ensure_due(&key, &born).await }
        })
        .await
    }

    async fn poke(&self, key: &SessionKey, abort: bool) -> Result<()> {
        let key = key.clone();
        self.call("poke", move |to| {
            let key = key.clone();
            async move { to.leases.poke(&key, abort).await }
        })
        .await
    }

    async fn forget(&self, key: &SessionKey) -> Result<()> {
        let key = key.clone();
        self.call("forget", move |to| {
            let key = key.clone();
            async move { to.leases.forget(&key).await }
        })
        .await
    }

    async fn append_if_idle(&self, key: &SessionKey, events: &[Entry]) -> Result<()> {
        let of = (key.clone(), self.saying(events));
        self.call("append if idle", move |to| {
            let (key, events) = of.clone();
            async move { events.told(&to, to.leases.append_if_idle(&key, &events.entries)).await }
        })
        .await
    }

    async fn statuses(&self, tenant: &Tenant) -> Result<HashMap<SessionId, String>> {
        let tenant = tenant.clone();
        let statuses = self.call("statuses", move |to| {
            let tenant = tenant.clone();
            async move { to.leases.statuses(&tenant).await.map(Untold) }
        });
        statuses.await.map(|Untold(statuses)| statuses)
    }

    async fn attempt_of(&self, key: &SessionKey) -> Result<Option<Attempt>> {
        let key = key.clone();
        self.call("attempt of", move |to| {
            let key = key.clone();
            async move { to.leases.attempt_of(&key).await }
        })
        .await
    }
}

#[async_trait]
impl Registry for Link {
    async fn join(&self, replica: &ReplicaId, proposal: &Born) -> Result<Born> {
        let of = (replica.clone(), proposal.clone());
        self.call("join", move |to| {
            let (replica, proposal) = of.clone();
            async move { to.registry.join(&replica, &proposal).await }
        })
        .await
    }

    async fn set_trial(&self, replica: &ReplicaId, run: Option<&SessionKey>) -> Result<()> {
        let of = (replica.clone(), run.cloned());
        self.call("set trial", move |to| {
            let (replica, run) = of.clone();
            async move { to.registry.set_trial(&replica, run.as_ref()).await }
        })
        .await
    }

    async fn tick(&self, tick: &Tick) -> Result<Ticked> {
        let tick = tick.clone();
        let ticked = self.call("tick", move |to| {
            let tick = tick.clone();
            async move { to.registry.tick(&tick).await.map(Untold) }
        });
        ticked.await.map(|Untold(ticked)| ticked)
    }

    async fn bury(&self, replica: &ReplicaId, beat: u64) -> Result<Option<u64>> {
        let replica = replica.clone();
        self.call("bury", move |to| {
            let replica = replica.clone();
            async move { to.registry.bury(&replica, beat).await }
        })
        .await
    }

    async fn owned(&self, replica: &ReplicaId) -> Result<Vec<SessionKey>> {
        let replica = replica.clone();
        self.call("owned", move |to| {
            let replica = replica.clone();
            async move { to.registry.owned(&replica).await }
        })
        .await
    }

    async fn is_reachable(&self, replica: &ReplicaId) -> Result<bool> {
        let replica = replica.clone();
        self.call("is reachable", move |to| {
            let replica = replica.clone();
            async move { to.registry.is_reachable(&replica).await }
        })
        .await
    }

    async fn listen(&self, replica: &ReplicaId) -> Result<mpsc::Receiver<Signal>> {
        match self.fate("listen").await {
            Fate::Done | Fate::Doubled => Ok(self.hear(self.to.registry.listen(replica).await?)),
            _ => lost(),
        }
    }

    async fn ping(&self) -> Result<()> {
        self.call("ping", |to| async move { to.registry.ping().await }).await
    }
}

#[async_trait]
impl EventLog for Link {
    async fn publish(
        &self,
        tenant: &Tenant,
        replica: &ReplicaId,
        batch: BatchNumber,
        entries: &[Entry],
    ) -> Result<Vec<usize>> {
        let of = (tenant.clone(), replica.clone(), self.saying(entries));
        self.call("publish", move |to| {
            let (tenant, replica, events) = of.clone();
            async move { events.told(&to, to.events.publish(&tenant, &replica, batch, &events.entries)).await }
        })
        .await
    }

    async fn begin(&self, tenant: &Tenant) -> Result<()> {
        let of = (tenant.clone(), self.saying(&[Entry::beginning()]));
        self.call("begin the log", move |to| {
            let (tenant, events) = of.clone();
            async move { events.told(&to, to.events.begin(&tenant)).await }
        })
        .await
    }

    async fn newest(&self, tenant: &Tenant) -> Result<Option<Cursor>> {
        let tenant = tenant.clone();
        self.call("newest", move |to| {
            let tenant = tenant.clone();
            async move { to.events.newest(&tenant).await }
        })
        .await
    }

    async fn read_after(&self, tenant: &Tenant, cursor: Option<&Cursor>, limit: usize) -> Result<Read> {
        let of = (tenant.clone(), cursor.cloned());
        let read = self.call("read after", move |to| {
            let (tenant, cursor) = of.clone();
            async move { to.events.read_after(&tenant, cursor.as_ref(), limit).await.map(Untold) }
        });
        read.await.map(|Untold(read)| read)
    }

    async fn forget_until(&self, tenant: &Tenant, cursor: &Cursor) -> Result<()> {
        let of = (tenant.clone(), cursor.clone());
        self.call("forget until", move |to| {
            let (tenant, cursor) = of.clone();
            async move { to.events.forget_until(&tenant, &cursor).await }
        })
        .await
    }

    async fn subscribe(&self, tenant: &Tenant) -> Result<Subscription> {
        match self.fate("subscribe").await {
            Fate::Done | Fate::Doubled => {
                let heard: mpsc::Receiver<Appended> = self.to.events.subscribe(tenant).await?;
                Ok(self.hear(heard))
            }
            _ => lost(),
        }
    }
}

/// A lock as its master has it: given back, or gone when its time is over.
struct Kept {
    lock: Option<Box<dyn LockGuard>>,
    until: Instant,
}

/// A lock whose time goes on while its holder stands still, and that a dead holder does not give back.
struct MortalLock {
    who: Arc<Mortal>,
    held: Arc<Mutex<Kept>>,
}

fn kept(lock: &Mutex<Kept>) -> MutexGuard<'_, Kept> {
    lock.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The task `expiry`, one for each lock: it ends with the lock.
async fn expire(held: Arc<Mutex<Kept>>) {
    loop {
        let until = kept(&held).until;
        sleep_until(until).await;
        let mut held = kept(&held);
        if held.until <= Instant::now() {
            held.lock = None;
        }
        if held.lock.is_none() {
            return;
        }
    }
}

impl LockGuard for MortalLock {
    fn extend(&self) {
        kept(&self.held).until = Instant::now() + LOCK_TTL;
    }
}

impl Drop for MortalLock {
    fn drop(&mut self) {
        if !self.who.is_over() {
            kept(&self.held).lock = None;
        }
    }
}

#[async_trait]
impl Locks for Link {
    async fn lock(&self, name: &str, patience: Duration) -> Result<Box<dyn LockGuard>> {
        let fate = self.fate("lock").await;
        if matches!(fate, Fate::Dropped | Fate::Late) {
            sleep(PATIENCE).await;
            self.who.goes_on().await;
            return lost();
        }
        let lock = self.to.locks.lock(name, patience).await;
        self.trace.note(format_args!("{} locks {name}: {}", self.who.name, lock.is_ok()));
        let held = Arc::new(Mutex::new(Kept { lock: Some(lock?), until: Instant::now() + LOCK_TTL }));
        tokio::spawn(expire(held.clone()));
        if fate == Fate::Unanswered {
            sleep(PATIENCE).await;
        }
        // Whoever does not come to know that it has the lock does not give it back.
        self.who.goes_on().await;
        if fate == Fate::Unanswered { lost() } else { Ok(Box::new(MortalLock { who: self.who.clone(), held })) }
    }
}
