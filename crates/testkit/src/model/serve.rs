//! The HTTP side of the scripted model.

use std::collections::VecDeque;
use std::time::Instant;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, State as Extract};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{get, post};
use futures_util::stream;
use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::answer::{Answer, Op};
use super::record::Recorded;
use super::{SMALL, Shared};
use crate::transcript;

/// A page for tools that fetch pages.
const PAGE: &str = "<html><head><title>T</title></head><body><h1>Head</h1><p>para <b>bold</b></p></body></html>";

/// Serves until told to stop; connections that are open then are dropped.
pub(super) fn serve(listener: std::net::TcpListener, shared: Shared, stopped: oneshot::Receiver<()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::from_std(listener).expect("a listening socket");
        let app = Router::new()
            .route("/v1/chat/completions", post(complete))
            .route("/page", get(async || Html(PAGE)))
            .layer(DefaultBodyLimit::disable())
            .with_state(shared);
        tokio::select! {
            served = axum::serve(listener, app).into_future() => served.expect("the model serves"),
            _ = stopped => {}
        }
    });
}

async fn complete(Extract(shared): Extract<Shared>, headers: HeaderMap, body: Bytes) -> Response {
    let body: Value = serde_json::from_slice(&body).unwrap_or(Value::Null);
    let (call, answer) = begin(&shared, &headers, body);
    let mut response = match answer.body {
        Some(text) => {
            call.end();
            (StatusCode::from_u16(answer.status).expect("a status"), text).into_response()
        }
        None => Body::from_stream(stream::unfold((call, answer.ops.into()), next_bytes)).into_response(),
    };
    let kind = if answer.status == 200 { "text/event-stream" } else { "application/json" };
    response.headers_mut().insert(header::CONTENT_TYPE, kind.parse().expect("a header value"));
    for (name, value) in answer.headers {
        let name = header::HeaderName::from_bytes(name.as_bytes()).expect("a header name");
        response.headers_mut().insert(name, value.parse().expect("a header value"));
    }
    response
}

/// Records the request, checks it, and chooses its answer.
fn begin(shared: &Shared, headers: &HeaderMap, body: Value) -> (Call, Answer) {
    let headers: std::collections::BTreeMap<String, String> =
        headers.iter().map(|(k, v)| (k.to_string(), String::from_utf8_lossy(v.as_bytes()).into_owned())).collect();
    let model = body["model"].as_str().unwrap_or_default().to_string();
    let session = headers.get("x-opencode-session-id").cloned();
    let mut state = shared.lock();
    let number = state.requests.len();
    let found = transcript::violations(&body);
    if !found.is_empty() {
        state.violations.push(format!("request {number} ({model}): {}\n{}", found.join("; "), body["messages"]));
    }
    if body["stream"] != json!(true) {
        state.violations.push(format!("request {number} ({model}) does not ask for a stream"));
    }
    let answer = state.answer(&body);
    let began = Instant::now();
    state.requests.push(Recorded { model, session, headers, body, began, ended: None, disconnected: false });
    let call = Call { shared: shared.clone(), number, over: false };
    (call, answer)
}

/// A request that is being answered. Dropped before its end, it tells that the client went away.
struct Call {
    shared: Shared,
    number: usize,
    over: bool,
}

impl Call {
    fn end(mut self) {
        self.mark(false);
    }

    fn mark(&mut self, disconnected: bool) {
        if !std::mem::replace(&mut self.over, true) {
            let mut state = self.shared.lock();
            let request = &mut state.requests[self.number];
            request.ended = Some(Instant::now());
            request.disconnected = disconnected;
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.mark(true);
    }
}

type Progress = (Call, VecDeque<Op>);

/// The bytes of the next operation that has any.
async fn next_bytes((mut call, mut ops): Progress) -> Option<(std::io::Result<Bytes>, Progress)> {
    if call.over {
        return None;
    }
    loop {
        let bytes = match ops.pop_front() {
            Some(Op::Pause(delay)) => {
                tokio::time::sleep(delay).await;
                continue;
            }
            Some(Op::Wait(gate)) => {
                gate.pass().await;
                continue;
            }
            Some(Op::Chunk(chunk)) => Ok(Bytes::from(format!("data: {}\n\n", dressed(chunk, &call)))),
            Some(Op::Raw(text)) => Ok(Bytes::from(text)),
            Some(Op::Cut) => {
                call.mark(false);
                Err(std::io::Error::from(std::io::ErrorKind::ConnectionReset))
            }
            None => {
                // Marked before the client sees the end, so that its next request never seems to overlap this one.
                call.mark(false);
                Ok(Bytes::from_static(b"data: [DONE]\n\n"))
            }
        };
        return Some((bytes, (call, ops)));
    }
}

/// Adds what every chunk of a completion bears.
fn dressed(mut chunk: Value, call: &Call) -> Value {
    if let Some(fields) = chunk.as_object_mut()
        && fields.contains_key("choices")
    {
        let model = call.shared.lock().requests[call.number].model.clone();
        fields.insert("id".into(), json!(format!("chatcmpl-{}", call.number)));
        fields.insert("object".into(), json!("chat.completion.chunk"));
        fields.insert("created".into(), json!(1));
        fields.insert("model".into(), json!(if model.is_empty() { SMALL } else { &model }));
    }
    chunk
}
