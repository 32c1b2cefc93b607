//! What a model answers.

use crate::ModelError;
use futures_util::stream::{BoxStream, Stream, StreamExt};
use std::fmt;

/// A piece of an answer, in the order in which the model said it.
///
/// Text, reasoning and tool calls may be interleaved; at most one text and one reasoning are open at a time. A stream
/// that ends without [`ModelEvent::Finish`] ended with an error, and what was open then stays open.
#[derive(Clone, Debug, PartialEq)]
pub enum ModelEvent {
    /// A text begins.
    TextStart,
    /// More of the open text; never empty.
    TextDelta(String),
    /// The open text is whole.
    TextEnd,
    /// Reasoning begins.
    ReasoningStart,
    /// More of the open reasoning; never empty.
    ReasoningDelta(String),
    /// The open reasoning is whole.
    ReasoningEnd,
    /// A tool call begins.
    ToolCallStart {
        /// Counts the calls of this answer from 0.
        index: u32,
        /// Its identifier, never empty.
        id: String,
        /// The tool.
        name: String,
    },
    /// A tool call is whole. It comes only when the provider has said that the answer is, so that a cut connection never
    /// runs half a call.
    ToolCallEnd {
        /// The index of its start.
        index: u32,
        /// Its identifier.
        id: String,
        /// The tool.
        name: String,
        /// All of the arguments' text, unparsed; it may be empty.
        arguments: String,
    },
    /// The answer is whole: the last event.
    Finish {
        /// Why it ended.
        reason: FinishReason,
        /// What it cost.
        usage: Usage,
    },
}

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FinishReason {
    /// The model had said it all.
    Stop,
    /// The token limit was reached.
    Length,
    /// The model wants its tools run.
    ToolCalls,
    /// The provider's filter cut in.
    ContentFilter,
    /// The provider says that it failed.
    Error,
    /// The provider did not say.
    Unknown,
    /// The provider said something that has no name here.
    Other,
}

impl FinishReason {
    /// The name that messages bear.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Length => "length",
            Self::ToolCalls => "tool-calls",
            Self::ContentFilter => "content-filter",
            Self::Error => "error",
            Self::Unknown => "unknown",
            Self::Other => "other",
        }
    }
}

/// Tokens, as the provider counted them: `input` includes the cached ones, `output` includes reasoning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Read.
    pub input: u64,
    /// Written.
    pub output: u64,
    /// Of those written, thought.
    pub reasoning: u64,
    /// Of those read, read from a cache.
    pub cache_read: u64,
    /// Of those read, written to a cache.
    pub cache_write: u64,
    /// The provider's own total.
    pub total: Option<u64>,
}

/// An answer in progress. Dropping it drops the connection at once.
pub struct ModelStream {
    events: BoxStream<'static, Result<ModelEvent, ModelError>>,
    done: bool,
}

impl ModelStream {
    /// Makes an answer of any stream; for providers.
    pub fn new(events: impl Stream<Item = Result<ModelEvent, ModelError>> + Send + 'static) -> Self {
        Self { events: events.boxed(), done: false }
    }

    /// The next event; `None` after [`ModelEvent::Finish`] or an error.
    ///
    /// Cancel safe: dropping the future loses nothing. It waits no longer than the provider's limits allow.
    pub async fn next(&mut self) -> Option<Result<ModelEvent, ModelError>> {
        if self.done {
            return None;
        }
        let event = self.events.next().await;
        self.done = !matches!(&event, Some(Ok(event)) if !matches!(event, ModelEvent::Finish { .. }));
        event
    }
}

impl fmt::Debug for ModelStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ModelStream").field("done", &self.done).finish_non_exhaustive()
    }
}
