//! The conversation as a run sees it, and what it has to do next.

mod told;

use crate::api::EngineError;
use crate::asks::found;
use crate::commit::{Under, body};
use crate::compaction::Compaction;
use crate::engine::blocking;
use crate::run::{Run, message_record};
use crate::settle::Settled;
use crate::snapshots::{Changes, Worksite, patch_of};
use crate::subtask::Subtask;
use run_protocol::{Head, Look, Spent, Ticket, TicketAnswer, TicketKind};
use serde_json::{Value, json};
use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use storage::{Record, SnapshotId, TenantStore, Write};
use wire::ids::{MessageId, PartId, SessionId};
use wire::message::{
    AssistantMessage, Message, MessageError, MessagePath, MessageTime, MessageWithParts, Tokens, UserMessage,
};
use wire::part::{Part, PartKind, ToolState};
use wire::session::Session;

/// The messages that a run has loaded, oldest first.
pub(crate) struct Transcript {
    pub messages: Vec<Arc<MessageWithParts>>,
    /// The tickets of the prompts that are not answered, and of the newest one.
    tickets: HashMap<MessageId, Ticket>,
}

/// What a run does next.
pub(crate) enum Next {
    /// Everything is answered.
    Done {
        /// What the callers get.
        answer: Settled,
    },
    /// Answer this prompt with a model call.
    Answer {
        /// The prompt.
        user: Box<UserMessage>,
    },
    /// Shorten the conversation as this prompt asks.
    Compact {
        /// The prompt.
        user: Box<UserMessage>,
        /// What it asks for.
        asked: Compaction,
    },
    /// The conversation was shortened in the midst of its work: go on with it.
    GoOn {
        /// The prompt that asked for it.
        user: Box<UserMessage>,
        /// What it asked for.
        asked: Compaction,
    },
    /// Have a task done that this prompt asks for; no model is asked.
    Subtask {
        /// The prompt.
        user: Box<UserMessage>,
        /// The task.
        asked: Subtask,
        /// The message and the call that a former runner left open for it.
        begun: Option<Box<(AssistantMessage, Part)>>,
    },
    /// Run the command of this prompt; no model is asked.
    Shell {
        /// The prompt.
        prompt: Arc<MessageWithParts>,
        /// Its ticket, which names the command.
        ticket: Ticket,
    },
    /// Calls of this message have not begun: run them, then go on.
    Resume {
        /// The prompt.
        user: Box<UserMessage>,
        /// The message that holds them.
        message: Box<AssistantMessage>,
        /// The parts whose call has not begun.
        calls: Vec<Part>,
    },
}

/// How far the prompts that are not settled have come.
pub(crate) enum OpenTurn {
    /// There is an answer behind the first of them: this is the newest one.
    Answered(MessageId),
    /// Not yet; this is the newest prompt.
    Asked(Box<UserMessage>),
    /// No prompt has such a ticket: it was never acknowledged.
    Lost,
}

impl Transcript {
    /// Loads the conversation; prompts whose ticket is newer than `seen` are for the next load.
    pub(crate) async fn load(run: &Run, seen: u64) -> Result<Self, EngineError> {
        let (store, session) = (run.engine.tenant_store(&run.handle.key.tenant), run.handle.key.session.clone());
        blocking(move || Self::read(&store, &session, &store.head(&session)?, seen)).await
    }

    /// The head, and the conversation as it was loaded with it where there is something to answer.
    pub(crate) async fn look(run: &Run) -> Result<(Head, Option<Self>), EngineError> {
        let (store, session) = (run.engine.tenant_store(&run.handle.key.tenant), run.handle.key.session.clone());
        blocking(move || {
            let head = found(store.head(&session))?.ok_or_else(|| EngineError::SessionNotFound(session.clone()))?;
            let goes_on = Look::at(&head) == Look::Go && head.is_open();
            // One that cannot be read is no matter yet: its turn may have to be given up.
            let loaded = goes_on.then(|| Self::read(&store, &session, &head, head.issued).ok()).flatten();
            Ok((head, loaded))
        })
        .await
    }

    fn read(store: &TenantStore, session: &SessionId, head: &Head, seen: u64) -> Result<Self, EngineError> {
        let mut messages = store.shared_messages_under(session, None, None, head)?.items;
        let answered: HashSet<MessageId> =
            messages.iter().filter_map(|m| m.info.assistant()).map(|m| m.parent_id.clone()).collect();
        let (mut unseen, mut tickets, mut newest) = (Vec::new(), HashMap::new(), None);
        for message in messages.iter().rev().filter_map(|m| m.info.user()) {
            let is_answered = answered.contains(&message.id);
            if is_answered && newest.is_some() {
                continue;
            }
            let record = Record::Ticket { session: session.clone(), message: message.id.clone() };
            let ticket = store.read(&record)?.and_then(|ticket| serde_json::from_slice::<Ticket>(&ticket).ok());
            if !is_answered && ticket.as_ref().is_some_and(|ticket| ticket.k > seen) {
                unseen.push(message.id.clone());
                continue;
            }
            newest.get_or_insert(&message.id);
            tickets.extend(ticket.map(|ticket| (message.id.clone(), ticket)));
        }
        messages.retain(|message| !unseen.contains(message.info.id()));
        Ok(Self { messages, tickets })
    }

    /// How far the prompts with a ticket above `settled` have come.
    pub(crate) async fn open_turn(&self, run: &Run, settled: u64) -> Result<OpenTurn, EngineError> {
        let (store, session) = (run.engine.tenant_store(&run.handle.key.tenant), run.handle.key.session.clone());
        let ids: Vec<(usize, MessageId)> = self
            .messages
            .iter()
            .enumerate()
            .rev()
            .filter_map(|(place, message)| Some((place, message.info.user()?.id.clone())))
            .collect();
        let first = blocking(move || {
            let mut first = None;
            for (place, message) in ids {
                match store.read(&Record::Ticket { session: session.clone(), message })? {
                    Some(ticket) if serde_json::from_slice(&ticket).is_ok_and(|ticket: Ticket| ticket.k > settled) => {
                        first = Some(place);
                    }
                    Some(_) => break,
                    None => {}
                }
            }
            Ok(first)
        });
        let Some(first) = first.await? else { return Ok(OpenTurn::Lost) };
        let answer = self.messages[first..].iter().rev().find_map(|message| message.info.assistant());
        Ok(match (answer, self.newest_user()) {
            (Some(answer), _) => OpenTurn::Answered(answer.id.clone()),
            (None, Some(user)) => OpenTurn::Asked(Box::new(user.clone())),
            (None, None) => OpenTurn::Lost,
        })
    }

    /// The newest prompt.
    pub(crate) fn newest_user(&self) -> Option<&UserMessage> {
        self.messages.iter().rev().find_map(|message| message.info.user())
    }

    /// The parts of the newest prompt.
    pub(crate) fn newest_user_parts(&self) -> &[Part] {
        let newest = self.messages.iter().rev().find(|message| message.info.user().is_some());
        newest.map_or(&[], |message| &message.parts)
    }

    /// The parts of a message.
    pub(crate) fn parts_of(&self, id: &MessageId) -> &[Part] {
        self.messages.iter().find(|message| message.info.id() == id).map_or(&[], |message| &message.parts)
    }

    /// The answer in a form of its own that stands in a message.
    pub(crate) fn structured(&self, id: &MessageId) -> Option<Value> {
        self.parts_of(id).iter().rev().find_map(crate::structured::given).cloned()
    }

    /// What the answers to a prompt changed.
    pub(crate) fn changes_of_turn(&self, user: &MessageId) -> Changes {
        let answers = self.messages.iter().filter(|m| m.info.assistant().is_some_and(|m| m.parent_id == *user));
        Changes::of(answers.map(Arc::as_ref))
    }

    /// The files with rules that tools have shown the model.
    pub(crate) fn shown_rules(&self) -> impl Iterator<Item = PathBuf> {
        let calls = self.messages.iter().flat_map(|message| &message.parts).filter_map(Part::tool);
        let loaded = calls.filter_map(|call| match &call.state {
            ToolState::Completed { metadata, time, .. } if time.compacted.is_none() => metadata["loaded"].as_array(),
            _ => None,
        });
        loaded.flatten().filter_map(|path| path.as_str()).map(PathBuf::from)
    }

    /// True where a former runner left a message open.
    pub(crate) fn has_dangling(&self) -> bool {
        let open = |message: &AssistantMessage| message.time.completed.is_none();
        self.messages.iter().filter_map(|message| message.info.assistant()).any(open)
    }

    fn newest_assistant(&self) -> Option<(&AssistantMessage, &[Part])> {
        self.messages.iter().rev().find_map(|message| Some((message.info.assistant()?, message.parts.as_slice())))
    }

    /// OpenCode's rule: done when the newest answer has a finish that asks for no more, all its calls are answered, and
    /// it answers the newest prompt. Before all that comes a command that a person asked for; `settled` are the tickets
    /// that are dealt with.
    pub(crate) fn next(&self, settled: u64) -> Next {
        if let Some((prompt, ticket)) = self.shell_to_run(settled) {
            return Next::Shell { prompt: prompt.clone(), ticket: ticket.clone() };
        }
        if let Some((user, asked)) = self.compaction_to_do(settled) {
            return Next::Compact { user: Box::new(user.clone()), asked };
        }
        let Some(user) = self.newest_user() else { return Next::Done { answer: self.settled(TicketAnswer::Dropped) } };
        if let Some(shell) = self.tickets.get(&user.id).filter(|ticket| ticket.kind == TicketKind::Shell) {
            // It was run, or is not wanted any more.
            let answer = self.answer_to(&user.id).map(|answer| TicketAnswer::Message { id: answer.id.to_string() });
            let settled = self.settled(answer.unwrap_or(TicketAnswer::Dropped));
            return Next::Done { answer: Settled { user: None, looked_again: false, alone: Some(shell.k), ..settled } };
        }
        let newest = self.messages.iter().find(|message| *message.info.id() == user.id);
        if let Some(asked) = newest.and_then(|message| Compaction::in_message(message)).filter(|asked| asked.goes_on())
            && newest.is_some_and(|message| crate::compaction::summary_of(&self.messages, message).is_some())
        {
            return Next::GoOn { user: Box::new(user.clone()), asked };
        }
        if let Some((asked, begun)) = self.subtask_to_do(user) {
            return Next::Subtask { user: Box::new(user.clone()), asked, begun: begun.map(Box::new) };
        }
        if let Some((answer, parts)) = self.newest_assistant() {
            let waiting: Vec<Part> = parts.iter().filter(|part| is_waiting(part)).cloned().collect();
            if answer.time.completed.is_none() && !waiting.is_empty() {
                let asked = self.messages.iter().filter_map(|m| m.info.user()).find(|m| m.id == answer.parent_id);
                let user = Box::new(asked.unwrap_or(user).clone());
                return Next::Resume { user, message: Box::new(answer.clone()), calls: waiting };
            }
            // Whatever a provider says of a step that calls tools.
            let called = parts.iter().any(|part| part.tool().is_some_and(|tool| !is_interrupted(&tool.state)));
            let finished = answer.finish.as_deref().is_some_and(|finish| finish != "tool-calls" && finish != "unknown");
            let finished = finished && !called;
            let ended = finished || answer.error.is_some() || answer.structured.is_some();
            if answer.parent_id == user.id && ended {
                let answer = TicketAnswer::Message { id: answer.id.to_string() };
                return Next::Done { answer: self.settled(answer) };
            }
        }
        Next::Answer { user: Box::new(user.clone()) }
    }

    /// The oldest command that is still to be run.
    fn shell_to_run(&self, settled: u64) -> Option<(&Arc<MessageWithParts>, &Ticket)> {
        self.messages.iter().find_map(|message| {
            let id = message.info.id();
            let ticket =
                self.tickets.get(id).filter(|ticket| ticket.kind == TicketKind::Shell && ticket.k > settled)?;
            self.answer_to(id).is_none().then_some((message, ticket))
        })
    }

    /// The oldest request to shorten the conversation that is not carried out.
    fn compaction_to_do(&self, settled: u64) -> Option<(&UserMessage, Compaction)> {
        self.messages.iter().find_map(|message| {
            let asked = Compaction::in_message(message)?;
            let user = message.info.user()?;
            let is_dropped = self.tickets.get(&user.id).is_some_and(|ticket| ticket.k <= settled);
            let is_open = self.answer_to(&user.id).is_none_or(|answer| !crate::compaction::is_final(answer));
            (is_open && !is_dropped).then_some((user, asked))
        })
    }

    /// The first task of a prompt that is not done, with what a former runner left open for it.
    #[allow(clippy::type_complexity)]
    fn subtask_to_do(&self, user: &UserMessage) -> Option<(Subtask, Option<(AssistantMessage, Part)>)> {
        let mut asked = self.parts_of(&user.id).iter().filter_map(Subtask::of);
        for message in &self.messages {
            let Some(answer) = message.info.assistant().filter(|answer| answer.parent_id == user.id) else { continue };
            // What a model asks for stands in a step.
            let is_step = message.parts.iter().any(|part| matches!(part.kind, PartKind::StepStart(_)));
            let Some(call) = message.parts.iter().find(|part| part.tool().is_some()).filter(|_| !is_step) else {
                continue;
            };
            if answer.time.completed.is_none() && is_waiting(call) {
                return Some((asked.next()?, Some((answer.clone(), call.clone()))));
            }
            asked.next();
        }
        Some((asked.next()?, None))
    }

    fn answer_to(&self, prompt: &MessageId) -> Option<&AssistantMessage> {
        let answers = self.messages.iter().rev().filter_map(|message| message.info.assistant());
        answers.into_iter().find(|answer| answer.parent_id == *prompt)
    }

    fn settled(&self, answer: TicketAnswer) -> Settled {
        let user = self.newest_user().map(|user| user.id.clone());
        Settled {
            answer,
            changes: user.as_ref().map(|user| self.changes_of_turn(user)).unwrap_or_default(),
            user,
            spent: Spent::default(),
            looked_again: true,
            alone: None,
        }
    }

    /// The answer that the former runner left open, if there is one, without content: it is used again.
    pub(crate) fn empty_dangling(&self, user: &UserMessage) -> Option<AssistantMessage> {
        let last = self.messages.last()?;
        let answer = last.info.assistant()?;
        let is_empty = last.parts.is_empty() && answer.time.completed.is_none() && answer.parent_id == user.id;
        is_empty.then(|| answer.clone())
    }

    /// Records the failure of a turn: in the answer that was open, or in one of its own. Returns its id.
    pub(crate) async fn fail(
        &self,
        run: &Run,
        user: &UserMessage,
        error: &MessageError,
    ) -> Result<MessageId, EngineError> {
        let open = self.newest_assistant().map(|(message, _)| message);
        if let Some(open) = open.filter(|open| open.parent_id == user.id && open.time.completed.is_none()) {
            return Ok(open.id.clone());
        }
        let known = run.known();
        let now = run.engine.now_ms();
        let directory = &known.session.directory;
        let message = Message::Assistant(AssistantMessage {
            id: run.engine.0.ids.message(),
            session_id: known.session.id.clone(),
            parent_id: user.id.clone(),
            time: MessageTime { created: known.reserved, completed: Some(now) },
            mode: user.agent.clone(),
            agent: user.agent.clone(),
            model_id: user.model.model_id.clone(),
            provider_id: user.model.provider_id.clone(),
            variant: user.model.variant.clone(),
            path: MessagePath { cwd: directory.clone(), root: directory.clone() },
            cost: 0.0,
            tokens: Tokens::default(),
            error: Some(error.clone()),
            finish: None,
            summary: None,
            structured: None,
            extra: wire::Extra::new(),
        });
        run.commit(vec![Write::Put(message_record(&message), body(&message)?)]).await?;
        run.publish_record(message.id().as_str(), wire::event::message_updated(&message)).await;
        Ok(message.id().clone())
    }

    /// Closes what a former runner left open: text is kept as far as it was published, calls that had begun are recorded
    /// as interrupted and never run again, calls that had not are left to be run (without `error`) or closed (with it).
    pub(crate) async fn close_dangling(&self, run: &Run, error: Option<MessageError>) -> Result<(), EngineError> {
        let now = run.engine.now_ms();
        for open in &self.messages {
            let Some(message) = open.info.assistant().filter(|message| message.time.completed.is_none()) else {
                continue;
            };
            let feed = run.engine.feed(&run.handle.key.tenant).await?;
            let mut parts = open.parts.clone();
            feed.show_progress(&mut parts);
            let mut left_to_run = false;
            for part in &mut parts {
                if error.is_none() && is_waiting(part) {
                    left_to_run = true;
                    continue;
                }
                run.engine.stop_child_of(&run.handle.key, part);
                match &mut part.kind {
                    PartKind::Text(text) if text.time.as_ref().is_some_and(|time| time.end.is_none()) => {
                        keep_told(&mut text.text, feed.open_text(&part.id));
                    }
                    PartKind::Reasoning(reasoning) if reasoning.time.end.is_none() => {
                        keep_told(&mut reasoning.text, feed.open_text(&part.id));
                    }
                    _ => {}
                }
                close_part(&mut part.kind, now);
            }
            if !left_to_run {
                parts.extend(self.patch_of_dangling(run, message, &open.parts).await);
            }
            let (store, id) = (run.engine.tenant_store(&run.handle.key.tenant), message.id.clone());
            let torn = blocking(move || Ok(store.torn_parts(&id)?)).await?;
            let record = |id: &PartId| Record::Part { message: message.id.clone(), id: id.clone() };
            // Readers pass over them only while the message is not finished.
            let mut writes: Vec<Write> = torn.iter().map(|id| Write::Remove(record(id))).collect();
            for part in &parts {
                writes.push(Write::Put(record(&part.id), body(part)?));
            }
            let mut message = message.clone();
            // An empty one that nothing came after is used again.
            let is_last = self.messages.last().is_some_and(|last| last.info.id() == &message.id);
            if !left_to_run && (error.is_some() || !parts.is_empty() || !is_last) {
                message.time.completed = Some(now);
                message.error = error.clone();
                message.structured = parts.iter().rev().find_map(crate::structured::given).cloned();
                if error.is_none() {
                    message.finish = Some("unknown".into());
                }
            }
            let message = Message::Assistant(message);
            writes.push(Write::Put(message_record(&message), body(&message)?));
            run.commit(writes).await?;
            for part in &parts {
                run.publish_record(part.id.as_str(), wire::event::part_updated(part, now)).await;
            }
            run.publish_record(message.id().as_str(), wire::event::message_updated(&message)).await;
        }
        Ok(())
    }
}

impl Transcript {
    /// The part that tells what a step changed whose runner did not come to tell it.
    async fn patch_of_dangling(&self, run: &Run, message: &AssistantMessage, parts: &[Part]) -> Option<Part> {
        let before = parts.iter().find_map(|part| match &part.kind {
            PartKind::StepStart(step) => SnapshotId::parse(step.snapshot.as_deref()?),
            _ => None,
        })?;
        if parts.iter().any(|part| patch_of(part).is_some()) {
            return None;
        }
        let has_begun = |state: &ToolState| !matches!(state, ToolState::Pending { .. });
        let mut begun = parts.iter().filter(|part| !is_waiting(part)).filter_map(Part::tool);
        let anywhere = begun.any(|call| has_begun(&call.state) && run.engine.writes_anywhere(&call.tool));
        let site = Worksite {
            tenant: run.handle.key.tenant.clone(),
            session: message.session_id.clone(),
            root: PathBuf::from(&message.path.root),
        };
        let (_, patch) = run.engine.end_snapshot(&site, &before, anywhere).await;
        Some(Part {
            id: run.engine.0.ids.part(),
            session_id: message.session_id.clone(),
            message_id: message.id.clone(),
            kind: patch?,
        })
    }
}

/// A call that was accepted here and had no effect yet. One that OpenCode left may have had.
pub(crate) fn is_waiting(part: &Part) -> bool {
    matches!(part.tool().map(|tool| &tool.state), Some(ToolState::Running { begun: Some(false), .. }))
}

/// True for a call that was broken off: nobody waits to hear of it.
fn is_interrupted(state: &ToolState) -> bool {
    matches!(state, ToolState::Error { metadata: Some(metadata), .. } if metadata["interrupted"] == true)
}

/// What was told of a text that is still open is more than what is stored of it. What OpenCode left was never told here, and
/// stands as it is.
fn keep_told(text: &mut String, told: Option<String>) {
    if let Some(told) = told {
        *text = told;
    }
}

/// Closes a part that nobody writes any more.
pub(crate) fn close_part(kind: &mut PartKind, now: u64) {
    match kind {
        PartKind::Text(text) => {
            if let Some(time) = &mut text.time {
                time.end.get_or_insert(now);
            }
        }
        PartKind::Reasoning(reasoning) => {
            reasoning.time.end.get_or_insert(now);
        }
        PartKind::Tool(tool) => interrupt(&mut tool.state, UNKNOWN_OUTCOME, now),
        _ => {}
    }
}

/// What the model and people read of a call that an abort ended.
pub(crate) const ABORTED: &str = "Tool execution aborted";
/// What they read of a call whose replica died: it may have done its work, or a part of it.
pub(crate) const UNKNOWN_OUTCOME: &str = "Tool execution was interrupted; whether it took effect is unknown";

/// Records a call without outcome as interrupted.
pub(crate) fn interrupt(state: &mut ToolState, why: &str, now: u64) {
    let (input, start, metadata) = match state {
        ToolState::Pending { input, .. } => (input.take(), now, None),
        ToolState::Running { input, time, metadata, .. } => (input.take(), time.start, metadata.take()),
        ToolState::Completed { .. } | ToolState::Error { .. } => return,
    };
    // Clients and old data may have put anything there.
    let mut metadata = metadata.filter(Value::is_object).unwrap_or_else(|| json!({}));
    metadata["interrupted"] = json!(true);
    *state = ToolState::Error {
        input,
        error: why.into(),
        metadata: Some(metadata),
        time: wire::part::Span { start, end: Some(now), compacted: None },
    };
}

/// Adds what a step used to the head's sums, and shows them in the session's record.
pub(crate) fn add_up(head: &mut Head, session: &mut Session, step: &Spent, now: u64) {
    // A session of OpenCode's brings its sums in its record.
    let before = || Spent { cost: session.cost, tokens: session.tokens.clone() };
    let spent = head.spent.get_or_insert_with(before);
    spent.add(step);
    session.cost = spent.cost;
    session.tokens = Tokens { total: None, ..spent.tokens.clone() };
    session.time.updated = session.time.updated.max(now);
}

/// The prompt with the summary of its turn; none if it is gone.
pub(crate) fn summarized(at: &Under<'_>, id: &MessageId, diffs: &[Value]) -> Result<Option<Message>, EngineError> {
    let record = Record::Message { session: at.id.clone(), id: id.clone() };
    let Some(stored) = at.store.read(&record)? else { return Ok(None) };
    let mut message: Message =
        serde_json::from_slice(&stored).map_err(|error| EngineError::Store(error.to_string()))?;
    if let Message::User(user) = &mut message {
        user.summary = Some(json!({ "diffs": diffs }));
    }
    Ok(Some(message))
}
