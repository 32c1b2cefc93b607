//! Compaction: a conversation that grew too long goes on from a summary of it.

use crate::api::{Accepted, EngineError, Prompt, RequestName, Scope, TicketRef};
use crate::commit::{Decision, body};
use crate::engine::Engine;
use crate::request::{CLEARED, MAX_OUTPUT, base_request};
use crate::run::{Run, message_record};
use crate::step::{Outcome, Scene};
use crate::turn::Transcript;
use coordination::SessionKey;
use models::{ChatMessage, ChatRequest, UserContent};
use run_protocol::{RecordVersion, Spent};
use serde_json::{Value, json};
use std::sync::Arc;
use storage::{Record, Write};
use wire::ids::{MessageId, SessionId};
use wire::message::{AssistantMessage, Message, MessageTime, MessageWithParts, UserMessage, UserModel};
use wire::part::{FilePart, Part, PartKind, TextPart, ToolState};
use wire::tenant::Tenant;

/// What a model reads in the place of all that the summary after it stands for.
pub(crate) const ASKED: &str = "What has been done so far?";
/// What the model is told after a conversation was shortened in the midst of its work.
const GO_ON: &str = "Go on with the work if something is left to do; if it is not clear what, stop and ask.";
/// What it is told before that where nothing came before the prompt that its provider refused: what was attached is gone.
const TOO_LARGE: &str = "What was asked above was too long for this model, so that only a summary of it is left. Files that \
                         went with it could not be shown: if it was about them, say that they were too large.";
/// What marks those words.
const GOES_ON: &str = "compaction_continue";
/// What the conversation is introduced by.
const SHORTEN: &str = "Shorten the conversation that follows.";
/// OpenCode keeps so many tokens free where the configuration does not say.
const RESERVED: u64 = 20_000;
/// So many of the newest turns are kept beside a summary at most, where the configuration does not say.
const TAIL_TURNS: u64 = 2;
/// They may have a quarter of what a conversation may have: not less tokens than this,
const LEAST_TAIL: u64 = 2_000;
/// and not more than this.
const MOST_TAIL: u64 = 15_000;
/// Characters of a tool's output that the summary is made from.
const OUTPUT_CHARS: usize = 2_000;

/// What a part asks for that wants a conversation to be shortened.
#[derive(Clone, Debug, Default, serde::Deserialize)]
pub(crate) struct Compaction {
    /// Not asked for by a person: the work goes on afterwards.
    #[serde(default)]
    auto: bool,
    /// The provider refused the conversation: its last prompt is asked again afterwards.
    #[serde(default)]
    overflow: bool,
    /// The message from which on the conversation is kept beside the summary.
    #[serde(default)]
    tail_start_id: Option<MessageId>,
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
    pub(crate) fn goes_on(&self) -> bool {
        self.auto
    }
}

/// True where an answer to a request to shorten is the last word: a summary, or an error. What broke off is made again.
pub(crate) fn is_final(answer: &AssistantMessage) -> bool {
    answer.error.is_some() || answer.finish.as_deref().is_some_and(|finish| finish != "unknown")
}

/// True for an answer that is a summary.
pub(crate) fn is_summary_message(answer: &AssistantMessage) -> bool {
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

/// The newest request to shorten that came to a summary: its place, what it asks for, and the summary.
fn newest_summary(messages: &[Arc<MessageWithParts>]) -> Option<(usize, Compaction, &Arc<MessageWithParts>)> {
    messages.iter().enumerate().rev().find_map(|(at, message)| {
        let asked = Compaction::in_message(message)?;
        Some((at, asked, summary_of(messages, message)?))
    })
}

/// What of a conversation a model is shown: the newest summary, the tail that was kept beside it, and what came after it was
/// asked for. A summary that was asked for and did not come to be is passed over.
pub(crate) fn shown(messages: &[Arc<MessageWithParts>]) -> Vec<Arc<MessageWithParts>> {
    let (mut kept, mut since) = (Vec::new(), 0);
    if let Some((at, asked, summary)) = newest_summary(messages) {
        kept.extend([messages[at].clone(), summary.clone()]);
        let tail = asked.tail_start_id.as_ref();
        if let Some(from) = messages[..at].iter().position(|message| Some(message.info.id()) == tail) {
            let places = (from..at).filter(|&place| !is_refused(&messages[place..]));
            kept.extend(places.map(|place| messages[place].clone()).filter(|message| !is_of_compaction(message)));
        }
        since = at + 1;
    }
    kept.extend(messages[since..].iter().filter(|message| !is_of_compaction(message)).cloned());
    kept
}

/// A request to shorten, or its answer.
fn is_of_compaction(message: &MessageWithParts) -> bool {
    Compaction::in_message(message).is_some() || message.info.assistant().is_some_and(is_summary_message)
}

/// True where the first message is a prompt that the provider refused and that was asked again after a summary.
fn is_refused(messages: &[Arc<MessageWithParts>]) -> bool {
    let mut prompts = messages.iter().filter(|message| message.info.user().is_some());
    let is_prompt = messages.first().is_some_and(|first| first.info.user().is_some());
    let next = prompts.nth(1).filter(|next| Compaction::in_message(next).is_some_and(|asked| asked.overflow));
    is_prompt && next.is_some_and(|next| summary_of(messages, next).is_some())
}

/// What a model was shown when a conversation was asked to be shortened.
fn shown_before(transcript: &Transcript, asked: &UserMessage) -> Vec<Arc<MessageWithParts>> {
    let before = transcript.messages.iter().take_while(|message| *message.info.id() != asked.id).count();
    shown(&transcript.messages[..before])
}

/// Where the prompt is that the provider refused: the last one. None where no other came before it: a summary of nothing
/// would make it no shorter.
fn place_of_refused(before: &[Arc<MessageWithParts>]) -> Option<usize> {
    let is_prompt = |message: &Arc<MessageWithParts>| message.info.user().is_some() && !is_of_compaction(message);
    let place = before.iter().rposition(is_prompt)?;
    before[..place].iter().any(is_prompt).then_some(place)
}

/// What of a conversation a summary is made of, and the message that the kept tail begins with: the newest turns stay as
/// they are, as far as there is room for them; of one that is too long its newest steps. Nothing is kept where nothing would
/// be left for the summary.
fn split(
    scene: &Scene,
    transcript: &Transcript,
    asked: &Compaction,
) -> (Vec<Arc<MessageWithParts>>, Option<MessageId>) {
    let mut all = shown_before(transcript, &scene.user);
    if asked.overflow {
        // The prompt that was refused is asked again; the summary is of what came before.
        let Some(refused) = place_of_refused(&all) else { return (all, None) };
        all.truncate(refused);
    }
    let config = &scene.instance.config["compaction"];
    let most_turns = config["tail_turns"].as_u64().unwrap_or(TAIL_TURNS);
    let room = config["preserve_recent_tokens"]
        .as_u64()
        .unwrap_or_else(|| (usable(scene, config) / 4).clamp(LEAST_TAIL, MOST_TAIL));
    let (mut from, mut turns, mut size) = (all.len(), 0, 0);
    while let Some(message) = from.checked_sub(1).map(|before| &all[before]) {
        size += tokens(&told(message, usize::MAX)) as u64;
        if turns == most_turns || size > room || is_of_compaction(message) {
            break;
        }
        turns += u64::from(message.info.user().is_some());
        from -= 1;
    }
    if from == 0 || from == all.len() {
        return (all, None);
    }
    let tail = all[from].info.id().clone();
    all.truncate(from);
    (all, Some(tail))
}

/// How many tokens a text comes to, about.
pub(crate) fn tokens(text: &str) -> usize {
    text.chars().count() / 4
}

/// True where the newest step used more than leaves room for the next one.
pub(crate) fn is_due(scene: &Scene, transcript: &Transcript) -> bool {
    let answers = transcript.messages.iter().rev().filter_map(|message| message.info.assistant());
    answers.into_iter().find(|message| message.finish.is_some()).is_some_and(|newest| fills(scene, newest))
}

/// True where an answer used more than leaves room for another. A summary never does.
pub(crate) fn fills(scene: &Scene, answer: &AssistantMessage) -> bool {
    let config = &scene.instance.config["compaction"];
    let is_counted = config["auto"] != false && scene.model.limit.context != 0 && !is_summary_message(answer);
    let tokens = &answer.tokens;
    let sum =
        [tokens.output, tokens.cache.read, tokens.cache.write].into_iter().fold(tokens.input, u64::saturating_add);
    is_counted && tokens.total.unwrap_or(sum) >= usable(scene, config)
}

/// Tokens that a conversation may have; zero where nobody knows.
fn usable(scene: &Scene, config: &Value) -> u64 {
    let limit = &scene.model.limit;
    let output = if limit.output == 0 { MAX_OUTPUT } else { limit.output.min(MAX_OUTPUT) };
    match limit.input {
        Some(input) => input.saturating_sub(config["reserved"].as_u64().unwrap_or(RESERVED.min(output))),
        None => limit.context.saturating_sub(output),
    }
}

/// True where a conversation that its provider refused shall be shortened: not twice without a step between, unless the
/// prompt alone is too long, and not only a word that stands for it.
pub(crate) fn may_shorten(scene: &Scene, transcript: &Transcript) -> bool {
    let shortened = newest_without_step(transcript).is_some_and(|asked| asked.overflow);
    let stands_alone = || {
        let is_word = transcript.newest_user_parts().iter().any(|part| match &part.kind {
            PartKind::Text(text) => text.extra.get("metadata").is_some_and(|metadata| metadata[GOES_ON] == true),
            _ => false,
        });
        !is_word && place_of_refused(&shown(&transcript.messages)).is_none()
    };
    scene.instance.config["compaction"]["auto"] != false && (!shortened || stands_alone())
}

/// True where a conversation that a final answer fills shall be shortened after it: not where that answer follows such a
/// summary itself, which made it no shorter. It would never end.
pub(crate) fn may_follow(transcript: &Transcript) -> bool {
    newest_without_step(transcript).is_none_or(|asked| !asked.auto)
}

/// What the newest summary was asked for by, if no step has ended since.
fn newest_without_step(transcript: &Transcript) -> Option<Compaction> {
    let (at, asked, _) = newest_summary(&transcript.messages)?;
    let since = transcript.messages[at..].iter().filter_map(|message| message.info.assistant());
    let stepped = since.into_iter().any(|answer| answer.finish.is_some() && !is_summary_message(answer));
    (!stepped).then_some(asked)
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
        None => say_go_on(run, user, asked.overflow).await?,
    };
    run.publish(wire::event::session_compacted(&user.session_id)).await;
    Ok(outcome)
}

async fn say_go_on(run: &Run, user: &UserMessage, was_too_large: bool) -> Result<Outcome, EngineError> {
    let now = run.engine.now_ms();
    let time = wire::part::Span { start: now, end: Some(now), compacted: None };
    let text = if was_too_large { format!("{TOO_LARGE}\n\n{GO_ON}") } else { GO_ON.to_owned() };
    let mut text = TextPart { text, synthetic: Some(true), time: Some(time), ..TextPart::default() };
    text.extra.insert("metadata".into(), json!({ GOES_ON: true }));
    say(run, user, vec![PartKind::Text(text)]).await
}

/// The prompt that the provider refused, as it is asked again: what made it long is named, not shown.
fn refused(transcript: &Transcript, asked: &UserMessage) -> Option<(UserMessage, Vec<PartKind>)> {
    let before = shown_before(transcript, asked);
    let prompt = &before[place_of_refused(&before)?];
    let parts = prompt.parts.iter().map(|part| match &part.kind {
        PartKind::File(FilePart { mime, filename, .. }) if is_media(mime) => {
            let name = filename.as_deref().unwrap_or("file");
            PartKind::Text(TextPart { text: format!("[{name}, {mime}, is left out]"), ..TextPart::default() })
        }
        kind => kind.clone(),
    });
    Some((prompt.info.user()?.clone(), parts.collect()))
}

/// A file that is no text.
fn is_media(mime: &str) -> bool {
    mime.starts_with("image/") || mime == "application/pdf"
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

/// What the model is asked that makes the summary, and the message that the kept tail begins with.
pub(crate) fn request(scene: &Scene, transcript: &Transcript, asked: &Compaction) -> (ChatRequest, Option<MessageId>) {
    let (summarized, tail) = split(scene, transcript, asked);
    let mut text = String::from(SHORTEN);
    for message in &summarized {
        text.push_str(&told(message, OUTPUT_CHARS));
    }
    let system = scene.agent.prompt.clone().unwrap_or_default();
    let messages = vec![ChatMessage::System(system), ChatMessage::User(vec![UserContent::Text(text)])];
    (base_request(scene, &scene.model, messages), tail)
}

/// Records with a request to shorten which tail is kept beside its summary: before there is a summary.
pub(crate) async fn keep_tail(run: &Run, user: &UserMessage, tail: MessageId) -> Result<(), EngineError> {
    let (id, tail) = (user.id.clone(), json!(tail));
    let (head, part) = run
        .head_commit(move |_, at| {
            let parts = at.message(&id)?.map(|message| message.parts).unwrap_or_default();
            let Some(mut part) = parts.into_iter().find(|part| Compaction::of(part).is_some()) else {
                return Ok(Decision::Leave(None));
            };
            match &mut part.kind {
                PartKind::Other(fields) if fields.get("tail_start_id") != Some(&tail) => {
                    fields.insert("tail_start_id".into(), tail.clone());
                }
                _ => return Ok(Decision::Leave(None)),
            }
            let record = Record::Part { message: id.clone(), id: part.id.clone() };
            Ok(Decision::Write(vec![Write::Put(record, body(&part)?)], Some(part)))
        })
        .await?;
    if let Some(part) = part {
        let version = Some((part.id.to_string(), RecordVersion::head(head.rev)));
        let happened = wire::event::part_updated(&part, run.engine.now_ms());
        run.engine.publish(&run.origin, happened, version).await;
    }
    Ok(())
}

/// A message as the summary's maker reads it, with so much of each output.
fn told(message: &MessageWithParts, output_chars: usize) -> String {
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
                    ToolState::Completed { input, time, .. } if time.compacted.is_some() => (input, CLEARED),
                    ToolState::Completed { input, output, .. } => (input, output.as_str()),
                    ToolState::Error { input, error, .. } => (input, error.as_str()),
                    ToolState::Pending { input, .. } | ToolState::Running { input, .. } => (input, "interrupted"),
                };
                let outcome: String = outcome.chars().take(output_chars).collect();
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
