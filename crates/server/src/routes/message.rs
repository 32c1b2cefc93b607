//! Messages: read, changed part by part, removed.

use crate::Shared;
use crate::decode::Node;
use crate::errors::{Error, Kind};
use crate::extract::{Id, Name, Payload};
use crate::query;
use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use http::{HeaderMap, HeaderName, HeaderValue, Uri, header};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use wire::ids::{MessageId, PartId, SessionId};
use wire::message::MessageWithParts;
use wire::part::{Part, PartKind};

const NEXT_CURSOR: HeaderName = HeaderName::from_static("x-next-cursor");

/// The oldest message of a page.
#[derive(Serialize, Deserialize)]
struct Cursor {
    id: MessageId,
    time: u64,
}

impl Cursor {
    fn parse(text: &str) -> Option<Self> {
        let json = BASE64_URL_SAFE_NO_PAD.decode(text.trim_end_matches('=')).ok()?;
        serde_json::from_slice(&json).ok()
    }

    fn text(&self) -> Option<String> {
        serde_json::to_vec(self).ok().map(|json| BASE64_URL_SAFE_NO_PAD.encode(json))
    }
}

/// How many messages, and before which: all where no limit is given, or zero, before whichever.
fn page(uri: &Uri) -> Result<(Option<usize>, Option<Cursor>), Error> {
    let limit = query::once(uri, "limit", "string")?.map(|text| query::whole(query::number(&text), "limit"));
    let limit = match limit.transpose()? {
        Some(limit) if limit < 0 => {
            let message = format_args!("Expected a value greater than or equal to 0, got {limit}");
            return Err(Error::at(Kind::Query, message, "limit"));
        }
        // A conversation never has as many messages as would not fit.
        limit => limit.map(|limit| usize::try_from(limit).unwrap_or(usize::MAX)),
    };
    let before = match query::once(uri, "before", "string")?.filter(|before| !before.is_empty()) {
        None => None,
        Some(_) if limit.is_none() => return Err(Error::Bad),
        Some(text) => Some(Cursor::parse(&text).ok_or(Error::Bad)?),
    };
    let limit = limit.filter(|&limit| limit > 0);
    Ok((limit, before.filter(|_| limit.is_some())))
}

pub(crate) async fn list(
    State(server): State<Shared>,
    Id(id): Id<SessionId>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Error> {
    let (limit, before) = page(&uri)?;
    let before = before.map(|cursor| (cursor.time, cursor.id));
    let page = server.app.engine.messages(&server.app.tenant, &id, limit, before).await?;
    let next = page.next.and_then(|(time, id)| Cursor { id, time }.text());
    let mut response = Json(page.items).into_response();
    if let Some(next) = next {
        let answer = response.headers_mut();
        answer.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static("Link, X-Next-Cursor"));
        if let Ok(link) = HeaderValue::from_str(&link(&uri, &headers, &next)) {
            answer.insert(header::LINK, link);
        }
        if let Ok(next) = HeaderValue::from_str(&next) {
            answer.insert(NEXT_CURSOR, next);
        }
    }
    Ok(response)
}

/// The address of the next page: this one with another cursor, and without credentials.
fn link(uri: &Uri, headers: &HeaderMap, next: &str) -> String {
    let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    let scheme = text(HeaderName::from_static("x-forwarded-proto")).filter(|&proto| proto == "https").unwrap_or("http");
    let host = text(header::HOST).unwrap_or("localhost");
    let encode = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
    let kept = query::pairs(uri.query().unwrap_or_default())
        .filter(|(key, _)| key != "before" && key != "auth_token")
        .map(|(key, value)| format!("{}={}&", encode(&key), encode(&value)));
    format!("<{scheme}://{host}{}?{}before={next}>; rel=\"next\"", uri.path(), kept.collect::<String>())
}

pub(crate) async fn get(
    State(server): State<Shared>,
    Id(session): Id<SessionId>,
    Id(id): Id<MessageId>,
) -> Result<Json<MessageWithParts>, Error> {
    Ok(Json(server.app.engine.message(&server.app.tenant, &session, &id).await?))
}

/// The types of parts that a message may have.
const PART_TYPES: [&str; 12] = [
    "text",
    "subtask",
    "reasoning",
    "file",
    "tool",
    "step-start",
    "step-finish",
    "snapshot",
    "patch",
    "agent",
    "retry",
    "compaction",
];

/// Puts a part into a message, whole.
pub(crate) async fn put_part(
    State(server): State<Shared>,
    Id(session): Id<SessionId>,
    Id(message): Id<MessageId>,
    Id(id): Id<PartId>,
    name: Name,
    Payload(body, _room): Payload,
) -> Result<Json<Part>, Error> {
    let part = part(body.as_ref())?;
    if (&part.session_id, &part.message_id, &part.id) != (&session, &message, &id) {
        return Err(Error::Bad);
    }
    let name = name.of(body.as_ref());
    Ok(Json(server.app.engine.put_part(&server.app.tenant, part, name.as_ref()).await?))
}

fn part(body: Option<&Value>) -> Result<Part, Error> {
    let root = Node::root(body);
    root.object()?;
    let id = root.field("id").id()?;
    let session_id = root.field("sessionID").id()?;
    let message_id = root.field("messageID").id()?;
    let kind = root.field("type");
    let named = kind.word(&PART_TYPES.map(|name| (name, name)))?;
    let mut fields = root.object()?.clone();
    for own in ["id", "sessionID", "messageID"] {
        fields.remove(own);
    }
    match serde_json::from_value(Value::Object(fields)) {
        // A type that has fields of its own which are not there.
        Ok(PartKind::Other(_)) if !STORED_ONLY.contains(&named) => {
            Err(root.error(format!("Expected a part of type \"{named}\"")))
        }
        Ok(kind) => Ok(Part { id, session_id, message_id, kind }),
        Err(_) => Err(root.error(format!("Expected a part of type \"{named}\""))),
    }
}

/// Those of the types that are only stored and shown.
const STORED_ONLY: [&str; 6] = ["subtask", "snapshot", "patch", "agent", "retry", "compaction"];

/// Takes a part out of a message.
pub(crate) async fn delete_part(
    State(server): State<Shared>,
    Id(session): Id<SessionId>,
    Id(message): Id<MessageId>,
    Id(id): Id<PartId>,
    name: Name,
) -> Result<Json<bool>, Error> {
    let name = name.of(None);
    server.app.engine.remove_part(&server.app.tenant, &session, &message, &id, name.as_ref()).await?;
    Ok(Json(true))
}

/// Removes a message.
pub(crate) async fn delete(
    State(server): State<Shared>,
    Id(session): Id<SessionId>,
    Id(message): Id<MessageId>,
    name: Name,
) -> Result<Json<bool>, Error> {
    server.app.engine.remove_message(&server.app.tenant, &session, &message, name.of(None).as_ref()).await?;
    Ok(Json(true))
}

#[cfg(test)]
mod tests {
    use super::*;

    const RECORDED: &str = "eyJpZCI6Im1zZ18yMDM3NjM0NDIwMDFpZjhwOExLYjRWM2RaYSIsInRpbWUiOjE3OTUzNTQ0MDgwMDJ9";

    fn asked(query: &str) -> Result<(Option<usize>, Option<Cursor>), Error> {
        page(&format!("/session/ses_a/message?{query}").parse().unwrap())
    }

    #[test]
    fn a_cursor_is_as_recorded() {
        let cursor = Cursor::parse(RECORDED).unwrap();
        assert_eq!((cursor.id.as_str(), cursor.time), ("msg_203763442001if8p8LKb4V3dZa", 1_795_354_408_002));
        assert_eq!(cursor.text().unwrap(), RECORDED);
    }

    #[test]
    fn pages_are_asked_for_as_recorded() {
        let invalid = |query: &str| match asked(query).err().unwrap() {
            Error::Invalid { message, .. } => message,
            other => format!("{other:?}"),
        };
        assert_eq!(invalid("limit=-1"), "Expected a value greater than or equal to 0, got -1\n  at [\"limit\"]");
        assert_eq!(invalid("limit=abc"), "Expected an integer, got NaN\n  at [\"limit\"]");
        for bad in ["before=abc", "limit=2&before=abc", "limit=2&before=msg_203763401001CsgdDwfLMhg6qb"] {
            assert!(matches!(asked(bad), Err(Error::Bad)), "{bad}");
        }
        assert_eq!(asked("limit=0").unwrap().0, None);
        assert_eq!(asked("before=").unwrap().0, None);
        assert_eq!(asked(&format!("limit=3&before={RECORDED}")).unwrap().0, Some(3));
    }

    #[test]
    fn the_link_keeps_the_query_but_no_credentials() {
        let uri: Uri = "/session/ses_a/message?limit=3&auth_token=x&directory=%2Fa%20b&before=old".parse().unwrap();
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, HeaderValue::from_static("127.0.0.1:4367"));
        assert_eq!(
            link(&uri, &headers, "new"),
            "<http://127.0.0.1:4367/session/ses_a/message?limit=3&directory=%2Fa%20b&before=new>; rel=\"next\""
        );
    }
}
