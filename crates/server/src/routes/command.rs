//! Commands and shells: what people type with a slash or an exclamation mark.

use crate::Shared;
use crate::decode::Node;
use crate::errors::Error;
use crate::extract::{Id, Name, Payload};
use crate::routes::prompt::{answered, model, part};
use axum::extract::State;
use axum::response::Response;
use engine::{Accepted, Command, EngineError, Prompt};
use serde_json::Value;
use wire::ids::SessionId;
use wire::message::UserModel;

/// Prompts with what a command's template says, and answers with the message that answers it.
pub(crate) async fn command(
    State(server): State<Shared>,
    Id(id): Id<SessionId>,
    name: Name,
    Payload(body, room): Payload,
) -> Result<Response, Error> {
    let command = decode_command(body.as_ref(), server.app.limits.parts)?;
    let command = Command { name: name.of(body.as_ref()), ..command };
    let ticket = server.app.engine.command(&server.app.tenant, &id, command).await?;
    drop(room);
    let engine = server.app.engine.clone();
    answered(&server, async move { engine.wait(&ticket).await }).await
}

fn decode_command(body: Option<&Value>, most_parts: usize) -> Result<Command, Error> {
    let root = Node::root(body);
    root.object()?;
    let message_id = root.field("messageID").maybe_id()?;
    let arguments = root.field("arguments").text()?.to_owned();
    let command = root.field("command").text()?.to_owned();
    let parts = root.field("parts");
    let mut files = Vec::new();
    if parts.is_some() {
        for file in parts.elements()? {
            if files.len() == most_parts {
                return Err(parts.error(format!("Expected at most {most_parts} parts")));
            }
            file.field("type").word(&[("file", ())])?;
            files.push(part(&file)?);
        }
    }
    Ok(Command {
        message_id,
        agent: root.field("agent").maybe_string()?,
        model: root.field("model").maybe_string()?,
        variant: root.field("variant").maybe_string()?,
        command,
        arguments,
        parts: files,
        body_hash: body.map(crate::hash::hash).unwrap_or_default(),
        name: None,
    })
}

/// Runs a command in the session and answers with the message that shows it.
pub(crate) async fn shell(
    State(server): State<Shared>,
    Id(id): Id<SessionId>,
    name: Name,
    Payload(body, room): Payload,
) -> Result<Response, Error> {
    let root = Node::root(body.as_ref());
    root.object()?;
    let message_id = root.field("messageID").maybe_id()?;
    let agent = root.field("agent").text()?.to_owned();
    let model = model(&root)?;
    let prompt = Prompt {
        message_id,
        agent: Some(agent),
        model,
        body_hash: body.as_ref().map(crate::hash::hash).unwrap_or_default(),
        ..Prompt::shell(root.field("command").text()?.to_owned())
    };
    let prompt = Prompt { name: name.of(body.as_ref()), ..prompt };
    let engine = server.app.engine.clone();
    let accepted = engine.prompt(&server.app.tenant, &id, prompt).await?;
    drop(room);
    match accepted {
        Accepted::Ticket(ticket) => answered(&server, async move { engine.wait(&ticket).await }).await,
        Accepted::Stored(message) => {
            Err(EngineError::Conflict(format!("{} asks for no answer", message.info.id())).into())
        }
    }
}

/// The command `init`; true when it is done.
pub(crate) async fn init(
    State(server): State<Shared>,
    Id(id): Id<SessionId>,
    name: Name,
    Payload(body, room): Payload,
) -> Result<Response, Error> {
    let root = Node::root(body.as_ref());
    root.object()?;
    // The first key that is missing is named, in OpenCode's order.
    let model = root.field("modelID").text()?.to_owned();
    let model = format!("{}/{model}", root.field("providerID").text()?);
    let command = Command {
        message_id: Some(root.field("messageID").id()?),
        model: Some(model),
        command: "init".into(),
        body_hash: body.as_ref().map(crate::hash::hash).unwrap_or_default(),
        ..Command::default()
    };
    let command = Command { name: name.of(body.as_ref()), ..command };
    let ticket = server.app.engine.command(&server.app.tenant, &id, command).await?;
    drop(room);
    let engine = server.app.engine.clone();
    answered(&server, async move { engine.wait(&ticket).await.map(|_| true) }).await
}

/// Has the conversation shortened; true when it is done.
pub(crate) async fn summarize(
    State(server): State<Shared>,
    Id(id): Id<SessionId>,
    name: Name,
    Payload(body, room): Payload,
) -> Result<Response, Error> {
    let root = Node::root(body.as_ref());
    root.object()?;
    let model = UserModel {
        provider_id: root.field("providerID").text()?.to_owned(),
        model_id: root.field("modelID").text()?.to_owned(),
        variant: None,
    };
    let auto = root.field("auto").maybe_bool()?.unwrap_or_default();
    let body_hash = body.as_ref().map(crate::hash::hash).unwrap_or_default();
    let name = name.of(body.as_ref());
    let ticket = server.app.engine.summarize(&server.app.tenant, &id, model, auto, body_hash, name).await?;
    drop(room);
    let engine = server.app.engine.clone();
    answered(&server, async move { engine.wait(&ticket).await.map(|_| true) }).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn refused(body: Value) -> String {
        match decode_command(Some(&body), 2).unwrap_err() {
            Error::Invalid { message, .. } => message,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn bad_commands_are_refused_as_recorded() {
        assert_eq!(refused(json!({ "command": "greet" })), "Missing key\n  at [\"arguments\"]");
        let file = json!({ "type": "file", "mime": "text/plain", "url": "data:,x" });
        let with = |parts: Value| json!({ "command": "c", "arguments": "", "parts": parts });
        assert!(refused(with(json!([{ "type": "text", "text": "x" }]))).starts_with("Expected \"file\""));
        assert!(refused(with(json!([file, file, file]))).contains("at most 2"));
        assert_eq!(decode_command(Some(&with(json!([file]))), 2).unwrap().parts.len(), 1);
    }
}
