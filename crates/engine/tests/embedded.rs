//! The engine on the in-process coordination backend and the demo provider: a prompt from end to end.

#![allow(clippy::unwrap_used, reason = "a test may panic in its helpers, too")]

mod support;

use async_trait::async_trait;
use coordination::{Appended, BatchNumber, Cursor, Entry, EventLog, Read, ReplicaId, Subscription};
use engine::{Accepted, Engine, From, NewSession, Parts, Prompt, Scope, Settings};
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use storage::{Durability, Store};
use support::{Scrambled, Wall};
use tokio::sync::{Notify, mpsc};
use wire::clock::Entropy;
use wire::ids::IdSource;
use wire::message::Message;
use wire::part::{PartKind, TextPart};
use wire::tenant::Tenant;

async fn engine(root: &std::path::Path, around_log: impl FnOnce(Arc<dyn EventLog>) -> Arc<dyn EventLog>) -> Engine {
    let entropy: Arc<dyn Entropy> = Arc::new(Scrambled(AtomicU64::new(7)));
    let ids = Arc::new(IdSource::new(Arc::new(Wall), entropy.clone()));
    let store = Store::open(root.join("data"), Durability::Os, entropy.clone()).unwrap();
    let env = HashMap::from([("HOME".to_owned(), root.to_string_lossy().into_owned())]);
    let tools = tools::ToolSettings::new("/bin/false".into(), root.join("out"), sandbox::ChildEnv::default());
    let demo: Arc<dyn models::Provider> = Arc::new(models::demo::Demo::new(Duration::ZERO));
    let settings = Settings {
        name: "test".into(),
        lease_ttl: Duration::from_secs(10),
        tick: Duration::from_secs(1),
        drain_deadline: Duration::from_secs(5),
        attempts: 3,
        queue_limit: 100,
        surroundings: agents::Surroundings::new(env, root.join("data"), true),
        tools: Arc::new(tools),
    };
    let mut ports = coordination::memory::ports(entropy);
    ports.events = around_log(ports.events);
    let parts = Parts {
        ports,
        store,
        ids,
        provider: demo.clone(),
        demo,
        tools: Arc::new(tools::Registry::builtin()),
        settings,
    };
    Engine::start(parts).await.unwrap()
}

fn text(text: &str) -> Prompt {
    let text = TextPart { text: text.into(), ..TextPart::default() };
    Prompt { parts: vec![(None, PartKind::Text(text))], ..Prompt::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prompt_is_answered_and_its_events_are_in_order() {
    let root = tempfile::tempdir().unwrap();
    let engine = engine(root.path(), |log| log).await;
    let scope = Scope { tenant: Tenant::default(), directory: root.path().into() };
    let mut events = engine.follow(&scope.tenant, From::Now).await.unwrap();
    let session = engine.create_session(&scope, NewSession::default(), None).await.unwrap();
    let Accepted::Ticket(ticket) = engine.prompt(&scope.tenant, &session.id, text("hello there")).await.unwrap() else {
        panic!("a prompt takes a ticket")
    };
    let answer = tokio::time::timeout(Duration::from_secs(10), engine.wait(&ticket)).await.unwrap().unwrap();
    let Message::Assistant(info) = &answer.info else { panic!("{answer:?}") };
    assert_eq!(info.finish.as_deref(), Some("stop"));
    assert!(answer.parts.iter().any(|part| part.text().is_some_and(|text| text.text.contains("hello there"))));
    let mut kinds = Vec::new();
    loop {
        let item = tokio::time::timeout(Duration::from_secs(5), events.next()).await.unwrap().unwrap();
        let event: wire::event::Event = serde_json::from_slice(&item.payload).unwrap();
        let is_last = event.kind == "session.idle";
        if event.kind != "message.part.delta" {
            kinds.push(event.kind);
        }
        if is_last {
            break;
        }
    }
    let about_run: Vec<&str> =
        kinds.iter().map(String::as_str).filter(|kind| !kind.starts_with("session.updated")).collect();
    assert_eq!(
        about_run,
        [
            "session.created",
            "message.updated",
            "message.part.updated",
            "session.status",
            "message.updated",
            "session.diff",
            "message.updated",
            "session.status",
            "message.part.updated",
            "message.part.updated",
            "message.part.updated",
            "message.part.updated",
            "message.updated",
            "message.updated",
            "session.status",
            "session.status",
            "session.idle",
        ]
    );
    assert!(engine.statuses(&scope).await.unwrap().is_empty());
    engine.drain().await;
    engine.stop().await;
}

/// A log that went back, and that another replica is about to forget what it shares with its readers of: no cursor of
/// theirs is found, but old entries are there to be read.
struct WentBack {
    log: Arc<dyn EventLog>,
    is_back: AtomicBool,
    /// Told when its beginning is read, which waits until it may go on.
    reads: Notify,
    may_read: Notify,
    subscriber: Mutex<Option<mpsc::Sender<Appended>>>,
}

#[async_trait]
impl EventLog for WentBack {
    async fn publish(
        &self,
        tenant: &Tenant,
        replica: &ReplicaId,
        batch: BatchNumber,
        entries: &[Entry],
    ) -> coordination::Result<Vec<usize>> {
        self.log.publish(tenant, replica, batch, entries).await
    }

    async fn begin(&self, tenant: &Tenant) -> coordination::Result<()> {
        self.log.begin(tenant).await
    }

    async fn newest(&self, tenant: &Tenant) -> coordination::Result<Option<Cursor>> {
        self.log.newest(tenant).await
    }

    async fn read_after(&self, tenant: &Tenant, cursor: Option<&Cursor>, limit: usize) -> coordination::Result<Read> {
        if self.is_back.load(Ordering::Acquire) {
            if cursor.is_some() {
                return Ok(Read::Reset);
            }
            self.reads.notify_one();
            self.may_read.notified().await;
            self.is_back.store(false, Ordering::Release);
        }
        self.log.read_after(tenant, cursor, limit).await
    }

    async fn forget_until(&self, tenant: &Tenant, cursor: &Cursor) -> coordination::Result<()> {
        self.log.forget_until(tenant, cursor).await
    }

    async fn subscribe(&self, tenant: &Tenant) -> coordination::Result<Subscription> {
        let mut appended = self.log.subscribe(tenant).await?;
        let (sender, receiver) = mpsc::channel(64);
        *self.subscriber.lock().unwrap() = Some(sender.clone());
        tokio::spawn(async move {
            while let Some(appended) = appended.recv().await {
                let _ = sender.send(appended).await;
            }
        });
        Ok(receiver)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_shown_before_the_log_went_back_is_not_told_again() {
    let root = tempfile::tempdir().unwrap();
    let mut log = None;
    let wrap = |inner| {
        let (is_back, reads, may_read) = (AtomicBool::new(false), Notify::new(), Notify::new());
        let wrapped = Arc::new(WentBack { log: inner, is_back, reads, may_read, subscriber: Mutex::default() });
        log = Some(wrapped.clone());
        wrapped as Arc<dyn EventLog>
    };
    let engine = engine(root.path(), wrap).await;
    let log = log.unwrap();
    let scope = Scope { tenant: Tenant::default(), directory: root.path().into() };
    let mut before = engine.follow(&scope.tenant, From::Now).await.unwrap();
    let make = async || engine.create_session(&scope, NewSession::default(), None).await.unwrap().id;
    let within = Duration::from_secs(10);
    let first = make().await;
    let shown = tokio::time::timeout(within, before.next()).await.unwrap().unwrap();
    assert_eq!(shown.session.as_ref(), Some(&first));

    log.is_back.store(true, Ordering::Release);
    let strange = Appended { previous: Some(Cursor("strange".into())), entries: Vec::new() };
    let subscriber = log.subscriber.lock().unwrap().clone().unwrap();
    subscriber.send(strange).await.unwrap();
    tokio::time::timeout(within, log.reads.notified()).await.unwrap();
    assert!(tokio::time::timeout(within, before.next()).await.unwrap().is_none(), "readers are cut");
    log.is_back.store(false, Ordering::Release);
    log.may_read.notify_one();
    let mut healed = engine.follow(&scope.tenant, From::Heal).await.unwrap();
    let second = make().await;
    let told = tokio::time::timeout(within, healed.next()).await.unwrap().unwrap();
    assert_eq!(told.session.as_ref(), Some(&second), "the first was shown before");
    engine.drain().await;
    engine.stop().await;
}
