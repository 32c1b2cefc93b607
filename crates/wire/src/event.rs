//! Events, as `/event` and `/global/event` carry them.

use crate::ids::{MessageId, PartId, PermissionId, QuestionId, SessionId};
use crate::message::{Message, MessageError};
use crate::part::Part;
use crate::permission::{PermissionRequest, Reply};
use crate::question::QuestionRequest;
use crate::session::{Session, SessionStatus, Todo};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// One event. The body that `/event` sends: `{id, type, properties}`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// `evt_...`; the same on every replica.
    pub id: String,
    /// Its type.
    #[serde(rename = "type")]
    pub kind: String,
    /// What its type calls for.
    pub properties: Value,
}

/// What happened, before it has an id.
#[derive(Clone, Debug, PartialEq)]
pub struct Happened {
    /// The event's type.
    pub kind: &'static str,
    /// Its properties.
    pub properties: Value,
}

impl Happened {
    fn new(kind: &'static str, properties: Value) -> Self {
        Self { kind, properties }
    }

    /// Gives it an id.
    pub fn with_id(self, id: String) -> Event {
        Event { id, kind: self.kind.into(), properties: self.properties }
    }
}

impl Event {
    /// True for the events that `/global/event` follows with a `sync` twin.
    pub fn is_durable(&self) -> bool {
        matches!(
            self.kind.as_str(),
            "session.created"
                | "session.updated"
                | "session.deleted"
                | "message.updated"
                | "message.removed"
                | "message.part.updated"
                | "message.part.removed"
        )
    }
}

/// The first event of every stream.
pub fn connected() -> Happened {
    Happened::new("server.connected", json!({}))
}

/// Sent every ten seconds, so that a dead connection is noticed.
pub fn heartbeat() -> Happened {
    Happened::new("server.heartbeat", json!({}))
}

/// What was known of a directory is forgotten, what ran there is stopped.
pub fn instance_disposed(directory: &str) -> Happened {
    Happened::new("server.instance.disposed", json!({ "directory": directory }))
}

/// The same for all directories.
pub fn global_disposed() -> Happened {
    Happened::new("global.disposed", json!({}))
}

/// A session was made.
pub fn session_created(session: &Session) -> Happened {
    Happened::new("session.created", json!({ "sessionID": session.id, "info": session }))
}

/// A session changed.
pub fn session_updated(session: &Session) -> Happened {
    Happened::new("session.updated", json!({ "sessionID": session.id, "info": session }))
}

/// A session is gone.
pub fn session_deleted(session: &Session) -> Happened {
    Happened::new("session.deleted", json!({ "sessionID": session.id, "info": session }))
}

/// A session does something else now.
pub fn session_status(session: &SessionId, status: &SessionStatus) -> Happened {
    Happened::new("session.status", json!({ "sessionID": session, "status": status }))
}

/// A session does nothing any more.
pub fn session_idle(session: &SessionId) -> Happened {
    Happened::new("session.idle", json!({ "sessionID": session }))
}

/// What a session changed.
pub fn session_diff(session: &SessionId, diff: &Value) -> Happened {
    Happened::new("session.diff", json!({ "sessionID": session, "diff": diff }))
}

/// Something went wrong in a session.
pub fn session_error(session: &SessionId, error: &MessageError) -> Happened {
    Happened::new("session.error", json!({ "sessionID": session, "error": error }))
}

/// A message is new or changed.
pub fn message_updated(message: &Message) -> Happened {
    Happened::new("message.updated", json!({ "sessionID": message.session_id(), "info": message }))
}

/// A message is gone.
pub fn message_removed(session: &SessionId, message: &MessageId) -> Happened {
    Happened::new("message.removed", json!({ "sessionID": session, "messageID": message }))
}

/// A part is new or changed. `time` in milliseconds.
pub fn part_updated(part: &Part, time: u64) -> Happened {
    Happened::new("message.part.updated", json!({ "sessionID": part.session_id, "part": part, "time": time }))
}

/// A part is gone.
pub fn part_removed(session: &SessionId, message: &MessageId, part: &PartId) -> Happened {
    Happened::new("message.part.removed", json!({ "sessionID": session, "messageID": message, "partID": part }))
}

/// Text was added to a field of a part that clients already know.
pub fn part_delta(part: &Part, delta: &str) -> Happened {
    Happened::new(
        "message.part.delta",
        json!({ "sessionID": part.session_id, "messageID": part.message_id, "partID": part.id, "field": "text", "delta": delta }),
    )
}

/// A conversation goes on from a summary from now on.
pub fn session_compacted(session: &SessionId) -> Happened {
    Happened::new("session.compacted", json!({ "sessionID": session }))
}

/// A command was carried out; `message` is the answer.
pub fn command_executed(name: &str, session: &SessionId, arguments: &str, message: &MessageId) -> Happened {
    Happened::new(
        "command.executed",
        json!({ "name": name, "sessionID": session, "arguments": arguments, "messageID": message }),
    )
}

/// A list of things to do changed.
pub fn todo_updated(session: &SessionId, todos: &[Todo]) -> Happened {
    Happened::new("todo.updated", json!({ "sessionID": session, "todos": todos }))
}

/// A run waits for a permission.
pub fn permission_asked(request: &PermissionRequest) -> Happened {
    Happened::new("permission.asked", json!(request))
}

/// A permission was answered.
pub fn permission_replied(session: &SessionId, request: &PermissionId, reply: Reply) -> Happened {
    Happened::new("permission.replied", json!({ "sessionID": session, "requestID": request, "reply": reply }))
}

/// A run waits for answers.
pub fn question_asked(request: &QuestionRequest) -> Happened {
    Happened::new("question.asked", json!(request))
}

/// Questions were answered.
pub fn question_replied(session: &SessionId, request: &QuestionId, answers: &[Vec<String>]) -> Happened {
    Happened::new("question.replied", json!({ "sessionID": session, "requestID": request, "answers": answers }))
}

/// Questions were dismissed.
pub fn question_rejected(session: &SessionId, request: &QuestionId) -> Happened {
    Happened::new("question.rejected", json!({ "sessionID": session, "requestID": request }))
}

/// A tool wrote a file.
pub fn file_edited(file: &str) -> Happened {
    Happened::new("file.edited", json!({ "file": file }))
}

/// A file is new (`add`) or changed (`change`).
pub fn file_watcher_updated(file: &str, event: &str) -> Happened {
    Happened::new("file.watcher.updated", json!({ "file": file, "event": event }))
}
