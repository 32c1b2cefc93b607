//! One step: one model call and the tools that it asks for. What comes of it is written down by [`write`].

mod retry;
mod shorten;
mod snapshot;
mod write;

use crate::api::EngineError;
use crate::call::{self, Calls};
use crate::engine::Engine;
use crate::run::{Known, Run, Stop};
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
use tracing::Instrument;
use wire::ids::MessageId;
use wire::message::{AssistantMessage, Message, MessageError, MessagePath, MessageTime, Tokens, UserMessage};
use wire::part::{Part, PartKind, StepStartPart};
use wire::session::{Session, SessionStatus, SessionSummary};
pub(crate) use write::put_part;
use write::spent;

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
                spent: Spent::default(),
                may_be_shortened: false,
                is_overtaken: false,
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
        may_be_shortened: crate::compaction::may_follow(&transcript),
        is_overtaken: transcript.newest_user().is_some_and(|newest| newest.id != scene.user.id),
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
        spent: Spent::default(),
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
    /// What the model call used, once it has ended; shown in the message when the step does.
    spent: Spent,
    /// Where it is a final answer and fills the context, the conversation is shortened after it.
    may_be_shortened: bool,
    /// It answers an older prompt than the newest: the turn goes on with that, however the step ends.
    is_overtaken: bool,
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
                Answered::Finished(reason, usage) => {
                    self.spent = spent(&self.scene.model, &usage);
                    return self.finish(reason).await;
                }
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
        // Who left it has noted in the message what its model call used.
        let (cost, tokens) = (std::mem::take(&mut self.message.cost), std::mem::take(&mut self.message.tokens));
        self.spent = Spent { cost, tokens };
        self.finish(FinishReason::ToolCalls).await
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
}

/// The model that small tasks of a session use.
pub(crate) fn small_model(scene: &Scene) -> Option<Model> {
    let own = ModelRef { provider_id: scene.model.provider_id.clone(), model_id: scene.model.id.clone() };
    let small = scene.instance.small_model_for(&own);
    scene.instance.model(&small.provider_id, &small.model_id).ok()
}
