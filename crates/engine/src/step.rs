//! One step: one model call and the tools that it asks for.

mod retry;
mod shorten;
mod snapshot;

use crate::api::EngineError;
use crate::call::{self, Calls};
use crate::commit::body;
use crate::engine::Engine;
use crate::run::{Known, Run, Stop, StopReason, message_record};
use crate::settle::Settled;
use crate::snapshots::Changes;
use crate::trace;
use crate::turn::{Next, Transcript};
use agents::{Agent, Instance, Model, ModelRef};
use futures_util::FutureExt;
use models::{FinishReason, ModelError, ModelEvent, ToolSpec, Usage};
use run_protocol::{RecordVersion, Retry, Spent, TicketAnswer};
use serde_json::json;
use snapshot::Before;
use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use storage::{Record, Write};
use tracing::Instrument;
use wire::ids::MessageId;
use wire::message::{
    AssistantMessage, CacheTokens, Message, MessageError, MessagePath, MessageTime, Tokens, UserMessage,
};
use wire::part::{Part, PartKind, ReasoningPart, Span, StepFinishPart, StepStartPart, TextPart};
use wire::session::{Session, SessionStatus, SessionSummary};

/// After so long a run that only waits for people is taken for harmless.
const HARMLESS: Duration = Duration::from_secs(2);

/// What a step brought about.
pub(crate) struct Outcome {
    /// The message that it wrote.
    pub message: Option<MessageId>,
    /// What it used.
    pub spent: Spent,
    /// Set where the turn ends with it.
    pub ends_with: Option<Settled>,
}

/// Where a step works: the session, its directory's configuration, and who answers.
pub(crate) struct Scene {
    pub session: Session,
    /// The head's rev that the session's record was read under.
    pub rev: u64,
    pub instance: Arc<Instance>,
    pub agent: Agent,
    pub model: Model,
    pub user: UserMessage,
    /// The files with rules that the model has been shown, or is being shown.
    pub shown: Mutex<HashSet<PathBuf>>,
    /// The tools that the model is told of; it can call no others.
    pub offered: Vec<ToolSpec>,
}

impl Scene {
    /// The names of the tools that the model is told of.
    pub(crate) fn tool_names(&self) -> Vec<&str> {
        self.offered.iter().map(|spec| spec.name.as_str()).collect()
    }
}

/// Does one step, after the rest of the wait that a former runner was in. It ends early, with its records closed, when
/// `stop` says so; a lost run writes nothing more.
pub(crate) async fn step(
    run: &Run,
    transcript: Transcript,
    next: Next,
    first: bool,
    retry: Option<Retry>,
    stop: Arc<Stop>,
) -> Result<Outcome, EngineError> {
    let (user, resumed) = match next {
        Next::Answer { user } => (user, None),
        Next::Resume { user, message, calls } => (user, Some((message, calls))),
        Next::Compact { user, asked } => {
            let scene = match shorten::scene(run, &transcript, *user).await? {
                Ok(scene) => scene,
                Err(error) => return refuse(run, error).await,
            };
            let mut message = transcript.empty_dangling(&scene.user).unwrap_or_else(|| new_message(run, &scene));
            message.summary = Some(json!(true));
            let (request, tail) = crate::compaction::request(&scene, &transcript, &asked);
            if let Some(tail) = tail {
                crate::compaction::keep_tail(run, &scene.user, tail).await?;
            }
            let scene = Arc::new(scene);
            let mut writing = Writing {
                run,
                scene,
                stop,
                message,
                text: None,
                reasoning: None,
                calls: Calls::default(),
                begun: false,
                opening: None,
                before: Before::default(),
                start: None,
                changes: Changes::default(),
                structured: None,
            };
            return writing.shorten(request, &asked, first).await;
        }
        Next::GoOn { user, asked } => return crate::compaction::go_on(run, &transcript, &user, asked).await,
        Next::Subtask { user, asked, begun } => {
            let scene = match scene(run, &transcript, *user).await? {
                Ok(scene) => Arc::new(scene),
                Err(error) => return refuse(run, error).await,
            };
            if first {
                crate::title::spawn(run, &scene, &transcript);
            }
            return crate::subtask::subtask(run, &scene, asked, begun.map(|begun| *begun), &stop).await;
        }
        Next::Shell { prompt, ticket } => return crate::shell::shell(run, &prompt, &ticket, stop).await,
        Next::Done { answer } => {
            return Ok(Outcome { message: None, spent: Spent::default(), ends_with: Some(answer) });
        }
    };
    let scene = match scene(run, &transcript, *user).await? {
        Ok(scene) => scene,
        Err(error) => return refuse(run, error).await,
    };
    if resumed.is_none() && crate::compaction::is_due(&scene, &transcript) {
        return crate::compaction::ask(run, &scene.user, false).await;
    }
    let message = match &resumed {
        Some((message, _)) => (**message).clone(),
        None => transcript.empty_dangling(&scene.user).unwrap_or_else(|| new_message(run, &scene)),
    };
    let mut writing = Writing {
        run,
        changes: transcript.changes_of_turn(&scene.user.id).below(&scene.instance.worktree),
        scene: Arc::new(scene),
        stop,
        message,
        begun: false,
        opening: None,
        text: None,
        reasoning: None,
        calls: Calls::default(),
        before: Before::default(),
        start: None,
        structured: None,
    };
    match resumed {
        Some((message, calls)) => {
            writing.calls.recall(transcript.parts_of(&message.id));
            writing.structured = transcript.structured(&message.id);
            writing.before = Before::of(transcript.parts_of(&message.id));
            writing.resume(calls).await
        }
        None => writing.answer(transcript, first, retry).await,
    }
}

async fn scene(
    run: &Run,
    transcript: &Transcript,
    user: UserMessage,
) -> Result<Result<Scene, MessageError>, EngineError> {
    let Known { session, rev, .. } = run.known();
    let instance = match run.engine.0.instances.get(session.directory.as_ref()).await {
        Ok(instance) => instance,
        Err(EngineError::Config(error)) => return Ok(Err(error)),
        Err(error) => return Err(error),
    };
    let model = match instance.model(&user.model.provider_id, &user.model.model_id) {
        Ok(model) => model,
        Err(missing) => return Ok(Err(MessageError::unknown(missing.to_string()))),
    };
    let Some(agent) = instance.agent(&user.agent).cloned() else {
        return Ok(Err(MessageError::unknown(format!("Agent not found: \"{}\"", user.agent))));
    };
    let known = instance.instructions.iter().map(|rules| rules.path.clone());
    let shown = Mutex::new(known.chain(transcript.shown_rules()).collect());
    let offered = crate::request::offered(run, &session, &instance, &agent, &model, &user);
    Ok(Ok(Scene { session, rev, instance, agent, model, user, shown, offered }))
}

/// The prompt cannot be answered at all: its callers get the error, the message stays stored.
async fn refuse(run: &Run, error: MessageError) -> Result<Outcome, EngineError> {
    run.publish(wire::event::session_error(&run.handle.key.session, &error)).await;
    let message = error.data["message"].as_str().unwrap_or(&error.name).to_owned();
    let ends_with = Settled {
        answer: TicketAnswer::Failed { message },
        user: None,
        changes: Changes::default(),
        spent: Spent::default(),
        looked_again: false,
        alone: None,
    };
    Ok(Outcome { message: None, spent: Spent::default(), ends_with: Some(ends_with) })
}

fn new_message(run: &Run, scene: &Scene) -> AssistantMessage {
    AssistantMessage {
        id: run.engine.0.ids.message(),
        session_id: scene.session.id.clone(),
        parent_id: scene.user.id.clone(),
        time: MessageTime { created: run.known().reserved, completed: None },
        mode: scene.agent.name.clone(),
        agent: scene.agent.name.clone(),
        model_id: scene.user.model.model_id.clone(),
        provider_id: scene.user.model.provider_id.clone(),
        variant: scene.user.model.variant.clone(),
        path: MessagePath {
            cwd: scene.session.directory.clone(),
            root: scene.instance.worktree.to_string_lossy().into_owned(),
        },
        cost: 0.0,
        tokens: Tokens::default(),
        error: None,
        finish: None,
        summary: None,
        structured: None,
        extra: wire::Extra::new(),
    }
}

/// A step under way: the message that it writes and what of it is open.
struct Writing<'a> {
    run: &'a Run,
    scene: Arc<Scene>,
    stop: Arc<Stop>,
    message: AssistantMessage,
    /// The message has parts.
    begun: bool,
    /// The part that opens the step, until it is stored with the first that the model says.
    opening: Option<Part>,
    text: Option<Part>,
    reasoning: Option<Part>,
    calls: Calls,
    /// The work tree before the first call that may write.
    before: Before,
    /// The part that began the newest attempt.
    start: Option<Part>,
    /// What the turn changed so far.
    changes: Changes,
    /// The answer that a former runner was given in the form that the prompt wants.
    structured: Option<serde_json::Value>,
}

/// How a model call ended.
enum Answered {
    Finished(FinishReason, Usage),
    Failed(ModelError),
    Stopped,
}

impl Answered {
    /// Notes it in the call's span.
    fn note(&self, span: &tracing::Span) {
        match self {
            Self::Finished(reason, _) => trace::end(span, reason.as_str()),
            Self::Failed(error) => trace::fail(span, &error.to_message_error().name),
            Self::Stopped => trace::end(span, "stopped"),
        }
    }
}

impl Writing<'_> {
    fn engine(&self) -> &Engine {
        &self.run.engine
    }

    async fn answer(
        &mut self,
        transcript: Transcript,
        first: bool,
        retry: Option<Retry>,
    ) -> Result<Outcome, EngineError> {
        if !first {
            self.publish_status(&SessionStatus::Busy).await;
        }
        self.put_message().await?;
        if first {
            crate::title::spawn(self.run, &self.scene, &transcript);
        }
        self.publish_summary().await;
        let request = crate::request::chat_request(self.run, &self.scene, &transcript);
        let may_shorten = crate::compaction::may_shorten(&self.scene, &transcript);
        // What is large of it is in the request now.
        drop(transcript);
        self.ask_model(request, may_shorten, retry).await
    }

    /// Asks the model until it has answered, failed for good, or is stopped. A conversation that is too long for it is
    /// shortened where it may be.
    async fn ask_model(
        &mut self,
        request: models::ChatRequest,
        may_shorten: bool,
        retry: Option<Retry>,
    ) -> Result<Outcome, EngineError> {
        let mut failures = retry.as_ref().map_or(0, |retry| retry.attempt);
        if let Some(retry) = &retry {
            self.show_retry(retry).await;
            if !self.wait_to_retry(retry).await {
                return self.stopped_while_waiting().await;
            }
        }
        loop {
            self.publish_status(&SessionStatus::Busy).await;
            let mut request = request.clone();
            let span = trace::model(&self.run.identity(), &mut request);
            let answered = self.call_model(request).instrument(span.clone()).await?;
            answered.note(&span);
            drop(span);
            match answered {
                Answered::Finished(reason, usage) => return self.finish(reason, usage).await,
                Answered::Stopped => return self.stopped().await,
                Answered::Failed(error) if error.is_retryable() && failures < models::MAX_RETRIES => {
                    failures += 1;
                    let retry = self.retry(failures, &error);
                    self.leave_attempt(&retry).await?;
                    if !self.wait_to_retry(&retry).await {
                        return self.stopped_while_waiting().await;
                    }
                }
                Answered::Failed(error @ ModelError::ContextOverflow { .. }) if may_shorten => {
                    return self.overflowed(error.to_message_error()).await;
                }
                Answered::Failed(error) => return self.fail(error.to_message_error()).await,
            }
        }
    }

    /// A former runner had accepted these calls and not begun them.
    async fn resume(&mut self, calls: Vec<Part>) -> Result<Outcome, EngineError> {
        for part in calls {
            call::resume(self.run, &self.scene, &self.stop, &mut self.calls, part).await?;
        }
        self.finish(FinishReason::ToolCalls, Usage::default()).await
    }

    async fn publish_status(&self, status: &SessionStatus) {
        self.run.publish(wire::event::session_status(&self.scene.session.id, status)).await;
    }

    /// What OpenCode's summary of a turn tells at each step: what was changed so far.
    async fn publish_summary(&self) {
        let mut session = self.scene.session.clone();
        session.summary = Some(SessionSummary::default());
        let mut user = self.scene.user.clone();
        let diffs = self.engine().diffs(&self.run.handle.key.tenant, &self.changes).await;
        user.summary = Some(json!({ "diffs": diffs }));
        let version = |record: &str| Some((record.to_owned(), RecordVersion::head(self.scene.rev)));
        let (engine, origin) = (self.engine(), &self.run.origin);
        let user = Message::User(user);
        engine.publish(origin, wire::event::session_updated(&session), version(session.id.as_str())).await;
        engine.publish(origin, wire::event::session_diff(&session.id, &json!([])), None).await;
        engine.publish(origin, wire::event::message_updated(&user), version(user.id().as_str())).await;
    }

    async fn put_message(&self) -> Result<(), EngineError> {
        let message = Message::Assistant(self.message.clone());
        self.run.commit(vec![Write::Put(message_record(&message), body(&message)?)]).await?;
        self.run.publish_record(self.message.id.as_str(), wire::event::message_updated(&message)).await;
        Ok(())
    }

    fn part(&self, kind: PartKind) -> Part {
        Part {
            id: self.engine().0.ids.part(),
            session_id: self.scene.session.id.clone(),
            message_id: self.message.id.clone(),
            kind,
        }
    }

    async fn put_part(&mut self, part: &Part) -> Result<(), EngineError> {
        match self.opening.take() {
            Some(opening) => put_parts(self.run, &[&opening, part]).await,
            None => put_part(self.run, part).await,
        }
    }

    /// Calls the model and writes down what it says, until it ends, fails, or the step is stopped.
    async fn call_model(&mut self, request: models::ChatRequest) -> Result<Answered, EngineError> {
        let provider = if self.scene.model.demo { &self.engine().0.demo } else { &self.engine().0.provider }.clone();
        let stop = self.stop.clone();
        let stream = tokio::select! {
            biased;
            () = stop.token.cancelled() => return Ok(Answered::Stopped),
            stream = provider.stream(request) => stream,
        };
        let mut stream = match stream {
            Ok(stream) => stream,
            Err(error) => return Ok(Answered::Failed(error)),
        };
        let (mut started, mut ahead) = (false, None);
        loop {
            let event = match ahead.take() {
                Some(event) => event,
                None => tokio::select! {
                    biased;
                    () = stop.token.cancelled() => return Ok(Answered::Stopped),
                    event = stream.next() => event,
                },
            };
            if let Some(Ok(ModelEvent::ToolCallStart { name, .. } | ModelEvent::ToolCallEnd { name, .. })) = &event {
                self.snapshot_before(name).await?;
            }
            // The step begins with the first thing that the model says.
            if !started && !matches!(event, Some(Err(_))) {
                let step = StepStartPart { snapshot: self.before.text(), ..StepStartPart::default() };
                let start = self.part(PartKind::StepStart(step));
                self.changes.add(&start);
                self.start = Some(start.clone());
                match &event {
                    Some(Ok(ModelEvent::TextStart | ModelEvent::ReasoningStart | ModelEvent::ToolCallStart { .. })) => {
                        self.opening = Some(start)
                    }
                    _ => self.put_part(&start).await?,
                }
                (started, self.begun) = (true, true);
            }
            match event {
                Some(Ok(ModelEvent::TextEnd)) => {
                    ahead = stream.next().now_or_never();
                    // A text that ends with the step is stored with its end.
                    if !matches!(ahead, Some(Some(Ok(ModelEvent::Finish { .. })))) {
                        self.close_text().await?;
                    }
                }
                Some(Ok(ModelEvent::Finish { reason, usage })) => return Ok(Answered::Finished(reason, usage)),
                Some(Ok(event)) => self.take(event).await?,
                Some(Err(error)) => return Ok(Answered::Failed(error)),
                None => return Ok(Answered::Finished(FinishReason::Unknown, Usage::default())),
            }
        }
    }

    async fn take(&mut self, event: ModelEvent) -> Result<(), EngineError> {
        let now = self.engine().now_ms();
        match event {
            ModelEvent::TextStart => {
                let text = TextPart { time: Some(Span::from(now)), ..TextPart::default() };
                let part = self.part(PartKind::Text(text));
                self.put_part(&part).await?;
                self.text = Some(part);
            }
            ModelEvent::TextDelta(delta) => {
                if let Some(part) = &mut self.text {
                    let happened = wire::event::part_delta(part, &delta);
                    if let PartKind::Text(text) = &mut part.kind {
                        text.text.push_str(&delta);
                    }
                    self.run.publish(happened).await;
                }
            }
            ModelEvent::ReasoningStart => {
                let reasoning = ReasoningPart { text: String::new(), time: Span::from(now), extra: wire::Extra::new() };
                let part = self.part(PartKind::Reasoning(reasoning));
                self.put_part(&part).await?;
                self.reasoning = Some(part);
            }
            ModelEvent::ReasoningDelta(delta) => {
                if let Some(part) = &mut self.reasoning {
                    let happened = wire::event::part_delta(part, &delta);
                    if let PartKind::Reasoning(reasoning) = &mut part.kind {
                        reasoning.text.push_str(&delta);
                    }
                    self.run.publish(happened).await;
                }
            }
            ModelEvent::ReasoningEnd => self.close_reasoning().await?,
            ModelEvent::ToolCallStart { id, name, .. } => {
                let part = self.part(call::pending(self.run, &self.scene, &id, &name));
                self.put_part(&part).await?;
                self.calls.announce(id, part);
            }
            ModelEvent::ToolCallEnd { id, name, arguments, .. } => {
                let part = self.calls.announced(&id);
                let part = part.unwrap_or_else(|| self.part(call::pending(self.run, &self.scene, &id, &name)));
                call::start(self.run, &self.scene, &self.stop, &mut self.calls, part, &name, &arguments).await?;
            }
            // Its end and the answer's are seen to by the caller.
            ModelEvent::TextEnd | ModelEvent::Finish { .. } => {}
        }
        Ok(())
    }

    async fn close_text(&mut self) -> Result<(), EngineError> {
        match self.end_text() {
            Some(part) => self.put_part(&part).await,
            None => Ok(()),
        }
    }

    /// The text that was open, with its end; not stored yet.
    fn end_text(&mut self) -> Option<Part> {
        let mut part = self.text.take()?;
        if let PartKind::Text(TextPart { time: Some(time), .. }) = &mut part.kind {
            time.end = Some(self.engine().now_ms());
        }
        Some(part)
    }

    async fn close_reasoning(&mut self) -> Result<(), EngineError> {
        let Some(mut part) = self.reasoning.take() else { return Ok(()) };
        if let PartKind::Reasoning(reasoning) = &mut part.kind {
            reasoning.time.end = Some(self.engine().now_ms());
        }
        self.put_part(&part).await
    }

    /// The model has said all; the step ends with the last of its tools.
    async fn finish(&mut self, reason: FinishReason, usage: Usage) -> Result<Outcome, EngineError> {
        self.close_reasoning().await?;
        if self.calls.are_running() {
            self.close_text().await?;
        }
        let stop = self.stop.clone();
        let draining = self.engine().0.draining.clone();
        let (only_wait, no_trial) = (self.calls.only_wait(Duration::ZERO), self.calls.only_wait(HARMLESS));
        let run = self.run.clone();
        let blocked = tokio::select! {
            biased;
            blocked = self.calls.wait() => blocked?,
            () = stop.token.cancelled() => return self.stopped().await,
            // A stopping replica does not wait for people: whoever goes on waits on the same asks.
            () = async { draining.cancelled().await; only_wait.await } => {
                stop.stop(StopReason::Interrupted);
                return self.stopped().await;
            }
            // What only waits for people harms nobody: others may be tried.
            never = async { no_trial.await; run.end_trial(); std::future::pending().await } => never,
        };
        if let Some(error) = blocked.fatal {
            return self.fail(error).await;
        }
        if self.stop.token.is_cancelled() {
            return self.stopped().await;
        }
        let (after, patch) = self.snapshot_after().await;
        let tokens = tokens(&usage);
        let cost = cost(&self.scene.model, &tokens);
        let finish = reason.as_str().to_owned();
        let part = self.part(PartKind::StepFinish(StepFinishPart {
            reason: finish.clone(),
            snapshot: after.map(|after| after.to_string()),
            cost,
            tokens: tokens.clone(),
            extra: wire::Extra::new(),
        }));
        let patch = patch.map(|kind| self.part(kind));
        trace::end(&tracing::Span::current(), &finish);
        self.message.finish = Some(finish);
        self.message.cost += cost;
        self.message.tokens = tokens.clone();
        let finished = Message::Assistant(self.message.clone());
        let filtered = (reason == FinishReason::ContentFilter).then(models::content_filter_error);
        // Some providers say of a step that calls tools that it is the last one.
        let goes_on = matches!(reason, FinishReason::ToolCalls | FinishReason::Unknown) || self.calls.were_begun();
        self.message.structured = self.structured().await;
        let is_missing = self.wants_structure() && self.message.structured.is_none() && !goes_on;
        self.message.error = filtered.clone().or_else(|| is_missing.then(crate::structured::missing));
        self.message.time.completed = Some(self.engine().now_ms());
        let completed = Message::Assistant(self.message.clone());
        std::iter::once(&part).chain(&patch).for_each(|part| self.changes.add(part));
        // The message is last: its completion makes the step's end visible.
        let ended: Vec<Part> = self.end_text().into_iter().chain([part]).collect();
        let mut writes = ended.iter().chain(&patch).map(put).collect::<Result<Vec<_>, _>>()?;
        writes.push(Write::Put(message_record(&completed), body(&completed)?));
        self.run.commit(writes).await?;
        for part in &ended {
            publish_part(self.run, part).await;
        }
        let id = self.message.id.clone();
        self.run.publish_record(id.as_str(), wire::event::message_updated(&finished)).await;
        if let Some(patch) = &patch {
            publish_part(self.run, patch).await;
        }
        self.run.publish_record(id.as_str(), wire::event::message_updated(&completed)).await;
        if let Some(error) = &filtered {
            self.run.publish(wire::event::session_error(&self.scene.session.id, error)).await;
        }
        let ends = !goes_on || blocked.rejected || filtered.is_some() || self.message.structured.is_some();
        let mut outcome = self.outcome(Spent { cost, tokens }, ends);
        let breaks_off = blocked.rejected || self.message.structured.is_some();
        if let Some(settled) = outcome.ends_with.as_mut().filter(|_| breaks_off) {
            // A rejection breaks the loop off, and so does an answer in the wanted form.
            settled.looked_again = false;
        }
        Ok(outcome)
    }

    /// Whether the answer must have the form that the prompt brings. A summary is no answer.
    fn wants_structure(&self) -> bool {
        self.message.summary.is_none() && crate::structured::schema(&self.scene.user).is_some()
    }

    /// The answer in that form, once the model gave it.
    async fn structured(&self) -> Option<serde_json::Value> {
        if self.wants_structure() { self.calls.structured().await.or_else(|| self.structured.clone()) } else { None }
    }

    fn outcome(&self, spent: Spent, ends: bool) -> Outcome {
        let id = self.message.id.clone();
        let ends_with = ends.then(|| Settled {
            answer: TicketAnswer::Message { id: id.to_string() },
            user: Some(self.scene.user.id.clone()),
            changes: self.changes.clone(),
            spent: spent.clone(),
            looked_again: self.message.error.is_none(),
            alone: None,
        });
        Outcome { message: Some(id), spent, ends_with }
    }

    /// The step failed for good: the turn ends with the error.
    async fn fail(&mut self, error: MessageError) -> Result<Outcome, EngineError> {
        trace::fail(&tracing::Span::current(), &error.name);
        self.calls.interrupt(self.run).await?;
        let session = self.scene.session.id.clone();
        self.run.publish(wire::event::session_error(&session, &error)).await;
        for entry in [wire::event::session_status(&session, &SessionStatus::Idle), wire::event::session_idle(&session)]
        {
            self.run.publish(entry).await;
        }
        self.close_reasoning().await?;
        self.close_text().await?;
        self.put_patch().await?;
        self.message.error = Some(error);
        self.message.time.completed = Some(self.engine().now_ms());
        self.put_message().await?;
        Ok(self.outcome(Spent::default(), true))
    }

    /// The step was stopped: its records are closed as the reason demands.
    async fn stopped(&mut self) -> Result<Outcome, EngineError> {
        let session = self.scene.session.id.clone();
        let error = match self.stop.reason() {
            Some(StopReason::Aborted { .. }) => MessageError::aborted(),
            Some(StopReason::Interrupted | StopReason::Frozen) => {
                let waiting = self.calls.settle_or_leave(self.run, Duration::from_millis(500)).await?;
                self.message.structured = self.structured().await;
                self.close_reasoning().await?;
                self.close_text().await?;
                if !waiting {
                    self.put_patch().await?;
                    self.message.finish = Some("unknown".into());
                    self.message.time.completed = Some(self.engine().now_ms());
                }
                self.put_message().await?;
                return Ok(self.outcome(Spent::default(), false));
            }
            _ => {
                self.calls.drop_all();
                return Err(EngineError::Lost);
            }
        };
        self.run.publish(wire::event::session_error(&session, &error)).await;
        for entry in [wire::event::session_status(&session, &SessionStatus::Idle), wire::event::session_idle(&session)]
        {
            self.run.publish(entry).await;
        }
        self.close_reasoning().await?;
        self.close_text().await?;
        self.calls.settle_or_interrupt(self.run, Duration::from_millis(250)).await?;
        self.put_patch().await?;
        self.message.error = Some(error);
        self.message.time.completed = Some(self.engine().now_ms());
        self.put_message().await?;
        Ok(self.outcome(Spent::default(), false))
    }
}

/// Commits a part and publishes it.
pub(crate) async fn put_part(run: &Run, part: &Part) -> Result<(), EngineError> {
    put_parts(run, &[part]).await
}

async fn put_parts(run: &Run, parts: &[&Part]) -> Result<(), EngineError> {
    let writes: Result<_, EngineError> = parts.iter().map(|part| put(part)).collect();
    run.commit_lightly(writes?).await?;
    for part in parts {
        publish_part(run, part).await;
    }
    Ok(())
}

fn put(part: &Part) -> Result<Write, EngineError> {
    Ok(Write::Put(Record::Part { message: part.message_id.clone(), id: part.id.clone() }, body(part)?))
}

async fn publish_part(run: &Run, part: &Part) {
    let now = run.engine.now_ms();
    run.publish_record(part.id.as_str(), wire::event::part_updated(part, now)).await;
}

/// OpenCode's count: input without the cached tokens, output without reasoning.
fn tokens(usage: &Usage) -> Tokens {
    Tokens {
        // A provider that tells nothing has no total.
        total: usage.total.or(Some(usage.input + usage.output).filter(|sum| *sum > 0)),
        input: usage.input.saturating_sub(usage.cache_read + usage.cache_write),
        output: usage.output.saturating_sub(usage.reasoning),
        reasoning: usage.reasoning,
        cache: CacheTokens { read: usage.cache_read, write: usage.cache_write },
    }
}

/// Dollars; reasoning costs what output costs.
fn cost(model: &Model, tokens: &Tokens) -> f64 {
    let context = tokens.input + tokens.cache.read + tokens.cache.write;
    let price = model.cost.over_200k.as_deref().filter(|_| context > 200_000).unwrap_or(&model.cost);
    let sum = tokens.input as f64 * price.input
        + (tokens.output + tokens.reasoning) as f64 * price.output
        + tokens.cache.read as f64 * price.cache.read
        + tokens.cache.write as f64 * price.cache.write;
    // Summed in micro-dollars: what people read has no rounding noise.
    (sum * 1e3).round() / 1e9
}

/// The model that small tasks of a session use.
pub(crate) fn small_model(scene: &Scene) -> Option<Model> {
    let own = ModelRef { provider_id: scene.model.provider_id.clone(), model_id: scene.model.id.clone() };
    let small = scene.instance.small_model_for(&own);
    scene.instance.model(&small.provider_id, &small.model_id).ok()
}
