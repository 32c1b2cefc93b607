//! Permission rules and requests.

use crate::Extra;
use crate::ids::{MessageId, PermissionId, SessionId};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What a rule says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// Go on.
    Allow,
    /// Ask first.
    Ask,
    /// Refuse.
    Deny,
}

/// One rule. In a list the last that matches wins; where none matches, it is asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Rule {
    /// What is wanted, wildcards allowed: `edit`, `bash`, `*`.
    pub permission: String,
    /// On what, wildcards allowed.
    pub pattern: String,
    /// What then.
    pub action: Action,
    /// Fields that this version does not name.
    #[serde(flatten)]
    #[schema(value_type = Object)]
    pub extra: Extra,
}

impl Rule {
    /// A rule.
    pub fn new(permission: impl Into<String>, pattern: impl Into<String>, action: Action) -> Self {
        Self { permission: permission.into(), pattern: pattern.into(), action, extra: Extra::new() }
    }

    /// Whether the other one says the same, whatever a later version added to either.
    pub fn says_the_same(&self, other: &Self) -> bool {
        (&self.permission, &self.pattern, self.action) == (&other.permission, &other.pattern, other.action)
    }
}

/// A permission that a run waits for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct PermissionRequest {
    /// Its identifier.
    pub id: PermissionId,
    /// The session that waits.
    #[serde(rename = "sessionID")]
    pub session_id: SessionId,
    /// What is wanted.
    pub permission: String,
    /// On what.
    pub patterns: Vec<String>,
    /// For people.
    #[schema(value_type = Object)]
    pub metadata: serde_json::Value,
    /// The patterns that `always` would allow.
    pub always: Vec<String>,
    /// The call that wants it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool: Option<CallRef>,
}

/// A call of a tool, by message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CallRef {
    /// The message.
    #[serde(rename = "messageID")]
    pub message_id: MessageId,
    /// The call.
    #[serde(rename = "callID")]
    pub call_id: String,
}

/// The answer to a permission request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Reply {
    /// This once.
    Once,
    /// From now on, for each of the `always` patterns.
    Always,
    /// No.
    Reject,
}
