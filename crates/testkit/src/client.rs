//! An HTTP client that sends each request to the next replica, with helpers for what tests do most.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Once};
use std::time::Duration;

use base64::Engine as _;
use bytes::Bytes;
use reqwest::Method;
use reqwest::header::HeaderMap;
use serde_json::{Value, json};

use crate::contract::Contract;
use crate::events::EventReader;

/// The longest that any request of a test may take.
const REQUEST_BOUND: Duration = Duration::from_secs(90);

/// An HTTP answer, read to its end.
#[derive(Debug, Clone)]
pub struct Reply {
    /// The status.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

impl Reply {
    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    ///
    /// # Panics
    /// When it is not JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|e| panic!("status {}, no JSON ({e}): {:?}", self.status, self.text()))
    }

    /// The body as JSON of an answer that must have status 200.
    ///
    /// # Panics
    /// When the status is another or the body is not JSON.
    pub fn ok(&self) -> Value {
        assert_eq!(self.status, 200, "{}", self.text());
        self.json()
    }

    /// A header's value; empty if it is missing.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default()
    }
}

/// A client of one or several replicas: each request goes to the next one.
#[derive(Debug, Clone)]
pub struct Client {
    http: reqwest::Client,
    urls: Arc<Vec<String>>,
    next: Arc<AtomicUsize>,
    headers: Vec<(String, String)>,
    contract: Option<Contract>,
}

impl Client {
    /// A client that takes turns among these addresses (`http://HOST:PORT`).
    pub fn new(urls: impl IntoIterator<Item = impl Into<String>>) -> Self {
        let urls: Vec<String> = urls.into_iter().map(Into::into).collect();
        assert!(!urls.is_empty(), "a client needs an address");
        Self { http: http(), urls: Arc::new(urls), next: Arc::default(), headers: Vec::new(), contract: None }
    }

    /// The same client, which sends one more header with each request.
    pub fn with_header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_string(), value.to_string()));
        self
    }

    /// The same client, whose answers and events are held against the contract.
    pub fn under(mut self, contract: &Contract) -> Self {
        self.contract = Some(contract.clone());
        self
    }

    /// The same client for one address only.
    pub fn only(&self, url: &str) -> Self {
        Self { urls: Arc::new(vec![url.to_owned()]), next: Arc::default(), ..self.clone() }
    }

    /// The address that the next request goes to.
    pub fn next_url(&self) -> String {
        self.urls[self.next.fetch_add(1, Ordering::Relaxed) % self.urls.len()].clone()
    }

    /// Sends a request with any body and any more headers. A path begins with `/`.
    ///
    /// # Errors
    /// When there is no whole answer: the connection is refused or cut, or the time is up.
    pub async fn try_send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<Vec<u8>>,
    ) -> reqwest::Result<Reply> {
        let mut request =
            self.http.request(method.clone(), format!("{}{path}", self.next_url())).timeout(REQUEST_BOUND);
        for (name, value) in self.headers.iter().map(|(k, v)| (k.as_str(), v.as_str())).chain(headers.iter().copied()) {
            request = request.header(name, value);
        }
        if let Some(body) = body {
            request = request.body(body);
        }
        let response = request.send().await?;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let body = response.bytes().await?;
        if let Some(contract) = &self.contract {
            contract.see_answer(method.as_str(), path, status, &body);
        }
        Ok(Reply { status, headers, body })
    }

    /// As [`try_send`](Self::try_send).
    ///
    /// # Panics
    /// When there is no whole answer.
    pub async fn send(&self, method: Method, path: &str, headers: &[(&str, &str)], body: Option<Vec<u8>>) -> Reply {
        let what = format!("{method} {path}");
        self.try_send(method, path, headers, body).await.unwrap_or_else(|e| panic!("{what}: {e:?}"))
    }

    /// GET.
    pub async fn get(&self, path: &str) -> Reply {
        self.send(Method::GET, path, &[], None).await
    }

    /// POST with a JSON body.
    pub async fn post(&self, path: &str, body: &Value) -> Reply {
        self.send(Method::POST, path, &[JSON], Some(body.to_string().into_bytes())).await
    }

    /// PATCH with a JSON body.
    pub async fn patch(&self, path: &str, body: &Value) -> Reply {
        self.send(Method::PATCH, path, &[JSON], Some(body.to_string().into_bytes())).await
    }

    /// DELETE.
    pub async fn delete(&self, path: &str) -> Reply {
        self.send(Method::DELETE, path, &[], None).await
    }

    /// Creates a session and returns its record.
    pub async fn create_session(&self, body: &Value) -> Value {
        self.post("/session", body).await.ok()
    }

    /// Creates a session with a title (so that none is asked for) and returns its id.
    pub async fn titled_session(&self) -> String {
        id_of(&self.create_session(&json!({"title": "A titled session"})).await)
    }

    /// Prompts with a text and waits for the answer: the assistant message `{info, parts}`.
    pub async fn prompt(&self, session: &str, text: &str) -> Value {
        self.post(&format!("/session/{session}/message"), &text_prompt(text)).await.ok()
    }

    /// Prompts with a text without waiting for the answer.
    pub async fn prompt_async(&self, session: &str, text: &str) {
        let reply = self.post(&format!("/session/{session}/prompt_async"), &text_prompt(text)).await;
        assert_eq!(reply.status, 204, "{}", reply.text());
    }

    /// The messages of a session, oldest first.
    pub async fn messages(&self, session: &str) -> Vec<Value> {
        match self.get(&format!("/session/{session}/message")).await.ok() {
            Value::Array(messages) => messages,
            other => panic!("no list of messages: {other}"),
        }
    }

    /// Who said what, in order: the role and the joined text of each message.
    pub async fn conversation(&self, session: &str) -> Vec<(String, String)> {
        let messages = self.messages(session).await;
        messages.iter().map(|m| (m["info"]["role"].as_str().unwrap_or_default().to_string(), text_of(m))).collect()
    }

    /// The tool parts of a session, in order.
    pub async fn tool_parts(&self, session: &str) -> Vec<Value> {
        let messages = self.messages(session).await;
        messages.iter().flat_map(parts_of).filter(|part| part["type"] == "tool").cloned().collect()
    }

    /// The session's status: `idle`, `busy` or `retry`.
    pub async fn status(&self, session: &str) -> String {
        let all = self.get("/session/status").await.ok();
        all[session]["type"].as_str().unwrap_or("idle").to_string()
    }

    /// Aborts the session.
    pub async fn abort(&self, session: &str) {
        assert_eq!(self.post(&format!("/session/{session}/abort"), &json!({})).await.ok(), json!(true));
    }

    /// Opens a stream of events (`/event`, `/global/event`) and waits for its first event.
    pub async fn events(&self, path: &str) -> EventReader {
        EventReader::open_under(&format!("{}{path}", self.next_url()), &self.headers, self.contract.clone()).await
    }
}

const JSON: (&str, &str) = ("content-type", "application/json");

/// The body of a prompt with one text.
pub fn text_prompt(text: &str) -> Value {
    json!({"parts": [{"type": "text", "text": text}]})
}

/// The parts of a message.
///
/// # Panics
/// When it has none.
pub fn parts_of(message: &Value) -> &Vec<Value> {
    message["parts"].as_array().unwrap_or_else(|| panic!("no parts in {message}"))
}

/// The texts of a message's text parts, joined.
pub fn text_of(message: &Value) -> String {
    parts_of(message).iter().filter(|p| p["type"] == "text").filter_map(|p| p["text"].as_str()).collect()
}

/// The `id` of a record.
///
/// # Panics
/// When it has none.
pub fn id_of(record: &Value) -> String {
    record["id"].as_str().unwrap_or_else(|| panic!("no id in {record}")).to_string()
}

/// The value of an `authorization` header.
pub fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", base64(&format!("{user}:{password}")))
}

/// Base64 of a text, with padding.
pub fn base64(text: &str) -> String {
    base64::engine::general_purpose::STANDARD.encode(text)
}

/// The bytes that base64 with padding stands for.
///
/// # Panics
/// When it is no base64.
pub fn from_base64(text: &str) -> Vec<u8> {
    base64::engine::general_purpose::STANDARD.decode(text).expect("base64")
}

/// A value as it stands in a query string.
pub fn encoded(value: &str) -> String {
    percent_encoding::utf8_percent_encode(value, percent_encoding::NON_ALPHANUMERIC).to_string()
}

/// A plain HTTP client that keeps no connection between requests: a replica that was killed spoils no later request.
pub(crate) fn http() -> reqwest::Client {
    static PROVIDER: Once = Once::new();
    PROVIDER.call_once(|| {
        let _installed_before = rustls::crypto::ring::default_provider().install_default();
    });
    reqwest::Client::builder().no_proxy().pool_max_idle_per_host(0).build().expect("an HTTP client")
}
