//! A work tree and a scripted run around the tools under test.
#![allow(dead_code, reason = "not every test file needs all of it")]

use async_trait::async_trait;
use sandbox::{ChildEnv, Identity, Lifeline};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tools::{Ask, Call, Host, Instructions, Output, Registry, ToolError, ToolSettings};
use wire::event::Happened;
use wire::ids::{MessageId, SessionId, ToolOutputId};
use wire::session::Todo;

/// What a tool did to its run, in order.
#[derive(Clone, Debug, PartialEq)]
pub enum Did {
    Ask(Ask),
    Begin,
    Progress(Value),
    Publish(&'static str, Value),
    Lock(PathBuf),
    Unlock,
    Questions(Vec<Value>),
    Todos(Vec<Todo>),
}

/// A run that answers as told and writes down what it was asked.
#[derive(Default)]
pub struct Script {
    did: Arc<Mutex<Vec<Did>>>,
    /// The answer to asks for a permission of this name; all others are allowed.
    pub answer: Mutex<Option<(&'static str, ToolError)>>,
    /// Done while an ask is open, once.
    pub meanwhile: Mutex<Option<Box<dyn FnOnce() + Send>>>,
    pub instructions: Mutex<Vec<Instructions>>,
    /// What questions are answered; without, they are dismissed.
    pub answers: Mutex<Option<Vec<Vec<String>>>>,
    pub progressed: Notify,
}

struct Locked(Arc<Mutex<Vec<Did>>>);

impl Drop for Locked {
    fn drop(&mut self) {
        self.0.lock().unwrap().push(Did::Unlock);
    }
}

impl Script {
    fn push(&self, did: Did) {
        self.did.lock().unwrap().push(did);
    }

    pub fn did(&self) -> MutexGuard<'_, Vec<Did>> {
        self.did.lock().unwrap()
    }

    pub fn asks(&self) -> Vec<Ask> {
        let did = self.did();
        let asks = did.iter().filter_map(|did| match did {
            Did::Ask(ask) => Some(ask.clone()),
            _ => None,
        });
        asks.collect()
    }
}

#[async_trait]
impl Host for Script {
    async fn ask(&self, ask: Ask) -> Result<(), ToolError> {
        self.push(Did::Ask(ask.clone()));
        if let Some(meanwhile) = self.meanwhile.lock().unwrap().take() {
            meanwhile();
        }
        match &*self.answer.lock().unwrap() {
            Some((permission, error)) if *permission == ask.permission => Err(error.clone()),
            _ => Ok(()),
        }
    }

    async fn begin(&self) -> Result<(), ToolError> {
        self.push(Did::Begin);
        Ok(())
    }

    async fn ask_questions(&self, questions: Vec<Value>) -> Result<Vec<Vec<String>>, ToolError> {
        self.push(Did::Questions(questions));
        self.answers.lock().unwrap().clone().ok_or(ToolError::Dismissed)
    }

    async fn put_todos(&self, todos: Vec<Todo>) -> Result<(), ToolError> {
        self.push(Did::Todos(todos));
        Ok(())
    }

    async fn progress(&self, _title: Option<String>, metadata: Value) {
        self.push(Did::Progress(metadata));
        self.progressed.notify_one();
    }

    async fn publish(&self, happened: Happened) {
        self.push(Did::Publish(happened.kind, happened.properties));
    }

    async fn file_lock(&self, path: &Path) -> Result<Box<dyn Send>, ToolError> {
        self.push(Did::Lock(path.into()));
        Ok(Box::new(Locked(self.did.clone())))
    }

    fn new_output_id(&self) -> ToolOutputId {
        ToolOutputId::parse("tool_0123").unwrap()
    }

    async fn instructions_near(&self, _file: &Path) -> Vec<Instructions> {
        std::mem::take(&mut *self.instructions.lock().unwrap())
    }
}

/// A directory with a work tree in it, and one beside it.
pub struct World {
    dir: tempfile::TempDir,
    pub host: Arc<Script>,
    pub call: Call,
}

impl World {
    pub fn new() -> Self {
        Self::with(|_| {})
    }

    pub fn with(change: impl FnOnce(&mut ToolSettings)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        std::fs::create_dir_all(root.join("ws")).unwrap();
        let test = std::env::current_exe().unwrap();
        let supervisor = test.parent().and_then(Path::parent).unwrap().join("examples/tools-supervise");
        let mut env = ChildEnv::cleaned(std::env::vars_os(), []);
        env.set("HOME", root.join("home"));
        let mut settings = ToolSettings::new(supervisor, root.join("outputs"), env);
        change(&mut settings);
        let host = Arc::new(Script::default());
        let call = Call {
            directory: root.join("ws"),
            worktree: root.join("ws"),
            session: SessionId::parse("ses_x").unwrap(),
            message: MessageId::parse("msg_x").unwrap(),
            call_id: "call_1".into(),
            identity: Identity::default(),
            lifeline: Lifeline::new(Instant::now() + Duration::from_secs(600)),
            cancel: CancellationToken::new(),
            host: host.clone(),
            skills: Arc::default(),
            settings: Arc::new(settings),
        };
        Self { dir, host, call }
    }

    /// A path in the work tree.
    pub fn path(&self, name: &str) -> PathBuf {
        self.call.directory.join(name)
    }

    /// A path beside the work tree.
    pub fn outside(&self, name: &str) -> PathBuf {
        self.dir.path().canonicalize().unwrap().join(name)
    }

    pub fn put(&self, name: &str, bytes: impl AsRef<[u8]>) {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }

    pub fn get(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap()
    }

    /// Calls a tool; no call takes long here.
    pub async fn run(&self, tool: &str, input: Value) -> Result<Output, ToolError> {
        let tool = Registry::builtin().get(tool).unwrap();
        tokio::time::timeout(Duration::from_secs(20), tools::perform(&*tool, input, &self.call))
            .await
            .expect("it ends in time")
    }

    /// Calls a tool that fails; its answer to the model.
    pub async fn failure(&self, tool: &str, input: Value) -> String {
        match self.run(tool, input).await {
            Err(ToolError::Failed(text)) => text,
            other => panic!("not a failure: {other:?}"),
        }
    }
}
