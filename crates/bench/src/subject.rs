//! What is measured: OpenCode, or replicas of Flotilla.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tempfile::TempDir;
use testkit::work_tree::work_tree;
use testkit::{CountingProxy, Opencode, RedisServer, Replica, ReplicaSpec};

use crate::http::Connection;
use crate::usage;

/// Running servers over one store and one work tree. Dropping it ends them.
pub struct Subject {
    name: String,
    urls: Vec<String>,
    processes: Vec<u32>,
    // Replicas go before what they talk to.
    replicas: Vec<Replica>,
    _opencode: Option<Opencode>,
    redis: Option<RedisServer>,
    proxy: Option<CountingProxy>,
    data: TempDir,
    _work: TempDir,
}

impl Subject {
    /// Starts `opencode serve`.
    pub async fn opencode(program: &Path, model_url: &str) -> Result<Self> {
        let (data, work) = (tempfile::tempdir()?, work_tree(model_url, &Value::Null, &[]));
        let opencode = Opencode::serve(program, data.path(), work.path()).await?;
        Ok(Self {
            name: "OpenCode".into(),
            urls: vec![opencode.url().to_string()],
            processes: vec![opencode.id()],
            replicas: Vec::new(),
            _opencode: Some(opencode),
            redis: None,
            proxy: None,
            data,
            _work: work,
        })
    }

    /// Starts so many replicas on one Redis server, each with these further arguments.
    pub async fn flotilla(count: usize, model_url: &str, args: &[&str]) -> Result<Self> {
        Self::replicas(count, model_url, args, false).await
    }

    /// Starts one replica that reaches Redis through a proxy that counts.
    pub async fn counted(model_url: &str) -> Result<Self> {
        Self::replicas(1, model_url, &["--durability", "os"], true).await
    }

    async fn replicas(count: usize, model_url: &str, args: &[&str], counted: bool) -> Result<Self> {
        let (data, work) = (tempfile::tempdir()?, work_tree(model_url, &Value::Null, &[]));
        let redis = RedisServer::start().await;
        let proxy = if counted { Some(CountingProxy::start(redis.port()).await) } else { None };
        let mut replicas = Vec::new();
        for number in 1..=count {
            let spec = ReplicaSpec {
                name: number.to_string(),
                redis_url: Some(proxy.as_ref().map_or_else(|| redis.url(), |proxy| proxy.url().to_string())),
                data_dir: data.path().to_path_buf(),
                directory: work.path().to_path_buf(),
                args: args.iter().map(ToString::to_string).collect(),
                failpoints: false,
                wrapper: Vec::new(),
                env: Vec::new(),
            };
            replicas.push(Replica::start(spec).await);
        }
        Ok(Self {
            name: format!("Flotilla, {count} replica{} {}", if count == 1 { "" } else { "s" }, args.join(" ")),
            urls: replicas.iter().map(|replica| replica.url().to_string()).collect(),
            processes: replicas.iter().map(Replica::id).collect(),
            replicas,
            _opencode: None,
            redis: Some(redis),
            proxy,
            data,
            _work: work,
        })
    }

    /// How messages call it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The address that the request with this number goes to: each server in turn.
    pub fn url(&self, number: usize) -> &str {
        &self.urls[number % self.urls.len()]
    }

    /// A connection to each server.
    pub fn connections(&self) -> Rotation {
        Rotation { connections: self.urls.iter().map(|url| Connection::to(url)).collect(), next: 0 }
    }

    /// The address of the last server: another one than the first, if there are several.
    pub fn other_url(&self) -> &str {
        self.url(self.urls.len() - 1)
    }

    /// The process ids of the servers, Redis aside.
    pub fn processes(&self) -> &[u32] {
        &self.processes
    }

    /// Whether there are several servers.
    pub fn is_fleet(&self) -> bool {
        self.urls.len() > 1
    }

    /// The data directory.
    pub fn data_dir(&self) -> &Path {
        self.data.path()
    }

    /// The proxy that counts, and the Redis server behind it.
    pub fn redis_counts(&self) -> Result<(&CountingProxy, &RedisServer)> {
        Ok((self.proxy.as_ref().context("nothing is counted here")?, self.redis.as_ref().context("no Redis")?))
    }

    /// The CPU seconds that Redis has used; 0 without Redis.
    pub fn redis_cpu(&self) -> f64 {
        let text = self.redis.as_ref().map(|redis| redis.command(&["INFO", "cpu"])).unwrap_or_default();
        let used = |name: &str| {
            let line = text.lines().find_map(|line| line.trim().strip_prefix(name));
            line.and_then(|value| value.parse::<f64>().ok()).unwrap_or(0.0)
        };
        used("used_cpu_sys:") + used("used_cpu_user:")
    }

    /// The CPU seconds that the servers have used, Redis aside.
    pub fn cpu(&self) -> Result<f64> {
        usage::cpu_of(&self.processes)
    }

    /// Kills the replicas and starts them again, so that they know nothing.
    pub async fn start_again(&mut self) {
        for replica in &mut self.replicas {
            replica.kill9();
            replica.start_again().await;
        }
        self.processes = self.replicas.iter().map(Replica::id).collect();
    }
}

/// Connections that are used in turn.
pub struct Rotation {
    connections: Vec<Connection>,
    next: usize,
}

impl Rotation {
    /// The connection whose turn it is.
    pub fn next(&mut self) -> &mut Connection {
        self.next += 1;
        let at = self.next % self.connections.len();
        &mut self.connections[at]
    }

    /// Begins elsewhere, so that many rotations do not all begin at the same server.
    pub fn skip(&mut self, turns: usize) {
        self.next += turns;
    }

    /// Creates a session with a title, so that none is asked for, and returns its id.
    pub async fn create_session(&mut self) -> Result<String> {
        let session: Value = self.next().post("/session", r#"{"title":"A titled session"}"#).await?.json()?;
        Ok(session["id"].as_str().context("a session has an id")?.to_string())
    }

    /// Prompts and waits for the answer.
    pub async fn prompt(&mut self, session: &str) -> Result<()> {
        let reply = self.next().post(&format!("/session/{session}/message"), PROMPT).await?.json()?;
        ensure!(reply["info"]["role"] == "assistant" && reply["info"]["error"].is_null(), "no answer: {reply}");
        Ok(())
    }
}

/// The body of a prompt.
pub const PROMPT: &str = r#"{"parts":[{"type":"text","text":"What is in the file README.md? Answer briefly."}]}"#;
