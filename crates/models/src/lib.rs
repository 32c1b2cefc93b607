//! A model provider is a stream of text, reasoning, tool-call and usage events.
//!
//! This crate knows nothing of sessions or storage: it is given a complete request and hands out what the model said.
//! A wire format is a folder ([`chat`]); the built-in [`demo`] answers without a key or a network.

pub mod chat;
pub mod demo;
mod error;
mod limits;
mod request;
pub mod retry;
pub mod sse;
mod stream;

pub use chat::OpenAiCompatible;
pub use error::{ApiError, ModelError, content_filter_error};
pub use limits::Limits;
pub use request::{ChatMessage, ChatRequest, Endpoint, Secret, Timeouts, ToolCall, ToolChoice, ToolSpec, UserContent};
pub use retry::{MAX_RETRIES, retry_delay};
pub use stream::{FinishReason, ModelEvent, ModelStream, Usage};

/// Something that answers chat requests.
#[async_trait::async_trait]
pub trait Provider: Send + Sync {
    /// Sends a request and returns its answer as a stream, as soon as the provider has begun to answer.
    ///
    /// Dropping the future or the stream drops the connection at once. Nothing is retried here: whether and when to try
    /// again is told by [`ModelError::is_retryable`] and [`retry_delay`].
    async fn stream(&self, request: ChatRequest) -> Result<ModelStream, ModelError>;
}
