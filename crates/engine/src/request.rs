//! What the model is asked: the conversation in the provider-neutral form.

use crate::compaction::Compaction;
use crate::run::Run;
use crate::step::Scene;
use crate::turn::{Transcript, UNKNOWN_OUTCOME};
use agents::{Agent, AgentMode, Instance, Modalities, Model};
use base64::Engine as _;
use models::{ChatMessage, ChatRequest, Endpoint, Secret, Timeouts, ToolCall, ToolChoice, ToolSpec, UserContent};
use serde_json::{Map, Value};
use std::sync::Arc;
use wire::message::{Message, MessageWithParts, UserMessage};
use wire::part::{FilePart, Part, PartKind, ToolState};
use wire::permission::Action;
use wire::session::Session;

/// OpenCode never asks for more tokens than this at once.
pub(crate) const MAX_OUTPUT: u64 = 32_000;
/// What the model is told after an answer that broke off.
const BROKEN_OFF: &str = "The answer above broke off in the middle. Go on from there.";
/// What the model is reminded of when its agent's steps are used up.
const LAST_STEP: &str = "This was the last step that is allowed here. I call no more tools: I say what is done, what is \
                         left, and what to do next.";
/// What the model reads in place of an old output that was taken out of its sight.
pub(crate) const CLEARED: &str = "[This output is old and was cleared]";
/// What the model reads above the files that came with the outcomes of calls.
const ATTACHED: &str = "The calls above have given these files:";
/// What the model reads in place of a call's outcome that nobody knows.
const INTERRUPTED: &str = "[Tool execution was interrupted]";

/// The request of a step.
pub(crate) fn chat_request(run: &Run, scene: &Scene, transcript: &Transcript) -> ChatRequest {
    let date = crate::time::date(run.engine.now_ms());
    let wanted = crate::structured::schema(&scene.user).map(|_| crate::structured::WANTED);
    let extra: Vec<&str> = wanted.into_iter().chain(scene.user.system.as_deref()).collect();
    let extra = extra.join("\n\n");
    let system = agents::system_prompt(&scene.instance, &scene.agent, &scene.model, &date, Some(&extra));
    let mut messages = vec![ChatMessage::System(system)];
    messages.extend(conversation(&crate::compaction::shown(&transcript.messages), scene.model.capabilities.input));
    remind(scene, transcript, &mut messages);
    if matches!(messages.last(), Some(ChatMessage::Assistant { tool_calls, .. }) if tool_calls.is_empty()) {
        // Left by a replica that died in mid-answer; many providers want a user to speak last.
        messages.push(ChatMessage::User(vec![UserContent::Text(BROKEN_OFF.to_owned())]));
    }
    let answers = transcript.messages.iter().filter_map(|message| message.info.assistant());
    let step = answers.filter(|answer| answer.parent_id == scene.user.id).count() as u32 + 1;
    if scene.agent.steps.is_some_and(|steps| step >= steps) {
        let text = Some(LAST_STEP.to_owned());
        messages.push(ChatMessage::Assistant { text, reasoning: None, tool_calls: Vec::new() });
    }
    let options = scene.user.model.variant.as_ref().and_then(|name| scene.model.variants.get(name));
    let mut request = base_request(scene, &scene.model, messages);
    for layer in [Some(&scene.agent.options), options].into_iter().flatten() {
        request.options.extend(layer.clone());
    }
    request.temperature = scene.agent.temperature.filter(|_| scene.model.capabilities.temperature);
    request.top_p = scene.agent.top_p;
    request.tools = scene.offered.clone();
    if wanted.is_some() {
        request.tool_choice = ToolChoice::Required;
    }
    request
}

/// Says beside the newest prompt what its agent must not forget. It stands in the request only.
fn remind(scene: &Scene, transcript: &Transcript, messages: &mut [ChatMessage]) {
    let prompts = transcript.messages.iter().rev().filter_map(|message| message.info.user());
    let former = prompts.skip_while(|prompt| prompt.id != scene.user.id).nth(1);
    let reminder = agents::reminder(&scene.agent.name, former.map(|prompt| prompt.agent.as_str()));
    let newest = messages.iter_mut().rev().find_map(|message| match message {
        ChatMessage::User(content) => Some(content),
        _ => None,
    });
    if let (Some(reminder), Some(content)) = (reminder, newest) {
        content.push(UserContent::Text(reminder.to_owned()));
    }
}

/// What all requests of a session have in common.
pub(crate) fn base_request(scene: &Scene, model: &Model, messages: Vec<ChatMessage>) -> ChatRequest {
    let session = scene.session.id.to_string();
    let mut headers: Vec<(String, String)> = ["x-opencode-session-id", "x-session-affinity", "x-session-id"]
        .into_iter()
        .map(|name| (name.to_owned(), session.clone()))
        .collect();
    if let Some(parent) = &scene.session.parent_id {
        for name in ["x-opencode-parent-session-id", "x-parent-session-id"] {
            headers.push((name.to_owned(), parent.to_string()));
        }
    }
    ChatRequest {
        endpoint: Endpoint {
            base_url: model.base_url.clone(),
            api_key: model.api_key.as_ref().map(|key| Secret::new(key.expose())),
            headers: model.headers.iter().map(|(name, value)| (name.clone(), value.expose().to_owned())).collect(),
            timeouts: Timeouts {
                first_byte: model.timeouts.headers,
                silence: model.timeouts.chunk,
                whole: model.timeouts.whole,
            },
        },
        model: model.api_id.clone(),
        messages: messages.into(),
        tools: Vec::new(),
        tool_choice: ToolChoice::Auto,
        max_tokens: Some(if model.limit.output == 0 { MAX_OUTPUT } else { model.limit.output.min(MAX_OUTPUT) }),
        temperature: None,
        top_p: None,
        options: model.options.clone(),
        headers,
    }
}

/// The tools that the agent's and the session's rules do not deny altogether; none if the model cannot call any.
pub(crate) fn offered(
    run: &Run,
    session: &Session,
    instance: &Instance,
    agent: &Agent,
    model: &Model,
    user: &UserMessage,
) -> Vec<ToolSpec> {
    if !model.capabilities.toolcall {
        return Vec::new();
    }
    let specs = run.engine.0.tools.specs(&model.api_id);
    let own = session.permission.as_deref().unwrap_or_default();
    let asked = switched(user.tools.as_ref());
    let rules: [&[wire::permission::Rule]; 3] = [&agent.permission, own, &asked];
    let disabled = agents::permission::disabled_tools(specs.iter().map(|spec| spec.name), &rules);
    let mut offered: Vec<ToolSpec> = specs
        .into_iter()
        .filter(|spec| !disabled.contains(spec.name))
        .map(|mut spec| {
            if spec.name == "task" {
                spec.description = format!("{}{}", spec.description, subagents(instance, &rules)).into();
            }
            ToolSpec { name: spec.name.to_owned(), description: spec.description, parameters: spec.parameters }
        })
        .collect();
    offered.extend(crate::structured::tool(&run.engine.0.tools, user));
    offered.sort_by_key(|spec| spec.name.to_lowercase());
    offered
}

/// The agents that may be given a task, and what they are good for.
fn subagents(instance: &Instance, rules: &[&[wire::permission::Rule]]) -> String {
    let mut text = String::from("\n\nThe agents:");
    for agent in instance.agents.iter().filter(|agent| agent.mode != AgentMode::Primary && !agent.hidden) {
        if agents::permission::evaluate("task", &agent.name, rules).action != Action::Deny {
            let use_for = agent.description.as_deref().unwrap_or("for what its user asks it for by name");
            text.push_str(&format!("\n- {}: {use_for}", agent.name));
        }
    }
    text
}

/// The rules that a prompt's `tools` stand for.
pub(crate) fn switched(tools: Option<&Map<String, Value>>) -> Vec<wire::permission::Rule> {
    let switches = tools.into_iter().flatten().filter_map(|(name, on)| Some((name.as_str(), on.as_bool()?)));
    agents::permission::from_tools(switches)
}

/// A conversation for a model that reads so much. Messages with an error are left out, except aborted ones that have
/// content.
fn conversation(messages: &[Arc<MessageWithParts>], reads: Modalities) -> Vec<ChatMessage> {
    let mut chat = Vec::new();
    for message in messages {
        match &message.info {
            Message::User(_) => {
                let content: Vec<_> = message.parts.iter().filter_map(|part| user_content(part, reads)).collect();
                if !content.is_empty() {
                    chat.push(ChatMessage::User(content));
                }
            }
            Message::Assistant(info) => {
                let is_aborted = info.error.as_ref().is_some_and(|error| error.name == "MessageAbortedError");
                if info.error.is_none() || is_aborted {
                    assistant(&message.parts, reads, &mut chat);
                }
            }
        }
    }
    chat
}

fn user_content(part: &Part, reads: Modalities) -> Option<UserContent> {
    match &part.kind {
        PartKind::Text(text) if text.ignored != Some(true) && !text.text.is_empty() => {
            Some(UserContent::Text(text.text.clone()))
        }
        // What they say stands beside them, as text.
        PartKind::File(file) if file.mime == "text/plain" || file.mime == "application/x-directory" => None,
        PartKind::File(file) => Some(attached(file, reads)),
        _ => stands_for(part).map(|text| UserContent::Text(text.to_owned())),
    }
}

/// A file for a model: in the place of one that it cannot read stand words that say so, since a provider would refuse it, and
/// with it all that is said after it.
fn attached(file: &FilePart, reads: Modalities) -> UserContent {
    let FilePart { mime, filename, url, .. } = file;
    if let Some(kind) = unreadable(mime, reads) {
        let name = filename.as_deref().unwrap_or(mime);
        return UserContent::Text(format!("[The file \"{name}\" is left out: this model reads no {kind}. Say so.]"));
    }
    if mime.starts_with("image/") {
        return UserContent::Image { mime: mime.clone(), url: url.clone() };
    }
    UserContent::File { mime: mime.clone(), filename: filename.clone(), url: url.clone() }
}

/// What kind of file it is, where a model does not read that kind.
fn unreadable(mime: &str, reads: Modalities) -> Option<&'static str> {
    let (kind, is_read) = match mime.split('/').next() {
        Some("image") => ("images", reads.image),
        Some("audio") => ("sound", reads.audio),
        Some("video") => ("films", reads.video),
        _ if mime == "application/pdf" => ("PDF", reads.pdf),
        _ => return None,
    };
    (!is_read).then_some(kind)
}

/// What a model reads in the place of a part that asks for something else than an answer.
fn stands_for(part: &Part) -> Option<&'static str> {
    if Compaction::of(part).is_some() {
        return Some(crate::compaction::ASKED);
    }
    crate::subtask::Subtask::of(part).map(|_| crate::subtask::ASKED)
}

/// The text of a `data:` URL.
pub(crate) fn data_text(url: &str) -> Option<String> {
    let (head, data) = url.strip_prefix("data:")?.split_once(',')?;
    let bytes = if head.ends_with(";base64") {
        base64::engine::general_purpose::STANDARD.decode(data).ok()?
    } else {
        percent_encoding::percent_decode_str(data).collect()
    };
    String::from_utf8(bytes).ok()
}

/// An answer, split where its tools were answered: text, calls, outcomes, what these have attached, then the text after
/// them.
fn assistant(parts: &[Part], reads: Modalities, chat: &mut Vec<ChatMessage>) {
    let mut text = String::new();
    let mut reasoning = String::new();
    let mut calls = Vec::new();
    let mut outcomes = Vec::new();
    // The outcome of a call is text: what else there is, a user says in its place.
    let mut files = vec![UserContent::Text(ATTACHED.to_owned())];
    for part in parts {
        match &part.kind {
            PartKind::Text(part) => text.push_str(&part.text),
            PartKind::Reasoning(part) => reasoning.push_str(&part.text),
            PartKind::Tool(tool) => {
                let (input, outcome) = match &tool.state {
                    ToolState::Pending { input, .. } | ToolState::Running { input, .. } => {
                        (input, INTERRUPTED.to_owned())
                    }
                    ToolState::Completed { input, time, .. } if time.compacted.is_some() => (input, CLEARED.to_owned()),
                    ToolState::Completed { input, output, attachments, .. } => {
                        let given = attachments.iter().flatten();
                        let given = given.filter_map(|file| serde_json::from_value::<FilePart>(file.clone()).ok());
                        files.extend(given.map(|file| attached(&file, reads)));
                        (input, output.clone())
                    }
                    ToolState::Error { input, error, metadata, .. } => {
                        let kept = metadata.as_ref().filter(|m| m["interrupted"] == true);
                        let output = kept.and_then(|m| m["output"].as_str()).filter(|text| !text.is_empty());
                        let told = match output {
                            // Whoever reads an output alone takes it for the whole.
                            Some(output) if error == UNKNOWN_OUTCOME => format!("{output}\n\n[{error}]"),
                            output => output.unwrap_or(error).to_owned(),
                        };
                        (input, told)
                    }
                };
                let id = tool.call_id.clone();
                calls.push(ToolCall { id: id.clone(), name: tool.tool.clone(), arguments: input.to_string() });
                outcomes.push(ChatMessage::Tool { call_id: id, content: outcome });
            }
            _ => {}
        }
    }
    let some = |text: String| (!text.is_empty()).then_some(text);
    if text.is_empty() && calls.is_empty() {
        return;
    }
    chat.push(ChatMessage::Assistant { text: some(text), reasoning: some(reasoning), tool_calls: calls });
    chat.extend(outcomes);
    if files.len() > 1 {
        chat.push(ChatMessage::User(files));
    }
}
