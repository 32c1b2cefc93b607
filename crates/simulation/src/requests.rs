//! What clients send to a replica's router, and what they are answered: whole requests and answers, without sockets.

use crate::fleet::{Gone, Replica};
use crate::mortal::Mortal;
use axum::body::Body;
use http::{Method, StatusCode, header};
use http_body_util::BodyExt;
use serde_json::Value;
use std::collections::VecDeque;
use std::fmt::{self, Display};
use tower::ServiceExt;

/// How a request is called.
#[derive(Clone)]
pub(crate) enum Name {
    /// Whoever sends it again gives the balancer a new request: each sending is called otherwise.
    New,
    /// A balancer called it so, and sends it again under the same id.
    Id(String),
    /// Its client called it so.
    Key(String),
}

/// A request.
#[derive(Clone)]
pub(crate) struct Request {
    pub method: Method,
    pub path: String,
    pub body: Option<Value>,
    pub name: Name,
}

/// The head and the body of an answer that is no error.
pub(crate) struct Answer {
    pub body: Vec<u8>,
    /// Where the next page begins.
    pub next: Option<String>,
    /// How often the request was sent.
    pub sendings: u64,
}

/// An answer that is an error.
#[derive(Clone, Debug)]
pub(crate) struct Refused {
    pub status: StatusCode,
    pub body: Value,
    /// It says when to come again.
    pub says_when: bool,
}

impl Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.status.as_u16(), self.body)
    }
}

impl Refused {
    /// What the error is called.
    fn kind(&self) -> &str {
        self.body["name"].as_str().or(self.body["_tag"].as_str()).unwrap_or_default()
    }

    /// True for what may go better when it is sent again, here or elsewhere.
    pub(crate) fn passes(&self) -> bool {
        use StatusCode as S;
        match self.status {
            S::SERVICE_UNAVAILABLE | S::TOO_MANY_REQUESTS | S::INSUFFICIENT_STORAGE | S::INTERNAL_SERVER_ERROR => true,
            S::CONFLICT => self.kind() == "SessionBusyError",
            _ => false,
        }
    }

    /// True for a session or a message that is not there.
    pub(crate) fn is_absent(&self) -> bool {
        self.status == StatusCode::NOT_FOUND && self.kind() == "NotFoundError"
    }

    /// True for an ask that is not open.
    pub(crate) fn is_answered(&self) -> bool {
        self.status == StatusCode::NOT_FOUND && self.kind() == "PermissionNotFoundError"
    }

    /// What is wrong with it whatever was asked.
    pub(crate) fn breaks(&self) -> Option<&'static str> {
        use StatusCode as S;
        let comes_again = matches!(self.status, S::SERVICE_UNAVAILABLE | S::TOO_MANY_REQUESTS);
        if comes_again != self.says_when {
            return Some("says when to come again and should not, or the other way round");
        }
        let has_reference = self.body["data"]["ref"].is_string();
        let is_known = !self.kind().is_empty() && has_reference == (self.status == S::INTERNAL_SERVER_ERROR);
        (!is_known).then_some("is not told as errors are")
    }
}

impl Request {
    pub(crate) fn get(path: impl Into<String>) -> Self {
        Self { method: Method::GET, path: path.into(), body: None, name: Name::New }
    }

    pub(crate) fn post(path: impl Into<String>, body: Option<Value>, name: Name) -> Self {
        Self { method: Method::POST, path: path.into(), body, name }
    }

    pub(crate) fn delete(path: impl Into<String>, name: Name) -> Self {
        Self { method: Method::DELETE, path: path.into(), body: None, name }
    }

    /// Sends it to a replica; `id` is what the balancer calls it unless it has a name. `heard` is called once the status of an answer
    /// that is no error is there, before its body.
    ///
    /// Errors: [`Gone`] if the connection was cut within the answer.
    pub(crate) async fn send(
        &self,
        replica: &Replica,
        id: &str,
        heard: &(dyn Fn() + Send + Sync),
    ) -> Result<Result<Answer, Refused>, Gone> {
        let mut request = http::Request::builder().method(self.method.clone()).uri(&self.path);
        request = match &self.name {
            Name::New => request.header("x-request-id", id),
            Name::Id(id) => request.header("x-request-id", id),
            Name::Key(key) => request.header("x-request-id", id).header("idempotency-key", key),
        };
        let body = match &self.body {
            Some(body) => {
                request = request.header(header::CONTENT_TYPE, "application/json");
                Body::from(body.to_string())
            }
            None => Body::empty(),
        };
        let Ok(request) = request.body(body) else { return Err(Gone) };
        replica.who.goes_on().await;
        let Ok(response) = replica.router().oneshot(request).await;
        replica.who.goes_on().await;
        let (head, body) = response.into_parts();
        if head.status.is_success() {
            heard();
        }
        let body = read(replica, body).await?;
        if head.status.is_success() {
            let next = head.headers.get("x-next-cursor").and_then(|next| next.to_str().ok());
            return Ok(Ok(Answer { body, next: next.map(str::to_owned), sendings: 1 }));
        }
        let body = serde_json::from_slice(&body).unwrap_or_default();
        let says_when = head.headers.contains_key(header::RETRY_AFTER);
        Ok(Err(Refused { status: head.status, body, says_when }))
    }
}

/// An event of a stream.
#[derive(Default)]
pub(crate) struct Event {
    pub id: Option<String>,
    pub data: String,
}

/// A stream of events, as far as it was read.
pub(crate) struct Streamed {
    body: Body,
    /// What came since the last whole event.
    read: Vec<u8>,
    events: VecDeque<Event>,
    /// It came to its end, which no client may see.
    pub has_ended: bool,
}

impl Request {
    /// Follows a stream of events, from behind the `last` one that its reader has.
    ///
    /// Errors: [`Gone`] if there is no stream.
    pub(crate) async fn follow(&self, replica: &Replica, last: Option<&str>) -> Result<Streamed, Gone> {
        let mut request = http::Request::builder().method(self.method.clone()).uri(&self.path);
        if let Some(last) = last {
            request = request.header("last-event-id", last);
        }
        let Ok(request) = request.body(Body::empty()) else { return Err(Gone) };
        replica.who.goes_on().await;
        let Ok(response) = replica.router().oneshot(request).await;
        let kind = response.headers().get(header::CONTENT_TYPE).map(|kind| kind.as_bytes());
        if response.status() != StatusCode::OK || kind != Some(b"text/event-stream") {
            return Err(Gone);
        }
        Ok(Streamed { body: response.into_body(), read: Vec::new(), events: VecDeque::new(), has_ended: false })
    }
}

impl Streamed {
    /// The next event, as far as its replica goes on. None when the stream is cut.
    pub(crate) async fn next(&mut self, who: &Mortal) -> Option<Event> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Some(event);
            }
            let frame = self.body.frame().await;
            who.goes_on().await;
            self.has_ended = frame.is_none();
            self.read.extend_from_slice(&frame?.ok()?.into_data().unwrap_or_default());
            if self.read.ends_with(b"\n\n") {
                self.take();
            }
        }
    }

    /// Takes whole events out of what was read.
    fn take(&mut self) {
        let text = String::from_utf8_lossy(&self.read);
        let mut event = Event::default();
        for line in text.lines() {
            if let Some(id) = line.strip_prefix("id: ") {
                event.id = Some(id.to_owned());
            } else if let Some(data) = line.strip_prefix("data: ") {
                event.data = data.to_owned();
            } else if line.is_empty() {
                self.events.extend(Some(std::mem::take(&mut event)).filter(|event| !event.data.is_empty()));
            }
        }
        self.read.clear();
    }
}

/// Reads a body to its end, as far as its replica goes on.
async fn read(replica: &Replica, mut body: Body) -> Result<Vec<u8>, Gone> {
    let mut whole = Vec::new();
    while let Some(frame) = body.frame().await {
        replica.who.goes_on().await;
        if let Ok(data) = frame.map_err(|_| Gone)?.into_data() {
            whole.extend_from_slice(&data);
        }
    }
    Ok(whole)
}
