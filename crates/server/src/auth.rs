//! Basic authentication.

use crate::{Shared, query};
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use http::{StatusCode, header};
use subtle::ConstantTimeEq;

/// A name and a password.
#[derive(Clone)]
pub struct Credentials {
    /// The name; OpenCode's default is `opencode`.
    pub username: String,
    /// The password.
    pub password: String,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials").field("username", &self.username).finish_non_exhaustive()
    }
}

/// Asked for by machines that have no password, telling nothing of sessions.
const OPEN: [&str; 3] = ["/livez", "/readyz", "/metrics"];

const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

impl Credentials {
    /// Compares in a time that depends on the lengths only.
    fn admit(&self, token: &str) -> bool {
        let Ok(given) = BASE64.decode(token.trim()) else { return false };
        let Some(colon) = given.iter().position(|&byte| byte == b':') else { return false };
        let (username, password) = (&given[..colon], &given[colon + 1..]);
        (username.ct_eq(self.username.as_bytes()) & password.ct_eq(self.password.as_bytes())).into()
    }
}

/// The token of the query, else of the header.
fn token(request: &Request) -> Option<String> {
    // A plus sign of base64 that was not encoded arrives as a space.
    let from_query = query::value(request.uri(), "auth_token").map(|token| token.replace(' ', "+"));
    from_query.or_else(|| {
        let (scheme, token) = request.headers().get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
        scheme.eq_ignore_ascii_case("basic").then(|| token.to_owned())
    })
}

fn may_pass(credentials: Option<&Credentials>, request: &Request) -> bool {
    let Some(credentials) = credentials else { return true };
    OPEN.contains(&request.uri().path()) || token(request).is_some_and(|token| credentials.admit(&token))
}

/// Lets in who may come in.
pub(crate) async fn check(State(server): State<Shared>, request: Request, next: Next) -> Response {
    if may_pass(server.app.auth.as_ref(), &request) {
        next.run(request).await
    } else {
        (StatusCode::UNAUTHORIZED, [(header::WWW_AUTHENTICATE, "Basic realm=\"Secure Area\"")]).into_response()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passes(uri: &str, authorization: Option<&str>) -> bool {
        let credentials = Credentials { username: "opencode".into(), password: "sekret".into() };
        let mut request = Request::builder().uri(uri);
        if let Some(value) = authorization {
            request = request.header(header::AUTHORIZATION, value);
        }
        may_pass(Some(&credentials), &request.body(axum::body::Body::empty()).unwrap())
    }

    #[test]
    fn the_recorded_cases() {
        assert!(!passes("/session", None));
        assert!(!passes("/global/health", None));
        assert!(passes("/session", Some("Basic b3BlbmNvZGU6c2VrcmV0")));
        assert!(passes("/session", Some("basic b3BlbmNvZGU6c2VrcmV0")));
        assert!(!passes("/session", Some("Basic b3RoZXI6c2VrcmV0")));
        assert!(!passes("/session", Some("Basic b3BlbmNvZGU6YmFk")));
        assert!(!passes("/session", Some("Bearer sekret")));
        assert!(passes("/session?auth_token=b3BlbmNvZGU6c2VrcmV0", None));
        assert!(!passes("/session?auth_token=bad", None));
    }

    #[test]
    fn the_query_has_precedence() {
        assert!(!passes("/session?auth_token=bad", Some("Basic b3BlbmNvZGU6c2VrcmV0")));
    }

    #[test]
    fn probes_need_no_password() {
        for path in ["/livez", "/readyz", "/metrics"] {
            assert!(passes(path, None));
        }
        assert!(!passes("/livez/x", None));
    }

    #[test]
    fn the_password_is_not_shown() {
        let credentials = Credentials { username: "u".into(), password: "sekret".into() };
        assert!(!format!("{credentials:?}").contains("sekret"));
    }
}
