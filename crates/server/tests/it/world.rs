//! A server in this process, and requests to it.

use axum::Router;
use axum::body::Body;
use engine::{Engine, Parts, Settings};
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::BodyExt;
use serde_json::Value;
use server::{App, Credentials, Limits};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use storage::{Durability, Store};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;
use wire::clock::{Clock, Entropy};
use wire::ids::IdSource;
use wire::tenant::Tenant;

/// How long anything may take.
pub const SOON: Duration = Duration::from_secs(20);

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

pub struct World {
    pub root: TempDir,
    pub app: App,
}

/// An answer, read whole.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&self.body)))
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }
}

impl World {
    pub async fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let entropy: Arc<dyn Entropy> = Arc::new(Scrambled(AtomicU64::new(7)));
        let env = HashMap::from([("HOME".to_owned(), root.path().to_string_lossy().into_owned())]);
        let surroundings = agents::Surroundings::new(env, root.path().join("data"), true);
        let demo: Arc<dyn models::Provider> = Arc::new(models::demo::Demo::new(Duration::ZERO));
        let output = root.path().join("out");
        let engine = Engine::start(Parts {
            ports: coordination::memory::ports(entropy.clone()),
            store: Store::open(root.path().join("data"), Durability::Os, entropy.clone()).unwrap(),
            ids: Arc::new(IdSource::new(Arc::new(Wall), entropy.clone())),
            provider: demo.clone(),
            demo,
            tools: Arc::new(tools::Registry::builtin()),
            settings: Settings {
                name: "test".into(),
                lease_ttl: Duration::from_secs(10),
                tick: Duration::from_secs(1),
                drain_deadline: Duration::from_secs(5),
                attempts: 3,
                queue_limit: 100,
                surroundings: surroundings.clone(),
                tools: Arc::new(tools::ToolSettings::new("/bin/false".into(), output, sandbox::ChildEnv::default())),
            },
        })
        .await
        .unwrap();
        std::fs::create_dir(root.path().join("ws")).unwrap();
        let app = App {
            engine,
            auth: None,
            cors: vec!["https://example.org".into()],
            default_directory: root.path().join("ws"),
            surroundings,
            heartbeat: Duration::from_millis(50),
            limits: Limits::default(),
            trust_request_id: false,
            answer_keepalive: Duration::from_secs(45),
            entropy,
            drain: CancellationToken::new(),
            tenant: Tenant::default(),
        };
        Self { root, app }
    }

    pub fn with_password(mut self) -> Self {
        self.app.auth = Some(Credentials { username: "opencode".into(), password: "sekret".into() });
        self
    }

    pub fn router(&self) -> Router {
        server::router(self.app.clone())
    }

    pub async fn send(&self, request: Request<Body>) -> Response<Body> {
        tokio::time::timeout(SOON, self.router().oneshot(request)).await.unwrap().unwrap()
    }

    pub async fn ask(&self, request: Request<Body>) -> Answer {
        read(self.send(request).await).await
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.ask(Request::get(path).body(Body::empty()).unwrap()).await
    }

    pub async fn post(&self, path: &str, body: Value) -> Answer {
        self.with_body("POST", path, &body.to_string()).await
    }

    pub async fn with_body(&self, method: &str, path: &str, body: &str) -> Answer {
        let request = Request::builder().method(method).uri(path).header("content-type", "application/json");
        self.ask(request.body(body.to_owned().into()).unwrap()).await
    }

    /// A new session's id.
    pub async fn session(&self) -> String {
        let answer = self.post("/session", serde_json::json!({ "title": "t" })).await;
        assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
        answer.json()["id"].as_str().unwrap().to_owned()
    }
}

pub async fn read(response: Response<Body>) -> Answer {
    let (head, body) = response.into_parts();
    let body = tokio::time::timeout(SOON, body.collect()).await.unwrap().unwrap();
    Answer { status: head.status.as_u16(), headers: head.headers, body: body.to_bytes().to_vec() }
}
