//! The tool trait, the registry and the built-in tools.
//!
//! A tool is given its [`Call`]: where it works, what it may use, and a [`Host`], through which alone it reaches the
//! run that called it. This crate knows nothing of storage or coordination.

mod arguments;
mod bash_commands;
mod blocking;
pub mod browse;
mod builtin;
mod folder;
mod patch;
mod paths;
mod put_back;
mod registry;
mod replace;
mod search;
mod truncate;

pub use builtin::structured_output::STRUCTURED_OUTPUT;
pub use builtin::webfetch::{Network, NotANetwork};
pub use patch::{GitSide, Patch};
pub use put_back::{Held, put_back};
pub use registry::{Registry, Resolved, Spec};
use truncate::truncate;

use agents::Skill;
use async_trait::async_trait;
use sandbox::{ChildEnv, Identity, Lifeline, Limits};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use wire::event::Happened;
use wire::ids::{MessageId, SessionId, ToolOutputId};
use wire::session::Todo;

/// Something that a model can call.
#[async_trait]
pub trait Tool: Send + Sync {
    /// The name that a model calls it by.
    fn name(&self) -> &'static str;

    /// What it does, for the model.
    fn description(&self) -> String;

    /// The JSON schema of its arguments.
    fn parameters(&self) -> Value;

    /// Which files it may write.
    fn writes(&self) -> Writes {
        Writes::Anything
    }

    /// Runs it. `input` is what the model gave; the tool checks it.
    ///
    /// # Cancellation
    /// `call.cancel` asks it to end soon, with the output so far where there is some. Dropping the future ends it at
    /// once: processes are killed, a file is either replaced as a whole or not at all.
    async fn run(&self, input: Value, call: &Call) -> Result<Output, ToolError>;
}

/// Which files a tool may write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writes {
    /// None.
    Nothing,
    /// Those that it has locked by [`Host::file_lock`].
    Locked,
    /// Any: it runs what somebody else wrote.
    Anything,
}

/// One call of a tool.
#[derive(Clone)]
pub struct Call {
    /// The directory of the instance; relative paths start here.
    pub directory: PathBuf,
    /// The root of the work tree; titles and permission patterns are relative to it. `/` outside of any project.
    pub worktree: PathBuf,
    /// The session.
    pub session: SessionId,
    /// The assistant message that holds the call.
    pub message: MessageId,
    /// The id that the model gave the call.
    pub call_id: String,
    /// The attempt that runs it; handed to the processes it starts.
    pub identity: Identity,
    /// Until when the processes of the call may live.
    pub lifeline: Lifeline,
    /// Cancelled by an abort, or by the end of the replica.
    pub cancel: CancellationToken,
    /// The run that called.
    pub host: Arc<dyn Host>,
    /// The skills that there are.
    pub skills: Arc<[Skill]>,
    /// What is the same for all calls.
    pub settings: Arc<ToolSettings>,
}

/// The run that called a tool, as the tool sees it.
#[async_trait]
pub trait Host: Send + Sync {
    /// Evaluates the permission rules for each pattern, asks the user if they say so, and returns once allowed.
    ///
    /// # Errors
    /// [`ToolError::Denied`], [`ToolError::Rejected`], [`ToolError::Aborted`] while waiting, [`ToolError::Lost`].
    async fn ask(&self, ask: Ask) -> Result<(), ToolError>;

    /// Makes it durable that the call has begun.
    ///
    /// Awaited after all asks and before the first effect outside of this process: after a take-over a call that had
    /// begun is recorded as interrupted and never run again. A tool that only reads does not call it.
    async fn begin(&self) -> Result<(), ToolError>;

    /// Asks the user questions, in the form of [`wire::question::QuestionRequest`], and returns the answers to each.
    ///
    /// # Errors
    /// [`ToolError::Dismissed`], [`ToolError::Aborted`] while waiting, [`ToolError::Lost`]; without a run nobody is asked.
    async fn ask_questions(&self, questions: Vec<Value>) -> Result<Vec<Vec<String>>, ToolError> {
        let _ = questions;
        Err(ToolError::Dismissed)
    }

    /// Replaces the session's list of things to do, and tells clients.
    ///
    /// # Errors
    /// [`ToolError::Lost`]; without a run nothing is written.
    async fn put_todos(&self, todos: Vec<Todo>) -> Result<(), ToolError> {
        let _ = todos;
        Err(ToolError::Failed("There is no run whose list this would be.".into()))
    }

    /// Shows how far the call is. `metadata` replaces what was shown before.
    async fn progress(&self, title: Option<String>, metadata: Value);

    /// Whether it was a user who cancelled the call, and not the end of its replica: a tool must not tell a model that
    /// somebody stopped it whom nobody stopped.
    fn aborted_by_user(&self) -> bool {
        true
    }

    /// Publishes an event, such as `file.edited`.
    async fn publish(&self, happened: Happened);

    /// Waits until no other call, on any replica, edits `path` (absolute, symbolic links resolved).
    ///
    /// Held while a file is compared and replaced; dropped, it is free again.
    async fn file_lock(&self, path: &Path) -> Result<Box<dyn Send>, ToolError>;

    /// Has a task done by another agent, and returns what it reports.
    ///
    /// Called after all asks and without [`Host::begin`]: after a take-over the call is performed again, and goes on with
    /// the session that it had made.
    async fn task(&self, task: Task) -> Result<Output, ToolError> {
        Err(ToolError::Failed(format!("Nobody can do this here: {}", task.description)))
    }

    /// A new name for a file with a whole output.
    fn new_output_id(&self) -> ToolOutputId;

    /// Instruction files on the way from the work tree's root down to `file` that the model has not been shown yet.
    ///
    /// A host that returns one counts it as shown.
    async fn instructions_near(&self, file: &Path) -> Vec<Instructions> {
        let _ = file;
        Vec::new()
    }
}

/// A permission that a tool needs.
#[derive(Clone, Debug, PartialEq)]
pub struct Ask {
    /// The permission's key: `edit`, `bash`, `external_directory`, ...
    pub permission: String,
    /// What it is needed for; every one must be allowed.
    pub patterns: Vec<String>,
    /// What is allowed from then on when the user answers "always".
    pub always: Vec<String>,
    /// For those who decide.
    pub metadata: Value,
}

/// Work for another agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Task {
    /// The work in a few words, for people.
    pub description: String,
    /// What the agent is told.
    pub prompt: String,
    /// The agent.
    pub agent: String,
    /// The session of an earlier task to go on with; another session than one's own child is not gone on with.
    pub resumes: Option<String>,
}

/// An instruction file and its text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instructions {
    /// Where it is, absolute.
    pub path: PathBuf,
    /// What it says.
    pub text: String,
}

/// What is the same for all calls of all tools.
#[derive(Clone, Debug)]
pub struct ToolSettings {
    /// The executable that becomes the supervisor of a command; see [`sandbox::SpawnSpec::supervisor_exe`].
    pub supervisor_exe: PathBuf,
    /// The shell that runs commands, such as `/bin/bash`.
    pub shell: PathBuf,
    /// The environment of commands.
    pub env: ChildEnv,
    /// What commands may use.
    pub limits: Limits,
    /// Where whole outputs are kept when a model gets only a piece.
    pub output_dir: PathBuf,
    /// A model gets at most this many lines of an output.
    pub max_lines: usize,
    /// A model gets at most this many bytes of an output.
    pub max_bytes: usize,
    /// A kept output is cut off after this many bytes.
    pub max_kept_bytes: u64,
    /// A command that names no timeout of its own gets this one.
    pub bash_timeout: Duration,
    /// Networks that `webfetch` may reach although they are not of the public internet.
    pub fetch_allowed: Arc<[Network]>,
}

impl ToolSettings {
    /// The defaults, for a supervisor and a place for outputs.
    pub fn new(supervisor_exe: PathBuf, output_dir: PathBuf, env: ChildEnv) -> Self {
        Self {
            supervisor_exe,
            shell: "/bin/bash".into(),
            env,
            limits: Limits::default(),
            output_dir,
            max_lines: 2000,
            max_bytes: 50 * 1024,
            max_kept_bytes: 256 * 1024 * 1024,
            bash_timeout: Duration::from_secs(120),
            fetch_allowed: Arc::default(),
        }
    }
}

/// What a tool brought about.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Output {
    /// For people: a path, a command.
    pub title: String,
    /// For the model.
    pub output: String,
    /// The tool's own; an object. See [`perform`] for `truncated` in it.
    pub metadata: Value,
    /// File parts without their ids: `{type: "file", mime, url}`.
    pub attachments: Option<Vec<Value>>,
}

/// A tool brought nothing about.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ToolError {
    /// It failed. The text is the model's answer; the run goes on.
    #[error("{0}")]
    Failed(String),
    /// A rule forbids it. The text is the model's answer; the run goes on.
    #[error("{0}")]
    Denied(String),
    /// The user rejected it. Without feedback the run ends after this step.
    #[error("{}", rejection(.feedback.as_deref()))]
    Rejected {
        /// What the user said.
        feedback: Option<String>,
    },
    /// The user does not want to be asked. The run ends after this step.
    #[error("The user dismissed this question")]
    Dismissed,
    /// It was cancelled.
    #[error("Tool execution aborted")]
    Aborted,
    /// The run has lost its lease or was fenced off: nothing may be written any more.
    #[error("the run belongs to another attempt")]
    Lost,
}

/// Runs a tool. An output that is too long is shortened, unless the tool sees to that itself: then its metadata says
/// `truncated`, as that of every output does in the end.
pub async fn perform(tool: &dyn Tool, input: Value, call: &Call) -> Result<Output, ToolError> {
    let mut output = tool.run(input, call).await?;
    if output.metadata.get("truncated").is_some() {
        return Ok(output);
    }
    let kept = truncate(output.output, &call.settings, &call.host.new_output_id()).await;
    let kept =
        kept.map_err(|error| ToolError::Failed(format!("The output is too long and cannot be kept: {error}")))?;
    output.output = kept.text;
    if !output.metadata.is_object() {
        output.metadata = json!({});
    }
    output.metadata["truncated"] = json!(kept.path.is_some());
    if let Some(path) = kept.path {
        output.metadata["outputPath"] = json!(path);
    }
    Ok(output)
}

fn rejection(feedback: Option<&str>) -> String {
    match feedback {
        None => "The user rejected permission to use this specific tool call.".into(),
        Some(said) => {
            format!("The user rejected permission to use this specific tool call with the following feedback: {said}")
        }
    }
}
