//! OpenAI-compatible chat completions.

mod answer;
mod request;
mod stream;

use crate::error::public_url;
use crate::{ChatRequest, Limits, ModelError, ModelStream, Provider};
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, SET_COOKIE, USER_AGENT};
use reqwest::{Client, Response, Url};
use std::time::Duration;
use stream::ChatStream;
use tokio::time::{Instant, timeout_at};

/// So much of an error's body is kept.
const ERROR_BODY: usize = 64 << 10;

/// A provider that speaks OpenAI's chat completions.
///
/// One value serves all endpoints: address and key come with each request. Its connections are kept alive and shared.
#[derive(Clone, Debug)]
pub struct OpenAiCompatible {
    /// Uses the proxies that the environment names.
    remote: Client,
    /// Uses no proxy: for this machine's own addresses.
    loopback: Client,
    limits: Limits,
}

impl OpenAiCompatible {
    /// A provider with these bounds. The process must have installed its TLS provider before.
    ///
    /// Fails where the TLS set-up does.
    pub fn new(limits: Limits) -> Result<Self, reqwest::Error> {
        let builder = || {
            Client::builder()
                .connect_timeout(limits.connect)
                .tcp_nodelay(true)
                .tcp_keepalive(Duration::from_secs(30))
                // A redirect could carry a key to a stranger: it is answered as the error that it is.
                .redirect(reqwest::redirect::Policy::none())
        };
        Ok(Self { remote: builder().build()?, loopback: builder().no_proxy().build()?, limits })
    }

    fn client(&self, url: &Url) -> &Client {
        if is_loopback(url) { &self.loopback } else { &self.remote }
    }
}

#[async_trait::async_trait]
impl Provider for OpenAiCompatible {
    async fn stream(&self, request: ChatRequest) -> Result<ModelStream, ModelError> {
        let url = address(&request.endpoint.base_url)?;
        let shown = public_url(url.as_str());
        let body = request::body(&request)?;
        let headers = headers(&request)?;
        let timeouts = request.endpoint.timeouts;
        // All of it is in the body now.
        drop(request);
        let sent = self.client(&url).post(url).headers(headers).body(body).send();
        let first_byte = timeouts.first_byte.unwrap_or(self.limits.first_byte);
        let silence = timeouts.silence.unwrap_or(self.limits.silence);
        let patience = Patience::new(timeouts.whole);
        let response = match patience.wait(first_byte, "sent no answer", sent).await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => return Err(transport_error(&error, &shown)),
            Err(late) => return Err(late.error(shown)),
        };
        if !response.status().is_success() {
            return Err(read_error(response, patience, silence, shown).await);
        }
        Ok(ChatStream::new(response, Limits { silence, ..self.limits }, patience, shown).into_stream())
    }
}

/// The address to post to. A query stays where it belongs.
fn address(base_url: &str) -> Result<Url, ModelError> {
    let url = Url::parse(base_url).ok().filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
    let invalid = || ModelError::Invalid { message: "The provider's base URL is not an http or https address".into() };
    let mut url = url.ok_or_else(invalid)?;
    let path = format!("{}/chat/completions", url.path().trim_end_matches('/'));
    url.set_path(&path);
    Ok(url)
}

fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    let address = host.parse::<std::net::IpAddr>();
    host == "localhost" || host.ends_with(".localhost") || address.is_ok_and(|address| address.is_loopback())
}

fn headers(request: &ChatRequest) -> Result<HeaderMap, ModelError> {
    let mut headers = HeaderMap::new();
    let agent = concat!(" flotilla/", env!("CARGO_PKG_VERSION"));
    set(&mut headers, USER_AGENT, &format!("opencode/{}{agent}", wire::OPENCODE_VERSION), false)?;
    set(&mut headers, CONTENT_TYPE, "application/json", false)?;
    if let Some(key) = &request.endpoint.api_key {
        set(&mut headers, AUTHORIZATION, &format!("Bearer {}", key.expose()), true)?;
    }
    for (secret, list) in [(true, &request.endpoint.headers), (false, &request.headers)] {
        for (name, value) in list {
            let known = HeaderName::try_from(name.as_str());
            let known = known.map_err(|_| ModelError::Invalid { message: format!("Not a header name: {name:?}") })?;
            set(&mut headers, known, value, secret)?;
        }
    }
    Ok(headers)
}

/// Sets a header. A value that cannot be one is not repeated in the error, for it may be a key.
fn set(headers: &mut HeaderMap, name: HeaderName, value: &str, secret: bool) -> Result<(), ModelError> {
    let invalid = |_| ModelError::Invalid { message: format!("The value of the header {name} cannot be sent") };
    let mut value = HeaderValue::try_from(value).map_err(invalid)?;
    value.set_sensitive(secret);
    headers.insert(name, value);
    Ok(())
}

/// The error of a connection: one that never was, or one that broke.
fn transport_error(error: &reqwest::Error, url: &str) -> ModelError {
    let mut causes = Vec::new();
    let mut cause: Option<&dyn std::error::Error> = std::error::Error::source(error);
    while let Some(error) = cause {
        causes.push(error.to_string());
        cause = error.source();
    }
    tracing::debug!(url, cause = causes.join(": "), "the connection to the model provider failed");
    if error.is_connect() { ModelError::Connect { url: url.into() } } else { ModelError::Cut { url: url.into() } }
}

/// How long a whole call may still take, beside what each of its waits may.
#[derive(Clone, Copy, Debug)]
struct Patience(Option<(Instant, Duration)>);

/// A wait that took too long.
struct Late {
    waiting_for: &'static str,
    limit: Duration,
}

impl Late {
    fn error(self, url: String) -> ModelError {
        ModelError::Timeout { waiting_for: self.waiting_for, limit: self.limit, url }
    }
}

impl Patience {
    fn new(whole: Option<Duration>) -> Self {
        Self(whole.map(|limit| (Instant::now() + limit, limit)))
    }

    /// Waits for at most `limit`, and no longer than the whole may take.
    async fn wait<T>(
        self,
        limit: Duration,
        waiting_for: &'static str,
        what: impl Future<Output = T>,
    ) -> Result<T, Late> {
        let own = Instant::now() + limit;
        let (until, late) = match self.0 {
            Some((end, limit)) if end < own => (end, Late { waiting_for: "did not end its answer", limit }),
            _ => (own, Late { waiting_for, limit }),
        };
        timeout_at(until, what).await.map_err(|_| late)
    }
}

/// Reads an answer that is no success. What cannot be read of its body is left out.
async fn read_error(mut response: Response, patience: Patience, silence: Duration, url: String) -> ModelError {
    let status = response.status();
    let shown = response.headers().iter().filter(|(name, _)| *name != SET_COOKIE);
    let headers = shown.map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into()));
    let headers = headers.collect();
    let mut body = Vec::new();
    while body.len() < ERROR_BODY
        && let Ok(Ok(Some(chunk))) = patience.wait(silence, "sent nothing", response.chunk()).await
    {
        body.extend_from_slice(&chunk[..chunk.len().min(ERROR_BODY - body.len())]);
    }
    ModelError::from_answer(status, headers, String::from_utf8_lossy(&body).into_owned(), url)
}
