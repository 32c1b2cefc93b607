//! Three servers as a row sees them.

use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use reqwest::Method;
use serde_json::{Value, json};
use testkit::client::{encoded, id_of, text_prompt};
use testkit::model::Recorded;
use testkit::work_tree::work_tree;
use testkit::{Answer, BOUND, Client, Mode, Opencode, ScriptedModel, World, WorldSpec, eventually};
use tokio::task::JoinHandle;

/// How long a row waits for what must happen.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often it looks.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Three servers over one store and one work tree, and the model behind them.
pub struct Fleet {
    servers: Servers,
    clients: Vec<Client>,
    sessions: Mutex<Vec<String>>,
}

enum Servers {
    Opencode { _servers: Vec<Opencode>, model: ScriptedModel, _home: tempfile::TempDir, work: tempfile::TempDir },
    Flotilla(Box<World>),
}

/// A caller who waits for the answer to a prompt.
pub(super) type Caller = JoinHandle<Result<Value>>;

impl Fleet {
    /// Starts three unmodified `opencode serve` of this program that share one home, one after the other.
    ///
    /// # Errors
    /// One does not start.
    pub async fn of_opencode(program: &Path) -> Result<Self> {
        let model = ScriptedModel::start().await;
        let (home, work) = (tempfile::tempdir()?, work_tree(model.url(), &Value::Null, &[]));
        let (mut servers, mut clients) = (Vec::new(), Vec::new());
        model.respond_with(|_| Answer::say("ready"));
        for _ in 0..3 {
            let server = Opencode::serve(program, home.path(), work.path()).await?;
            let client = Client::new([server.url()]);
            // The first prompt may take seconds: no row is to wait for that.
            client.prompt(&client.titled_session().await, "Are you ready?").await;
            clients.push(client);
            servers.push(server);
        }
        let servers = Servers::Opencode { _servers: servers, model, _home: home, work };
        Ok(Self { servers, clients, sessions: Mutex::default() })
    }

    /// Starts three replicas of Flotilla over one Redis.
    pub async fn of_flotilla() -> Self {
        let world = World::start_in(Mode::ThreeReplicas, WorldSpec::default()).await;
        let clients = (0..3).map(|number| world.at(number)).collect();
        Self { servers: Servers::Flotilla(Box::new(world)), clients, sessions: Mutex::default() }
    }

    pub(super) fn model(&self) -> &ScriptedModel {
        match &self.servers {
            Servers::Opencode { model, .. } => model,
            Servers::Flotilla(world) => &world.model,
        }
    }

    /// A client of one server: 0 is A, 1 is B, 2 is C.
    pub(super) fn at(&self, number: usize) -> &Client {
        &self.clients[number % self.clients.len()]
    }

    /// The path of `/event` for the work tree.
    pub(super) fn event_path(&self) -> String {
        let directory = match &self.servers {
            Servers::Opencode { work, .. } => work.path(),
            Servers::Flotilla(world) => world.directory(),
        };
        format!("/event?directory={}", encoded(&directory.to_string_lossy()))
    }

    /// Makes a session at A, and waits until every server knows it: whether they do at once is no row's subject.
    pub(super) async fn session(&self, rules: Value) -> String {
        let id = id_of(&self.at(0).create_session(&json!({"title": "contrast", "permission": rules})).await);
        for client in &self.clients {
            let known = || async { (client.get(&path(&id)).await.status == 200).then_some(()) };
            eventually(BOUND, "a server to know the session", known).await;
        }
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner).push(id.clone());
        id
    }

    /// Sends a request to a server.
    ///
    /// # Errors
    /// It is not answered with a 2xx.
    pub(super) async fn send(&self, number: usize, method: Method, path: &str, body: &Value) -> Result<Value> {
        send(self.at(number), method, path, body).await
    }

    /// A prompt at a server, from a caller who waits for its answer.
    pub(super) fn prompt(&self, number: usize, session: &str, text: &str) -> Caller {
        self.caller(number, session, text_prompt(text))
    }

    /// As [`prompt`](Self::prompt), with the whole body.
    pub(super) fn caller(&self, number: usize, session: &str, body: Value) -> Caller {
        let (client, path) = (self.at(number).clone(), format!("{}/message", path(session)));
        tokio::spawn(async move { send(&client, Method::POST, &path, &body).await })
    }

    /// A session's requests to the model so far.
    pub(super) fn asked(&self, session: &str) -> Vec<Recorded> {
        let requests = self.model().main_requests().into_iter();
        requests.filter(|request| request.session.as_deref() == Some(session)).collect()
    }

    /// Waits until the model was asked for a session.
    pub(super) async fn until_asked(&self, session: &str) {
        eventually(BOUND, "a request to the model", || async { self.asked(session).first().map(drop) }).await;
    }

    /// The asks of a session that a server lists.
    pub(super) async fn asks(&self, number: usize, session: &str) -> Vec<Value> {
        let listed = self.at(number).get("/permission").await.ok();
        listed.as_array().into_iter().flatten().filter(|ask| ask["sessionID"] == *session).cloned().collect()
    }

    /// Stops whatever the sessions so far still run, at every server, so that it disturbs no later row.
    pub(super) async fn quiet(&self) {
        let sessions = std::mem::take(&mut *self.sessions.lock().unwrap_or_else(PoisonError::into_inner));
        for session in &sessions {
            for client in &self.clients {
                let _gone = send(client, Method::POST, &format!("{}/abort", path(session)), &json!({})).await;
            }
        }
        self.model().respond_with(|_| Answer::say("too late"));
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        if let Servers::Opencode { model, .. } = &self.servers {
            // What three OpenCodes say to the model is theirs; the rows say what came of it.
            let _theirs = model.take_violations();
        }
    }
}

/// The path of a session.
pub(super) fn path(session: &str) -> String {
    format!("/session/{session}")
}

async fn send(client: &Client, method: Method, path: &str, body: &Value) -> Result<Value> {
    let what = format!("{method} {path}");
    let body = Some(body.to_string().into_bytes());
    let reply = client.try_send(method, path, &[("content-type", "application/json")], body).await?;
    if !(200..300).contains(&reply.status) {
        bail!("{what}: {} {}", reply.status, reply.text());
    }
    Ok(serde_json::from_slice(&reply.body).unwrap_or_default())
}

/// The answer that a caller gets.
///
/// # Errors
/// None comes in time, or none that is a 2xx.
pub(super) async fn answered(what: &str, caller: Caller) -> Result<Value> {
    let told = tokio::time::timeout(PATIENCE, caller).await;
    told.with_context(|| format!("{what} is not answered in {} s", PATIENCE.as_secs()))??
}

/// Looks until there is something.
///
/// # Errors
/// There is nothing in time.
pub(super) async fn within<T>(what: &str, look: impl AsyncFn() -> Option<T>) -> Result<T> {
    let began = Instant::now();
    loop {
        if let Some(found) = look().await {
            return Ok(found);
        }
        if began.elapsed() > PATIENCE {
            bail!("no {what} in {} s", PATIENCE.as_secs());
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
