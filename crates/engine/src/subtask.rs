//! Subtasks: tasks that a prompt asks for, not a model.

use crate::api::EngineError;
use crate::child;
use crate::commit::body;
use crate::run::{Run, Stop, StopReason, message_record};
use crate::step::{Outcome, Scene};
use crate::turn::{ABORTED, interrupt};
use run_protocol::Spent;
use serde_json::{Value, json};
use std::sync::Arc;
use storage::{Record, Write};
use tokio::sync::Mutex;
use tools::{Task, ToolError};
use wire::message::{AssistantMessage, Message, MessagePath, MessageTime, Tokens, UserMessage, UserModel};
use wire::part::{Part, PartKind, Span, TextPart, ToolPart, ToolState};

/// What a model reads in the place of a part that asked for a task.
pub(crate) const ASKED: &str = "The user gave this task:";
/// What the model of the conversation is told after a command's task.
const GO_ON: &str = "Say what came of the task above, and go on with your work.";

/// A task as a prompt asks for it.
#[derive(Clone, Debug, serde::Deserialize)]
pub(crate) struct Subtask {
    prompt: String,
    description: String,
    agent: String,
    #[serde(default)]
    model: Option<UserModel>,
    #[serde(default)]
    command: Option<String>,
}

impl Subtask {
    /// The task that a part asks for.
    pub(crate) fn of(part: &Part) -> Option<Self> {
        match &part.kind {
            PartKind::Other(fields) if fields.get("type").and_then(Value::as_str) == Some("subtask") => {
                serde_json::from_value(Value::Object(fields.clone())).ok()
            }
            _ => None,
        }
    }
}

/// Has a task done. `begun` is the message that a former runner left open for it.
pub(crate) async fn subtask(
    run: &Run,
    scene: &Scene,
    asked: Subtask,
    begun: Option<(AssistantMessage, Part)>,
    stop: &Arc<Stop>,
) -> Result<Outcome, EngineError> {
    let engine = &run.engine;
    let (mut message, part) = match begun {
        Some(begun) => begun,
        None => begin(run, scene, &asked).await?,
    };
    let Some(ToolState::Running { input, time, .. }) = part.tool().map(|call| call.state.clone()) else {
        return Err(EngineError::Store("a task was left in no state to go on from".into()));
    };
    let part = Mutex::new(part);
    let task = Task {
        description: asked.description.clone(),
        prompt: asked.prompt.clone(),
        agent: asked.agent.clone(),
        resumes: None,
    };
    // Whoever asked for it is not asked.
    let result = tokio::select! {
        biased;
        result = child::task(run, scene, stop, &part, task, asked.model.clone()) => result,
        // A stopping replica does not wait: whoever goes on joins the child.
        () = async {
            engine.0.draining.cancelled().await;
            stop.stop(StopReason::Interrupted);
        } => Err(ToolError::Aborted),
    };
    let mut part = part.into_inner();
    let end = engine.now_ms();
    let time = Span { end: Some(end), ..time };
    if let PartKind::Tool(call) = &mut part.kind {
        match result {
            Ok(output) => {
                call.state = ToolState::Completed {
                    input,
                    output: output.output,
                    title: output.title,
                    metadata: output.metadata,
                    time,
                    attachments: None,
                };
            }
            Err(ToolError::Lost) => return Err(EngineError::Lost),
            // Whoever goes on joins the child.
            Err(ToolError::Aborted) if stop.leaves_waiting() => {
                return Ok(Outcome { message: Some(message.id), spent: Spent::default(), ends_with: None });
            }
            Err(ToolError::Aborted) => interrupt(&mut call.state, ABORTED, end),
            Err(error) => {
                let metadata = match &call.state {
                    ToolState::Running { metadata, .. } => metadata.clone(),
                    _ => None,
                };
                call.state = ToolState::Error { input, error: error.to_string(), metadata, time };
            }
        }
    }
    message.finish = Some("tool-calls".into());
    message.time.completed = Some(end);
    if matches!(stop.reason(), Some(StopReason::Aborted { .. })) {
        message.finish = None;
        message.error = Some(wire::message::MessageError::aborted());
    }
    let id = message.id.clone();
    let info = Message::Assistant(message);
    let record = Record::Part { message: id.clone(), id: part.id.clone() };
    run.commit(vec![Write::Put(record, body(&part)?), Write::Put(message_record(&info), body(&info)?)]).await?;
    run.publish_record(id.as_str(), wire::event::message_updated(&info)).await;
    run.publish_record(part.id.as_str(), wire::event::part_updated(&part, end)).await;
    if asked.command.is_some() && stop.reason().is_none() {
        go_on(run, &scene.user).await?;
    }
    Ok(Outcome { message: Some(id), spent: Spent::default(), ends_with: None })
}

/// The message of the other agent, and the call in it.
async fn begin(run: &Run, scene: &Scene, asked: &Subtask) -> Result<(AssistantMessage, Part), EngineError> {
    let engine = &run.engine;
    let model = asked.model.as_ref().unwrap_or(&scene.user.model);
    let message = AssistantMessage {
        id: engine.0.ids.message(),
        session_id: scene.session.id.clone(),
        parent_id: scene.user.id.clone(),
        time: MessageTime { created: run.known().reserved, completed: None },
        mode: asked.agent.clone(),
        agent: asked.agent.clone(),
        model_id: model.model_id.clone(),
        provider_id: model.provider_id.clone(),
        variant: model.variant.clone(),
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
    };
    let mut input = json!({
        "prompt": asked.prompt, "description": asked.description, "subagent_type": asked.agent,
    });
    if let Some(command) = &asked.command {
        input["command"] = json!(command);
    }
    let part = Part {
        id: engine.0.ids.part(),
        session_id: scene.session.id.clone(),
        message_id: message.id.clone(),
        kind: PartKind::Tool(ToolPart {
            call_id: engine.0.ids.part().to_string(),
            tool: "task".into(),
            state: ToolState::Running {
                input,
                title: None,
                metadata: None,
                time: Span::from(engine.now_ms()),
                begun: Some(false),
            },
            extra: wire::Extra::new(),
        }),
    };
    let info = Message::Assistant(message.clone());
    let record = Record::Part { message: message.id.clone(), id: part.id.clone() };
    run.commit(vec![Write::Put(record, body(&part)?), Write::Put(message_record(&info), body(&info)?)]).await?;
    run.publish_record(message.id.as_str(), wire::event::message_updated(&info)).await;
    run.publish_record(part.id.as_str(), wire::event::part_updated(&part, engine.now_ms())).await;
    Ok((message, part))
}

/// After a command's task the model of the conversation is asked to go on.
async fn go_on(run: &Run, user: &UserMessage) -> Result<(), EngineError> {
    run.reserve().await?;
    let engine = &run.engine;
    let created = run.known().reserved;
    let message = UserMessage {
        id: engine.0.ids.message(),
        time: MessageTime { created, completed: None },
        summary: None,
        ..user.clone()
    };
    let part = Part {
        id: engine.0.ids.part(),
        session_id: message.session_id.clone(),
        message_id: message.id.clone(),
        kind: PartKind::Text(TextPart { text: GO_ON.into(), synthetic: Some(true), ..TextPart::default() }),
    };
    let info = Message::User(message);
    let record = Record::Part { message: part.message_id.clone(), id: part.id.clone() };
    run.commit(vec![Write::Put(record, body(&part)?), Write::Put(message_record(&info), body(&info)?)]).await?;
    run.publish_record(info.id().as_str(), wire::event::message_updated(&info)).await;
    run.publish_record(part.id.as_str(), wire::event::part_updated(&part, created)).await;
    Ok(())
}
