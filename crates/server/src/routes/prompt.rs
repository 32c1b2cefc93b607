//! Prompts.

use crate::Shared;
use crate::decode::Node;
use crate::errors::Error;
use crate::extract::{Id, Name, Payload};
use crate::limits::Uncompressed;
use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use engine::{Accepted, EngineError, Prompt};
use futures_util::{StreamExt, stream};
use http::{StatusCode, header};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::time::Duration;
use wire::ids::{PartId, SessionId};
use wire::message::UserModel;
use wire::part::PartKind;

/// What OpenCode keeps as `retryCount` of a form where the client says nothing; neither asks again.
const RETRIES: u64 = 2;

/// The types of parts that a prompt may have, as an error names them.
const PART_TYPES: &str = "{ readonly \"type\": \"text\", ... } | { readonly \"type\": \"file\", ... } | \
    { readonly \"type\": \"agent\", ... } | { readonly \"type\": \"subtask\", ... }";

/// Stores a prompt and answers with the message that answers it.
pub(crate) async fn send(
    State(server): State<Shared>,
    Id(id): Id<SessionId>,
    name: Name,
    Payload(body, room): Payload,
) -> Result<Response, Error> {
    let name = name.of(body.as_ref());
    let prompt = Prompt { name, ..decode(body, server.app.limits.parts)? };
    let engine = server.app.engine.clone();
    let accepted = engine.prompt(&server.app.tenant, &id, prompt).await?;
    // The prompt is stored: its answer may take hours.
    drop(room);
    match accepted {
        Accepted::Stored(message) => answered(&server, async move { Ok(*message) }).await,
        Accepted::Ticket(ticket) => answered(&server, async move { engine.wait(&ticket).await }).await,
    }
}

/// An answer that may be long in coming.
pub(crate) async fn answered<T: Serialize + 'static>(
    server: &Shared,
    answer: impl Future<Output = Result<T, EngineError>> + Send + 'static,
) -> Result<Response, Error> {
    let silence = server.app.answer_keepalive;
    let mut answer = Box::pin(answer);
    let mut response = match tokio::time::timeout(silence, &mut answer).await {
        Ok(answer) => Json(answer?).into_response(),
        Err(_) => kept_alive(answer, silence),
    };
    response.extensions_mut().insert(Uncompressed);
    Ok(response)
}

/// An answer that is long in coming: white space before it tells everybody on the way that it is. What fails now cuts the
/// connection, as the status is out.
fn kept_alive<T: Serialize + 'static>(
    answer: impl Future<Output = Result<T, EngineError>> + Send + Unpin + 'static,
    silence: Duration,
) -> Response {
    let body = stream::unfold(Some(answer), move |waiting| async move {
        let mut answer = waiting?;
        Some(match tokio::time::timeout(silence, &mut answer).await {
            Ok(Ok(answer)) => (serde_json::to_vec(&answer).map(Bytes::from).map_err(axum::Error::new), None),
            Ok(Err(error)) => (Err(axum::Error::new(error)), None),
            Err(_) => (Ok(Bytes::from_static(b" ")), Some(answer)),
        })
    });
    // The first goes out at once: it has been silent for long enough.
    let body = stream::once(async { Ok(Bytes::from_static(b" ")) }).chain(body);
    ([(header::CONTENT_TYPE, "application/json")], Body::from_stream(body)).into_response()
}

/// Stores a prompt; who wants the answer follows the events.
pub(crate) async fn send_async(
    State(server): State<Shared>,
    Id(id): Id<SessionId>,
    name: Name,
    Payload(body, _room): Payload,
) -> Result<StatusCode, Error> {
    let name = name.of(body.as_ref());
    let prompt = Prompt { name, ..decode(body, server.app.limits.parts)? };
    match server.app.engine.prompt(&server.app.tenant, &id, prompt).await {
        // What no step can begin with is told by the events alone, as what fails later is.
        Err(EngineError::Unknown(reason)) => tracing::warn!(session = %id, reason, "a prompt was not taken"),
        taken => drop(taken?),
    }
    Ok(StatusCode::NO_CONTENT)
}

fn decode(mut body: Option<Value>, most_parts: usize) -> Result<Prompt, Error> {
    let body_hash = body.as_ref().map(crate::hash::hash).unwrap_or_default();
    let root = Node::root(body.as_ref());
    root.object()?;
    let parts = root.field("parts");
    let count = parts.raw().and_then(Value::as_array).map_or(0, Vec::len);
    if count > most_parts {
        return Err(parts.error(format!("Expected at most {most_parts} parts, got {count}")));
    }
    let ids = parts.elements()?.map(|node| check(&node)).collect::<Result<Vec<_>, Error>>()?;
    let prompt = Prompt {
        message_id: root.field("messageID").maybe_id()?,
        agent: root.field("agent").maybe_string()?,
        model: model(&root)?,
        variant: root.field("variant").maybe_string()?,
        no_reply: root.field("noReply").maybe_bool()?.unwrap_or_default(),
        system: root.field("system").maybe_string()?,
        tools: tools(&root.field("tools"))?,
        format: format(&root.field("format"))?,
        parts: Vec::new(),
        body_hash,
        name: None,
        shell: None,
    };
    let Some(Value::Array(parts)) = body.as_mut().and_then(|body| body.get_mut("parts")).map(Value::take) else {
        return Ok(prompt);
    };
    let taken = ids.into_iter().zip(parts).enumerate().map(|(index, (id, part))| {
        let wrong = |error| Node::root(None).field("parts").element(index).error(error);
        Ok((id, take(part).map_err(wrong)?))
    });
    Ok(Prompt { parts: taken.collect::<Result<_, Error>>()?, ..prompt })
}

/// The form that an answer must have, with what is kept where the client says nothing.
fn format(format: &Node<'_>) -> Result<Option<Value>, Error> {
    if format.maybe_object()?.is_none() {
        return Ok(None);
    }
    let is_schema = format.field("type").word(&[("text", false), ("json_schema", true)])?;
    if !is_schema {
        return Ok(Some(json!({ "type": "text" })));
    }
    let retries = format.field("retryCount");
    let count = match retries.maybe_number()? {
        Some(count) => count.as_u64().ok_or_else(|| retries.wrong("a whole number that is not negative"))?,
        None => RETRIES,
    };
    Ok(Some(json!({ "type": "json_schema", "schema": format.field("schema").object()?, "retryCount": count })))
}

pub(crate) fn model(root: &Node<'_>) -> Result<Option<UserModel>, Error> {
    let model = root.field("model");
    if model.maybe_object()?.is_none() {
        return Ok(None);
    }
    Ok(Some(UserModel {
        provider_id: model.field("providerID").text()?.to_owned(),
        model_id: model.field("modelID").text()?.to_owned(),
        variant: None,
    }))
}

fn tools(tools: &Node<'_>) -> Result<Option<Map<String, Value>>, Error> {
    let Some(switches) = tools.maybe_object()? else { return Ok(None) };
    for (name, switch) in switches {
        if !switch.is_boolean() {
            return Err(tools.field(name).wrong("boolean"));
        }
    }
    Ok(Some(switches.clone()))
}

/// One part: its known fields and no others.
pub(crate) fn part(part: &Node<'_>) -> Result<(Option<PartId>, PartKind), Error> {
    let id = check(part)?;
    let kind = take(part.raw().cloned().unwrap_or_default()).map_err(|error| part.error(error))?;
    Ok((id, kind))
}

/// The fields that are kept of a part.
fn known(kind: &str) -> &'static [&'static str] {
    match kind {
        "text" => &["text", "synthetic", "ignored", "time", "metadata"],
        "file" => &["mime", "url", "filename", "source"],
        "agent" => &["name", "source"],
        "subtask" => &["prompt", "description", "agent", "model", "command"],
        _ => &[],
    }
}

/// Says what is wrong with a part. Returns its id, if it has one.
fn check(part: &Node<'_>) -> Result<Option<PartId>, Error> {
    match part.field("type").raw().and_then(Value::as_str).unwrap_or_default() {
        "text" => {
            part.field("text").text()?;
            part.field("synthetic").maybe_bool()?;
            part.field("ignored").maybe_bool()?;
            part.field("metadata").maybe_object()?;
        }
        "file" => {
            part.field("mime").text()?;
            part.field("url").text()?;
            part.field("filename").maybe_text()?;
            part.field("source").maybe_object()?;
        }
        "agent" => {
            part.field("name").text()?;
            part.field("source").maybe_object()?;
        }
        "subtask" => {
            part.field("prompt").text()?;
            part.field("description").text()?;
            part.field("agent").text()?;
            part.field("command").maybe_text()?;
            model(part)?;
        }
        _ => return Err(part.wrong(PART_TYPES)),
    }
    part.field("id").maybe_id()
}

/// One part that was checked: its known fields and no others. Its texts are moved: they may have many megabytes.
fn take(mut part: Value) -> Result<PartKind, String> {
    let kind = part["type"].as_str().unwrap_or_default().to_owned();
    let mut fields = Map::new();
    fields.insert("type".into(), json!(kind));
    for name in known(&kind) {
        if let Some(value) = part.get_mut(*name).map(Value::take).filter(|value| !value.is_null()) {
            fields.insert((*name).to_owned(), value);
        }
    }
    match PartKind::deserialize(Value::Object(fields)) {
        Ok(PartKind::Other(_)) if kind != "agent" && kind != "subtask" => {}
        Ok(kind) => return Ok(kind),
        Err(_) => {}
    }
    Err(format!("Expected a part of type \"{kind}\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(body: Value) -> String {
        match decode(Some(body), 1000).unwrap_err() {
            Error::Invalid { message, .. } => message,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn bad_prompts_are_refused_as_recorded() {
        assert_eq!(refused(json!({})), "Missing key\n  at [\"parts\"]");
        assert_eq!(
            refused(json!({ "parts": [{ "type": "bogus" }] })),
            "Expected { readonly \"type\": \"text\", ... } | { readonly \"type\": \"file\", ... } | { readonly \"type\": \"agent\", ... } | { readonly \"type\": \"subtask\", ... }, got {\"type\":\"bogus\"}\n  at [\"parts\"][0]"
        );
        assert_eq!(refused(json!({ "parts": [{ "type": "text" }] })), "Missing key\n  at [\"parts\"][0][\"text\"]");
        assert_eq!(
            refused(json!({ "parts": [{ "type": "text", "text": "x" }], "messageID": "bad" })),
            "Expected a string starting with \"msg\", got \"bad\"\n  at [\"messageID\"]"
        );
        assert_eq!(
            refused(json!({ "parts": [], "model": "fake/m" })),
            "Expected object | null, got \"fake/m\"\n  at [\"model\"]"
        );
        assert_eq!(
            refused(json!({ "parts": [], "tools": { "bash": 1 } })),
            "Expected boolean, got 1\n  at [\"tools\"][\"bash\"]"
        );
        match decode(None, 1000).unwrap_err() {
            Error::Invalid { message, .. } => assert_eq!(message, "Expected object, got undefined"),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_prompt_is_taken_with_what_is_known_of_it() {
        let prompt = decode(
            Some(json!({
                "messageID": "msg_own", "agent": "plan", "variant": "high", "noReply": true, "system": "s", "extra": 1,
                "model": { "providerID": "p", "modelID": "m" }, "tools": { "bash": false },
                "parts": [
                    { "id": "prt_own", "type": "text", "text": "x", "sessionID": "ses_other", "later": 1 },
                    { "type": "file", "mime": "text/plain", "url": "data:,x", "filename": null },
                    { "type": "agent", "name": "general" },
                ],
            })),
            1000,
        )
        .unwrap();
        assert_eq!(prompt.message_id.unwrap().as_str(), "msg_own");
        assert_eq!(prompt.model.unwrap().model_id, "m");
        assert_eq!(prompt.variant.as_deref(), Some("high"));
        assert!(prompt.no_reply);
        let (id, first) = &prompt.parts[0];
        assert_eq!(id.as_ref().unwrap().as_str(), "prt_own");
        assert_eq!(serde_json::to_value(first).unwrap(), json!({ "type": "text", "text": "x" }));
        assert!(matches!(prompt.parts[1].1, PartKind::File(_)));
        assert_eq!(serde_json::to_value(&prompt.parts[2].1).unwrap(), json!({ "type": "agent", "name": "general" }));
    }

    #[test]
    fn a_thousand_parts_are_enough() {
        let parts = |count: usize| json!({ "parts": vec![json!({ "type": "text", "text": "x" }); count] });
        assert_eq!(decode(Some(parts(1000)), 1000).unwrap().parts.len(), 1000);
        assert_eq!(refused(parts(1001)), "Expected at most 1000 parts, got 1001\n  at [\"parts\"]");
    }

    #[test]
    fn a_form_is_taken_with_its_schema_and_nothing_else_is_one() {
        let taken = |format: Value| decode(Some(json!({ "parts": [], "format": format })), 1000).unwrap().format;
        let schema = json!({ "type": "object" });
        assert_eq!(
            taken(json!({ "type": "json_schema", "schema": schema, "more": 1 })),
            Some(json!({ "type": "json_schema", "schema": schema, "retryCount": 2 }))
        );
        assert_eq!(taken(json!({ "type": "json_schema", "schema": {}, "retryCount": 0 })).unwrap()["retryCount"], 0);
        assert_eq!(taken(json!({ "type": "text" })), Some(json!({ "type": "text" })));
        assert_eq!(taken(json!(null)), None);
        for (wrong, place) in [
            (json!("text"), "[\"format\"]"),
            (json!({ "type": "xml" }), "[\"format\"][\"type\"]"),
            (json!({ "type": "json_schema" }), "[\"format\"][\"schema\"]"),
            (json!({ "type": "json_schema", "schema": true }), "[\"format\"][\"schema\"]"),
            (json!({ "type": "json_schema", "schema": {}, "retryCount": -1 }), "[\"format\"][\"retryCount\"]"),
        ] {
            let refused = refused(json!({ "parts": [], "format": wrong }));
            assert!(refused.ends_with(&format!("at {place}")), "{wrong}: {refused}");
        }
    }
}
