//! One line and one span for each request.

use crate::Shared;
use crate::errors::{Error, Hidden, unknown};
use axum::Json;
use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use opentelemetry::{Context, global};
use opentelemetry_http::HeaderExtractor;
use std::panic::AssertUnwindSafe;
use tokio::time::Instant;
use tracing::Instrument;
use tracing::field::Empty;
use tracing_opentelemetry::OpenTelemetrySpanExt;
use wire::clock::Entropy;
use wire::ids::SessionId;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// The route of what no route serves.
const UNMATCHED: &str = "unmatched";

/// The caller's id, if it is one: it goes into logs and back.
pub(crate) fn given_id(headers: &HeaderMap) -> Option<String> {
    let id = headers.get(REQUEST_ID)?.to_str().ok()?;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    ((1..=128).contains(&id.len()) && id.bytes().all(plain)).then(|| id.to_owned())
}

/// Where the caller is in its trace, by W3C's `traceparent`; nowhere if it does not say, or says nonsense.
fn caller(headers: &HeaderMap) -> Context {
    global::get_text_map_propagator(|propagator| {
        propagator.extract_with_context(&Context::new(), &HeaderExtractor(headers))
    })
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
    let method = request.method().clone();
    let route = request.extensions().get::<MatchedPath>().cloned();
    let route = route.as_ref().map_or(UNMATCHED, MatchedPath::as_str);
    let session = session_of(request.uri().path());
    let session = session.as_ref().map_or("", SessionId::as_str);
    let tenant = &server.app.tenant;
    let span = tracing::info_span!(
        "request", otel.name = %format_args!("{method} {route}"), otel.kind = "server", otel.status_code = Empty,
        id, %tenant, session, %method, route, status = Empty
    );
    // Refused where nothing is traced, which is no loss.
    let _ = span.set_parent(caller(request.headers()));
    let mut response = async {
        // A handler that panics takes its own request with it and nothing else.
        let answered = AssertUnwindSafe(next.run(request)).catch_unwind().await;
        let response = answered.unwrap_or_else(|_| Error::Internal("a handler panicked".into()).into_response());
        explain(response, entropy)
    }
    .instrument(span.clone())
    .await;
    let took = begun.elapsed();
    let status = response.status().as_u16();
    server.metrics.count(route, &method, status, took);
    span.record("status", status);
    if response.status().is_server_error() {
        span.record("otel.status_code", "ERROR");
    }
    let latency_ms = (took.as_secs_f64() * 10_000.0).round() / 10.0;
    span.in_scope(|| {
        let replica = server.app.engine.replica();
        tracing::info!(%id, %tenant, session, %replica, %method, route, status, latency_ms, "request");
    });
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
