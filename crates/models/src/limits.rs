//! What a provider may take and send.

use std::time::Duration;

/// Bounds of one model call. Each gives an error of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// How long a connection may take to open: [`crate::ModelError::Connect`].
    pub connect: Duration,
    /// How long the provider may take until its answer's headers: [`crate::ModelError::Timeout`].
    pub first_byte: Duration,
    /// How long an answer may be silent: [`crate::ModelError::Timeout`].
    pub silence: Duration,
    /// The longest line, and the longest event, in bytes: [`crate::ModelError::TooLarge`].
    pub line: usize,
    /// All of an answer's text, reasoning and tool calls, in bytes: [`crate::ModelError::TooLarge`].
    pub answer: usize,
    /// The arguments of one tool call, in bytes: [`crate::ModelError::TooLarge`].
    pub tool_arguments: usize,
    /// All that is read of one answer, framing and comments included, in bytes: [`crate::ModelError::TooLarge`].
    pub stream: usize,
}

impl Default for Limits {
    fn default() -> Self {
        const MIB: usize = 1 << 20;
        Self {
            connect: Duration::from_secs(10),
            first_byte: Duration::from_secs(300),
            silence: Duration::from_secs(300),
            line: 8 * MIB,
            answer: 32 * MIB,
            tool_arguments: 4 * MIB,
            // A delta of a few letters comes in some 250 bytes of JSON.
            stream: 1024 * MIB,
        }
    }
}
