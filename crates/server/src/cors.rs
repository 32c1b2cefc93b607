//! Which web pages may call.

use crate::Shared;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};

const METHODS: HeaderValue = HeaderValue::from_static("GET, HEAD, PUT, PATCH, POST, DELETE");
const MAX_AGE: HeaderValue = HeaderValue::from_static("86400");

fn is_allowed(origin: &str, more: &[String]) -> bool {
    const EXACT: [&str; 4] =
        ["oc://renderer", "tauri://localhost", "http://tauri.localhost", "https://tauri.localhost"];
    let opencode = || {
        let host = origin.strip_prefix("https://").and_then(|host| host.strip_suffix("opencode.ai"));
        let label = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'.';
        host.is_some_and(|host| host.is_empty() || (host.len() > 1 && host.ends_with('.') && host.bytes().all(label)))
    };
    origin.starts_with("http://localhost:")
        || origin.starts_with("http://127.0.0.1:")
        || EXACT.contains(&origin)
        || more.iter().any(|allowed| allowed == origin)
        || opencode()
}

/// The origin to name in the answer.
fn allowed_origin(headers: &HeaderMap, more: &[String]) -> Option<HeaderValue> {
    let origin = headers.get(header::ORIGIN)?;
    origin.to_str().is_ok_and(|text| is_allowed(text, more)).then(|| origin.clone())
}

fn preflight(headers: &HeaderMap) -> Response {
    let mut response = StatusCode::NO_CONTENT.into_response();
    let wanted = headers.get(header::ACCESS_CONTROL_REQUEST_HEADERS).cloned();
    let answer = response.headers_mut();
    answer.insert(header::ACCESS_CONTROL_ALLOW_METHODS, METHODS);
    answer.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, wanted.unwrap_or(HeaderValue::from_static("")));
    answer.insert(header::ACCESS_CONTROL_MAX_AGE, MAX_AGE);
    answer.insert(header::VARY, HeaderValue::from_static("Access-Control-Request-Headers"));
    response
}

/// Answers preflights, and tells browsers what they may show. Nobody is refused: that is the browser's part.
pub(crate) async fn apply(State(server): State<Shared>, request: Request, next: Next) -> Response {
    let origin = allowed_origin(request.headers(), &server.app.cors);
    let mut response =
        if request.method() == Method::OPTIONS { preflight(request.headers()) } else { next.run(request).await };
    let headers = response.headers_mut();
    let vary = match headers.get(header::VARY).and_then(|vary| vary.to_str().ok()) {
        Some(vary) => HeaderValue::from_str(&format!("{vary}, Origin")).ok(),
        None => None,
    };
    headers.insert(header::VARY, vary.unwrap_or(HeaderValue::from_static("Origin")));
    if let Some(origin) = origin {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_recorded_origins() {
        let more = ["https://example.org".to_owned()];
        for origin in [
            "http://localhost:3000",
            "http://127.0.0.1:5000",
            "https://example.org",
            "https://app.opencode.ai",
            "https://x.opencode.ai",
            "tauri://localhost",
            "http://tauri.localhost",
            "oc://renderer",
        ] {
            assert!(is_allowed(origin, &more), "{origin}");
        }
        for origin in [
            "https://localhost:3000",
            "https://evil.example",
            "null",
            "https://evilopencode.ai",
            "https://a/.opencode.ai",
        ] {
            assert!(!is_allowed(origin, &more), "{origin}");
        }
    }

    #[test]
    fn a_preflight_echoes_the_headers() {
        let mut asked = HeaderMap::new();
        asked.insert(
            header::ACCESS_CONTROL_REQUEST_HEADERS,
            HeaderValue::from_static("content-type,x-opencode-directory"),
        );
        let response = preflight(&asked);
        assert_eq!(response.status(), 204);
        assert_eq!(response.headers()[header::ACCESS_CONTROL_ALLOW_HEADERS], "content-type,x-opencode-directory");
        assert_eq!(preflight(&HeaderMap::new()).headers()[header::ACCESS_CONTROL_ALLOW_HEADERS], "");
    }
}
