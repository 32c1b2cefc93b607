//! The log of events where it is away, and where it never rests: what was said meanwhile goes out afterwards, whole, in its order
//! and in batches that the log can take; who reads comes to an end.

#![allow(clippy::unwrap_used, reason = "a test may panic in its helpers, too")]

mod support;

use async_trait::async_trait;
use coordination::memory::Memory;
use coordination::{
    BatchNumber, CoordinationError, Cursor, Entry, EventLog, LogLimits, Ports, Read, ReplicaId, Result, Subscription,
};
use engine::{Accepted, Engine, NewSession, Parts, Prompt, Scope, SessionPatch, Settings};
use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use storage::{Durability, Store};
use support::{Scrambled, Wall};
use tokio::time::timeout;
use wire::clock::Entropy;
use wire::ids::IdSource;
use wire::part::{PartKind, TextPart};
use wire::permission::{Action, Reply, Rule};
use wire::tenant::Tenant;

const BOUND: Duration = Duration::from_secs(30);

/// A log that is away while `is_away` says so for batches in which `away_for` is said, and knows the batches that it took. Others
/// say more whenever it is read, if it `never_rests`.
struct Moody {
    inner: Arc<dyn EventLog>,
    is_away: AtomicBool,
    away_for: &'static str,
    batches: Mutex<Vec<Vec<Entry>>>,
    never_rests: bool,
    said: AtomicU64,
}

impl Moody {
    fn of(memory: &Memory, away_for: &'static str, never_rests: bool) -> Arc<Self> {
        let (inner, is_away, batches) = (memory.ports().events, AtomicBool::new(false), Mutex::default());
        Arc::new(Self { inner, is_away, away_for, batches, never_rests, said: AtomicU64::new(0) })
    }
}

#[async_trait]
impl EventLog for Moody {
    async fn publish(
        &self,
        tenant: &Tenant,
        replica: &ReplicaId,
        batch: BatchNumber,
        entries: &[Entry],
    ) -> Result<Vec<usize>> {
        let is_said = |entry: &Entry| String::from_utf8_lossy(&entry.body).contains(self.away_for);
        if self.is_away.load(Ordering::SeqCst) && entries.iter().any(is_said) {
            return Err(CoordinationError::Unavailable("away".into()));
        }
        self.batches.lock().unwrap().push(entries.to_vec());
        self.inner.publish(tenant, replica, batch, entries).await
    }

    async fn begin(&self, tenant: &Tenant) -> Result<()> {
        self.inner.begin(tenant).await
    }

    async fn newest(&self, tenant: &Tenant) -> Result<Option<Cursor>> {
        self.inner.newest(tenant).await
    }

    async fn read_after(&self, tenant: &Tenant, cursor: Option<&Cursor>, limit: usize) -> Result<Read> {
        if self.never_rests {
            let body = serde_json::json!({ "payload": { "id": "evt_1", "type": "said", "properties": {} } });
            let body = body.to_string().into();
            let entry = Entry { body, ..Entry::beginning() };
            let number = self.said.fetch_add(1, Ordering::SeqCst) + 1;
            self.inner.publish(tenant, &ReplicaId("other".into()), number, &[entry]).await?;
        }
        self.inner.read_after(tenant, cursor, limit).await
    }

    async fn forget_until(&self, tenant: &Tenant, cursor: &Cursor) -> Result<()> {
        self.inner.forget_until(tenant, cursor).await
    }

    async fn subscribe(&self, tenant: &Tenant) -> Result<Subscription> {
        self.inner.subscribe(tenant).await
    }
}

/// An engine whose events go to a log and come from it.
async fn engine(root: &Path, memory: &Memory, events: Arc<dyn EventLog>) -> Engine {
    engine_of(root, 7, memory, events).await
}

/// The same; `seed` sets its ids apart from those of others over the same store.
async fn engine_of(root: &Path, seed: u64, memory: &Memory, events: Arc<dyn EventLog>) -> Engine {
    let entropy: Arc<dyn Entropy> = Arc::new(Scrambled(AtomicU64::new(seed)));
    let demo = Arc::new(models::demo::Demo::new(Duration::ZERO));
    let env = HashMap::from([("HOME".to_owned(), root.to_string_lossy().into_owned())]);
    let tools = tools::ToolSettings::new("/bin/false".into(), root.join("out"), sandbox::ChildEnv::default());
    let settings = Settings {
        name: "one".into(),
        lease_ttl: Duration::from_secs(10),
        tick: Duration::from_millis(20),
        drain_deadline: BOUND,
        attempts: 3,
        queue_limit: 100,
        surroundings: agents::Surroundings::new(env, root.join("data"), true),
        tools: Arc::new(tools),
    };
    let parts = Parts {
        ports: Ports { events, ..memory.ports() },
        store: Store::open(root.join("data"), Durability::Os, entropy.clone()).unwrap(),
        ids: Arc::new(IdSource::new(Arc::new(Wall), entropy)),
        provider: demo.clone(),
        demo,
        tools: Arc::new(tools::Registry::builtin()),
        settings,
    };
    Engine::start(parts).await.unwrap()
}

fn memory() -> Memory {
    Memory::new(Arc::new(Scrambled(AtomicU64::new(1))), LogLimits::default())
}

#[tokio::test(flavor = "multi_thread")]
async fn large_events_that_waited_go_out_in_batches_of_a_megabyte() {
    let root = tempfile::tempdir().unwrap();
    let memory = memory();
    let log = Moody::of(&memory, "", false);
    let engine = engine(root.path(), &memory, log.clone()).await;
    let tenant = Tenant::default();
    let scope = Scope { tenant: tenant.clone(), directory: root.path().into() };
    let session = engine.create_session(&scope, NewSession::default(), None).await.unwrap().id;

    log.is_away.store(true, Ordering::SeqCst);
    let said: Vec<String> = (0..60).map(|number| format!("{number:02}").repeat(25_000)).collect();
    for title in &said {
        let patch = SessionPatch { title: Some(title.clone()), ..SessionPatch::default() };
        engine.patch_session(&tenant, &session, patch, None).await.unwrap();
    }
    log.is_away.store(false, Ordering::SeqCst);
    let told = timeout(BOUND, async {
        loop {
            let told = log.batches.lock().unwrap().concat();
            let titles: Vec<String> = told.iter().filter_map(title).collect();
            if titles.last() == said.last() {
                return titles;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    let told = told.await.unwrap();
    assert!(told.ends_with(&said), "not all of it, or not in its order");
    let bytes = |batch: &Vec<Entry>| batch.iter().map(|entry| entry.body.len()).sum::<usize>();
    let largest = log.batches.lock().unwrap().iter().map(bytes).max();
    assert!(largest <= Some(1 << 20), "{largest:?}");
    engine.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_never_rests_is_read_to_where_it_ended() {
    let root = tempfile::tempdir().unwrap();
    let memory = memory();
    let engine = engine(root.path(), &memory, Moody::of(&memory, "", true)).await;
    let reader = timeout(BOUND, engine.follow(&Tenant::default(), engine::From::Now)).await;
    assert!(reader.is_ok_and(|reader| reader.is_ok()), "it reads on and on");
    engine.stop().await;
}

/// What was told before it was emptied, and had yet to arrive here, is told by nobody.
#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_is_emptied_before_anything_is_told_in_it_cuts_its_readers() {
    let root = tempfile::tempdir().unwrap();
    let (memory, tenant) = (memory(), Tenant::default());
    let events = memory.ports().events;
    let engine = engine(root.path(), &memory, events.clone()).await;
    let mut reader = engine.follow(&tenant, engine::From::Now).await.unwrap();
    memory.forget_everything();
    let body = serde_json::json!({ "payload": { "id": "evt_1", "type": "said", "properties": {} } });
    let entry = Entry { body: body.to_string().into(), ..Entry::beginning() };
    events.publish(&tenant, &ReplicaId("other".into()), 1, &[entry]).await.unwrap();
    let told = timeout(BOUND, reader.next()).await.unwrap();
    assert!(told.is_none(), "it goes on as if nothing was missing");
    engine.stop().await;
}

/// The kinds of the events of asks that are told, in their order.
async fn told_of_asks(memory: &Memory) -> Vec<String> {
    let read = memory.ports().events.read_after(&Tenant::default(), None, 10_000).await.unwrap();
    let Read::Entries(entries) = read else { panic!("the log has no beginning") };
    let kind = |body: &[u8]| {
        let event: serde_json::Value = serde_json::from_slice(body).ok()?;
        Some(event["payload"]["type"].as_str()?.to_owned())
    };
    let kinds = entries.iter().filter_map(|(_, body)| kind(body));
    kinds.filter(|kind| kind.starts_with("permission.")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reply_that_is_told_before_its_ask_is_told_again_behind_it() {
    let root = tempfile::tempdir().unwrap();
    let (memory, tenant) = (memory(), Tenant::default());
    let log = Moody::of(&memory, "permission.asked", false);
    let asking = engine(root.path(), &memory, log.clone()).await;
    let replying = engine_of(root.path(), 11, &memory, memory.ports().events).await;
    let scope = Scope { tenant: tenant.clone(), directory: root.path().into() };
    let asks = Some(vec![Rule::new("bash", "*", Action::Ask)]);
    let new = NewSession { title: Some("titled".into()), permission: asks, ..NewSession::default() };
    let session = asking.create_session(&scope, new, None).await.unwrap().id;

    log.is_away.store(true, Ordering::SeqCst);
    let part = TextPart { text: "run echo works".into(), ..TextPart::default() };
    let parts = vec![(None, PartKind::Text(part))];
    let prompt = Prompt { parts, body_hash: "run".into(), ..Prompt::default() };
    let Accepted::Ticket(ticket) = asking.prompt(&tenant, &session, prompt).await.unwrap() else {
        panic!("a prompt takes a ticket")
    };
    let asked = timeout(BOUND, async {
        loop {
            if let Some(asked) = replying.permissions(&scope).await.unwrap().pop() {
                return asked.id;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    replying.reply_permission(&tenant, &asked.await.unwrap(), Reply::Once, None, None).await.unwrap();
    let answered = async {
        // The run has the reply long before the log takes the ask.
        asking.wait(&ticket).await.unwrap();
        log.is_away.store(false, Ordering::SeqCst);
        while told_of_asks(&memory).await.len() < 3 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(BOUND, answered).await.unwrap();
    assert_eq!(told_of_asks(&memory).await, ["permission.replied", "permission.asked", "permission.replied"]);
    asking.stop().await;
    replying.stop().await;
}

/// The title of the session that an event tells.
fn title(entry: &Entry) -> Option<String> {
    let event: serde_json::Value = serde_json::from_slice(&entry.body).ok()?;
    Some(event["payload"]["properties"]["info"]["title"].as_str()?.to_owned())
}
