//! The engine: what every replica has once, and how its parts are handed in.

use crate::api::{EngineError, Readiness, Scope, Stats};
use crate::feed::{Feeds, Follower, From};
use crate::instances::Instances;
use crate::publish::Publishers;
use crate::replica::Replica;
use crate::runs::Runs;
use crate::strand::Tasks;
pub(crate) use crate::strand::blocking;
use agents::Instance;
use coordination::{Ports, SessionKey};
use models::Provider;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use storage::{Store, TenantStore};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use wire::event::{Event, Happened};
use wire::ids::IdSource;
use wire::tenant::Tenant;

/// What the engine's behaviour depends on, beside its ports.
#[derive(Clone)]
pub struct Settings {
    /// This replica's name; an incarnation is added to it.
    pub name: String,
    /// How long others wait for a silent replica.
    pub lease_ttl: Duration,
    /// How often this replica beats.
    pub tick: Duration,
    /// How long runs may go on after the drain began.
    pub drain_deadline: Duration,
    /// Attempts without a completed step before a turn ends in an error.
    pub attempts: u32,
    /// Prompts that may wait in one session.
    pub queue_limit: u64,
    /// What an instance is configured from.
    pub surroundings: agents::Surroundings,
    /// How tools run.
    pub tools: Arc<tools::ToolSettings>,
}

/// What the engine is made from.
pub struct Parts {
    /// The coordination ports.
    pub ports: Ports,
    /// The store.
    pub store: Store,
    /// Identifiers, time and randomness.
    pub ids: Arc<IdSource>,
    /// The provider of models that are reached over the network.
    pub provider: Arc<dyn Provider>,
    /// The provider of the `demo` model.
    pub demo: Arc<dyn Provider>,
    /// The tools.
    pub tools: Arc<tools::Registry>,
    /// Everything else.
    pub settings: Settings,
}

/// An OpenCode server's inside: sessions, runs, asks and events, shared with all other replicas.
///
/// Cheap to clone. No method is bound to its caller: one that is dropped half-way leaves nothing undone that was
/// acknowledged.
#[derive(Clone)]
pub struct Engine(pub(crate) Arc<Inner>);

pub(crate) struct Inner {
    pub ports: Ports,
    pub store: Store,
    pub ids: Arc<IdSource>,
    pub provider: Arc<dyn Provider>,
    pub demo: Arc<dyn Provider>,
    pub tools: Arc<tools::Registry>,
    pub settings: Settings,
    pub instances: Instances,
    pub publishers: Publishers,
    pub feeds: Feeds,
    pub replica: Replica,
    pub runs: Runs,
    pub waiters: Waiters,
    pub counters: Counters,
    /// Cancelled when the drain begins.
    pub draining: CancellationToken,
    /// Cancelled when nobody may wait here any longer.
    pub leaving: CancellationToken,
    /// Cancelled when the replica goes away: whatever still runs stops writing.
    pub stopped: CancellationToken,
    /// Cancelled when the beat has left the fleet.
    pub left: CancellationToken,
    pub tasks: Tasks,
}

/// Counts for metrics.
#[derive(Default)]
pub(crate) struct Counters {
    pub runs_begun: AtomicU64,
    pub taken_over: AtomicU64,
    pub lost: AtomicU64,
    pub buried: AtomicU64,
    pub steps: AtomicU64,
    pub tool_calls: AtomicU64,
    pub events: AtomicU64,
}

impl Counters {
    pub(crate) fn add(counter: &AtomicU64, n: u64) {
        counter.fetch_add(n, Ordering::Relaxed);
    }
}

/// Callers on this replica that wait for something to end in a session. Waking is a hint: they look at the store.
#[derive(Default)]
pub(crate) struct Waiters(Mutex<HashMap<SessionKey, (Arc<Notify>, usize)>>);

/// One waiting caller; its place is given up when it is dropped.
pub(crate) struct Waiter<'a> {
    waiters: &'a Waiters,
    key: SessionKey,
    pub notify: Arc<Notify>,
}

impl Waiters {
    pub(crate) fn join(&self, key: &SessionKey) -> Waiter<'_> {
        let mut all = self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let place = all.entry(key.clone()).or_insert_with(|| (Arc::new(Notify::new()), 0));
        place.1 += 1;
        Waiter { waiters: self, key: key.clone(), notify: place.0.clone() }
    }

    pub(crate) fn wake(&self, key: &SessionKey) {
        let all = self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if let Some((notify, _)) = all.get(key) {
            notify.notify_waiters();
        }
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        let mut all = self.waiters.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if let Some(place) = all.get_mut(&self.key) {
            place.1 -= 1;
            if place.1 == 0 {
                all.remove(&self.key);
            }
        }
    }
}

impl Engine {
    /// Joins the fleet and begins to work: beats, claims what is due, follows the control channel.
    ///
    /// Errors: `Unavailable` when coordination does not answer.
    pub async fn start(parts: Parts) -> Result<Self, EngineError> {
        let Parts { ports, store, ids, provider, demo, tools, settings } = parts;
        let replica = Replica::join(&ports, &ids, &settings).await?;
        let engine = Self(Arc::new(Inner {
            publishers: Publishers::default(),
            feeds: Feeds::default(),
            instances: Instances::new(settings.surroundings.clone()),
            runs: Runs::default(),
            waiters: Waiters::default(),
            counters: Counters::default(),
            draining: CancellationToken::new(),
            leaving: CancellationToken::new(),
            stopped: CancellationToken::new(),
            left: CancellationToken::new(),
            tasks: Tasks::default(),
            ports,
            store,
            ids,
            provider,
            demo,
            tools,
            settings,
            replica,
        }));
        engine.start_replica()?;
        Ok(engine)
    }

    /// The configuration of a directory, as it is on disk now.
    pub async fn instance(&self, scope: &Scope) -> Result<Arc<Instance>, EngineError> {
        self.0.instances.get(&scope.directory).await
    }

    /// A reader of the tenant's events. It ends when the reader is too slow or the replica stops.
    pub async fn follow(&self, tenant: &Tenant, from: From) -> Result<Follower, EngineError> {
        self.feed(tenant).await?.follow(from).await
    }

    /// Gives an event that only one reader gets an id.
    pub fn new_event(&self, happened: Happened) -> Event {
        happened.with_id(self.0.ids.event())
    }

    /// Refuses while this replica cannot reach coordination. To be asked before anything is written.
    pub(crate) fn is_coordinated(&self) -> Result<(), EngineError> {
        if self.0.replica.is_late(Duration::from_millis(1500).max(self.0.settings.tick * 3)) {
            return Err(EngineError::Unavailable("coordination does not answer".into()));
        }
        Ok(())
    }

    /// Whether this replica may get requests, and why not.
    pub async fn readiness(&self) -> Readiness {
        let mut reasons = Vec::new();
        if self.is_draining() {
            reasons.push("draining".to_owned());
        }
        if self.is_coordinated().is_err() {
            reasons.push("coordination does not answer".to_owned());
        }
        let store = self.0.store.clone();
        let probe =
            tokio::time::timeout(Duration::from_secs(2), blocking(move || store.probe().map_err(EngineError::from)));
        match probe.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => reasons.push(error.to_string()),
            Err(_) => reasons.push("the store does not answer".to_owned()),
        }
        Readiness { reasons }
    }

    /// What this replica is doing.
    pub fn stats(&self) -> Stats {
        let Counters { runs_begun, taken_over, lost, buried, steps, tool_calls, events } = &self.0.counters;
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Stats {
            runs: self.0.runs.count() as u64,
            runs_begun: read(runs_begun),
            taken_over: read(taken_over),
            lost: read(lost),
            buried: read(buried),
            steps: read(steps),
            tool_calls: read(tool_calls),
            events: read(events),
            kept_bytes: self.0.store.kept_bytes() as u64,
            frozen: self.0.replica.is_frozen(),
        }
    }

    /// This replica's id: its name and incarnation.
    pub fn replica(&self) -> String {
        self.0.replica.id().0
    }

    /// True once the replica hands its runs over.
    pub fn is_draining(&self) -> bool {
        self.0.draining.is_cancelled()
    }

    pub(crate) fn tenant_store(&self, tenant: &Tenant) -> TenantStore {
        self.0.store.tenant(tenant)
    }

    pub(crate) fn now_ms(&self) -> u64 {
        self.0.ids.now_ms()
    }
}
