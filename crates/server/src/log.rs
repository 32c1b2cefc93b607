//! One line and one span for each request.

use crate::Shared;
use crate::errors::{Error, Hidden, unknown};
use axum::Json;
use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use std::panic::AssertUnwindSafe;
use std::time::Instant;
use tracing::Instrument;
use wire::clock::Entropy;
use wire::ids::SessionId;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// The route of what no route serves.
const UNMATCHED: &str = "unmatched";

/// The caller's id, if it is one: it goes into logs and back.
fn given_id(headers: &HeaderMap) -> Option<String> {
    let id = headers.get(REQUEST_ID)?.to_str().ok()?;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    ((1..=128).contains(&id.len()) && id.bytes().all(plain)).then(|| id.to_owned())
}

/// The trace and the span that the caller is in, by W3C's `traceparent`.
fn given_trace(headers: &HeaderMap) -> Option<(&str, &str)> {
    let mut fields = headers.get("traceparent")?.to_str().ok()?.split('-');
    let (version, trace, span, flags) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
    let is = |field: &str, length: usize| {
        field.len() == length && field.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    };
    let names = |field: &str, length: usize| is(field, length) && field.bytes().any(|byte| byte != b'0');
    let known = is(version, 2) && version != "ff" && (version != "00" || fields.next().is_none());
    (known && is(flags, 2) && names(trace, 32) && names(span, 16)).then_some((trace, span))
}

fn random_hex(entropy: &dyn Entropy) -> String {
    format!("{:016x}{:016x}", entropy.bits(), entropy.bits())
}

/// The session that an address is about.
fn session_of(path: &str) -> Option<SessionId> {
    SessionId::parse(path.strip_prefix("/session/")?.split('/').next()?).ok()
}

/// Writes the line, counts the answer, and turns what broke into an answer that refers to the log.
pub(crate) async fn record(State(server): State<Shared>, request: Request, next: Next) -> Response {
    let begun = Instant::now();
    let entropy = server.app.entropy.as_ref();
    let id = given_id(request.headers()).unwrap_or_else(|| random_hex(entropy));
    let (trace_id, parent) = match given_trace(request.headers()) {
        Some((trace, span)) => (trace.to_owned(), span.to_owned()),
        None => (random_hex(entropy), String::new()),
    };
    let method = request.method().clone();
    let route = request.extensions().get::<MatchedPath>().cloned();
    let route = route.as_ref().map_or(UNMATCHED, MatchedPath::as_str);
    let session = session_of(request.uri().path());
    let session = session.as_ref().map_or("", SessionId::as_str);
    let tenant = &server.app.tenant;
    let span = tracing::info_span!(
        "request", id, trace_id, parent_span_id = parent, %tenant, session, %method, route
    );
    let mut response = async {
        // A handler that panics takes its own request with it and nothing else.
        let answered = AssertUnwindSafe(next.run(request)).catch_unwind().await;
        let response = answered.unwrap_or_else(|_| Error::Internal("a handler panicked".into()).into_response());
        explain(response, entropy)
    }
    .instrument(span)
    .await;
    let took = begun.elapsed();
    let status = response.status().as_u16();
    server.metrics.count(route, &method, status, took);
    let latency_ms = took.as_micros() as f64 / 1000.0;
    let replica = server.app.engine.replica();
    // Outside the span, whose fields would stand in the line twice.
    tracing::info!(%id, trace_id, %tenant, session, %replica, %method, route, status, latency_ms, "request");
    let headers = response.headers_mut();
    if let Ok(id) = HeaderValue::from_str(&id) {
        headers.insert(REQUEST_ID, id);
    }
    if server.is_draining() {
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// Logs what must not be told, and tells where to look for it.
fn explain(mut response: Response, entropy: &dyn Entropy) -> Response {
    let Some(Hidden(reason)) = response.extensions_mut().remove::<Hidden>() else { return response };
    let reference = format!("err_{:08x}", entropy.bits() as u32);
    tracing::error!(%reference, %reason, "a request failed");
    (response.status(), Json(unknown(&reference))).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;
    use engine::EngineError;
    use http_body_util::BodyExt;

    struct Seven;
    impl Entropy for Seven {
        fn bits(&self) -> u64 {
            7
        }
    }

    fn headers(name: &'static str, value: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        headers
    }

    #[test]
    fn only_a_sane_request_id_is_taken_over() {
        assert_eq!(given_id(&headers("x-request-id", "a-B_9.x")).unwrap(), "a-B_9.x");
        for bad in ["", "a b", "é", "a\"b", &"x".repeat(129)] {
            assert_eq!(given_id(&headers("x-request-id", bad)), None, "{bad}");
        }
    }

    #[test]
    fn only_a_valid_traceparent_is_followed() {
        let good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        assert_eq!(
            given_trace(&headers("traceparent", good)),
            Some(("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"))
        );
        for bad in [
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-x",
            "nonsense",
        ] {
            assert_eq!(given_trace(&headers("traceparent", bad)), None, "{bad}");
        }
    }

    #[test]
    fn the_session_is_read_from_the_address() {
        assert_eq!(session_of("/session/ses_a/message").unwrap().as_str(), "ses_a");
        assert_eq!(session_of("/session/status"), None);
        assert_eq!(session_of("/session"), None);
        assert_eq!(session_of("/permission/per_a/reply"), None);
    }

    #[tokio::test]
    async fn what_broke_gets_a_reference() {
        let response = explain(Error::from(EngineError::Store("disk".into())).into_response(), &Seven);
        assert_eq!(response.status(), 500);
        let body = response.into_body().collect().await.unwrap().to_bytes();
        let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(body, unknown("err_00000007"));
    }
}
