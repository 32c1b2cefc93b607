//! What is not adopted: a run that was handed over, or has given its lease back, though the answer to that was lost; one whose
//! guard was taken while it was cut off. Two engines over one store and one in-process backend.

#![allow(clippy::unwrap_used, reason = "a test may panic in its helpers, too")]

mod support;

use async_trait::async_trait;
use coordination::memory::Memory;
use coordination::{
    Adopted, Attempt, Born, CoordinationError, Enter, Entered, Entry, Former, Leases, LogLimits, Ports, Read, Registry,
    Released, ReplicaId, Result, SessionKey, Signal, Tick, Ticked,
};
use engine::{Accepted, Engine, NewSession, Parts, Prompt, Scope, Settings, TicketRef};
use models::{ChatRequest, ModelError, ModelStream, Provider};
use run_protocol::Fence;
use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use storage::{Durability, Store};
use support::{Scrambled, Wall};
use tokio::sync::mpsc;
use tokio::time::timeout;
use wire::clock::Entropy;
use wire::ids::{IdSource, SessionId};
use wire::part::{PartKind, TextPart};
use wire::tenant::Tenant;

const BOUND: Duration = Duration::from_secs(30);
const TICK: Duration = Duration::from_millis(20);

/// Leases whose answers to what gives one away are lost while `loses` says so, and that cannot be adopted for so many wishes.
/// They count how often one was given away, and how often one was adopted since.
struct Lossy {
    inner: Arc<dyn Leases>,
    loses: AtomicBool,
    refuses: AtomicUsize,
    given: AtomicUsize,
    adopted: AtomicUsize,
}

impl Lossy {
    fn lost<T>(&self, answer: Result<T>) -> Result<T> {
        self.given.fetch_add(1, Ordering::SeqCst);
        match self.loses.load(Ordering::SeqCst) {
            true => Err(CoordinationError::Unavailable("the answer was lost".into())),
            false => answer,
        }
    }
}

#[async_trait]
impl Leases for Lossy {
    async fn enter(&self, enter: &Enter) -> Result<Entered> {
        self.inner.enter(enter).await
    }

    async fn confirm(&self, key: &SessionKey, attempt: &Attempt) -> Result<bool> {
        self.inner.confirm(key, attempt).await
    }

    async fn begin(&self, key: &SessionKey, attempt: &Attempt, fence: Fence, events: &[Entry]) -> Result<bool> {
        self.inner.begin(key, attempt, fence, events).await
    }

    async fn release(&self, key: &SessionKey, attempt: &Attempt, seen: u64, events: &[Entry]) -> Result<Released> {
        let answer = self.inner.release(key, attempt, seen, events).await;
        self.lost(answer)
    }

    async fn hand_over(&self, key: &SessionKey, attempt: &Attempt, delay_ms: u64, failed: bool) -> Result<()> {
        let answer = self.inner.hand_over(key, attempt, delay_ms, failed).await;
        self.lost(answer)
    }

    async fn former(&self, key: &SessionKey) -> Result<Former> {
        self.inner.former(key).await
    }

    async fn adopt(&self, key: &SessionKey, replica: &ReplicaId, attempt: &Attempt, fence: Fence) -> Result<Adopted> {
        let refuses = self.refuses.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok();
        if refuses {
            return Err(CoordinationError::Unavailable("it was not answered".into()));
        }
        if self.given.load(Ordering::SeqCst) > 0 {
            self.adopted.fetch_add(1, Ordering::SeqCst);
        }
        self.inner.adopt(key, replica, attempt, fence).await
    }

    async fn claim(&self, id: &ReplicaId, born: &Born, attempts: &[Attempt]) -> Result<Vec<(SessionKey, Attempt)>> {
        self.inner.claim(id, born, attempts).await
    }

    async fn ensure_due(&self, key: &SessionKey, born: &Born) -> Result<bool> {
        self.inner.ensure_due(key, born).await
    }

    async fn poke(&self, key: &SessionKey, abort: bool) -> Result<()> {
        self.inner.poke(key, abort).await
    }

    async fn forget(&self, key: &SessionKey) -> Result<()> {
        self.inner.forget(key).await
    }

    async fn append_if_idle(&self, key: &SessionKey, events: &[Entry]) -> Result<()> {
        self.inner.append_if_idle(key, events).await
    }

    async fn statuses(&self, tenant: &Tenant) -> Result<HashMap<SessionId, String>> {
        self.inner.statuses(tenant).await
    }

    async fn attempt_of(&self, key: &SessionKey) -> Result<Option<Attempt>> {
        self.inner.attempt_of(key).await
    }
}

/// A registry that a replica can be cut off from.
struct CutOff {
    inner: Arc<dyn Registry>,
    is_cut: AtomicBool,
    joined: AtomicUsize,
    /// Its name and its newest beat.
    newest: Mutex<Option<(ReplicaId, u64)>>,
}

#[async_trait]
impl Registry for CutOff {
    async fn join(&self, replica: &ReplicaId, proposal: &Born) -> Result<Born> {
        self.joined.fetch_add(1, Ordering::SeqCst);
        *self.newest.lock().unwrap() = None;
        self.inner.join(replica, proposal).await
    }

    async fn set_trial(&self, replica: &ReplicaId, run: Option<&SessionKey>) -> Result<()> {
        self.inner.set_trial(replica, run).await
    }

    async fn tick(&self, tick: &Tick) -> Result<Ticked> {
        if self.is_cut.load(Ordering::SeqCst) {
            return Err(CoordinationError::Unavailable("cut off".into()));
        }
        let ticked = self.inner.tick(tick).await;
        if let Ok(Ticked::Alive { beats, .. }) = &ticked {
            *self.newest.lock().unwrap() = Some((tick.replica.clone(), beats[&tick.replica]));
        }
        ticked
    }

    async fn bury(&self, replica: &ReplicaId, beat: u64) -> Result<Option<u64>> {
        self.inner.bury(replica, beat).await
    }

    async fn owned(&self, replica: &ReplicaId) -> Result<Vec<SessionKey>> {
        self.inner.owned(replica).await
    }

    async fn is_reachable(&self, replica: &ReplicaId) -> Result<bool> {
        self.inner.is_reachable(replica).await
    }

    async fn listen(&self, replica: &ReplicaId) -> Result<mpsc::Receiver<Signal>> {
        self.inner.listen(replica).await
    }

    async fn ping(&self) -> Result<()> {
        self.inner.ping().await
    }
}

/// A model that is asked and says nothing.
#[derive(Default)]
struct Silent(AtomicBool);

#[async_trait]
impl Provider for Silent {
    async fn stream(&self, _: ChatRequest) -> std::result::Result<ModelStream, ModelError> {
        self.0.store(true, Ordering::SeqCst);
        std::future::pending().await
    }
}

fn demo() -> Arc<dyn Provider> {
    Arc::new(models::demo::Demo::new(Duration::from_millis(20)))
}

async fn engine(root: &Path, name: &str, seed: u64, ports: Ports, demo: Arc<dyn Provider>) -> Engine {
    let entropy: Arc<dyn Entropy> = Arc::new(Scrambled(AtomicU64::new(seed)));
    let ids = Arc::new(IdSource::new(Arc::new(Wall), entropy.clone()));
    let store = Store::open(root.join("data"), Durability::Os, entropy).unwrap();
    let env = HashMap::from([("HOME".to_owned(), root.to_string_lossy().into_owned())]);
    let tools = tools::ToolSettings::new("/bin/false".into(), root.join("out"), sandbox::ChildEnv::default());
    let settings = Settings {
        name: name.into(),
        lease_ttl: Duration::from_secs(10),
        tick: TICK,
        drain_deadline: BOUND,
        attempts: 3,
        queue_limit: 100,
        surroundings: agents::Surroundings::new(env, root.join("data"), true),
        tools: Arc::new(tools),
    };
    let tools = Arc::new(tools::Registry::builtin());
    Engine::start(Parts { ports, store, ids, provider: demo.clone(), demo, tools, settings }).await.unwrap()
}

/// Two engines, the first of which may lose answers, and a session.
async fn fleet(root: &Path) -> (Engine, Engine, Arc<Lossy>, Memory, SessionId) {
    let memory = Memory::new(Arc::new(Scrambled(AtomicU64::new(1))), LogLimits::default());
    let inner = memory.ports().leases;
    let (loses, given, adopted) = (AtomicBool::new(false), AtomicUsize::new(0), AtomicUsize::new(0));
    let lossy = Arc::new(Lossy { inner, loses, refuses: AtomicUsize::new(0), given, adopted });
    let first = engine(root, "first", 7, Ports { leases: lossy.clone(), ..memory.ports() }, demo()).await;
    let second = engine(root, "second", 11, memory.ports(), demo()).await;
    let session = new_session(&first, root).await;
    (first, second, lossy, memory, session)
}

async fn new_session(engine: &Engine, root: &Path) -> SessionId {
    let scope = Scope { tenant: Tenant::default(), directory: root.into() };
    let new = NewSession { title: Some("titled".into()), ..NewSession::default() };
    engine.create_session(&scope, new, None).await.unwrap().id
}

/// Waits until something is so.
async fn until(is_so: impl AsyncFn() -> bool) {
    timeout(BOUND, async {
        while !is_so().await {
            tokio::time::sleep(TICK / 4).await;
        }
    })
    .await
    .unwrap();
}

async fn prompt(engine: &Engine, session: &SessionId, text: &str) -> TicketRef {
    let text = TextPart { text: text.into(), ..TextPart::default() };
    let prompt = Prompt { parts: vec![(None, PartKind::Text(text))], ..Prompt::default() };
    match engine.prompt(&Tenant::default(), session, prompt).await.unwrap() {
        Accepted::Ticket(ticket) => ticket,
        Accepted::Stored(_) => panic!("a prompt takes a ticket"),
    }
}

/// Waits until a lease was given away, and for some beats of whoever gave it, which see that it owns less than it runs.
async fn given_away(lossy: &Lossy) {
    until(async || lossy.given.load(Ordering::SeqCst) > 0).await;
    tokio::time::sleep(TICK * 10).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_was_handed_over_is_not_adopted_back_though_the_answer_was_lost() {
    let root = tempfile::tempdir().unwrap();
    let (first, second, lossy, _memory, session) = fleet(root.path()).await;
    let _answered_first = prompt(&first, &session, "one").await;
    let queued = prompt(&first, &session, "two").await;
    lossy.loses.store(true, Ordering::SeqCst);
    let drained = tokio::spawn({
        let first = first.clone();
        async move { first.drain().await }
    });
    given_away(&lossy).await;
    assert_eq!(lossy.adopted.load(Ordering::SeqCst), 0, "it took back what it gave");
    // The other one goes on meanwhile.
    let answer = timeout(BOUND, second.wait(&queued)).await.unwrap().unwrap();
    assert!(answer.parts.iter().any(|part| part.text().is_some_and(|text| text.text.contains("two"))), "{answer:?}");
    lossy.loses.store(false, Ordering::SeqCst);
    timeout(BOUND, drained).await.unwrap().unwrap();
    assert_eq!(lossy.adopted.load(Ordering::SeqCst), 0, "it took back what it gave");
    first.stop().await;
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_that_was_given_back_is_not_adopted_again_though_the_answer_was_lost() {
    let root = tempfile::tempdir().unwrap();
    let (first, second, lossy, memory, session) = fleet(root.path()).await;
    lossy.loses.store(true, Ordering::SeqCst);
    let ticket = prompt(&first, &session, "one").await;
    given_away(&lossy).await;
    assert_eq!(lossy.adopted.load(Ordering::SeqCst), 0, "it took back what it gave");
    timeout(BOUND, second.wait(&ticket)).await.unwrap().unwrap();
    lossy.loses.store(false, Ordering::SeqCst);
    first.drain().await;
    let key = SessionKey::new(Tenant::default(), session);
    assert_eq!(memory.ports().leases.attempt_of(&key).await.unwrap(), None, "nobody owns what is done");
    assert_eq!(lossy.adopted.load(Ordering::SeqCst), 0, "it took back what it gave");
    first.stop().await;
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_whose_guard_was_taken_while_it_was_cut_off_does_not_take_its_lease_back() {
    let root = tempfile::tempdir().unwrap();
    let memory = Memory::new(Arc::new(Scrambled(AtomicU64::new(1))), LogLimits::default());
    let (inner, is_cut, joined) = (memory.ports().registry, AtomicBool::new(false), AtomicUsize::new(0));
    let registry = Arc::new(CutOff { inner, is_cut, joined, newest: Mutex::new(None) });
    let silent = Arc::new(Silent::default());
    let ports = Ports { registry: registry.clone(), ..memory.ports() };
    let first = engine(root.path(), "first", 7, ports, silent.clone()).await;
    let second = engine(root.path(), "second", 11, memory.ports(), demo()).await;
    let session = new_session(&first, root.path()).await;
    let key = SessionKey::new(Tenant::default(), session.clone());
    let ticket = prompt(&first, &session, "one").await;
    until(async || silent.0.load(Ordering::SeqCst) && registry.newest.lock().unwrap().is_some()).await;
    registry.is_cut.store(true, Ordering::SeqCst);
    until(async || {
        let newest = registry.newest.lock().unwrap().clone();
        let (replica, beat) = newest.unwrap();
        memory.ports().registry.bury(&replica, beat).await.unwrap().is_some()
    })
    .await;
    // All is done elsewhere meanwhile, and the lease is given back.
    timeout(BOUND, second.wait(&ticket)).await.unwrap().unwrap();
    until(async || memory.ports().leases.attempt_of(&key).await.unwrap().is_none()).await;
    registry.is_cut.store(false, Ordering::SeqCst);
    // It joins again, and beats once it has taken back what it takes back.
    until(async || registry.joined.load(Ordering::SeqCst) == 2 && registry.newest.lock().unwrap().is_some()).await;
    assert_eq!(memory.ports().leases.attempt_of(&key).await.unwrap(), None, "it took back what another has done");
    first.drain().await;
    first.stop().await;
    second.stop().await;
}

/// What the log says of one kind of event.
async fn told(memory: &Memory, kind: &str) -> Vec<serde_json::Value> {
    let Ok(Read::Entries(entries)) = memory.ports().events.read_after(&Tenant::default(), None, 10_000).await else {
        panic!("the log begins somewhere")
    };
    let events = entries.iter().map(|(_, body)| serde_json::from_slice::<serde_json::Value>(body).unwrap());
    events.map(|event| event["payload"].clone()).filter(|event| event["type"] == kind).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_run_tells_waits_for_a_lease_that_cannot_be_taken_back_at_once() {
    let root = tempfile::tempdir().unwrap();
    let (first, second, lossy, memory, session) = fleet(root.path()).await;
    // The other one would take up what has no lease.
    second.stop().await;
    let ticket = prompt(&first, &session, &"some words that take a while ".repeat(20)).await;
    // By then its sweep at the start, which would give the session another lease, is long over.
    until(async || told(&memory, "message.part.delta").await.len() > 30).await;
    lossy.refuses.store(4, Ordering::SeqCst);
    memory.ports().leases.forget(&SessionKey::new(Tenant::default(), session.clone())).await.unwrap();
    // Nobody waits for the answer meanwhile: who does asks for a lease that is missing.
    until(async || !told(&memory, "session.idle").await.is_empty()).await;
    let answer = timeout(BOUND, first.wait(&ticket)).await.unwrap().unwrap();
    let text: String = answer.parts.iter().filter_map(|part| part.text()).map(|text| text.text.as_str()).collect();
    assert_eq!(lossy.refuses.load(Ordering::SeqCst), 0, "nobody wanted it back");
    let deltas = told(&memory, "message.part.delta").await;
    let deltas: String = deltas.iter().filter_map(|event| event["properties"]["delta"].as_str()).collect();
    assert_eq!(deltas, text);
    first.stop().await;
}
