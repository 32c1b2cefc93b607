//! What the chunks of an answer say.

use crate::{FinishReason, Limits, ModelError, ModelEvent, Usage};
use serde::Deserialize;
use serde_json::Value;
use std::collections::VecDeque;

/// What a call costs besides its texts, against many empty ones.
const CALL_OVERHEAD: usize = 256;

#[derive(Deserialize)]
struct Chunk {
    id: Option<String>,
    choices: Option<Vec<Choice>>,
    usage: Option<WireUsage>,
    error: Option<Value>,
}

#[derive(Deserialize)]
struct Choice {
    delta: Option<Delta>,
    finish_reason: Option<String>,
}

#[derive(Deserialize)]
struct Delta {
    content: Option<String>,
    reasoning_content: Option<String>,
    reasoning: Option<String>,
    tool_calls: Option<Vec<CallDelta>>,
}

#[derive(Deserialize)]
struct CallDelta {
    index: Option<u32>,
    id: Option<String>,
    function: Option<FunctionDelta>,
}

#[derive(Deserialize)]
struct FunctionDelta {
    name: Option<String>,
    arguments: Option<Value>,
}

#[derive(Deserialize)]
struct WireUsage {
    prompt_tokens: Option<u64>,
    completion_tokens: Option<u64>,
    total_tokens: Option<u64>,
    prompt_tokens_details: Option<PromptDetails>,
    completion_tokens_details: Option<CompletionDetails>,
}

#[derive(Deserialize)]
struct PromptDetails {
    cached_tokens: Option<u64>,
    cache_write_tokens: Option<u64>,
}

#[derive(Deserialize)]
struct CompletionDetails {
    reasoning_tokens: Option<u64>,
}

/// A tool call that is being written. Its place in the list is the index of its events.
struct Call {
    /// The provider's index, which some providers give twice or not at all.
    wire_index: Option<u32>,
    id: String,
    name: String,
    arguments: String,
    started: bool,
}

/// Joins chunks into events.
pub(super) struct Answer {
    limits: Limits,
    /// Bytes of text, reasoning and calls so far.
    size: usize,
    text_open: bool,
    reasoning_open: bool,
    calls: Vec<Call>,
    /// So many calls have been told whole.
    ended_calls: usize,
    response_id: Option<String>,
    reason: Option<FinishReason>,
    usage: Usage,
}

impl Answer {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            limits,
            size: 0,
            text_open: false,
            reasoning_open: false,
            calls: Vec::new(),
            ended_calls: 0,
            response_id: None,
            reason: None,
            usage: Usage::default(),
        }
    }

    /// Whether the provider has given its reason to finish: at most the usage is yet to come.
    pub(super) fn has_finished(&self) -> bool {
        self.reason.is_some()
    }

    /// Takes one chunk in and appends what it says.
    pub(super) fn chunk(&mut self, text: &str, events: &mut VecDeque<ModelEvent>) -> Result<(), ModelError> {
        let chunk: Chunk = serde_json::from_str(text).map_err(|error| ModelError::malformed(text, error))?;
        if let Some(error) = chunk.error.filter(|error| !error.is_null()) {
            return Err(ModelError::from_stream(&error));
        }
        if self.response_id.is_none() {
            self.response_id = chunk.id.filter(|id| !id.is_empty());
        }
        if let Some(usage) = chunk.usage {
            self.usage = usage.into();
        }
        // Only one answer was asked for.
        let Some(choice) = chunk.choices.into_iter().flatten().next() else { return Ok(()) };
        if let Some(delta) = choice.delta {
            self.delta(delta, events)?;
        }
        if let Some(reason) = choice.finish_reason.filter(|reason| !reason.is_empty()) {
            self.reason = Some(finish_reason(&reason));
            self.close(events);
        }
        Ok(())
    }

    /// The provider has said all: appends what is still to be told.
    pub(super) fn finish(&mut self, events: &mut VecDeque<ModelEvent>) {
        self.close(events);
        let reason = self.reason.unwrap_or(FinishReason::Unknown);
        events.push_back(ModelEvent::Finish { reason, usage: self.usage });
    }

    fn delta(&mut self, delta: Delta, events: &mut VecDeque<ModelEvent>) -> Result<(), ModelError> {
        let filled = |text: Option<String>| text.filter(|text| !text.is_empty());
        if let Some(text) = filled(delta.reasoning_content).or_else(|| filled(delta.reasoning)) {
            self.grow(text.len())?;
            if !std::mem::replace(&mut self.reasoning_open, true) {
                events.push_back(ModelEvent::ReasoningStart);
            }
            events.push_back(ModelEvent::ReasoningDelta(text));
        }
        if let Some(text) = filled(delta.content) {
            self.grow(text.len())?;
            self.end_reasoning(events);
            if !std::mem::replace(&mut self.text_open, true) {
                events.push_back(ModelEvent::TextStart);
            }
            events.push_back(ModelEvent::TextDelta(text));
        }
        for call in delta.tool_calls.into_iter().flatten() {
            self.end_reasoning(events);
            self.call(call, events)?;
        }
        Ok(())
    }

    fn call(&mut self, delta: CallDelta, events: &mut VecDeque<ModelEvent>) -> Result<(), ModelError> {
        let id = delta.id.unwrap_or_default();
        let (name, arguments) = delta.function.map_or((None, None), |function| (function.name, function.arguments));
        let name = name.unwrap_or_default();
        let arguments = match arguments {
            None | Some(Value::Null) => String::new(),
            Some(Value::String(text)) => text,
            Some(value) => value.to_string(),
        };
        let place = match self.place(delta.index, &id) {
            Some(place) => place,
            None => {
                self.grow(CALL_OVERHEAD)?;
                let place = self.calls.len();
                let id = if id.is_empty() { self.made_up_id(place) } else { id };
                let (name, arguments) = (String::new(), String::new());
                self.calls.push(Call { wire_index: delta.index, id, name, arguments, started: false });
                place
            }
        };
        self.grow(name.len() + arguments.len())?;
        let limit = self.limits.tool_arguments;
        let Some(call) = self.calls.get_mut(place) else { return Ok(()) };
        if call.arguments.len() + arguments.len() > limit {
            return Err(ModelError::TooLarge { what: "arguments for one tool call", limit });
        }
        call.arguments.push_str(&arguments);
        if !call.started && !name.is_empty() {
            call.name = name;
            call.start(place, events);
        }
        Ok(())
    }

    /// The call that a delta belongs to; `None` if it begins a new one. Calls that have been told whole stay as they are.
    fn place(&self, index: Option<u32>, id: &str) -> Option<usize> {
        let open = self.calls.iter().enumerate().skip(self.ended_calls);
        let mut same = open.filter(|(_, call)| call.wire_index == index || index.is_none());
        if id.is_empty() {
            same.next_back().map(|(place, _)| place)
        } else {
            same.find(|(_, call)| call.id == id).map(|(place, _)| place)
        }
    }

    /// An identifier for a call that the provider gave none; the answer's own tells it from those of other answers.
    fn made_up_id(&self, place: usize) -> String {
        match &self.response_id {
            Some(response) => format!("call_{response}_{place}"),
            None => format!("call_{place}"),
        }
    }

    fn end_reasoning(&mut self, events: &mut VecDeque<ModelEvent>) {
        if std::mem::take(&mut self.reasoning_open) {
            events.push_back(ModelEvent::ReasoningEnd);
        }
    }

    /// Ends all that is open.
    fn close(&mut self, events: &mut VecDeque<ModelEvent>) {
        self.end_reasoning(events);
        for (place, call) in self.calls.iter_mut().enumerate().skip(self.ended_calls) {
            if !call.started {
                call.start(place, events);
            }
            let (id, name) = (call.id.clone(), call.name.clone());
            let arguments = std::mem::take(&mut call.arguments);
            events.push_back(ModelEvent::ToolCallEnd { index: number(place), id, name, arguments });
        }
        self.ended_calls = self.calls.len();
        if std::mem::take(&mut self.text_open) {
            events.push_back(ModelEvent::TextEnd);
        }
    }

    fn grow(&mut self, bytes: usize) -> Result<(), ModelError> {
        self.size += bytes;
        if self.size > self.limits.answer {
            return Err(ModelError::TooLarge { what: "answer", limit: self.limits.answer });
        }
        Ok(())
    }
}

impl Call {
    fn start(&mut self, place: usize, events: &mut VecDeque<ModelEvent>) {
        self.started = true;
        let (id, name) = (self.id.clone(), self.name.clone());
        events.push_back(ModelEvent::ToolCallStart { index: number(place), id, name });
    }
}

impl From<WireUsage> for Usage {
    fn from(wire: WireUsage) -> Self {
        let prompt = wire.prompt_tokens_details;
        let completion = wire.completion_tokens_details;
        Self {
            input: wire.prompt_tokens.unwrap_or_default(),
            output: wire.completion_tokens.unwrap_or_default(),
            reasoning: completion.and_then(|details| details.reasoning_tokens).unwrap_or_default(),
            cache_read: prompt.as_ref().and_then(|details| details.cached_tokens).unwrap_or_default(),
            cache_write: prompt.and_then(|details| details.cache_write_tokens).unwrap_or_default(),
            total: wire.total_tokens,
        }
    }
}

fn number(place: usize) -> u32 {
    u32::try_from(place).unwrap_or(u32::MAX)
}

fn finish_reason(name: &str) -> FinishReason {
    match name {
        "stop" => FinishReason::Stop,
        "length" => FinishReason::Length,
        "tool_calls" | "function_call" => FinishReason::ToolCalls,
        "content_filter" => FinishReason::ContentFilter,
        "error" => FinishReason::Error,
        _ => FinishReason::Other,
    }
}
