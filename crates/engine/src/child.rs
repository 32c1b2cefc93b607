//! Tasks: work that a run gives to another agent, in a child session.
//!
//! The child's id and its prompt's id are durable in the part of the call before the child exists. The call is never
//! recorded as begun: whoever takes the run over performs it again, and joins the child that is there.

use crate::api::{Accepted, EngineError, Prompt};
use crate::asks::found;
use crate::commit::{Decision, body};
use crate::engine::{Engine, blocking};
use crate::named::hash_of;
use crate::run::{Run, Stop, StopReason, session_record};
use crate::sessions::slug;
use crate::step::Scene;
use agents::{Agent, Instance};
use coordination::SessionKey;
use run_protocol::Head;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use storage::{Record, StoreError, Write};
use tokio::sync::Mutex;
use tools::{Output, Task, ToolError};
use wire::ids::{MessageId, SessionId};
use wire::message::{MessageWithParts, Tokens, UserModel};
use wire::part::{Part, PartKind, TextPart, ToolPart, ToolState};
use wire::permission::{Action, Rule};
use wire::session::{Session, SessionTime};

/// Where the call's part keeps the id of the child's prompt.
const PROMPT: &str = "promptId";
/// How often a prompt is sent to a child that cannot take it at the moment.
const TRIES: u32 = 10;
/// How often it is tried to stop a child whose parent was stopped: some ten minutes.
const STOP_TRIES: u64 = 200;

/// Has a task done: the child session is made or gone on with, prompted, and waited for.
pub(crate) async fn task(
    run: &Run,
    scene: &Scene,
    stop: &Arc<Stop>,
    part: &Mutex<Part>,
    task: Task,
    model: Option<UserModel>,
) -> Result<Output, ToolError> {
    let Some(agent) = scene.instance.agent(&task.agent) else {
        return Err(ToolError::Failed(format!("Unknown agent type: {} is not a valid agent type", task.agent)));
    };
    if scene.session.parent_id.is_some() {
        return Err(ToolError::Failed("A task cannot be divided further: this session is one already".into()));
    }
    let named = |model: &agents::ModelRef| UserModel {
        provider_id: model.provider_id.clone(),
        model_id: model.model_id.clone(),
        variant: agent.variant.clone(),
    };
    let model = model.or_else(|| agent.model.as_ref().map(named)).unwrap_or_else(|| scene.user.model.clone());
    let failed = |error: EngineError| match error {
        EngineError::Lost => ToolError::Lost,
        error => ToolError::Failed(error.to_string()),
    };
    let (child, prompt) = ids(run, scene, part, &task, &model).await.map_err(failed)?;
    make(run, scene, agent, &task, &child).await.map_err(failed)?;
    // Whatever ends this call ends the child, unless somebody goes on with both.
    let key = SessionKey::new(run.handle.key.tenant.clone(), child.clone());
    let mut guard = StopChild { engine: run.engine.clone(), key: key.clone(), stop: stop.clone(), is_done: false };
    show(run, part, &task.description).await;
    let prompt = Prompt {
        message_id: Some(prompt),
        agent: Some(agent.name.clone()),
        model: Some(model.clone()),
        body_hash: hash_of(&[&task.prompt]),
        parts: vec![(None, PartKind::Text(TextPart { text: task.prompt.clone(), ..TextPart::default() }))],
        ..Prompt::default()
    };
    let answer = tokio::select! {
        biased;
        answer = answered(&run.engine, &key, prompt) => answer,
        () = stop.token.cancelled() => {
            return Err(if stop.reason() == Some(StopReason::Lost) { ToolError::Lost } else { ToolError::Aborted });
        }
    };
    let answer = match answer {
        // This replica stops: whoever goes on joins the child.
        Err(EngineError::Unavailable(_)) if run.engine.is_draining() => {
            stop.token.cancelled().await;
            return Err(ToolError::Aborted);
        }
        answer => answer,
    };
    // After any other error nobody knows whether the child has come to its end.
    let is_over = |error: &EngineError| matches!(error, EngineError::SessionNotFound(_) | EngineError::Unknown(_));
    guard.is_done = answer.as_ref().map_or_else(is_over, |_| true);
    if let PartKind::Tool(ToolPart { state: ToolState::Running { metadata: Some(known), .. }, .. }) =
        &mut part.lock().await.kind
    {
        known.as_object_mut().map(|known| known.remove(PROMPT));
    }
    let failure = |why: &str| ToolError::Failed(format!("Subagent failed (task_id: {child}): {why}"));
    let answer = match answer {
        Ok(answer) => answer,
        Err(EngineError::SessionNotFound(_)) => return Err(failure("its session was deleted")),
        Err(error) => return Err(failure(&error.to_string())),
    };
    if let Some(error) = answer.info.assistant().and_then(|info| info.error.as_ref()) {
        return Err(failure(error.data["message"].as_str().unwrap_or(&error.name)));
    }
    let texts = answer.parts.iter().rev().filter_map(Part::text);
    let text = texts.map(|part| part.text.as_str()).next().unwrap_or_default();
    Ok(Output {
        title: task.description,
        output: format!("<task id=\"{child}\" state=\"completed\">\n<task_result>\n{text}\n</task_result>\n</task>"),
        metadata: metadata(scene, &child, &model, Some(false)),
        attachments: None,
    })
}

fn metadata(scene: &Scene, child: &SessionId, model: &UserModel, truncated: Option<bool>) -> Value {
    let mut metadata = json!({
        "parentSessionId": scene.session.id, "sessionId": child,
        "model": { "modelID": model.model_id, "providerID": model.provider_id },
    });
    if let Some(truncated) = truncated {
        metadata["truncated"] = json!(truncated);
    }
    metadata
}

/// The ids that the call works with: those in its part, else new ones, made durable there.
async fn ids(
    run: &Run,
    scene: &Scene,
    part: &Mutex<Part>,
    task: &Task,
    model: &UserModel,
) -> Result<(SessionId, MessageId), EngineError> {
    let mut part = part.lock().await;
    let message = part.message_id.clone();
    let id = part.id.clone();
    let PartKind::Tool(ToolPart { state: ToolState::Running { metadata: shown, .. }, .. }) = &mut part.kind else {
        return Err(EngineError::Store("a call that ended gives no task".into()));
    };
    if let Some(known) = shown {
        let child = known["sessionId"].as_str().and_then(|id| SessionId::parse(id).ok());
        let prompt = known[PROMPT].as_str().and_then(|id| MessageId::parse(id).ok());
        if let (Some(child), Some(prompt)) = (child, prompt) {
            return Ok((child, prompt));
        }
    }
    let tenant = &run.handle.key.tenant;
    let resumed = match task.resumes.as_deref().and_then(|id| SessionId::parse(id).ok()) {
        // Only what belongs to this conversation is gone on with.
        Some(id) => {
            run.engine.session(tenant, &id).await.ok().filter(|s| s.parent_id.as_ref() == Some(&scene.session.id))
        }
        None => None,
    };
    let ids = &run.engine.0.ids;
    let (child, prompt) = (resumed.map_or_else(|| ids.session(), |session| session.id), ids.message());
    let mut known = metadata(scene, &child, model, None);
    known[PROMPT] = json!(prompt);
    *shown = Some(known);
    let record = Record::Part { message, id };
    run.commit(vec![Write::Put(record, body(&*part)?)]).await?;
    Ok((child, prompt))
}

/// Makes the child, unless it is there: its guards first, then its record under the parent's head guard.
async fn make(run: &Run, scene: &Scene, agent: &Agent, task: &Task, child: &SessionId) -> Result<(), EngineError> {
    let engine = &run.engine;
    let now = engine.now_ms();
    let session = Session {
        id: child.clone(),
        slug: slug(engine.0.ids.bits()),
        parent_id: Some(scene.session.id.clone()),
        title: format!("{} (@{} subagent)", task.description, agent.name),
        agent: Some(agent.name.clone()),
        model: None,
        permission: Some(rules(&scene.session, agent, &scene.instance)),
        summary: None,
        cost: 0.0,
        tokens: Tokens::default(),
        share: None,
        metadata: None,
        version: wire::OPENCODE_VERSION.into(),
        time: SessionTime { created: now, updated: now, compacting: None, archived: None },
        revert: None,
        extra: wire::Extra::new(),
        ..scene.session.clone()
    };
    let (store, head, id) =
        (engine.tenant_store(&run.handle.key.tenant), Head::new(&session.project_id), child.clone());
    blocking(move || match store.create_guard(&id, &head) {
        Ok(()) | Err(StoreError::Exists) => Ok(()),
        Err(error) => Err(error.into()),
    })
    .await?;
    let new = session.clone();
    let (_, is_new) = run
        .head_commit(move |_, at| {
            if !at.store.head(&new.id)?.is_live() {
                return Err(EngineError::SessionNotFound(new.id.clone()));
            }
            if found(at.store.session(&new.id))?.is_some() {
                return Ok(Decision::Leave(false));
            }
            Ok(Decision::Write(vec![Write::PutNew(session_record(&new), body(&new)?)], true))
        })
        .await?;
    if is_new {
        let key = SessionKey::new(run.handle.key.tenant.clone(), child.clone());
        engine.publish(&engine.origin(&key, &session, None), wire::event::session_created(&session), None).await;
    }
    Ok(())
}

/// What a child may not do: what its parent's session denies, nor divide its work further, unless its agent says otherwise.
fn rules(parent: &Session, agent: &Agent, instance: &Instance) -> Vec<Rule> {
    let inherited = |rule: &&Rule| rule.action == Action::Deny || rule.permission == "external_directory";
    let mut rules: Vec<Rule> = parent.permission.iter().flatten().filter(inherited).cloned().collect();
    let deny = |name: &str| Rule::new(name, "*", Action::Deny);
    for name in ["todowrite", "task"] {
        if !agent.permission.iter().any(|rule| rule.permission == name) {
            rules.push(deny(name));
        }
    }
    let primary = instance.config["experimental"]["primary_tools"].as_array();
    rules.extend(primary.into_iter().flatten().filter_map(Value::as_str).map(deny));
    rules
}

/// Shows which session does the task.
async fn show(run: &Run, part: &Mutex<Part>, title: &str) {
    let mut part = part.lock().await;
    if let PartKind::Tool(ToolPart { state: ToolState::Running { title: shown, .. }, .. }) = &mut part.kind {
        *shown = Some(title.to_owned());
    }
    let now = run.engine.now_ms();
    run.publish_record(part.id.as_str(), wire::event::part_updated(&part, now)).await;
}

/// Prompts the child and waits for the answer. Sent again, it is the same prompt.
async fn answered(engine: &Engine, key: &SessionKey, prompt: Prompt) -> Result<MessageWithParts, EngineError> {
    let mut tries = 0;
    let ticket = loop {
        match engine.prompt(&key.tenant, &key.session, prompt.clone()).await {
            Ok(Accepted::Ticket(ticket)) => break ticket,
            Ok(Accepted::Stored(message)) => return Ok(*message),
            Err(EngineError::Unavailable(_) | EngineError::TooManyQueued) if tries < TRIES => tries += 1,
            Err(error) => return Err(error),
        }
        tokio::time::sleep(Duration::from_millis(200 * u64::from(tries) + engine.0.ids.bits() % 200)).await;
    };
    engine.wait(&ticket).await
}

/// Aborts the child when its call ends before it, however that comes.
struct StopChild {
    engine: Engine,
    key: SessionKey,
    stop: Arc<Stop>,
    is_done: bool,
}

impl Drop for StopChild {
    fn drop(&mut self) {
        let goes_on =
            matches!(self.stop.reason(), Some(StopReason::Lost | StopReason::Interrupted | StopReason::Frozen));
        if !self.is_done && !goes_on {
            self.engine.stop_child(&self.key);
        }
    }
}

impl Engine {
    /// Aborts a child whose task is over: tried again for some minutes where it cannot be done. The task `stop child` ends with
    /// the abort.
    fn stop_child(&self, key: &SessionKey) {
        let (engine, key) = (self.clone(), key.clone());
        // Dropped with the runtime there is nobody to do it: whoever takes the parent over does.
        if tokio::runtime::Handle::try_current().is_err() {
            return;
        }
        let stop = async move {
            for tries in 1..=STOP_TRIES {
                match engine.abort(&key.tenant, &key.session, None).await {
                    Ok(_) | Err(EngineError::SessionNotFound(_)) => return,
                    Err(error) => tracing::warn!(session = %key.session, %error, tries, "a child is not stopped yet"),
                }
                let wait = 100 * tries.min(20);
                tokio::select! {
                    biased;
                    () = tokio::time::sleep(Duration::from_millis(wait + engine.0.ids.bits() % wait)) => {}
                    () = engine.0.stopped.cancelled() => return,
                }
            }
        };
        self.0.tasks.spawn(stop);
    }

    /// Aborts the child of a task that is closed without an answer.
    pub(crate) fn stop_child_of(&self, parent: &SessionKey, part: &Part) {
        let Some(ToolPart { tool, state: ToolState::Running { metadata: Some(known), .. }, .. }) = part.tool() else {
            return;
        };
        let child = known["sessionId"].as_str().and_then(|id| SessionId::parse(id).ok());
        if let Some(child) = child.filter(|_| tool == "task") {
            self.stop_child(&SessionKey::new(parent.tenant.clone(), child));
        }
    }
}
