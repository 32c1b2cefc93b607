//! Compaction: a conversation that grew too long goes on from a summary of it.

use crate::api::{Accepted, EngineError, Prompt, RequestName, Scope, TicketRef};
use crate::commit::body;
use crate::engine::Engine;
use crate::request::{MAX_OUTPUT, base_request};
use crate::run::{Run, message_record};
use crate::step::{Outcome, Scene};
use crate::turn::Transcript;
use coordination::SessionKey;
use models::{ChatMessage, ChatRequest, UserContent};
use run_protocol::Spent;
use serde_json::{Value, json};
use std::sync::Arc;
use storage::{Record, Write};
use wire::ids::SessionId;
use wire::message::{AssistantMessage, Message, MessageTime, MessageWithParts, UserMessage, UserModel};
use wire::part::{Part, PartKind, TextPart, ToolState};
use wire::tenant::Tenant;

/// What a model reads in the place of all that the summary after it stands for.
pub(crate) const ASKED: &str = "What has been done so far?";
/// What the model is told after a conversation was shortened in the midst of its work.
const GO_ON: &str = "Go on with the work if something is left to do; if it is not clear what, stop and ask.";
/// What the conversation is introduced by.
const SHORTEN: &str = "Shorten the conversation that follows.";
/// OpenCode keeps so many tokens free where the configuration does not say.
const RESERVED: u64 = 20_000;
/// Characters of a tool's output that the summary is made from.
const OUTPUT_CHARS: usize = 2_000;

/// What a part asks for that wants a conversation to be shortened.
#[derive(Clone, Copy, Debug, Default, serde::Deserialize)]
pub(crate) struct Compaction {
    /// Not asked for by a person: the work goes on afterwards.
    #[serde(default)]
    auto: bool,
    /// The provider refused the conversation: its last prompt is asked again afterwards.
    #[serde(default)]
    overflow: bool,
}

impl Compaction {
    /// What a part asks for, if it asks for that.
    pub(crate) fn of(part: &Part) -> Option<Self> {
        match &part.kind {
            PartKind::Other(fields) if fields.get("type").and_then(Value::as_str) == Some("compaction") => {
                serde_json::from_value(Value::Object(fields.clone())).ok()
            }
            _ => None,
        }
    }

    /// What a message asks for, if it asks for that.
    pub(crate) fn in_message(message: &MessageWithParts) -> Option<Self> {
        message.info.user()?;
        message.parts.iter().find_map(Self::of)
    }

    /// True where the work goes on afterwards.
    pub(crate) fn goes_on(self) -> bool {
        self.auto
    }
}

/// True where an answer to a request to shorten is the last word: a summary, or an error. What broke off is made again.
pub(crate) fn is_final(answer: &AssistantMessage) -> bool {
    answer.error.is_some() || answer.finish.as_deref().is_some_and(|finish| finish != "unknown")
}

fn is_summary_message(answer: &AssistantMessage) -> bool {
    answer.summary == Some(Value::Bool(true))
}

/// The summary that answers a request to shorten, if it came to its end.
pub(crate) fn summary_of<'a>(
    messages: &'a [Arc<MessageWithParts>],
    asked: &MessageWithParts,
) -> Option<&'a Arc<MessageWithParts>> {
    let is_summary = |answer: &AssistantMessage| {
        is_summary_message(answer) && is_final(answer) && answer.error.is_none() && answer.parent_id == *asked.info.id()
    };
    messages.iter().find(|message| message.info.assistant().is_some_and(is_summary))
}

/// What of a conversation a model is shown: the newest summary and what came after it was asked for.
pub(crate) fn shown(messages: &[Arc<MessageWithParts>]) -> Vec<Arc<MessageWithParts>> {
    let found = messages.iter().enumerate().rev().find_map(|(at, message)| {
        Compaction::in_message(message)?;
        Some((at, summary_of(messages, message)?))
    });
    let Some((at, summary)) = found else { return messages.to_vec() };
    let mut kept = vec![messages[at].clone(), summary.clone()];
    kept.extend(messages[at + 1..].iter().filter(|message| message.info.id() != summary.info.id()).cloned());
    kept
}

/// True where the newest step used more than leaves room for the next one.
pub(crate) fn is_due(scene: &Scene, transcript: &Transcript) -> bool {
    let config = &scene.instance.config["compaction"];
    let Some(usable) = usable(scene, config) else { return false };
    let messages = shown(&transcript.messages);
    let newest = messages.iter().rev().filter_map(|message| message.info.assistant()).find(|m| m.finish.is_some());
    newest.filter(|message| !is_summary_message(message)).is_some_and(|message| {
        let tokens = &message.tokens;
        let sum = tokens.input + tokens.output + tokens.cache.read + tokens.cache.write;
        tokens.total.unwrap_or(sum) >= usable
    })
}

/// Tokens that a conversation may have; none where it is never shortened by itself.
fn usable(scene: &Scene, config: &Value) -> Option<u64> {
    let limit = &scene.model.limit;
    if config["auto"] == false || limit.context == 0 {
        return None;
    }
    let output = if limit.output == 0 { MAX_OUTPUT } else { limit.output.min(MAX_OUTPUT) };
    Some(match limit.input {
        Some(input) => input.saturating_sub(config["reserved"].as_u64().unwrap_or(RESERVED.min(output))),
        None => limit.context.saturating_sub(output),
    })
}

/// True where a conversation that its provider refused shall be shortened: not twice without a step between.
pub(crate) fn may_shorten(scene: &Scene, transcript: &Transcript) -> bool {
    let messages = shown(&transcript.messages);
    let shortened =
        messages.first().and_then(|first| Compaction::in_message(first)).is_some_and(|asked| asked.overflow);
    let stepped =
        messages.iter().filter_map(|m| m.info.assistant()).any(|m| m.finish.is_some() && !is_summary_message(m));
    scene.instance.config["compaction"]["auto"] != false && (!shortened || stepped)
}

/// Asks for the conversation to be shortened: the next step of the run does it.
pub(crate) async fn ask(run: &Run, user: &UserMessage, overflow: bool) -> Result<Outcome, EngineError> {
    let fields = json!({ "type": "compaction", "auto": true, "overflow": overflow });
    let kind = serde_json::from_value(fields).map_err(|error| EngineError::Store(error.to_string()))?;
    say(run, user, vec![kind]).await
}

/// After the summary the work goes on: with the prompt that was refused, or with a word that says so. Then the conversation
/// is told compacted.
pub(crate) async fn go_on(
    run: &Run,
    transcript: &Transcript,
    user: &UserMessage,
    asked: Compaction,
) -> Result<Outcome, EngineError> {
    let outcome = match refused(transcript, user).filter(|_| asked.overflow) {
        Some((refused, parts)) => say(run, &refused, parts).await?,
        None => say_go_on(run, user).await?,
    };
    run.publish(wire::event::session_compacted(&user.session_id)).await;
    Ok(outcome)
}

async fn say_go_on(run: &Run, user: &UserMessage) -> Result<Outcome, EngineError> {
    let now = run.engine.now_ms();
    let time = wire::part::Span { start: now, end: Some(now), compacted: None };
    let mut text = TextPart { text: GO_ON.into(), synthetic: Some(true), time: Some(time), ..TextPart::default() };
    text.extra.insert("metadata".into(), json!({ "compaction_continue": true }));
    say(run, user, vec![PartKind::Text(text)]).await
}

/// The prompt that the provider refused: the one before the request to shorten.
fn refused(transcript: &Transcript, asked: &UserMessage) -> Option<(UserMessage, Vec<PartKind>)> {
    let before = transcript.messages.iter().rev().skip_while(|message| *message.info.id() != asked.id).skip(1);
    let prompt = before.into_iter().find(|message| message.info.user().is_some())?;
    Some((prompt.info.user()?.clone(), prompt.parts.iter().map(|part| part.kind.clone()).collect()))
}

/// Writes a message in the user's place.
async fn say(run: &Run, like: &UserMessage, kinds: Vec<PartKind>) -> Result<Outcome, EngineError> {
    let engine = &run.engine;
    let message = UserMessage {
        id: engine.0.ids.message(),
        time: MessageTime { created: run.known().reserved, completed: None },
        summary: None,
        ..like.clone()
    };
    let part = |kind| Part {
        id: engine.0.ids.part(),
        session_id: message.session_id.clone(),
        message_id: message.id.clone(),
        kind,
    };
    let parts: Vec<Part> = kinds.into_iter().map(part).collect();
    let info = Message::User(message.clone());
    let mut writes = Vec::new();
    for part in &parts {
        writes.push(Write::Put(Record::Part { message: message.id.clone(), id: part.id.clone() }, body(part)?));
    }
    writes.push(Write::Put(message_record(&info), body(&info)?));
    run.commit(writes).await?;
    run.publish_record(message.id.as_str(), wire::event::message_updated(&info)).await;
    for part in &parts {
        run.publish_record(part.id.as_str(), wire::event::part_updated(part, message.time.created)).await;
    }
    Ok(Outcome { message: None, spent: Spent::default(), ends_with: None })
}

/// What the model is asked that makes the summary.
pub(crate) fn request(scene: &Scene, transcript: &Transcript, asked: Compaction) -> ChatRequest {
    let all = shown(&transcript.messages);
    let mut until = all.iter().position(|message| *message.info.id() == scene.user.id).unwrap_or(all.len());
    if asked.overflow {
        // The prompt that was refused is asked again; the summary is of what came before.
        until = all[..until].iter().rposition(|message| message.info.user().is_some()).unwrap_or(until);
    }
    let mut text = String::from(SHORTEN);
    for message in &all[..until] {
        text.push_str(&told(message));
    }
    let system = scene.agent.prompt.clone().unwrap_or_default();
    let messages = vec![ChatMessage::System(system), ChatMessage::User(vec![UserContent::Text(text)])];
    base_request(scene, &scene.model, messages)
}

/// A message as the summary's maker reads it.
fn told(message: &MessageWithParts) -> String {
    let who = if message.info.user().is_some() { "user" } else { "assistant" };
    let mut text = String::new();
    for part in &message.parts {
        match &part.kind {
            PartKind::Text(part) if part.ignored != Some(true) => text.push_str(&format!("\n{}", part.text)),
            PartKind::File(file) => {
                text.push_str(&format!("\n[a file: {}]", file.filename.as_deref().unwrap_or(&file.mime)));
            }
            PartKind::Tool(call) => {
                let (input, outcome) = match &call.state {
                    ToolState::Completed { input, output, .. } => (input, output.as_str()),
                    ToolState::Error { input, error, .. } => (input, error.as_str()),
                    ToolState::Pending { input, .. } | ToolState::Running { input, .. } => (input, "interrupted"),
                };
                let outcome: String = outcome.chars().take(OUTPUT_CHARS).collect();
                text.push_str(&format!("\n[called {} with {input}]\n[it gave: {outcome}]", call.tool));
            }
            _ => {}
        }
    }
    if text.is_empty() { text } else { format!("\n\n<{who}>{text}\n</{who}>") }
}

impl Engine {
    /// Asks for a conversation to be shortened; queued like a prompt. Durable when it returns.
    ///
    /// Errors: `Unknown` when there is no such model, which the events tell, too; those of [`Engine::prompt`].
    pub async fn summarize(
        &self,
        tenant: &Tenant,
        id: &SessionId,
        model: UserModel,
        auto: bool,
        body_hash: String,
        name: Option<RequestName>,
    ) -> Result<TicketRef, EngineError> {
        let session = self.session(tenant, id).await?;
        let scope = Scope { tenant: tenant.clone(), directory: session.directory.clone().into() };
        let instance = self.instance(&scope).await?;
        if let Err(missing) = instance.model(&model.provider_id, &model.model_id) {
            let key = SessionKey::new(tenant.clone(), id.clone());
            return Err(self.refuse(&key, &session, missing.to_string()).await);
        }
        let fields = json!({ "type": "compaction", "auto": auto });
        let kind = serde_json::from_value(fields).map_err(|error| EngineError::Store(error.to_string()))?;
        let agent = session.agent.filter(|agent| instance.agent(agent).is_some());
        let parts = vec![(None, kind)];
        let prompt = Prompt { agent, model: Some(model), parts, body_hash, name, ..Prompt::default() };
        match self.prompt(tenant, id, prompt).await? {
            Accepted::Ticket(ticket) => Ok(ticket),
            Accepted::Stored(message) => {
                Err(EngineError::Conflict(format!("{} asks for no answer", message.info.id())))
            }
        }
    }
}
