//! A built-in model that answers without a key or a network, always alike. It says that it is a demo.

use crate::{
    ChatMessage, ChatRequest, FinishReason, ModelError, ModelEvent, ModelStream, Provider, Usage, UserContent,
};
use futures_util::stream::{self, StreamExt};
use std::time::Duration;

/// The demo model.
///
/// It echoes what the user said. `write <path> <text>` makes it call the `write` tool and `run <command>` the `bash`
/// tool, if they are on offer; a tool's answer gets a closing text. A request without tools whose instructions speak of a
/// title gets a short title.
#[derive(Clone, Copy, Debug)]
pub struct Demo {
    delay: Duration,
}

impl Demo {
    /// A demo that waits so long before each word.
    pub fn new(delay: Duration) -> Self {
        Self { delay }
    }
}

#[async_trait::async_trait]
impl Provider for Demo {
    async fn stream(&self, request: ChatRequest) -> Result<ModelStream, ModelError> {
        let delay = self.delay;
        let events = answer(&request);
        Ok(ModelStream::new(stream::iter(events).then(move |event| async move {
            if matches!(event, ModelEvent::TextDelta(_)) {
                tokio::time::sleep(delay).await;
            }
            Ok(event)
        })))
    }
}

fn answer(request: &ChatRequest) -> Vec<ModelEvent> {
    // `opencode run` quotes what has blanks in it.
    let said = last_user_text(&request.messages);
    let said = said.strip_prefix('"').and_then(|said| said.strip_suffix('"')).unwrap_or(said);
    let text = if request.tools.is_empty() && asks_for_title(&request.messages) {
        let words: Vec<&str> = said.split_whitespace().take(5).collect();
        format!("Demo: {}", words.join(" "))
    } else if let Some(ChatMessage::Tool { content, .. }) = request.messages.last() {
        let line: String = content.lines().next().unwrap_or_default().chars().take(200).collect();
        format!("The demo model has run its tool, which answered: {line}")
    } else if let Some((name, arguments)) = tool_for(request, said) {
        return call(request, name, arguments);
    } else {
        format!("This is the demo model; no real model was asked. You said: {said}")
    };

    let words: Vec<String> = text.split_inclusive(' ').map(str::to_owned).collect();
    let usage = usage(request, words.len());
    let mut events = vec![ModelEvent::TextStart];
    events.extend(words.into_iter().map(ModelEvent::TextDelta));
    events.push(ModelEvent::TextEnd);
    events.push(ModelEvent::Finish { reason: FinishReason::Stop, usage });
    events
}

fn tool_for(request: &ChatRequest, said: &str) -> Option<(&'static str, serde_json::Value)> {
    let offered = |name: &str| request.tools.iter().any(|tool| tool.name == name);
    if let Some(rest) = said.strip_prefix("write ").map(str::trim).filter(|rest| !rest.is_empty() && offered("write")) {
        let (path, content) = rest.split_once(char::is_whitespace).unwrap_or((rest, "Written by the demo model."));
        let content = format!("{}\n", content.trim());
        return Some(("write", serde_json::json!({ "filePath": path, "content": content })));
    }
    let command = said.strip_prefix("run ").map(str::trim).filter(|rest| !rest.is_empty() && offered("bash"))?;
    Some(("bash", serde_json::json!({ "command": command, "description": "Runs what the demo was told to run" })))
}

fn call(request: &ChatRequest, name: &str, arguments: serde_json::Value) -> Vec<ModelEvent> {
    // A conversation only grows, so its length tells the calls of one session apart.
    let id = format!("call_demo_{}", request.messages.len());
    let name = name.to_owned();
    vec![
        ModelEvent::ToolCallStart { index: 0, id: id.clone(), name: name.clone() },
        ModelEvent::ToolCallEnd { index: 0, id, name, arguments: arguments.to_string() },
        ModelEvent::Finish { reason: FinishReason::ToolCalls, usage: usage(request, 1) },
    ]
}

/// The last user's first text: what follows it was added by the server.
fn last_user_text(messages: &[ChatMessage]) -> &str {
    let last = messages.iter().rev().find_map(|message| match message {
        ChatMessage::User(contents) => Some(contents),
        _ => None,
    });
    let text = last.into_iter().flatten().find_map(|content| match content {
        UserContent::Text(text) => Some(text.trim()),
        _ => None,
    });
    text.unwrap_or_default()
}

/// Whether the instructions, which come before the user's own words, speak of a title.
fn asks_for_title(messages: &[ChatMessage]) -> bool {
    let instructions = &messages[..messages.len().saturating_sub(1)];
    instructions.iter().flat_map(texts).any(|text| text.to_ascii_lowercase().contains("title"))
}

fn texts(message: &ChatMessage) -> Vec<&str> {
    match message {
        ChatMessage::System(text) => vec![text],
        ChatMessage::User(contents) => contents
            .iter()
            .filter_map(|content| match content {
                UserContent::Text(text) => Some(text.as_str()),
                _ => None,
            })
            .collect(),
        ChatMessage::Assistant { text, .. } => text.as_deref().into_iter().collect(),
        ChatMessage::Tool { content, .. } => vec![content],
    }
}

/// Words stand in for tokens.
fn usage(request: &ChatRequest, output: usize) -> Usage {
    let input: usize = request.messages.iter().flat_map(texts).map(|text| text.split_whitespace().count()).sum();
    let (input, output) = (input as u64, output as u64);
    Usage { input, output, total: Some(input + output), ..Usage::default() }
}
