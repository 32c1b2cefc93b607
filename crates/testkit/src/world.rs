//! A whole world: a scripted model, Redis, replicas over one data directory, a git work tree with a configuration.

pub use crate::client::base64;
pub use crate::work_tree::config;

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use crate::client::{Client, basic, encoded};
use crate::contract::Contract;
use crate::counting::{CountingProxy, Counts};
use crate::events::EventReader;
use crate::haproxy::Haproxy;
use crate::leftovers::{processes_in, still_in};
use crate::model::ScriptedModel;
use crate::nginx::Nginx;
use crate::proxy::CuttingProxy;
use crate::redis::RedisServer;
use crate::replica::{Replica, ReplicaSpec};
use crate::work_tree::work_tree;

/// How long a tool may outlive the replicas that were killed.
const TOOLS_END_WITHIN: Duration = Duration::from_secs(5);

/// In which form the suite runs: `FLOTILLA_TEST_MODE` is `embedded`, `one` or `three` (the default).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// One replica on the in-process coordination, without Redis.
    Embedded,
    /// One replica on Redis.
    OneReplica,
    /// Three replicas on Redis; each request goes to the next.
    ThreeReplicas,
}

impl Mode {
    /// The mode that the environment asks for.
    ///
    /// # Panics
    /// When the variable has another value.
    pub fn from_env() -> Self {
        match std::env::var("FLOTILLA_TEST_MODE").as_deref() {
            Ok("embedded") => Self::Embedded,
            Ok("one") => Self::OneReplica,
            Ok("three") | Err(_) => Self::ThreeReplicas,
            Ok(other) => panic!("FLOTILLA_TEST_MODE is {other:?}: embedded, one or three"),
        }
    }

    /// Whether there are three replicas. Says that the test is skipped if not.
    pub fn is_fleet_or_skip() -> bool {
        let fleet = Self::from_env() == Self::ThreeReplicas;
        if !fleet {
            eprintln!("skipped: this test needs three replicas");
        }
        fleet
    }

    fn replicas(self) -> usize {
        if self == Self::ThreeReplicas { 3 } else { 1 }
    }
}

/// What differs from the ordinary world.
#[derive(Debug, Clone, Default)]
pub struct WorldSpec {
    /// Laid over the ordinary `opencode.json`, object by object.
    pub config: Value,
    /// More files of the work tree: path and text.
    pub files: Vec<(String, String)>,
    /// More arguments of each replica.
    pub args: Vec<String>,
    /// More environment of each replica.
    pub env: Vec<(String, String)>,
    /// The password of the replicas, which the world's clients send.
    pub password: Option<String>,
    /// More arguments of the first, second and third replica.
    pub own_args: Vec<Vec<String>>,
    /// What starts the first, second and third replica: see [`ReplicaSpec::wrapper`].
    pub wrappers: Vec<Vec<String>>,
    /// Whether replicas may be killed or stopped at failpoints.
    pub failpoints: bool,
    /// How many Redis servers beside the first keep the locks (`--lock-url`); none: the first keeps them.
    pub lock_servers: usize,
    /// Whether each replica reaches Redis by a proxy of its own, and all of them the model by another.
    pub proxied: bool,
    /// Whether what the replicas ask of Redis is counted.
    pub counted: bool,
    /// Whether Redis keeps its data when it is killed and started again.
    pub redis_keeps: bool,
    /// The address of a Redis that the test has started by itself; then the world starts none.
    pub redis_url: Option<String>,
    /// Whether clients may be told what OpenCode's document does not know: what a later version added.
    pub beyond_contract: bool,
}

/// A running world. Dropping it kills the replicas, checks that no tool outlives them, that the model was asked
/// rightly, and that all that clients were told is as OpenCode's document says.
pub struct World {
    // Replicas go before what they talk to, so that no death looks like a fault.
    replicas: Vec<Replica>,
    proxies: Vec<CuttingProxy>,
    model_proxy: Option<CuttingProxy>,
    counter: Option<CountingProxy>,
    redis: Option<RedisServer>,
    lock_servers: Vec<RedisServer>,
    /// The model that the configuration names `fake/m`, and `fake/small` for titles.
    pub model: ScriptedModel,
    mode: Mode,
    client: Client,
    contract: Option<Contract>,
    headers: Vec<(String, String)>,
    data: TempDir,
    work: TempDir,
}

impl World {
    /// Starts an ordinary world in the mode that the environment asks for.
    pub async fn start() -> Self {
        Self::start_with(WorldSpec::default()).await
    }

    /// Starts a world in the mode that the environment asks for.
    pub async fn start_with(spec: WorldSpec) -> Self {
        Self::start_in(Mode::from_env(), spec).await
    }

    /// Starts a world in this mode.
    pub async fn start_in(mode: Mode, spec: WorldSpec) -> Self {
        let model = ScriptedModel::start().await;
        let redis = match (mode, &spec.redis_url) {
            (Mode::Embedded, _) | (_, Some(_)) => None,
            _ if spec.redis_keeps => Some(RedisServer::start_that_keeps().await),
            _ => Some(RedisServer::start().await),
        };
        let data = tempfile::tempdir().expect("a temporary directory");
        let model_proxy = spec.proxied.then(|| CuttingProxy::start(model.port()));
        let model_url =
            model_proxy.as_ref().map_or_else(|| model.url().to_owned(), |proxy| format!("{}/v1", proxy.url()));
        let work = work_tree(&model_url, &spec.config, &spec.files);
        let mut env = spec.env.clone();
        let mut headers = Vec::new();
        if let Some(password) = &spec.password {
            env.push(("OPENCODE_SERVER_PASSWORD".into(), password.clone()));
            headers.push(("authorization".to_string(), basic("opencode", password)));
        }
        let mut lock_servers = Vec::new();
        if redis.is_some() {
            for _ in 0..spec.lock_servers {
                lock_servers.push(RedisServer::start().await);
            }
        }
        let counter = match &redis {
            Some(redis) if spec.counted => Some(CountingProxy::start(redis.port()).await),
            _ => None,
        };
        let (mut replicas, mut proxies) = (Vec::new(), Vec::new());
        for (number, name) in ["A", "B", "C"].into_iter().take(mode.replicas()).enumerate() {
            let direct = redis.as_ref().map(RedisServer::url).or_else(|| spec.redis_url.clone());
            let mut redis_url = counter.as_ref().map(|counter| counter.url().to_owned()).or(direct);
            if let Some(redis) = redis.as_ref().filter(|_| spec.proxied) {
                let proxy = CuttingProxy::start(redis.port());
                redis_url = Some(format!("redis://127.0.0.1:{}", proxy.port()));
                proxies.push(proxy);
            }
            // As behind the balancer, which is nginx in some tests.
            let mut args = vec!["--trust-request-id".to_owned()];
            args.extend(spec.args.iter().cloned());
            args.extend(lock_servers.iter().flat_map(|server| ["--lock-url".to_owned(), server.url()]));
            args.extend(spec.own_args.get(number).cloned().unwrap_or_default());
            let spec = ReplicaSpec {
                name: name.into(),
                redis_url,
                data_dir: data.path().to_path_buf(),
                directory: work.path().to_path_buf(),
                args,
                env: env.clone(),
                failpoints: spec.failpoints,
                wrapper: spec.wrappers.get(number).cloned().unwrap_or_default(),
            };
            replicas.push(Replica::start(spec).await);
        }
        let contract = (!spec.beyond_contract).then(Contract::default);
        let mut client = Client::new(replicas.iter().map(Replica::url));
        if let Some(contract) = &contract {
            client = client.under(contract);
        }
        for (name, value) in &headers {
            client = client.with_header(name, value);
        }
        Self {
            replicas,
            proxies,
            model_proxy,
            counter,
            redis,
            lock_servers,
            model,
            mode,
            client,
            contract,
            headers,
            data,
            work,
        }
    }

    /// The mode.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// The client that sends each request to the next replica.
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// A client of one replica. In a world of one replica every number means that one.
    pub fn at(&self, number: usize) -> Client {
        self.client.only(self.url(number))
    }

    /// The address of a replica. In a world of one replica every number means that one.
    pub fn url(&self, number: usize) -> &str {
        self.replicas[number % self.replicas.len()].url()
    }

    /// A replica. In a world of one replica every number means that one.
    pub fn replica(&mut self, number: usize) -> &mut Replica {
        let count = self.replicas.len();
        &mut self.replicas[number % count]
    }

    /// The replicas.
    pub fn replicas(&self) -> &[Replica] {
        &self.replicas
    }

    /// Starts nginx in front of the replicas, with the configuration that deployments use.
    pub async fn nginx(&self) -> Nginx {
        Nginx::start(self.replicas.iter().map(Replica::port)).await
    }

    /// Starts HAProxy in front of the replicas, with the configuration that deployments use.
    pub async fn haproxy(&self) -> Haproxy {
        Haproxy::start(self.replicas.iter().map(Replica::port)).await
    }

    /// The Redis server.
    ///
    /// # Panics
    /// In a world that has none of its own.
    pub fn redis(&mut self) -> &mut RedisServer {
        self.redis.as_mut().expect("this world has a Redis server")
    }

    /// The proxy between a replica and Redis, where the spec asks for them.
    pub fn redis_proxy(&self, number: usize) -> &CuttingProxy {
        &self.proxies[number]
    }

    /// The proxy between all replicas and the model, where the spec asks for proxies.
    ///
    /// # Panics
    /// Where it does not.
    pub fn model_proxy(&self) -> &CuttingProxy {
        self.model_proxy.as_ref().expect("this world has a proxy before its model")
    }

    /// What the replicas asked of Redis so far, where the spec asks for counts.
    ///
    /// # Panics
    /// Where it does not, and in the embedded mode.
    pub fn redis_counts(&self) -> Counts {
        self.counter.as_ref().expect("the spec of this world asks for counts").counts()
    }

    /// A Redis server that keeps locks only, where the spec asks for them.
    pub fn lock_server(&mut self, number: usize) -> &mut RedisServer {
        &mut self.lock_servers[number]
    }

    /// The headers that the world's clients send (the password).
    pub fn headers(&self) -> &[(String, String)] {
        &self.headers
    }

    /// The work tree.
    pub fn directory(&self) -> &Path {
        self.work.path()
    }

    /// A path in the work tree.
    pub fn file(&self, path: &str) -> PathBuf {
        self.work.path().join(path)
    }

    /// The data directory.
    pub fn data_dir(&self) -> &Path {
        self.data.path()
    }

    /// The path of `/event` for the work tree.
    pub fn event_path(&self) -> String {
        format!("/event?directory={}", encoded(&self.work.path().to_string_lossy()))
    }

    /// Opens `/event` at a replica.
    pub async fn events(&self, number: usize) -> EventReader {
        self.at(number).events(&self.event_path()).await
    }

    /// Opens `/event` at a replica, and again whenever the connection ends.
    pub async fn faithful_events(&self, number: usize) -> EventReader {
        let url = format!("{}{}", self.url(number), self.event_path());
        EventReader::open_again_and_again(&url, &self.headers, self.contract.clone()).await
    }

    /// Opens `/global/event` at a replica.
    pub async fn global_events(&self, number: usize) -> EventReader {
        self.at(number).events("/global/event").await
    }

    /// Opens `/global/event` at a replica, and again whenever the connection ends.
    pub async fn faithful_global_events(&self, number: usize) -> EventReader {
        let url = format!("{}/global/event", self.url(number));
        EventReader::open_again_and_again(&url, &self.headers, self.contract.clone()).await
    }

    /// Reconnects a reader of `/event` to a replica, with its last id.
    pub async fn reconnect(&self, reader: &mut EventReader, number: usize) {
        reader.reconnect(&format!("{}{}", self.url(number), self.event_path())).await;
    }

    /// The processes that work in the work tree and are not replicas: tools and their supervisors, with their command
    /// lines.
    pub fn tool_processes(&self) -> Vec<(u32, String)> {
        let replicas: Vec<u32> = self.replicas.iter().map(Replica::id).collect();
        processes_in(self.work.path()).into_iter().filter(|(id, _)| !replicas.contains(id)).collect()
    }

    /// The work tree as text.
    pub fn directory_text(&self) -> String {
        self.work.path().to_string_lossy().into_owned()
    }

    /// Creates a session with a title (so that none is asked for) and returns its id.
    pub async fn session(&self) -> String {
        self.client.titled_session().await
    }

    /// As [`Client::prompt`], at the next replica.
    pub async fn prompt(&self, session: &str, text: &str) -> Value {
        self.client.prompt(session, text).await
    }

    /// As [`Client::prompt_async`], at the next replica.
    pub async fn prompt_async(&self, session: &str, text: &str) {
        self.client.prompt_async(session, text).await;
    }

    /// As [`Client::messages`], at the next replica.
    pub async fn messages(&self, session: &str) -> Vec<Value> {
        self.client.messages(session).await
    }

    /// As [`Client::status`], at the next replica.
    pub async fn status(&self, session: &str) -> String {
        self.client.status(session).await
    }

    /// As [`Client::abort`], at the next replica.
    pub async fn abort(&self, session: &str) {
        self.client.abort(session).await;
    }

    /// A prompt that is sent at once from a task of its own, to one replica.
    pub fn spawn_prompt(&self, number: usize, session: &str, text: &str) -> tokio::task::JoinHandle<Value> {
        let (client, session, text) = (self.at(number), session.to_string(), text.to_string());
        tokio::spawn(async move { client.prompt(&session, &text).await })
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.replicas.clear();
        let left = still_in(self.work.path(), TOOLS_END_WITHIN);
        if !std::thread::panicking() {
            assert!(left.is_empty(), "these processes outlived the replicas: {left:?}");
            let broken = self.contract.as_ref().map(Contract::take_violations).unwrap_or_default();
            assert!(broken.is_empty(), "not as OpenCode's document says:\n{}", broken.join("\n"));
        }
    }
}
