//! A session and what belongs to it.

use crate::Extra;
use crate::ids::{MessageId, PartId, SessionId};
use crate::message::Tokens;
use crate::permission::Rule;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A conversation in one directory.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Session {
    /// Its identifier.
    pub id: SessionId,
    /// Two words for people.
    #[serde(default)]
    pub slug: String,
    /// The project: the hash of the repository's root commit, or `global`.
    #[serde(rename = "projectID")]
    pub project_id: String,
    /// The directory that it works in.
    pub directory: String,
    /// The directory relative to the work tree's root; empty at the root.
    #[serde(default)]
    pub path: String,
    /// The session whose task tool made this one.
    #[serde(rename = "parentID", default, skip_serializing_if = "Option::is_none")]
    pub parent_id: Option<SessionId>,
    /// Lines changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub summary: Option<SessionSummary>,
    /// The sum of its steps' costs, in dollars.
    #[serde(default)]
    pub cost: f64,
    /// The sum of its steps' tokens.
    #[serde(default)]
    pub tokens: Tokens,
    /// Where it is shared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Object)]
    pub share: Option<serde_json::Value>,
    /// Its title.
    pub title: String,
    /// The agent of the newest prompt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<String>,
    /// The model of the newest prompt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<SessionModel>,
    /// The OpenCode version that made it.
    #[serde(default)]
    pub version: String,
    /// The client's own data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Object)]
    pub metadata: Option<serde_json::Value>,
    /// When it was made and changed.
    pub time: SessionTime,
    /// Rules of its own, after the agent's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub permission: Option<Vec<Rule>>,
    /// Set while messages are reverted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revert: Option<Revert>,
    /// Fields that this version does not name.
    #[serde(flatten)]
    #[schema(value_type = Object)]
    pub extra: Extra,
}

/// When a session was made and changed, in milliseconds since the epoch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SessionTime {
    /// Made.
    pub created: u64,
    /// Changed by a prompt, a step, or a change of its rules.
    pub updated: u64,
    /// A compaction is under way since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compacting: Option<u64>,
    /// Put away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<f64>)]
    pub archived: Option<serde_json::Number>,
}

/// Lines that a session changed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SessionSummary {
    /// Lines added.
    pub additions: u64,
    /// Lines removed.
    pub deletions: u64,
    /// Files touched.
    pub files: u64,
    /// Fields that this version does not name.
    #[serde(flatten)]
    #[schema(value_type = Object)]
    pub extra: Extra,
}

/// The model of a session's newest prompt.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SessionModel {
    /// The model.
    pub id: String,
    /// Its provider.
    #[serde(rename = "providerID")]
    pub provider_id: String,
    /// The variant; `default` where the prompt named none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
}

/// What a revert hid.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Revert {
    /// The first message that is hidden.
    #[serde(rename = "messageID")]
    pub message_id: MessageId,
    /// The first part that is hidden.
    #[serde(rename = "partID", default, skip_serializing_if = "Option::is_none")]
    pub part_id: Option<PartId>,
    /// Fields that this version does not name.
    #[serde(flatten)]
    #[schema(value_type = Object)]
    pub extra: Extra,
}

/// What a session is doing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum SessionStatus {
    /// Nothing.
    Idle,
    /// A run is under way, or a prompt waits for one.
    Busy,
    /// The model failed; the next attempt comes at `next`.
    Retry {
        /// The attempt that failed, from 1.
        attempt: u32,
        /// Why.
        message: String,
        /// When the next attempt begins, in milliseconds since the epoch.
        next: u64,
    },
}

/// One entry of a session's list of things to do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Todo {
    /// What.
    pub content: String,
    /// `pending`, `in_progress`, `completed` or `cancelled`.
    pub status: String,
    /// `high`, `medium` or `low`.
    pub priority: String,
    /// Fields that this version does not name.
    #[serde(flatten)]
    #[schema(value_type = Object)]
    pub extra: Extra,
}

/// The title that a session bears until a model or a person gives it one.
///
/// Only a title of exactly this shape is replaced by title generation.
pub fn default_title(created_iso: &str, child: bool) -> String {
    let head = if child { CHILD_TITLE } else { NEW_TITLE };
    format!("{head}{created_iso}")
}

const NEW_TITLE: &str = "New session - ";
const CHILD_TITLE: &str = "Child session - ";

/// True if the title is one that [`default_title`] makes.
pub fn is_default_title(title: &str) -> bool {
    let Some(time) = title.strip_prefix(NEW_TITLE).or_else(|| title.strip_prefix(CHILD_TITLE)) else { return false };
    let shape = b"0000-00-00T00:00:00.000Z";
    time.len() == shape.len()
        && time.bytes().zip(shape).all(|(byte, &form)| if form == b'0' { byte.is_ascii_digit() } else { byte == form })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_default_title_is_one() {
        assert!(is_default_title(&default_title("2026-11-22T13:21:41.627Z", false)));
        assert!(is_default_title(&default_title("2026-11-22T13:21:41.627Z", true)));
        assert!(!is_default_title("New session - later"));
        assert!(!is_default_title("Greeting"));
    }
}
