//! Messages: what a user asked, what a step answered.

use crate::Extra;
use crate::ids::{MessageId, SessionId};
use crate::part::Part;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A message without its parts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "role", rename_all = "lowercase")]
pub enum Message {
    /// What a user asked.
    User(UserMessage),
    /// What one step answered: one model call and its tools.
    Assistant(AssistantMessage),
}

impl Message {
    /// Its identifier.
    pub fn id(&self) -> &MessageId {
        match self {
            Self::User(message) => &message.id,
            Self::Assistant(message) => &message.id,
        }
    }

    /// The session it belongs to.
    pub fn session_id(&self) -> &SessionId {
        match self {
            Self::User(message) => &message.session_id,
            Self::Assistant(message) => &message.session_id,
        }
    }

    /// When it was created, in milliseconds. Messages are ordered by (created, id).
    pub fn created(&self) -> u64 {
        match self {
            Self::User(message) => message.time.created,
            Self::Assistant(message) => message.time.created,
        }
    }

    /// The key that orders a conversation.
    pub fn order(&self) -> (u64, MessageId) {
        (self.created(), self.id().clone())
    }

    /// The assistant message, if it is one.
    pub fn assistant(&self) -> Option<&AssistantMessage> {
        match self {
            Self::Assistant(message) => Some(message),
            Self::User(_) => None,
        }
    }

    /// The user message, if it is one.
    pub fn user(&self) -> Option<&UserMessage> {
        match self {
            Self::User(message) => Some(message),
            Self::Assistant(_) => None,
        }
    }
}

/// A message and its parts, in the order of the parts' ids: the shape that the API answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct MessageWithParts {
    /// The message.
    pub info: Message,
    /// Its parts.
    pub parts: Vec<Part>,
}

/// What a user asked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct UserMessage {
    /// Its identifier.
    pub id: MessageId,
    /// The session.
    #[serde(rename = "sessionID")]
    pub session_id: SessionId,
    /// When.
    pub time: MessageTime,
    /// The form the answer must have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Object)]
    pub format: Option<serde_json::Value>,
    /// What the turn changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Object)]
    pub summary: Option<serde_json::Value>,
    /// The agent that shall answer.
    #[serde(default)]
    pub agent: String,
    /// The model that shall answer.
    pub model: UserModel,
    /// Text that is added to the system prompt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system: Option<String>,
    /// Tools switched on or off for this prompt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Object)]
    pub tools: Option<serde_json::Map<String, serde_json::Value>>,
    /// Fields that this version does not name.
    #[serde(flatten)]
    #[schema(value_type = Object)]
    pub extra: Extra,
}

/// The model that a prompt chose.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct UserModel {
    /// The provider.
    #[serde(rename = "providerID")]
    pub provider_id: String,
    /// The model.
    #[serde(rename = "modelID")]
    pub model_id: String,
    /// The variant, where one was chosen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
}

/// What one step answered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct AssistantMessage {
    /// Its identifier.
    pub id: MessageId,
    /// The session.
    #[serde(rename = "sessionID")]
    pub session_id: SessionId,
    /// The user message that it answers.
    #[serde(rename = "parentID")]
    pub parent_id: MessageId,
    /// When.
    pub time: MessageTime,
    /// The agent's name, again.
    pub mode: String,
    /// The agent.
    #[serde(default)]
    pub agent: String,
    /// The model.
    #[serde(rename = "modelID")]
    pub model_id: String,
    /// Its provider.
    #[serde(rename = "providerID")]
    pub provider_id: String,
    /// The variant, where one was chosen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
    /// Where it worked.
    pub path: MessagePath,
    /// Dollars.
    pub cost: f64,
    /// Tokens.
    pub tokens: Tokens,
    /// Why it ended as it should not have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<MessageError>,
    /// `stop`, `tool-calls`, `length`, `content-filter`, `error`, `unknown`, `other`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finish: Option<String>,
    /// True for a compaction.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<bool>)]
    pub summary: Option<serde_json::Value>,
    /// The answer in the form that the prompt asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Object)]
    pub structured: Option<serde_json::Value>,
    /// Fields that this version does not name.
    #[serde(flatten)]
    #[schema(value_type = Object)]
    pub extra: Extra,
}

/// When a message was created and completed, in milliseconds since the epoch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct MessageTime {
    /// Created.
    pub created: u64,
    /// Completed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completed: Option<u64>,
}

/// Where a step worked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MessagePath {
    /// The session's directory.
    pub cwd: String,
    /// The work tree's root.
    pub root: String,
}

/// Tokens of a step or of a session.
///
/// `input` leaves the cached ones out, `output` leaves reasoning out.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Tokens {
    /// The provider's own total; absent before the step finished and in sums.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total: Option<u64>,
    /// Read, not from a cache.
    pub input: u64,
    /// Written.
    pub output: u64,
    /// Thought.
    pub reasoning: u64,
    /// Through a cache.
    pub cache: CacheTokens,
}

/// Tokens that went through a provider's cache.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct CacheTokens {
    /// Read from it.
    pub read: u64,
    /// Written to it.
    pub write: u64,
}

/// Why a message ended as it should not have: `{name, data}`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct MessageError {
    /// `MessageAbortedError`, `APIError`, `ProviderAuthError`, `ContextOverflowError`, `ContentFilterError`,
    /// `StructuredOutputError`, `MessageOutputLengthError` or `UnknownError`.
    pub name: String,
    /// What the name calls for; `message` in nearly all.
    #[schema(value_type = Object)]
    pub data: serde_json::Value,
}

impl MessageError {
    /// An error that has only a message.
    pub fn new(name: &str, message: impl Into<String>) -> Self {
        Self { name: name.into(), data: serde_json::json!({ "message": message.into() }) }
    }

    /// The run was stopped by its user.
    pub fn aborted() -> Self {
        Self::new("MessageAbortedError", "Aborted")
    }

    /// What no other name fits.
    pub fn unknown(message: impl Into<String>) -> Self {
        Self::new("UnknownError", message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_fields_survive_a_rewrite() {
        let text = r#"{"role":"user","id":"msg_a","sessionID":"ses_a","time":{"created":1},"agent":"build","model":{"providerID":"p","modelID":"m"},"later":{"x":[1]}}"#;
        let message: Message = serde_json::from_str(text).unwrap();
        let again = serde_json::to_value(&message).unwrap();
        assert_eq!(again, serde_json::from_str::<serde_json::Value>(text).unwrap());
    }
}
