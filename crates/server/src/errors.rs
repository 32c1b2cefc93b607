//! The one table from what went wrong to what is answered.

use axum::response::{IntoResponse, Response};
use engine::EngineError;
use http::{HeaderValue, StatusCode, header};
use serde_json::{Value, json};
use wire::ids::InvalidId;

/// Which part of a request broke the rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Params,
    Query,
    Payload,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Params => "Params",
            Self::Query => "Query",
            Self::Payload => "Payload",
        }
    }
}

/// Why a request is not answered as asked.
#[derive(Debug)]
pub(crate) enum Error {
    /// The engine refuses.
    Engine(EngineError),
    /// The request breaks a rule of its route: what was expected, and where.
    Invalid { kind: Kind, message: String },
    /// The same on routes below `/api`, which say it in another form.
    InvalidRequest { kind: Kind, message: String },
    /// The same on routes that never say more.
    Bad,
    /// Nothing can be called as what is asked for.
    NotFound(String),
    /// The address is nobody's.
    NoRoute(String),
    /// The address does not know the method. The router adds `Allow`.
    NoMethod(String),
    /// The configuration of the user makes no sense: OpenCode's `{name, data}`.
    Config(Value),
    /// No such project.
    NoProject(String),
    /// There are no workspaces.
    NoWorkspace(String),
    /// The body is no JSON.
    MediaType(String),
    /// The body is longer than this many bytes.
    BodyTooLarge(usize),
    /// The address is longer than this many bytes.
    UriTooLong(usize),
    /// The headers are longer than this many bytes.
    HeadersTooLarge(usize),
    /// The body stopped coming.
    BodyTooSlow,
    /// Too many bytes of bodies are held.
    NoRoom,
    /// No room for one more event stream.
    TooManyStreams,
    /// Something broke here that must not be shown.
    Internal(String),
}

/// A reason that is logged, not told: [`crate::log`] gives it a reference and makes the answer.
#[derive(Clone, Debug)]
pub(crate) struct Hidden(pub String);

impl Error {
    /// Wrong at a place of the request: the place is shown as clients know it.
    pub(crate) fn at(kind: Kind, message: impl std::fmt::Display, field: &str) -> Self {
        Self::Invalid { kind, message: format!("{message}\n  at [{}]", json!(field)) }
    }

    /// An id in a path that is none.
    pub(crate) fn param(error: &InvalidId, field: &str) -> Self {
        Self::at(Kind::Params, error, field)
    }
}

impl From<EngineError> for Error {
    fn from(error: EngineError) -> Self {
        Self::Engine(error)
    }
}

fn named(name: &str, message: impl std::fmt::Display) -> Value {
    json!({ "name": name, "data": { "message": message.to_string() } })
}

/// The body of an answer to something that broke.
pub(crate) fn unknown(reference: &str) -> Value {
    let message = "Unexpected server error. Check server logs for details.";
    json!({ "name": "UnknownError", "data": { "message": message, "ref": reference } })
}

impl Error {
    /// The table.
    fn answer(&self) -> (StatusCode, Value) {
        use EngineError as E;
        use StatusCode as S;
        match self {
            Self::Engine(error) => match error {
                E::SessionNotFound(_) | E::MessageNotFound(_) => (S::NOT_FOUND, named("NotFoundError", error)),
                E::PermissionNotFound(id) => (S::NOT_FOUND, asked("PermissionNotFoundError", id, error)),
                E::QuestionNotFound(id) => (S::NOT_FOUND, asked("QuestionNotFoundError", id, error)),
                E::Busy(session) => {
                    let message = error.to_string();
                    (S::CONFLICT, json!({ "_tag": "SessionBusyError", "sessionID": session, "message": message }))
                }
                E::KeyReused => (S::UNPROCESSABLE_ENTITY, named("IdempotencyError", error)),
                E::Conflict(message) => (S::CONFLICT, named("ConflictError", message)),
                E::BadRequest(message) => (S::BAD_REQUEST, bad_request(message, Kind::Payload)),
                E::Config(error) => (S::BAD_REQUEST, json!(error)),
                E::TooManyQueued => (S::TOO_MANY_REQUESTS, named("TooManyRequestsError", error)),
                E::Unavailable(_) => (S::SERVICE_UNAVAILABLE, named("UnavailableError", error)),
                E::Full => (S::INSUFFICIENT_STORAGE, named("StorageFullError", error)),
                E::Unknown(_) | E::Store(_) | E::Lost => (S::INTERNAL_SERVER_ERROR, Value::Null),
            },
            Self::Invalid { kind, message } => (S::BAD_REQUEST, bad_request(message, *kind)),
            Self::InvalidRequest { kind, message } => {
                let body = json!({ "_tag": "InvalidRequestError", "message": message, "kind": kind.name() });
                (S::BAD_REQUEST, body)
            }
            Self::Bad => (S::BAD_REQUEST, json!({ "_tag": "BadRequest" })),
            Self::Config(body) => (S::BAD_REQUEST, body.clone()),
            Self::NotFound(message) => (S::NOT_FOUND, named("NotFoundError", message)),
            Self::NoRoute(path) => (S::NOT_FOUND, named("NotFoundError", format!("Route not found: {path}"))),
            Self::NoMethod(method) => {
                (S::METHOD_NOT_ALLOWED, named("MethodNotAllowedError", format!("Method not allowed: {method}")))
            }
            Self::NoProject(id) => {
                let message = format!("Project not found: {id}");
                (S::NOT_FOUND, json!({ "_tag": "ProjectNotFoundError", "projectID": id, "message": message }))
            }
            Self::NoWorkspace(name) => (S::INTERNAL_SERVER_ERROR, json!(format!("Workspace not found: {name}"))),
            Self::MediaType(got) => (S::UNSUPPORTED_MEDIA_TYPE, json!(format!("Unsupported content-type: {got}"))),
            Self::BodyTooLarge(most) => {
                (S::PAYLOAD_TOO_LARGE, named("PayloadTooLargeError", format!("The body may have {most} bytes")))
            }
            Self::UriTooLong(most) => {
                (S::URI_TOO_LONG, named("UriTooLongError", format!("The address may have {most} bytes")))
            }
            Self::HeadersTooLarge(most) => (
                S::REQUEST_HEADER_FIELDS_TOO_LARGE,
                named("HeadersTooLargeError", format!("The headers may have {most} bytes")),
            ),
            Self::BodyTooSlow => (S::REQUEST_TIMEOUT, named("RequestTimeoutError", "The body stopped coming")),
            Self::NoRoom => (
                S::SERVICE_UNAVAILABLE,
                named("UnavailableError", "too many large requests at once: send it again later"),
            ),
            Self::TooManyStreams => {
                (S::SERVICE_UNAVAILABLE, named("UnavailableError", "too many event streams: ask again later"))
            }
            Self::Internal(_) => (S::INTERNAL_SERVER_ERROR, Value::Null),
        }
    }

    fn hidden(&self) -> Option<Hidden> {
        match self {
            Self::Engine(error @ (EngineError::Unknown(_) | EngineError::Store(_) | EngineError::Lost)) => {
                Some(Hidden(error.to_string()))
            }
            Self::Internal(reason) => Some(Hidden(reason.clone())),
            _ => None,
        }
    }
}

fn bad_request(message: &str, kind: Kind) -> Value {
    json!({ "name": "BadRequest", "data": { "message": message, "kind": kind.name() } })
}

fn asked(tag: &str, id: &str, error: &EngineError) -> Value {
    json!({ "_tag": tag, "requestID": id, "message": error.to_string() })
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let (status, body) = self.answer();
        let mut response = match body {
            Value::Null => status.into_response(),
            // Two answers are bare text.
            Value::String(text) => (status, [(header::CONTENT_TYPE, "text/plain")], text).into_response(),
            body => (status, axum::Json(body)).into_response(),
        };
        if matches!(status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS) {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        if let Some(hidden) = self.hidden() {
            response.extensions_mut().insert(hidden);
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wire::ids::SessionId;
    use wire::message::MessageError;

    fn answer(error: Error) -> (u16, Value) {
        let (status, body) = error.answer();
        (status.as_u16(), body)
    }

    #[test]
    fn the_families_are_as_recorded() {
        let session = SessionId::parse("ses_nope").unwrap();
        assert_eq!(
            answer(EngineError::SessionNotFound(session.clone()).into()),
            (404, json!({ "name": "NotFoundError", "data": { "message": "Session not found: ses_nope" } }))
        );
        assert_eq!(
            answer(EngineError::PermissionNotFound("per_nope".into()).into()),
            (
                404,
                json!({ "_tag": "PermissionNotFoundError", "requestID": "per_nope", "message": "Permission request not found: per_nope" })
            )
        );
        assert_eq!(
            answer(EngineError::Busy(session).into()),
            (
                409,
                json!({ "_tag": "SessionBusyError", "sessionID": "ses_nope", "message": "Session is busy: ses_nope" })
            )
        );
        assert_eq!(
            answer(Error::param(&SessionId::parse("bad").unwrap_err(), "sessionID")),
            (
                400,
                json!({ "name": "BadRequest", "data": { "message": "Expected a string starting with \"ses\", got \"bad\"\n  at [\"sessionID\"]", "kind": "Params" } })
            )
        );
        assert_eq!(answer(Error::Bad), (400, json!({ "_tag": "BadRequest" })));
        assert_eq!(
            answer(
                EngineError::Config(MessageError { name: "ConfigJsonError".into(), data: json!({ "path": "x" }) })
                    .into()
            ),
            (400, json!({ "name": "ConfigJsonError", "data": { "path": "x" } }))
        );
    }

    #[test]
    fn who_shall_come_again_is_told_when() {
        for error in [EngineError::Unavailable("x".into()), EngineError::TooManyQueued] {
            let response = Error::from(error).into_response();
            assert_eq!(response.headers()[header::RETRY_AFTER], "1");
        }
        assert!(Error::Bad.into_response().headers().get(header::RETRY_AFTER).is_none());
    }

    #[test]
    fn what_broke_is_not_told() {
        let response = Error::from(EngineError::Store("/secret/path".into())).into_response();
        assert_eq!(response.status(), 500);
        assert_eq!(response.extensions().get::<Hidden>().unwrap().0, "the store failed: /secret/path");
    }
}
