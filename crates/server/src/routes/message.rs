//! Messages, read.

use crate::Shared;
use crate::errors::{Error, Kind};
use crate::extract::Id;
use crate::query;
use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use http::{HeaderMap, HeaderName, HeaderValue, Uri, header};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::{Deserialize, Serialize};
use wire::ids::{MessageId, SessionId};
use wire::message::MessageWithParts;

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

/// How many messages, and before which.
fn page(uri: &Uri) -> Result<(Option<usize>, Option<Cursor>), Error> {
    let wrong = |message: String| Err(Error::at(Kind::Query, message, "limit"));
    let limit = match query::value(uri, "limit") {
        None => None,
        Some(text) => match text.trim().parse::<f64>() {
            Ok(number) if number.fract() != 0.0 => return wrong(format!("Expected an integer, got {number}")),
            Ok(number) if number < 0.0 => {
                return wrong(format!("Expected a value greater than or equal to 0, got {number}"));
            }
            // A conversation never has as many messages as would not fit.
            Ok(number) => Some(number as usize).filter(|&limit| limit > 0),
            Err(_) => return wrong("Expected an integer, got NaN".into()),
        },
    };
    let before = match query::value(uri, "before") {
        None => None,
        Some(_) if limit.is_none() => return Err(Error::Bad),
        Some(text) => Some(Cursor::parse(&text).ok_or(Error::Bad)?),
    };
    Ok((limit, before))
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
