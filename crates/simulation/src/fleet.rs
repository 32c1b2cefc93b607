//! The fleet: replicas as values over one disk and one coordination table, each started again after its death.

use crate::acts::{Act, Acts};
use crate::chronicle::Chronicle;
use crate::dice::Dice;
use crate::disk::{Holders, MortalDisk};
use crate::link::Link;
use crate::model::Script;
use crate::mortal::Mortal;
use crate::trace::Trace;
use crate::weather::Weather;
use axum::Router;
use coordination::LogLimits;
use coordination::memory::Memory;
use engine::{Engine, EngineError, Parts, Scope, Settings, on_strand};
use std::collections::HashMap;
use std::future::Future;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use storage::Store;
use storage::forgetful::{Crash, Forgetful, root};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use wire::clock::{Clock, Entropy};
use wire::ids::{IdSource, MessageId, SessionId};
use wire::tenant::Tenant;

/// How long the others wait for a silent replica.
pub(crate) const TTL: Duration = Duration::from_secs(5);
const TICK: Duration = Duration::from_millis(500);
/// When the simulated world begins, in milliseconds since the epoch.
pub(crate) const EPOCH_MS: u64 = 1_800_000_000_000;
/// How long a client waits for an answer before it asks elsewhere.
const PATIENCE: Duration = Duration::from_secs(40);

/// The wall clock of the simulated world.
struct Wall(Arc<Trace>);

impl Clock for Wall {
    fn now_ms(&self) -> u64 {
        EPOCH_MS + self.0.now_ms()
    }
}

/// How long an answer is silent before white space tells that it is coming.
const SILENCE: Duration = Duration::from_secs(6);
/// The time between heartbeats of an event stream.
const HEARTBEAT: Duration = Duration::from_secs(10);

/// A replica that runs.
#[derive(Clone)]
pub(crate) struct Replica {
    pub who: Arc<Mortal>,
    served: Served,
}

/// What a replica is besides its life.
#[derive(Clone)]
struct Served {
    engine: Engine,
    /// The whole service, as a connection would get it.
    router: Router,
    /// Cancelled once its drain has handed everything over.
    drain: CancellationToken,
}

impl Replica {
    pub(crate) fn router(&self) -> Router {
        self.served.router.clone()
    }

    /// Ends as a process does that was asked to: what it has is handed over, streams are cut, who still waits is told.
    pub(crate) async fn end(self) {
        let Served { engine, drain, .. } = self.served;
        engine.drain().await;
        drain.cancel();
        engine.leave();
        engine.stop().await;
        self.who.end();
    }
}

/// Why a request was not answered: its replica is not there, died, or took too long, or its connection was cut.
pub(crate) struct Gone;

/// All that a simulated world consists of.
pub(crate) struct Fleet {
    pub trace: Arc<Trace>,
    pub weather: Arc<Weather>,
    pub holders: Arc<Holders>,
    pub memory: Memory,
    pub chronicle: Arc<Chronicle>,
    pub acts: Arc<Acts>,
    dice: Dice,
    disk: Mutex<Medium>,
    places: Vec<Mutex<Place>>,
}

/// Where a replica runs, is started, or is dead.
#[derive(Default)]
struct Place {
    who: Option<Arc<Mortal>>,
    served: Option<Served>,
}

/// The disk, and the store on it as one who only reads sees it.
struct Medium {
    disk: Arc<Forgetful>,
    store: Result<Store, storage::StoreError>,
}

impl Medium {
    fn new(disk: Arc<Forgetful>, dice: &Dice) -> Self {
        let store = Store::open_on_one_thread(disk.clone(), root(), Arc::new(dice.fork()));
        Self { disk, store }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Fleet {
    pub(crate) fn new(replicas: usize, dice: &Dice, trace: Arc<Trace>) -> Self {
        let medium = Medium::new(Forgetful::new("/data"), dice);
        Self {
            trace,
            weather: Arc::default(),
            holders: Arc::default(),
            memory: Memory::new(Arc::new(dice.fork()), LogLimits::default()),
            chronicle: Arc::default(),
            acts: Arc::default(),
            dice: dice.fork(),
            disk: Mutex::new(medium),
            places: (0..replicas).map(|_| Mutex::default()).collect(),
        }
    }

    pub(crate) fn size(&self) -> usize {
        self.places.len()
    }

    /// The replica at a place, if one runs there.
    pub(crate) fn replica(&self, place: usize) -> Option<Replica> {
        let place = lock(&self.places[place]);
        Some(Replica { who: place.who.clone()?, served: place.served.clone()? })
    }

    /// The source of a client's ids.
    pub(crate) fn ids(&self, dice: &Dice) -> IdSource {
        IdSource::new(Arc::new(Wall(self.trace.clone())), Arc::new(dice.fork()))
    }

    /// Milliseconds since the epoch.
    pub(crate) fn now_ms(&self) -> u64 {
        Wall(self.trace.clone()).now_ms()
    }

    /// Where all sessions play: a folder that is not there.
    pub(crate) fn scope() -> Scope {
        Scope { tenant: Tenant::default(), directory: "/nowhere/of/a/simulation".into() }
    }

    /// The store as it is, read by no replica.
    pub(crate) fn store(&self) -> Result<Store, storage::StoreError> {
        let disk = lock(&self.disk).disk.clone();
        Store::open_on_one_thread(disk, root(), Arc::new(self.dice.fork()))
    }

    /// The number of a prompt's ticket, as it is stored now.
    pub(crate) fn ticket(&self, session: &SessionId, message: &MessageId) -> Option<u64> {
        let medium = lock(&self.disk);
        let tickets = medium.store.as_ref().ok()?.tenant(&Tenant::default()).tickets(session).ok()?;
        tickets.into_iter().find(|(of, _)| of == message).map(|(_, ticket)| ticket.k)
    }

    /// The task `keeper`, one for each place: starts a replica there, and another one some time after its death.
    pub(crate) async fn keep(self: Arc<Self>, place: usize) {
        let name = ["a", "b", "c", "d", "e"].get(place).copied().unwrap_or("z");
        for number in 1.. {
            let who = Arc::new(Mortal::new(format!("{name}{number}"), self.dice.fork()));
            self.trace.note(format_args!("{} is started", who.name));
            lock(&self.places[place]).who = Some(who.clone());
            match on_strand(who.clone(), self.start(&who)).await {
                Some(Ok(served)) => {
                    lock(&self.places[place]).served = Some(served);
                    who.over().await;
                }
                Some(Err(error)) => self.trace.note(format_args!("{} does not start: {error}", who.name)),
                None => {}
            }
            who.end();
            *lock(&self.places[place]) = Place::default();
            self.trace.note(format_args!("{} is dead", who.name));
            sleep(self.dice.ms(50, 4_000)).await;
        }
    }

    async fn start(&self, who: &Arc<Mortal>) -> Result<Served, EngineError> {
        let entropy: Arc<dyn Entropy> = Arc::new(self.dice.fork());
        let disk = MortalDisk {
            inner: lock(&self.disk).disk.clone(),
            who: who.clone(),
            trace: self.trace.clone(),
            holders: self.holders.clone(),
        };
        let link = Link {
            who: who.clone(),
            dice: Arc::new(self.dice.fork()),
            weather: self.weather.clone(),
            trace: self.trace.clone(),
            chronicle: self.chronicle.clone(),
            to: self.memory.ports(),
        };
        let model = Arc::new(Script { who: who.clone(), dice: Arc::new(self.dice.fork()) });
        let act = Act { who: who.clone(), acts: self.acts.clone(), trace: self.trace.clone() };
        let data = PathBuf::from("/nowhere/data");
        let env = HashMap::from([("HOME".to_owned(), "/nowhere/home".to_owned())]);
        let mut surroundings = agents::Surroundings::new(env, data.clone(), true);
        surroundings.managed_dir = "/nowhere/managed".into();
        let settings_of_tools = tools::ToolSettings::new("/bin/false".into(), data, sandbox::ChildEnv::default());
        let settings = Settings {
            name: who.name.clone(),
            lease_ttl: TTL,
            tick: TICK,
            drain_deadline: Duration::from_secs(5),
            attempts: 4,
            queue_limit: 100,
            surroundings: surroundings.clone(),
            tools: Arc::new(settings_of_tools),
        };
        let engine = Engine::start(Parts {
            ports: link.ports(),
            store: Store::open_on_one_thread(Arc::new(disk), root(), entropy.clone())
                .map_err(|error| EngineError::Store(error.to_string()))?,
            ids: Arc::new(IdSource::new(Arc::new(Wall(self.trace.clone())), entropy.clone())),
            provider: model.clone(),
            demo: model,
            tools: Arc::new(tools::Registry::builtin().with(Arc::new(act))),
            settings,
        })
        .await?;
        let drain = CancellationToken::new();
        let router = server::router(server::App {
            engine: engine.clone(),
            auth: None,
            cors: Vec::new(),
            default_directory: Self::scope().directory,
            surroundings,
            heartbeat: HEARTBEAT,
            limits: server::Limits::default(),
            trust_request_id: true,
            answer_keepalive: SILENCE,
            entropy,
            drain: drain.clone(),
            tenant: Tenant::default(),
        });
        Ok(Served { engine, router, drain })
    }

    /// Who lives or is being started.
    fn lives(&self) -> impl Iterator<Item = Arc<Mortal>> {
        self.places.iter().filter_map(|place| lock(place).who.clone())
    }

    /// Nothing goes wrong from here on.
    pub(crate) fn calm_down(&self) {
        self.weather.calm_down();
        self.lives().for_each(|who| who.recover());
        self.trace.note(format_args!("all is calm"));
    }

    /// The power goes: all replicas die, the disk forgets what was not made durable, and coordination all that it knew.
    pub(crate) fn cut_power(&self) {
        for who in self.lives() {
            who.end();
        }
        let crash = match self.dice.below(4) {
            0 => Crash::ForgetAll,
            _ => Crash::Some(self.dice.bits()),
        };
        let mut disk = lock(&self.disk);
        *disk = Medium::new(disk.disk.after(crash), &self.dice);
        drop(disk);
        self.holders.forget();
        self.chronicle.forget_fences();
        self.empty_coordination();
    }

    /// Coordination forgets all that it knew.
    pub(crate) fn empty_coordination(&self) {
        self.memory.forget_everything();
        self.chronicle.emptied();
    }

    /// Asks the replica at a place.
    pub(crate) async fn ask<T, Answer>(&self, place: usize, request: impl FnOnce(Replica) -> Answer) -> Result<T, Gone>
    where
        Answer: Future<Output = Result<T, Gone>> + Send,
    {
        let replica = self.replica(place).ok_or(Gone)?;
        match timeout(PATIENCE, on_strand(replica.who.clone(), request(replica))).await {
            Ok(Some(answer)) => answer,
            Ok(None) | Err(_) => Err(Gone),
        }
    }
}
