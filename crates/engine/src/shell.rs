//! A command that a person runs in a session: no model is asked, the conversation shows what it printed.

use crate::api::EngineError;
use crate::call::tool_settings;
use crate::commit::body;
use crate::engine::Counters;
use crate::run::{Run, Stop, StopReason, message_record};
use crate::settle::Settled;
use crate::snapshots::Changes;
use crate::step::{Outcome, put_part};
use crate::turn::{ABORTED, interrupt};
use run_protocol::{RecordVersion, Spent, Ticket, TicketAnswer};
use serde_json::{Value, json};
use std::path::Path;
use std::sync::Arc;
use storage::{Record, Write};
use tokio::sync::Mutex;
use tools::{Ask, Call, Host, Output, ToolError};
use wire::event::Happened;
use wire::message::{AssistantMessage, Message, MessagePath, MessageTime, MessageWithParts, Tokens};
use wire::part::{Part, PartKind, Span, ToolPart, ToolState};

/// What a model reads in the place of the prompt.
pub(crate) const RAN: &str = "The user ran this command:";
/// Such a command runs until it ends or is aborted.
const LONGEST_MS: u64 = 24 * 3600 * 1000;
/// What the tool says in the place of nothing.
const NOTHING: &str = "(no output)";

/// Runs the command of a ticket and records it as an answer. The command is never run again: its call is recorded as begun
/// from the first.
pub(crate) async fn shell(
    run: &Run,
    prompt: &MessageWithParts,
    ticket: &Ticket,
    stop: Arc<Stop>,
) -> Result<Outcome, EngineError> {
    let engine = &run.engine;
    let known = run.known();
    let Some(user) = prompt.info.user() else { return Err(EngineError::Store("a command has no prompt".into())) };
    // The prompt is told here, not where it was stored: the session is busy first.
    let version = |record: &str| Some((record.to_owned(), RecordVersion::head(known.rev)));
    engine.publish(&run.origin, wire::event::message_updated(&prompt.info), version(user.id.as_str())).await;
    for part in &prompt.parts {
        let happened = wire::event::part_updated(part, user.time.created);
        engine.publish(&run.origin, happened, version(part.id.as_str())).await;
    }
    let instance = engine.0.instances.get(known.session.directory.as_ref()).await;
    let (worktree, settings) = match &instance {
        Ok(instance) => (instance.worktree.clone(), tool_settings(engine, instance)),
        Err(_) => (known.session.directory.clone().into(), engine.0.settings.tools.clone()),
    };
    let mut message = AssistantMessage {
        id: engine.0.ids.message(),
        session_id: known.session.id.clone(),
        parent_id: user.id.clone(),
        time: MessageTime { created: known.reserved, completed: None },
        mode: user.agent.clone(),
        agent: user.agent.clone(),
        model_id: user.model.model_id.clone(),
        provider_id: user.model.provider_id.clone(),
        variant: None,
        path: MessagePath { cwd: known.session.directory.clone(), root: worktree.to_string_lossy().into_owned() },
        cost: 0.0,
        tokens: Tokens::default(),
        error: None,
        finish: None,
        summary: None,
        structured: None,
        extra: wire::Extra::new(),
    };
    let command = ticket.command.clone().unwrap_or_default();
    let input = json!({ "command": command });
    let start = engine.now_ms();
    let part = Part {
        id: engine.0.ids.part(),
        session_id: known.session.id.clone(),
        message_id: message.id.clone(),
        kind: PartKind::Tool(ToolPart {
            call_id: engine.0.ids.part().to_string(),
            tool: "bash".into(),
            state: ToolState::Running {
                input: input.clone(),
                title: None,
                metadata: None,
                time: Span::from(start),
                begun: Some(true),
            },
            extra: wire::Extra::new(),
        }),
    };
    let info = Message::Assistant(message.clone());
    let record = |part: &Part| Record::Part { message: part.message_id.clone(), id: part.id.clone() };
    run.commit(vec![Write::Put(record(&part), body(&part)?), Write::Put(message_record(&info), body(&info)?)]).await?;
    run.publish_record(message.id.as_str(), wire::event::message_updated(&info)).await;
    run.publish_record(part.id.as_str(), wire::event::part_updated(&part, start)).await;
    Counters::add(&engine.0.counters.tool_calls, 1);

    let (call_id, message_id) = (part.tool().map(|call| call.call_id.clone()).unwrap_or_default(), message.id.clone());
    let part = Arc::new(Mutex::new(part));
    let call = Call {
        directory: known.session.directory.clone().into(),
        worktree,
        session: known.session.id.clone(),
        message: message_id,
        call_id,
        identity: run.identity(),
        lifeline: engine.0.replica.lifeline(),
        cancel: stop.token.clone(),
        host: Arc::new(ShellHost { run: run.clone(), part: part.clone() }),
        skills: Arc::default(),
        settings,
    };
    let bash = engine.0.tools.get("bash").unwrap_or_else(|| engine.0.tools.invalid());
    let result = bash.run(json!({ "command": command, "timeout": LONGEST_MS }), &call).await;
    if stop.reason() == Some(StopReason::Lost) {
        return Err(EngineError::Lost);
    }
    let mut part = part.lock().await;
    let end = engine.now_ms();
    let is_cut_off = stop.leaves_waiting();
    if let PartKind::Tool(call) = &mut part.kind {
        let time = Span { start, end: Some(end), compacted: None };
        match result {
            Ok(output) if !is_cut_off => call.state = completed(input, output, time),
            Ok(_) | Err(ToolError::Aborted | ToolError::Lost) => interrupt(&mut call.state, ABORTED, end),
            Err(error) => {
                call.state = ToolState::Error { input, error: error.to_string(), metadata: None, time };
            }
        }
    }
    message.time.completed = Some(end);
    let info = Message::Assistant(message.clone());
    run.commit(vec![Write::Put(record(&part), body(&*part)?), Write::Put(message_record(&info), body(&info)?)]).await?;
    run.publish_record(message.id.as_str(), wire::event::message_updated(&info)).await;
    run.publish_record(part.id.as_str(), wire::event::part_updated(&part, end)).await;
    let settled = Settled {
        answer: TicketAnswer::Message { id: message.id.to_string() },
        user: None,
        changes: Changes::default(),
        spent: Spent::default(),
        looked_again: false,
        alone: Some(ticket.k),
    };
    Ok(Outcome { message: Some(message.id), spent: Spent::default(), ends_with: Some(settled) })
}

/// As OpenCode shows such a command: without a title, and with all that it printed; why it was cut off stands in a block of
/// another name.
fn completed(input: Value, output: Output, time: Span) -> ToolState {
    let cut = |text: &str| {
        let (printed, why) = text.strip_suffix("\n</shell_metadata>")?.rsplit_once("<shell_metadata>\n")?;
        Some(format!("{printed}<metadata>\n{why}\n</metadata>"))
    };
    // Only one that was cut off has no exit code.
    let cut = Some(&output.output).filter(|_| output.metadata["exit"].is_null()).and_then(|text| cut(text));
    let printed = match cut {
        Some(cut) => cut,
        None if output.output == NOTHING => String::new(),
        None => output.output,
    };
    let metadata = json!({ "output": printed });
    ToolState::Completed { input, output: printed, title: String::new(), metadata, time, attachments: None }
}

/// The run, as the command sees it: whoever typed it is not asked.
struct ShellHost {
    run: Run,
    part: Arc<Mutex<Part>>,
}

#[async_trait::async_trait]
impl Host for ShellHost {
    async fn ask(&self, _ask: Ask) -> Result<(), ToolError> {
        Ok(())
    }

    async fn begin(&self) -> Result<(), ToolError> {
        Ok(())
    }

    async fn progress(&self, _title: Option<String>, metadata: Value) {
        let mut part = self.part.lock().await;
        let PartKind::Tool(ToolPart { state: ToolState::Running { metadata: shown, .. }, .. }) = &mut part.kind else {
            return;
        };
        if metadata["output"] == "" {
            return;
        }
        *shown = Some(metadata);
        let _ = put_part(&self.run, &part).await;
    }

    async fn publish(&self, happened: Happened) {
        self.run.publish(happened).await;
    }

    async fn file_lock(&self, path: &Path) -> Result<Box<dyn Send>, ToolError> {
        Err(ToolError::Failed(format!("Nobody may change {} here", path.display())))
    }

    fn new_output_id(&self) -> wire::ids::ToolOutputId {
        self.run.engine.0.ids.tool_output()
    }
}
