//! What the scripted model says: an answer is a list of things that happen on the stream.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::watch;

/// A place where an answer waits until the test lets it go on.
#[derive(Debug, Clone)]
pub struct Gate {
    open: watch::Sender<bool>,
    waiting: watch::Sender<usize>,
}

impl Default for Gate {
    fn default() -> Self {
        Self::new()
    }
}

impl Gate {
    /// A closed gate.
    pub fn new() -> Self {
        Self { open: watch::channel(false).0, waiting: watch::channel(0).0 }
    }

    /// Lets every answer through that waits here, now and later.
    pub fn release(&self) {
        self.open.send_replace(true);
    }

    /// Waits until an answer has come to the gate.
    ///
    /// # Panics
    /// When none has within 30 seconds.
    pub async fn reached(&self) {
        self.reached_by(1).await;
    }

    /// Waits until `count` answers have come to the gate, those counted that have left it.
    ///
    /// # Panics
    /// When they have not within 30 seconds.
    pub async fn reached_by(&self, count: usize) {
        let mut waiting = self.waiting.subscribe();
        let arrived = tokio::time::timeout(crate::polling::BOUND, waiting.wait_for(|n| *n >= count)).await;
        assert!(arrived.is_ok(), "{count} answers should have come to the gate, {} did", *self.waiting.borrow());
    }

    pub(super) async fn pass(&self) {
        self.waiting.send_modify(|n| *n += 1);
        let mut open = self.open.subscribe();
        let _open = open.wait_for(|open| *open).await;
    }
}

/// The tokens that an answer reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// Prompt tokens, the cached ones included.
    pub prompt: u64,
    /// Completion tokens, those of reasoning included.
    pub completion: u64,
    /// Cached prompt tokens.
    pub cached: u64,
    /// Reasoning tokens.
    pub reasoning: u64,
}

impl Default for Usage {
    fn default() -> Self {
        Self { prompt: 100, completion: 10, cached: 0, reasoning: 0 }
    }
}

impl Usage {
    fn json(self) -> Value {
        json!({
            "prompt_tokens": self.prompt,
            "completion_tokens": self.completion,
            "total_tokens": self.prompt + self.completion,
            "prompt_tokens_details": {"cached_tokens": self.cached},
            "completion_tokens_details": {"reasoning_tokens": self.reasoning},
        })
    }
}

/// One thing that happens on the stream.
#[derive(Debug, Clone)]
pub(super) enum Op {
    /// A `data:` line with this JSON.
    Chunk(Value),
    /// These bytes as they are.
    Raw(String),
    Pause(Duration),
    Wait(Gate),
    /// The connection is dropped.
    Cut,
}

/// An answer of the scripted model. It is built by adding what happens, in order; unless it is [`cut`](Self::cut), the
/// stream ends with `[DONE]`.
#[derive(Debug, Clone)]
pub struct Answer {
    pub(super) status: u16,
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Option<String>,
    pub(super) ops: Vec<Op>,
    calls: usize,
}

impl Default for Answer {
    fn default() -> Self {
        Self::new()
    }
}

impl Answer {
    /// A stream on which nothing happens yet.
    pub fn new() -> Self {
        Self { status: 200, headers: Vec::new(), body: None, ops: Vec::new(), calls: 0 }
    }

    /// A whole answer: one text, then the finish reason `stop` with the default usage.
    pub fn say(text: &str) -> Self {
        Self::new().text(text).stop()
    }

    /// A whole answer: one tool call, then the finish reason `tool_calls`.
    pub fn call(id: &str, name: &str, args: Value) -> Self {
        Self::new().tool_call(id, name, args).finish("tool_calls", Usage::default())
    }

    /// Not a stream: an HTTP error with a JSON body.
    pub fn status(status: u16, body: &Value) -> Self {
        Self { status, body: Some(body.to_string()), ..Self::new() }
    }

    /// Not a stream: an HTTP error with a page for people.
    pub fn page(status: u16, html: &str) -> Self {
        Self { status, body: Some(html.to_string()), ..Self::new() }.header("content-type", "text/html")
    }

    /// Adds a header to the HTTP answer.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_string(), value.to_string()));
        self
    }

    /// One delta of text.
    pub fn text(self, text: &str) -> Self {
        self.delta(json!({"content": text}))
    }

    /// Deltas of text, with a pause before each but the first.
    pub fn text_chunks<S: AsRef<str>>(mut self, chunks: impl IntoIterator<Item = S>, delay: Duration) -> Self {
        for (at, chunk) in chunks.into_iter().enumerate() {
            if at > 0 && !delay.is_zero() {
                self = self.pause(delay);
            }
            self = self.text(chunk.as_ref());
        }
        self
    }

    /// One delta of reasoning.
    pub fn reasoning(self, text: &str) -> Self {
        self.delta(json!({"reasoning_content": text}))
    }

    /// One tool call, its arguments in one piece.
    pub fn tool_call(self, id: &str, name: &str, args: Value) -> Self {
        self.tool_call_text(id, name, &args.to_string(), 1)
    }

    /// One tool call with the arguments as this text (which need not be JSON), in so many pieces.
    pub fn tool_call_text(mut self, id: &str, name: &str, args: &str, pieces: usize) -> Self {
        let index = self.calls;
        self.calls += 1;
        self = self.call_head(index, id, name);
        for piece in split(args, pieces) {
            self = self.call_piece(index, &piece);
        }
        self
    }

    /// Several tool calls whose arguments come in turns, so many pieces of each.
    pub fn interleaved_calls(mut self, calls: &[(&str, &str, Value)], pieces: usize) -> Self {
        let first = self.calls;
        self.calls += calls.len();
        let arguments: Vec<Vec<String>> = calls.iter().map(|(_, _, args)| split(&args.to_string(), pieces)).collect();
        for (at, (id, name, _)) in calls.iter().enumerate() {
            self = self.call_head(first + at, id, name);
        }
        for round in 0..pieces {
            for (at, arguments) in arguments.iter().enumerate() {
                if let Some(piece) = arguments.get(round) {
                    self = self.call_piece(first + at, piece);
                }
            }
        }
        self
    }

    /// The finish reason, and the usage in a chunk of its own.
    pub fn finish(self, reason: &str, usage: Usage) -> Self {
        let ended = json!({"choices": [{"index": 0, "delta": {}, "finish_reason": reason}]});
        self.chunk(ended).chunk(json!({"choices": [], "usage": usage.json()}))
    }

    /// The finish reason `stop` with the default usage.
    pub fn stop(self) -> Self {
        self.finish("stop", Usage::default())
    }

    /// A pause.
    pub fn pause(mut self, delay: Duration) -> Self {
        self.ops.push(Op::Pause(delay));
        self
    }

    /// Waits until the gate is opened, or the client goes away.
    pub fn wait(mut self, gate: &Gate) -> Self {
        self.ops.push(Op::Wait(gate.clone()));
        self
    }

    /// Waits until the client goes away.
    pub fn hang(self) -> Self {
        self.wait(&Gate::new())
    }

    /// An error object in the midst of the stream.
    pub fn error_chunk(self, error: Value) -> Self {
        self.chunk(json!({ "error": error }))
    }

    /// A `data:` line that is not JSON.
    pub fn malformed(mut self, text: &str) -> Self {
        self.ops.push(Op::Raw(format!("data: {text}\n\n")));
        self
    }

    /// The connection is dropped, without an end of the stream.
    pub fn cut(mut self) -> Self {
        self.ops.push(Op::Cut);
        self
    }

    /// Any chunk.
    pub fn chunk(mut self, chunk: Value) -> Self {
        self.ops.push(Op::Chunk(chunk));
        self
    }

    fn delta(self, delta: Value) -> Self {
        self.chunk(json!({"choices": [{"index": 0, "delta": delta, "finish_reason": null}]}))
    }

    fn call_head(self, index: usize, id: &str, name: &str) -> Self {
        let function = json!({"name": name, "arguments": ""});
        self.delta(json!({"tool_calls": [{"index": index, "id": id, "type": "function", "function": function}]}))
    }

    fn call_piece(self, index: usize, piece: &str) -> Self {
        self.delta(json!({"tool_calls": [{"index": index, "function": {"arguments": piece}}]}))
    }
}

/// Cuts a text into at most so many pieces of about the same length.
fn split(text: &str, pieces: usize) -> Vec<String> {
    let letters: Vec<char> = text.chars().collect();
    let length = letters.len().div_ceil(pieces.max(1)).max(1);
    letters.chunks(length).map(|piece| piece.iter().collect()).collect()
}
