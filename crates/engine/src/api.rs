//! What callers hand to the engine and get from it.

use serde_json::{Map, Value};
use std::path::PathBuf;
use wire::ids::{MessageId, PartId, SessionId};
use wire::message::{MessageError, MessageWithParts, UserModel};
use wire::part::{PartKind, TextPart};
use wire::permission::Rule;
use wire::session::SessionModel;
use wire::tenant::Tenant;

/// Where a request plays: a tenant and a directory (absolute, without a trailing slash).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Scope {
    /// The tenant.
    pub tenant: Tenant,
    /// The directory.
    pub directory: PathBuf,
}

/// What a new session is made from.
#[derive(Clone, Debug, Default)]
pub struct NewSession {
    /// The session that it belongs to.
    pub parent_id: Option<SessionId>,
    /// Its title; a default one if absent.
    pub title: Option<String>,
    /// Its agent.
    pub agent: Option<String>,
    /// Its model.
    pub model: Option<SessionModel>,
    /// Rules after the agent's.
    pub permission: Option<Vec<Rule>>,
    /// The client's own data.
    pub metadata: Option<Value>,
}

/// What of a session shall change; absent fields stay.
#[derive(Clone, Debug, Default)]
pub struct SessionPatch {
    /// The title.
    pub title: Option<String>,
    /// The client's own data.
    pub metadata: Option<Value>,
    /// Rules to append.
    pub permission: Option<Vec<Rule>>,
    /// When it was put away.
    pub archived: Option<serde_json::Number>,
}

/// A prompt.
#[derive(Clone, Debug, Default)]
pub struct Prompt {
    /// The client's own id: the same id twice is one prompt.
    pub message_id: Option<MessageId>,
    /// The agent; the default one if absent.
    pub agent: Option<String>,
    /// The model; if absent the agent's, the session's, or the default one.
    pub model: Option<UserModel>,
    /// The model's variant, where the prompt names no model.
    pub variant: Option<String>,
    /// Store it and answer with it; nothing runs.
    pub no_reply: bool,
    /// Text for the system prompt.
    pub system: Option<String>,
    /// Tools switched on or off.
    pub tools: Option<Map<String, Value>>,
    /// The form that the answer must have, as OpenCode keeps it: `{type: "json_schema", schema, retryCount}`.
    pub format: Option<Value>,
    /// The parts, with the client's own ids where it gave some.
    pub parts: Vec<(Option<PartId>, PartKind)>,
    /// The hash of what was asked: the same id with another one is refused.
    pub body_hash: String,
    /// The name of the request: sent twice, it is one prompt.
    pub name: Option<RequestName>,
    /// A command that is run in the place of an answer; refused while the session is busy.
    pub shell: Option<String>,
}

impl Prompt {
    /// A command that a person runs in a session.
    pub fn shell(command: String) -> Self {
        let said = TextPart { text: crate::shell::RAN.into(), synthetic: Some(true), ..TextPart::default() };
        Self { shell: Some(command), parts: vec![(None, PartKind::Text(said))], ..Self::default() }
    }
}

/// A command by its name.
#[derive(Clone, Debug, Default)]
pub struct Command {
    /// The client's own id of the prompt that it becomes.
    pub message_id: Option<MessageId>,
    /// The agent, where the command names none.
    pub agent: Option<String>,
    /// The model as `provider/model`, where neither the command nor its agent name one.
    pub model: Option<String>,
    /// The model's variant.
    pub variant: Option<String>,
    /// The command's name.
    pub command: String,
    /// What was typed behind it.
    pub arguments: String,
    /// Files that go with it.
    pub parts: Vec<(Option<PartId>, PartKind)>,
    /// As [`Prompt::body_hash`].
    pub body_hash: String,
    /// As [`Prompt::name`].
    pub name: Option<RequestName>,
}

/// What a client, or a balancer in its place, calls a request that it may send again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestName {
    /// Stands for the name itself: hex digits.
    pub hash: String,
    /// Stands for what is asked: the same name with another one is refused.
    pub body_hash: String,
}

/// A prompt that is stored.
#[derive(Clone, Debug)]
pub enum Accepted {
    /// Nothing runs: this is what was stored.
    Stored(Box<MessageWithParts>),
    /// A run answers: [`crate::Engine::wait`] for it.
    Ticket(TicketRef),
}

/// Names a ticket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TicketRef {
    /// The tenant.
    pub tenant: Tenant,
    /// The session.
    pub session: SessionId,
    /// The message that was asked.
    pub message: MessageId,
    /// Its number.
    pub k: u64,
}

/// Which sessions to list: newest `time.updated` first.
#[derive(Clone, Debug, Default)]
pub struct SessionQuery {
    /// Exactly this directory; ignored where `path` is given.
    pub directory: Option<String>,
    /// A prefix of the session's path.
    pub path: Option<String>,
    /// True: only those without parent; false: only those with one.
    pub roots: Option<bool>,
    /// Part of the title, in any case.
    pub search: Option<String>,
    /// `time.updated` at or after, in milliseconds.
    pub start: Option<u64>,
    /// At most so many; 100 if absent.
    pub limit: Option<usize>,
}

/// Whether this replica may get requests.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Readiness {
    /// Why not; ready if empty.
    pub reasons: Vec<String>,
}

/// What this replica is doing, for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Runs under way here.
    pub runs: u64,
    /// Runs begun since the start.
    pub runs_begun: u64,
    /// Of those, taken over from a dead or draining replica.
    pub taken_over: u64,
    /// Runs that this replica lost to another.
    pub lost: u64,
    /// Replicas that this one buried.
    pub buried: u64,
    /// Steps completed.
    pub steps: u64,
    /// Tool calls run.
    pub tool_calls: u64,
    /// Events published.
    pub events: u64,
    /// Bytes of the store that are kept in memory.
    pub kept_bytes: u64,
    /// True when ownership cannot be proven at the moment.
    pub frozen: bool,
}

/// Why the engine refuses. Each says what the caller should do.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// No such session: do not ask again.
    #[error("Session not found: {0}")]
    SessionNotFound(SessionId),
    /// No such message: do not ask again.
    #[error("Message not found: {0}")]
    MessageNotFound(MessageId),
    /// No such permission request, or answered before.
    #[error("Permission request not found: {0}")]
    PermissionNotFound(String),
    /// No such question, or answered before.
    #[error("Question request not found: {0}")]
    QuestionNotFound(String),
    /// Another operation works on the session: ask again when it is idle.
    #[error("Session is busy: {0}")]
    Busy(SessionId),
    /// The id belongs to something else: choose another.
    #[error("{0}")]
    Conflict(String),
    /// The idempotency key was used for another request: choose another.
    #[error("this idempotency key was used for another request")]
    KeyReused,
    /// The request makes no sense: mend it.
    #[error("{0}")]
    BadRequest(String),
    /// The configuration of the directory makes no sense: mend the file. OpenCode's `{name, data}`.
    #[error("the configuration is invalid: {}", .0.name)]
    Config(MessageError),
    /// The agent or the model of the prompt does not exist. The message stays stored.
    #[error("{0}")]
    Unknown(String),
    /// Too many prompts wait in this session: ask again later.
    #[error("too many prompts wait in this session")]
    TooManyQueued,
    /// Coordination is away or this replica stops: ask again, here or elsewhere. Nothing was written unless a ticket
    /// was given out before.
    #[error("not available for the moment: {0}")]
    Unavailable(String),
    /// The store failed.
    #[error("the store failed: {0}")]
    Store(String),
    /// The run was taken over by another replica: stop, write nothing more. Never reaches a client.
    #[error("another replica runs this session")]
    Lost,
    /// No room left in the store.
    #[error("the store is full")]
    Full,
}
