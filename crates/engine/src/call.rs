//! The tool calls of a step: announced, begun, shown, ended, each a part of its message.

use crate::api::EngineError;
use crate::commit::body;
use crate::engine::{Counters, Engine, blocking};
use crate::run::{Run, Stop, StopReason};
use crate::step::{Scene, put_part};
use crate::strand::stay;
use crate::trace;
use crate::turn::{ABORTED, interrupt};
use coordination::LockGuard;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use storage::{Record, Write};
use tokio::sync::Mutex;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;
use tools::{Ask, Call, Host, Instructions, Output, Resolved, Task, Tool, ToolError, ToolSettings};
use tracing::Instrument;
use wire::message::MessageError;
use wire::part::{Part, PartKind, Span, ToolPart, ToolState};
use wire::permission::CallRef;
use wire::session::Todo;

/// How often the lock on a file is prolonged; well below the time that a lock holds by itself.
const EXTEND_EVERY: Duration = Duration::from_millis(500);
/// How often calls are looked at that may only wait.
const LOOK: Duration = Duration::from_millis(500);
/// So many equal calls in a row within one message are a loop.
const LOOP: usize = 3;

/// The calls of one step.
#[derive(Default)]
pub(crate) struct Calls {
    announced: HashMap<String, Part>,
    running: JoinSet<Ended>,
    parts: Vec<Arc<Mutex<Part>>>,
    made: Vec<(String, Value)>,
    ended: Blocked,
}

/// What the ended calls mean for the run.
#[derive(Clone, Debug, Default)]
pub(crate) struct Blocked {
    /// The user rejected one: the run ends after this step.
    pub rejected: bool,
    /// The step fails with this.
    pub fatal: Option<MessageError>,
}

enum Ended {
    Done,
    Rejected,
    Fatal(MessageError),
    Lost,
}

/// The part of a call whose arguments are still coming.
pub(crate) fn pending(run: &Run, scene: &Scene, call_id: &str, name: &str) -> PartKind {
    let known = run.engine.0.tools.meant(name, &scene.tool_names());
    let tool = known.map_or("invalid", |tool| tool.name()).to_owned();
    let state = ToolState::Pending { input: json!({}), raw: String::new() };
    PartKind::Tool(ToolPart { call_id: call_id.to_owned(), tool, state, extra: wire::Extra::new() })
}

/// Starts a call whose arguments are complete.
pub(crate) async fn start(
    run: &Run,
    scene: &Arc<Scene>,
    stop: &Arc<Stop>,
    calls: &mut Calls,
    mut part: Part,
    name: &str,
    arguments: &str,
) -> Result<(), EngineError> {
    let registry = &run.engine.0.tools;
    let (tool, input) = match registry.resolve(name, arguments, &scene.tool_names()) {
        Resolved::Known(tool, input) => (tool, input),
        Resolved::Invalid { tool, error } => (registry.invalid(), json!({ "tool": tool, "error": error })),
    };
    let is_loop = calls.make(tool.name(), &input);
    let now = run.engine.now_ms();
    let PartKind::Tool(call) = &mut part.kind else { return Ok(()) };
    call.tool = tool.name().to_owned();
    call.state = ToolState::Running {
        input: input.clone(),
        title: None,
        metadata: None,
        time: Span::from(now),
        begun: Some(false),
    };
    put_part(run, &part).await?;
    spawn(run, scene, stop, calls, part, tool, input, is_loop);
    Ok(())
}

/// Starts a call that a former runner had accepted and not begun.
pub(crate) async fn resume(
    run: &Run,
    scene: &Arc<Scene>,
    stop: &Arc<Stop>,
    calls: &mut Calls,
    part: Part,
) -> Result<(), EngineError> {
    let Some(ToolState::Running { input, .. }) = part.tool().map(|call| call.state.clone()) else { return Ok(()) };
    let name = part.tool().map(|call| call.tool.clone()).unwrap_or_default();
    let tool = run.engine.0.tools.get(&name).unwrap_or_else(|| run.engine.0.tools.invalid());
    let is_loop = calls.make(tool.name(), &input);
    spawn(run, scene, stop, calls, part, tool, input, is_loop);
    Ok(())
}

#[allow(clippy::too_many_arguments)]
fn spawn(
    run: &Run,
    scene: &Arc<Scene>,
    stop: &Arc<Stop>,
    calls: &mut Calls,
    part: Part,
    tool: Arc<dyn Tool>,
    input: Value,
    is_loop: bool,
) {
    Counters::add(&run.engine.0.counters.tool_calls, 1);
    let call_id = part.tool().map(|call| call.call_id.clone()).unwrap_or_default();
    let message = part.message_id.clone();
    let part = Arc::new(Mutex::new(part));
    calls.parts.push(part.clone());
    let host = Arc::new(CallHost {
        run: run.clone(),
        scene: scene.clone(),
        stop: stop.clone(),
        part: part.clone(),
        call: CallRef { message_id: message.clone(), call_id: call_id.clone() },
    });
    let call = Call {
        directory: scene.session.directory.clone().into(),
        worktree: scene.instance.worktree.clone(),
        session: scene.session.id.clone(),
        message,
        call_id,
        identity: run.identity(),
        lifeline: run.engine.0.replica.lifeline(),
        cancel: stop.token.clone(),
        host: host.clone(),
        skills: scene.instance.skills.clone(),
        settings: tool_settings(&run.engine, &scene.instance),
    };
    let span = trace::tool(&call.identity, tool.name(), &call.call_id);
    calls.running.spawn(stay(perform(host, tool, input, call, is_loop).instrument(span)));
}

/// The settings of tools in a directory, with what its configuration says of outputs: commands do not see the secrets of its
/// configuration either.
pub(crate) fn tool_settings(engine: &Engine, instance: &agents::Instance) -> Arc<ToolSettings> {
    let mut settings = engine.0.settings.tools.clone();
    if !instance.secrets.is_empty() {
        Arc::make_mut(&mut settings).env.hide(instance.secrets.iter().map(agents::Secret::expose));
    }
    let number = |key: &str| {
        let configured = instance.config["tool_output"][key].as_u64();
        configured.and_then(|number| usize::try_from(number).ok())
    };
    if let Some(lines) = number("max_lines") {
        Arc::make_mut(&mut settings).max_lines = lines;
    }
    if let Some(bytes) = number("max_bytes") {
        Arc::make_mut(&mut settings).max_bytes = bytes;
    }
    settings
}

async fn perform(host: Arc<CallHost>, tool: Arc<dyn Tool>, input: Value, call: Call, is_loop: bool) -> Ended {
    if is_loop {
        let ask = Ask {
            permission: "doom_loop".into(),
            patterns: vec![tool.name().into()],
            always: vec![tool.name().into()],
            metadata: json!({ "tool": tool.name(), "input": input }),
        };
        if let Err(error) = host.ask_without_call(ask).await {
            return match error {
                ToolError::Lost => Ended::Lost,
                error => Ended::Fatal(MessageError::unknown(error.to_string())),
            };
        }
    }
    let result = tools::perform(&*tool, input, &call).await;
    let rejected = matches!(result, Err(ToolError::Rejected { feedback: None } | ToolError::Dismissed));
    trace::tool_ended(&result);
    match host.end(result).await {
        Ok(()) if rejected => Ended::Rejected,
        Ok(()) => Ended::Done,
        Err(_) => Ended::Lost,
    }
}

impl Calls {
    /// Recalls the calls that a former runner made in the same message, in their order.
    pub(crate) fn recall(&mut self, parts: &[Part]) {
        for call in parts.iter().filter_map(Part::tool) {
            let input = match &call.state {
                ToolState::Completed { input, .. } | ToolState::Error { input, .. } => input,
                ToolState::Running { input, begun: Some(true), .. } => input,
                ToolState::Pending { .. } | ToolState::Running { .. } => continue,
            };
            self.made.push((call.tool.clone(), input.clone()));
        }
    }

    /// The newest answer in a form of its own that was given by one of them.
    pub(crate) async fn structured(&self) -> Option<Value> {
        for part in self.parts.iter().rev() {
            if let Some(given) = crate::structured::given(&*part.lock().await) {
                return Some(given.clone());
            }
        }
        None
    }

    /// The tools that were called.
    pub(crate) fn tools(&self) -> impl Iterator<Item = &str> {
        self.made.iter().map(|(tool, _)| tool.as_str())
    }

    /// Notes a call. True if the last ones of this message were all alike.
    fn make(&mut self, tool: &str, input: &Value) -> bool {
        self.made.push((tool.to_owned(), input.clone()));
        let newest = &self.made[self.made.len().saturating_sub(LOOP)..];
        newest.len() == LOOP && newest.iter().all(|call| *call == newest[0])
    }

    /// Notes a call whose arguments are still coming.
    pub(crate) fn announce(&mut self, call_id: String, part: Part) {
        self.announced.insert(call_id, part);
    }

    /// The part of an announced call.
    pub(crate) fn announced(&mut self, call_id: &str) -> Option<Part> {
        self.announced.remove(call_id)
    }

    /// True while one of them is under way.
    pub(crate) fn are_running(&self) -> bool {
        !self.running.is_empty()
    }

    /// True once one was begun.
    pub(crate) fn were_begun(&self) -> bool {
        !self.parts.is_empty()
    }

    /// Waits for all calls. Cancellation-safe: it may be called again.
    pub(crate) async fn wait(&mut self) -> Result<Blocked, EngineError> {
        while let Some(ended) = self.running.join_next().await {
            match ended {
                Ok(Ended::Done) => {}
                Ok(Ended::Rejected) => self.ended.rejected = true,
                Ok(Ended::Fatal(error)) => self.ended.fatal = Some(error),
                Ok(Ended::Lost) => return Err(EngineError::Lost),
                Err(error) if error.is_cancelled() => {}
                Err(error) => {
                    tracing::error!(%error, "a tool broke off");
                    self.ended.fatal = Some(MessageError::unknown("A tool broke off."));
                }
            }
        }
        Ok(self.ended.clone())
    }

    /// Completes once nothing of these calls is under way and all of them have waited for so long, for a permission or for
    /// their turn. A hint: one may begin right afterwards. Looks twice a second.
    pub(crate) fn only_wait(&self, at_least: Duration) -> impl Future<Output = ()> + use<> {
        let parts = self.parts.clone();
        async move {
            let mut since = Instant::now();
            loop {
                let (mut waiting, mut at_work) = (0, 0);
                for part in &parts {
                    let part = part.lock().await;
                    if crate::turn::is_waiting(&part) {
                        waiting += 1;
                    } else if part.tool().is_some_and(|call| matches!(call.state, ToolState::Running { .. })) {
                        at_work += 1;
                    }
                }
                if waiting == 0 || at_work > 0 {
                    since = Instant::now() + LOOK;
                } else if since.elapsed() >= at_least {
                    return;
                }
                tokio::time::sleep(LOOK).await;
            }
        }
    }

    /// Gives the calls a moment to end by themselves, then records the others as interrupted.
    pub(crate) async fn settle_or_interrupt(&mut self, run: &Run, moment: Duration) -> Result<(), EngineError> {
        if let Ok(Err(error)) = tokio::time::timeout(moment, self.wait()).await {
            return Err(error);
        }
        self.interrupt(run).await
    }

    /// As [`Calls::settle_or_interrupt`], but calls that have not begun are left for whoever goes on. True if there are
    /// such calls.
    pub(crate) async fn settle_or_leave(&mut self, run: &Run, moment: Duration) -> Result<bool, EngineError> {
        if let Ok(Err(error)) = tokio::time::timeout(moment, self.wait()).await {
            return Err(error);
        }
        self.running.shutdown().await;
        let mut left = Vec::new();
        for part in std::mem::take(&mut self.parts) {
            if crate::turn::is_waiting(&*part.lock().await) {
                left.push(part);
            } else {
                self.parts.push(part);
            }
        }
        self.interrupt(run).await?;
        Ok(!left.is_empty())
    }

    /// Ends the calls at once and records those without outcome as interrupted.
    pub(crate) async fn interrupt(&mut self, run: &Run) -> Result<(), EngineError> {
        self.running.shutdown().await;
        // That a call begins, or what came of it, may just be on its way to the disk.
        run.all_landed().await;
        let now = run.engine.now_ms();
        let announced: Vec<Part> = self.announced.drain().map(|(_, part)| part).collect();
        self.parts.extend(announced.into_iter().map(|part| Arc::new(Mutex::new(part))));
        for part in &self.parts {
            let mut part = part.lock().await;
            let is_open = |call: &ToolPart| matches!(call.state, ToolState::Pending { .. } | ToolState::Running { .. });
            if let PartKind::Tool(call) = &mut part.kind
                && is_open(call)
            {
                interrupt(&mut call.state, ABORTED, now);
                put_part(run, &part).await?;
            }
        }
        Ok(())
    }

    /// Ends the calls at once and records nothing: the run is another's.
    pub(crate) fn drop_all(&mut self) {
        self.running.abort_all();
    }
}

/// The run, as one call sees it.
pub(crate) struct CallHost {
    run: Run,
    scene: Arc<Scene>,
    stop: Arc<Stop>,
    part: Arc<Mutex<Part>>,
    call: CallRef,
}

impl CallHost {
    fn engine(&self) -> &Engine {
        &self.run.engine
    }

    fn stopped(&self) -> ToolError {
        match self.stop.reason() {
            Some(StopReason::Lost) => ToolError::Lost,
            _ => ToolError::Aborted,
        }
    }

    async fn ask_without_call(&self, ask: Ask) -> Result<(), ToolError> {
        self.ask_for(ask, false).await
    }

    async fn ask_for(&self, ask: Ask, is_shown: bool) -> Result<(), ToolError> {
        tokio::select! {
            biased;
            answer = crate::asks::ask(&self.run, &self.scene, ask, self.call.clone(), is_shown) => answer,
            () = self.stop.token.cancelled() => Err(self.stopped()),
        }
    }

    /// Records how the call ended.
    async fn end(&self, result: Result<Output, ToolError>) -> Result<(), EngineError> {
        let now = self.engine().now_ms();
        let mut part = self.part.lock().await;
        let mut ended = part.clone();
        let PartKind::Tool(call) = &mut ended.kind else { return Ok(()) };
        let ToolState::Running { input, time, metadata, begun, .. } = &call.state else { return Ok(()) };
        let has_begun = *begun == Some(true);
        let (input, metadata) = (input.clone(), metadata.clone());
        let time = Span { start: time.start, end: Some(now), compacted: None };
        call.state = match result {
            Ok(output) => ToolState::Completed {
                input,
                output: output.output,
                title: output.title,
                metadata: if output.metadata.is_null() { json!({}) } else { output.metadata },
                time,
                attachments: output.attachments.map(|files| files.into_iter().map(|file| self.attach(file)).collect()),
            },
            Err(ToolError::Lost) => return Err(EngineError::Lost),
            // Nothing happened yet: whoever goes on runs it, or waits on its ask again.
            Err(ToolError::Aborted) if self.stop.leaves_waiting() && !has_begun => return Ok(()),
            Err(ToolError::Aborted) => {
                interrupt(&mut call.state, ABORTED, now);
                call.state.clone()
            }
            Err(error) => ToolState::Error { input, error: error.to_string(), metadata, time },
        };
        // Whoever breaks this off in the midst finds a call that has not ended, and records that.
        put_part(&self.run, &ended).await?;
        *part = ended;
        Ok(())
    }

    /// Notes whose a change of this file is, for snapshots that others take meanwhile.
    async fn note_write(&self, path: &Path) {
        let Some(site) = self.scene.worksite(&self.run) else { return };
        let (store, path) = (self.engine().tenant_store(&site.tenant), path.to_owned());
        let parent = self.scene.session.parent_id.clone();
        let noted = blocking(move || Ok(store.note_write(&site.root, &path, &site.session, parent.as_ref())?)).await;
        if let Err(error) = noted {
            tracing::warn!(%error, "a write is not noted: its file may be told to be another session's change");
        }
    }

    /// Gives a file part of a tool the ids that parts have.
    fn attach(&self, mut file: Value) -> Value {
        file["id"] = json!(self.engine().0.ids.part());
        file["sessionID"] = json!(self.scene.session.id);
        file["messageID"] = json!(self.call.message_id);
        file
    }
}

/// Keeps a lock for as long as the result lives, however slow the disk is: no guard stands behind a file of the work tree.
fn hold(lock: Box<dyn LockGuard>) -> AbortOnDropHandle<()> {
    AbortOnDropHandle::new(tokio::spawn(stay(async move {
        loop {
            tokio::time::sleep(EXTEND_EVERY).await;
            lock.extend();
        }
    })))
}

#[async_trait::async_trait]
impl Host for CallHost {
    async fn ask(&self, ask: Ask) -> Result<(), ToolError> {
        self.ask_for(ask, true).await
    }

    fn aborted_by_user(&self) -> bool {
        matches!(self.stop.reason(), Some(StopReason::Aborted { .. }))
    }

    async fn begin(&self) -> Result<(), ToolError> {
        if self.stop.token.is_cancelled() {
            return Err(self.stopped());
        }
        while self.engine().0.replica.is_frozen() {
            tokio::select! {
                biased;
                () = tokio::time::sleep(Duration::from_millis(100)) => {}
                () = self.stop.token.cancelled() => return Err(self.stopped()),
            }
        }
        let mut part = self.part.lock().await;
        let PartKind::Tool(call) = &mut part.kind else { return Ok(()) };
        let ToolState::Running { begun, .. } = &mut call.state else { return Ok(()) };
        *begun = Some(true);
        let record = Record::Part { message: part.message_id.clone(), id: part.id.clone() };
        let write = body(&*part).map(|body| vec![Write::Put(record, body)]);
        let write = write.map_err(|error| ToolError::Failed(error.to_string()))?;
        self.run.commit(write).await.map_err(|error| match error {
            EngineError::Lost => ToolError::Lost,
            error => ToolError::Failed(error.to_string()),
        })
    }

    async fn ask_questions(&self, questions: Vec<Value>) -> Result<Vec<Vec<String>>, ToolError> {
        tokio::select! {
            biased;
            answers = crate::asks::ask_questions(&self.run, &self.scene, questions, self.call.clone()) => answers,
            () = self.stop.token.cancelled() => Err(self.stopped()),
        }
    }

    async fn put_todos(&self, todos: Vec<Todo>) -> Result<(), ToolError> {
        crate::todos::put(&self.run, todos).await.map_err(|error| match error {
            EngineError::Lost => ToolError::Lost,
            error => ToolError::Failed(error.to_string()),
        })
    }

    async fn progress(&self, title: Option<String>, metadata: Value) {
        let mut part = self.part.lock().await;
        let PartKind::Tool(call) = &mut part.kind else { return };
        let ToolState::Running { title: shown, metadata: known, .. } = &mut call.state else { return };
        if title.is_some() {
            *shown = title;
        }
        *known = Some(metadata);
        let now = self.engine().now_ms();
        self.run.publish_record(part.id.as_str(), wire::event::part_updated(&part, now)).await;
    }

    async fn publish(&self, happened: wire::event::Happened) {
        self.run.publish(happened).await;
    }

    async fn file_lock(&self, path: &Path) -> Result<Box<dyn Send>, ToolError> {
        let name = format!("file/{}/{}", self.run.handle.key.tenant, path.display());
        match self.engine().0.ports.locks.lock(&name, Duration::from_secs(30)).await {
            Ok(guard) => {
                let guard = hold(guard);
                self.note_write(path).await;
                Ok(Box::new(guard))
            }
            Err(error) => Err(ToolError::Failed(format!("The file cannot be locked at the moment: {error}"))),
        }
    }

    async fn task(&self, task: Task) -> Result<Output, ToolError> {
        crate::child::task(&self.run, &self.scene, &self.stop, &self.part, task, None).await
    }

    async fn instructions_near(&self, file: &Path) -> Vec<Instructions> {
        let (directory, file) = (self.scene.instance.directory.clone(), file.to_owned());
        let found = blocking(move || Ok(agents::near(&directory, &file))).await.unwrap_or_default();
        let mut shown = self.scene.shown.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let new = found.into_iter().filter(|rules| shown.insert(rules.path.clone()));
        new.map(|rules| Instructions { path: rules.path, text: rules.text }).collect()
    }

    fn new_output_id(&self) -> wire::ids::ToolOutputId {
        self.engine().0.ids.tool_output()
    }
}
