//! What a model is asked.

use serde_json::{Map, Value};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// A complete request: everything that the model is to know.
#[derive(Clone, Debug)]
pub struct ChatRequest {
    /// Where to send it, and as whom.
    pub endpoint: Endpoint,
    /// The model's name, as the provider knows it.
    pub model: String,
    /// The conversation. Shared by the copies of a request: it may have many megabytes.
    pub messages: Arc<[ChatMessage]>,
    /// The tools on offer. Without any, [`ChatRequest::tool_choice`] is not sent.
    pub tools: Vec<ToolSpec>,
    /// Whether a tool must be called.
    pub tool_choice: ToolChoice,
    /// At most so many tokens are to be written.
    pub max_tokens: Option<u64>,
    /// The sampling temperature.
    pub temperature: Option<f64>,
    /// The share of probability that is sampled from.
    pub top_p: Option<f64>,
    /// Provider options, merged into the body. A camelCase name becomes snake_case (`reasoningEffort` is sent as
    /// `reasoning_effort`); nested names stay as they are. The conversation and the streaming cannot be overridden.
    pub options: Map<String, Value>,
    /// Headers of this request: the session's ids, `traceparent`. They win over [`Endpoint::headers`].
    pub headers: Vec<(String, String)>,
}

/// Where a provider listens, and how to prove who asks.
#[derive(Clone)]
pub struct Endpoint {
    /// The address up to the version, such as `https://api.example.com/v1`.
    pub base_url: String,
    /// The key, sent as a bearer token.
    pub api_key: Option<Secret>,
    /// Headers of every request. They may hold keys, so their values are never printed.
    pub headers: Vec<(String, String)>,
    /// Its own time-outs.
    pub timeouts: Timeouts,
}

/// What an endpoint may take instead of what [`crate::Limits`] says. Each ends in [`crate::ModelError::Timeout`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timeouts {
    /// Until the answer's headers; else [`crate::Limits::first_byte`].
    pub first_byte: Option<Duration>,
    /// Between two pieces of the answer; else [`crate::Limits::silence`].
    pub silence: Option<Duration>,
    /// From the request to the end of the answer; else no time of its own.
    pub whole: Option<Duration>,
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.headers.iter().map(|(name, _)| name.as_str()).collect();
        f.debug_struct("Endpoint")
            .field("base_url", &crate::error::public_url(&self.base_url))
            .field("api_key", &self.api_key)
            .field("headers", &names)
            .field("timeouts", &self.timeouts)
            .finish()
    }
}

/// A text that is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself, for the one place that sends it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(hidden)")
    }
}

/// One message of a conversation.
#[derive(Clone, Debug, PartialEq)]
pub enum ChatMessage {
    /// What the model shall be.
    System(String),
    /// What a user said. A single text is sent as a plain string.
    User(Vec<UserContent>),
    /// What the model said.
    Assistant {
        /// Its text.
        text: Option<String>,
        /// What it thought, for the models that want to see it again.
        reasoning: Option<String>,
        /// The tools that it called.
        tool_calls: Vec<ToolCall>,
    },
    /// What a tool answered.
    Tool {
        /// The call that it answers.
        call_id: String,
        /// Its output, or what went wrong.
        content: String,
    },
}

/// A piece of what a user said.
#[derive(Clone, Debug, PartialEq)]
pub enum UserContent {
    /// Text.
    Text(String),
    /// An image.
    Image {
        /// Such as `image/png`.
        mime: String,
        /// An `https:` or `data:` URL.
        url: String,
    },
    /// Another file. Audio is sent as audio.
    File {
        /// Such as `application/pdf`.
        mime: String,
        /// Its name, where it has one.
        filename: Option<String>,
        /// A `data:` URL.
        url: String,
    },
}

/// A tool call, as the model wrote it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToolCall {
    /// Its identifier, which the tool's answer repeats.
    pub id: String,
    /// The tool.
    pub name: String,
    /// Its arguments: JSON text, if the model keeps its word.
    pub arguments: String,
}

/// A tool on offer.
#[derive(Clone, Debug, PartialEq)]
pub struct ToolSpec {
    /// Its name.
    pub name: String,
    /// What it does, for the model.
    pub description: Arc<str>,
    /// The JSON schema of its arguments.
    pub parameters: Arc<Value>,
}

/// Whether a tool must be called.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ToolChoice {
    /// As the model likes.
    #[default]
    Auto,
    /// At least one.
    Required,
    /// None, though some are on offer.
    None,
}
