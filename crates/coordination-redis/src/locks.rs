//! Redlock over independent masters.

use crate::backoff::between;
use crate::connection::Link;
use crate::keys::Keys;
use crate::scripts::Scripts;
use async_trait::async_trait;
use coordination::memory::{MemoryLockGuard, MemoryLocks};
use coordination::{CoordinationError, LockGuard, Locks, Result};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::time::Instant;
use wire::clock::Entropy;

/// How long to wait at random before a lock is tried again.
const RETRY: (Duration, Duration) = (Duration::from_millis(2), Duration::from_millis(20));

/// How long a majority may be silent before the caller is told. A busy machine answers late now and then.
const SILENCE: Duration = Duration::from_millis(300);

/// Locks on a majority of masters. Contenders within this process queue up in it, so that only one of them asks the
/// masters, and none polls for what its neighbour holds.
pub struct RedisLocks {
    masters: Arc<Masters>,
    neighbours: MemoryLocks,
    entropy: Arc<dyn Entropy>,
}

struct Masters {
    links: Vec<Arc<Link>>,
    keys: Keys,
    scripts: Arc<Scripts>,
    ttl: Duration,
}

/// Held while a master is asked for a lock: it is given back there afterwards. To one that comes back both may be sent at once, and
/// given back before it is taken it would be in everybody's way until its time is over.
type Turn = Arc<tokio::sync::Mutex<()>>;

/// What the masters said.
enum Round {
    Won,
    Held,
    Silent(String),
}

impl RedisLocks {
    /// Locks on these masters.
    pub fn new(
        links: Vec<Arc<Link>>,
        keys: Keys,
        scripts: Arc<Scripts>,
        ttl: Duration,
        entropy: Arc<dyn Entropy>,
    ) -> Self {
        Self { masters: Arc::new(Masters { links, keys, scripts, ttl }), neighbours: MemoryLocks::default(), entropy }
    }
}

impl Masters {
    fn majority(&self) -> usize {
        self.links.len() / 2 + 1
    }

    /// Asks all masters at once, and returns as soon as a majority has decided.
    async fn ask(self: &Arc<Self>, key: &str, token: &str, turns: &[Turn]) -> Round {
        let began = Instant::now();
        let mut answers: FuturesUnordered<_> = turns
            .iter()
            .enumerate()
            .map(|(index, turn)| {
                let (masters, key, token) = (self.clone(), key.to_owned(), token.to_owned());
                let turn = turn.clone().try_lock_owned();
                // Each on a task of its own: what was sent to a slow master must not be forgotten half-way.
                tokio::spawn(async move {
                    let answer = masters.links[index].query::<Option<String>>(&masters.set(&key, &token)).await;
                    drop(turn);
                    answer
                })
            })
            .collect();
        let (mut won, mut held, mut reason) = (0, 0, String::new());
        while let Some(answer) = answers.next().await {
            match answer {
                Ok(Ok(Some(_))) => won += 1,
                Ok(Ok(None)) => held += 1,
                Ok(Err(error)) => reason = error.to_string(),
                Err(error) => reason = error.to_string(),
            }
            let open = answers.len();
            if won >= self.majority() || won + open < self.majority() && held + won + open >= self.majority() {
                break;
            }
        }
        if won >= self.majority() && began.elapsed() + self.drift() < self.ttl {
            Round::Won
        } else if won + held >= self.majority() || reason.is_empty() {
            Round::Held
        } else {
            Round::Silent(reason)
        }
    }

    /// What the masters' clocks may differ by while the lock holds.
    fn drift(&self) -> Duration {
        self.ttl / 100 + Duration::from_millis(2)
    }

    fn set(&self, key: &str, token: &str) -> redis::Cmd {
        let mut command = redis::cmd("SET");
        command.arg(key).arg(token).arg("NX").arg("PX").arg(self.ttl.as_millis() as u64);
        command
    }

    /// Gives the lock back on every master, whether it said yes or not; returns when a majority has answered.
    async fn release(self: Arc<Self>, key: String, token: String, turns: Vec<Turn>) {
        let mut answers: FuturesUnordered<_> = turns
            .into_iter()
            .enumerate()
            .map(|(index, turn)| {
                let (masters, key, token) = (self.clone(), key.clone(), token.clone());
                tokio::spawn(async move {
                    let _turn = turn.lock().await;
                    let mut script = masters.scripts.unlock.key(key);
                    masters.links[index].invoke::<()>(script.arg(token)).await
                })
            })
            .collect();
        for _ in 0..self.majority() {
            let _ = answers.next().await;
        }
    }

    fn extend(self: &Arc<Self>, key: &str, token: &str, runtime: &Handle) {
        for link in &self.links {
            let (masters, link, key, token) = (self.clone(), link.clone(), key.to_owned(), token.to_owned());
            runtime.spawn(async move {
                let mut script = masters.scripts.extend_lock.key(key);
                // Who can't extend loses the lock in time; the store's guard decides then.
                let _ = link.invoke::<()>(script.arg(token).arg(masters.ttl.as_millis() as u64)).await;
            });
        }
    }
}

#[async_trait]
impl Locks for RedisLocks {
    async fn lock(&self, name: &str, patience: Duration) -> Result<Box<dyn LockGuard>> {
        let began = Instant::now();
        let deadline = began + patience;
        let neighbour = self.neighbours.acquire(name, patience).await?;
        let key = self.masters.keys.lock(name);
        loop {
            // Made before the masters are asked: if the caller gives up meanwhile, dropping it gives all back.
            let token = format!("{:016x}{:016x}", self.entropy.bits(), self.entropy.bits());
            let mut guard = Guard {
                masters: self.masters.clone(),
                key: key.clone(),
                token,
                turns: self.masters.links.iter().map(|_| Turn::default()).collect(),
                runtime: Handle::current(),
                neighbour: None,
            };
            match self.masters.ask(&key, &guard.token, &guard.turns).await {
                Round::Won => {
                    guard.neighbour = Some(neighbour);
                    return Ok(Box::new(guard));
                }
                Round::Silent(reason) if began.elapsed() >= SILENCE => {
                    return Err(CoordinationError::Unavailable(reason));
                }
                Round::Silent(_) | Round::Held => drop(guard),
            }
            let delay = between(&*self.entropy, RETRY.0, RETRY.1);
            if Instant::now() + delay >= deadline {
                return Err(CoordinationError::Contended(name.to_owned()));
            }
            tokio::time::sleep(delay).await;
        }
    }
}

/// A lock that is held, or was asked for.
struct Guard {
    masters: Arc<Masters>,
    key: String,
    token: String,
    /// One for each master.
    turns: Vec<Turn>,
    runtime: Handle,
    neighbour: Option<MemoryLockGuard>,
}

impl LockGuard for Guard {
    fn extend(&self) {
        self.masters.extend(&self.key, &self.token, &self.runtime);
    }
}

impl Drop for Guard {
    /// The next contender in this process comes after the masters know, else it would find the lock held and wait.
    fn drop(&mut self) {
        let (key, token) = (std::mem::take(&mut self.key), std::mem::take(&mut self.token));
        let release = self.masters.clone().release(key, token, std::mem::take(&mut self.turns));
        let neighbour = self.neighbour.take();
        self.runtime.spawn(async move {
            release.await;
            drop(neighbour);
        });
    }
}
