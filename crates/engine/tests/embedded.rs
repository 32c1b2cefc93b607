//! The engine on the in-process coordination backend and the demo provider: a prompt from end to end.

#![allow(clippy::unwrap_used, reason = "a test may panic in its helpers, too")]

use engine::{Accepted, Engine, From, NewSession, Parts, Prompt, Scope, Settings};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use storage::{Durability, Store};
use wire::clock::{Clock, Entropy};
use wire::ids::IdSource;
use wire::message::Message;
use wire::part::{PartKind, TextPart};
use wire::tenant::Tenant;

struct Wall;
impl Clock for Wall {
    fn now_ms(&self) -> u64 {
        SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64
    }
}

/// Counts and scrambles: good enough for names in one process.
struct Scrambled(AtomicU64);
impl Entropy for Scrambled {
    fn bits(&self) -> u64 {
        self.0.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed).wrapping_mul(0xbf58_476d_1ce4_e5b9)
    }
}

async fn engine(root: &std::path::Path) -> Engine {
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
    let ports = coordination::memory::ports(entropy);
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
    let engine = engine(root.path()).await;
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
