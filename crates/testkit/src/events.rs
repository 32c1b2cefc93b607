//! A reader of event streams.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use serde_json::Value;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use crate::client::http;
use crate::contract::Contract;
use crate::sse::SseParser;

/// How long a client that comes back waits: what streams tell by `retry:`.
const RETRY: Duration = Duration::from_millis(200);

/// How long a stream may take until its first event.
const OPEN_BOUND: Duration = Duration::from_secs(20);

/// One event as it came.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// The `id:` line of the frame, if it had one.
    pub id: Option<String>,
    /// The JSON of the frame.
    pub data: Value,
}

impl Event {
    /// The event itself: of `/global/event` what is in the envelope.
    pub fn payload(&self) -> &Value {
        self.data.get("payload").unwrap_or(&self.data)
    }

    /// Its type.
    pub fn kind(&self) -> &str {
        self.payload()["type"].as_str().unwrap_or_default()
    }

    /// Its properties.
    pub fn properties(&self) -> &Value {
        &self.payload()["properties"]
    }

    /// Whether it belongs to the stream itself (`server.*`), so that it differs from stream to stream.
    pub fn is_of_the_stream(&self) -> bool {
        self.kind().starts_with("server.connected") || self.kind().starts_with("server.heartbeat")
    }
}

#[derive(Debug, Default)]
struct Heard {
    events: Vec<Event>,
    last_id: Option<String>,
    retry: Option<u64>,
    /// How the present connection ended: `Ok` cleanly, `Err` cut.
    ended: Option<Result<(), String>>,
}

#[derive(Debug, Default)]
struct Shared {
    contract: Option<Contract>,
    heard: Mutex<Heard>,
    more: Notify,
}

/// Reads a stream of events in the background and keeps all of it, over reconnections too.
#[derive(Debug)]
pub struct EventReader {
    shared: Arc<Shared>,
    headers: Vec<(String, String)>,
    task: JoinHandle<()>,
    looked_at: usize,
}

impl EventReader {
    /// Opens the stream and waits for its first event, so that whatever happens from then on is on it.
    pub async fn open(url: &str, headers: &[(String, String)]) -> Self {
        Self::open_under(url, headers, None).await
    }

    /// As [`open`](Self::open). What comes is held against the contract, if there is one.
    pub async fn open_under(url: &str, headers: &[(String, String)], contract: Option<Contract>) -> Self {
        let shared = Arc::new(Shared { contract, ..Shared::default() });
        let task = tokio::spawn(read(url.to_string(), headers.to_vec(), None, shared.clone()));
        let reader = Self { shared, headers: headers.to_vec(), task, looked_at: 0 };
        reader.wait_for_more(0).await;
        reader
    }

    /// As [`open`](Self::open). Whenever the connection ends, however it does, it is made again with `Last-Event-ID`, as
    /// the official clients do.
    pub async fn open_again_and_again(url: &str, headers: &[(String, String)], contract: Option<Contract>) -> Self {
        let shared = Arc::new(Shared { contract, ..Shared::default() });
        let task = tokio::spawn(follow_again_and_again(url.to_owned(), headers.to_vec(), shared.clone()));
        let reader = Self { shared, headers: headers.to_vec(), task, looked_at: 0 };
        reader.wait_for_more(0).await;
        reader
    }

    /// How often it has been connected.
    pub fn connections(&self) -> usize {
        self.collected().iter().filter(|event| event.kind() == "server.connected").count()
    }

    /// Opens the stream after an event and waits for nothing: it may be cut before the first.
    pub fn begin(url: &str, headers: &[(String, String)], last_id: Option<String>) -> Self {
        let shared = Arc::new(Shared::default());
        shared.heard.lock().unwrap().last_id.clone_from(&last_id);
        let task = tokio::spawn(read(url.to_string(), headers.to_vec(), last_id, shared.clone()));
        Self { shared, headers: headers.to_vec(), task, looked_at: 0 }
    }

    /// Opens the stream again after the last event that was seen, and waits for nothing.
    pub fn resume(&mut self, url: &str) {
        self.task.abort();
        let last_id = self.last_id();
        self.shared.heard.lock().unwrap().ended = None;
        self.task = tokio::spawn(read(url.to_string(), self.headers.clone(), last_id, self.shared.clone()));
    }

    /// As [`resume`](Self::resume), and again whenever the connection ends, however it does, as the official clients do.
    pub fn resume_again_and_again(&mut self, url: &str) {
        self.task.abort();
        self.task = tokio::spawn(follow_again_and_again(url.to_owned(), self.headers.clone(), self.shared.clone()));
    }

    /// Drops the connection, as a client that lost its network.
    pub fn cut(&mut self) {
        self.task.abort();
    }

    /// Drops the connection if there is one and opens the stream at another address, with `Last-Event-ID` if any id
    /// was seen. Returns after the first event of the new stream.
    pub async fn reconnect(&mut self, url: &str) {
        let last_id = self.last_id();
        self.reopen(url, last_id).await;
    }

    /// As [`reconnect`](Self::reconnect), with this `Last-Event-ID` or none.
    pub async fn reopen(&mut self, url: &str, last_id: Option<String>) {
        self.task.abort();
        let heard_before = {
            let mut heard = self.shared.heard.lock().unwrap();
            heard.ended = None;
            heard.events.len()
        };
        self.task = tokio::spawn(read(url.to_string(), self.headers.clone(), last_id, self.shared.clone()));
        self.wait_for_more(heard_before).await;
    }

    /// Everything that came so far.
    pub fn collected(&self) -> Vec<Event> {
        self.shared.heard.lock().unwrap().events.clone()
    }

    /// Whether such an event came so far.
    pub fn has(&self, predicate: impl Fn(&Event) -> bool) -> bool {
        self.shared.heard.lock().unwrap().events.iter().rev().any(predicate)
    }

    /// What came so far of a session: the events whose properties name it.
    pub fn of_session(&self, session: &str) -> Vec<Event> {
        self.collected().into_iter().filter(|e| names_session(e, session)).collect()
    }

    /// The newest id that was seen.
    pub fn last_id(&self) -> Option<String> {
        self.shared.heard.lock().unwrap().last_id.clone()
    }

    /// The newest `retry:` that was seen, in milliseconds.
    pub fn retry(&self) -> Option<u64> {
        self.shared.heard.lock().unwrap().retry
    }

    /// How the connection ended: `Ok` cleanly, `Err` cut; nothing while it is open.
    pub fn ended(&self) -> Option<Result<(), String>> {
        self.shared.heard.lock().unwrap().ended.clone()
    }

    /// Waits for the next event that satisfies the predicate, after the one that the call before returned.
    ///
    /// # Panics
    /// When none comes within `bound`; the message lists the kinds that came.
    pub async fn until(&mut self, bound: Duration, what: &str, predicate: impl Fn(&Event) -> bool) -> Event {
        let began = Instant::now();
        loop {
            let notified = self.shared.more.notified();
            let found = {
                let heard = self.shared.heard.lock().unwrap();
                let found = heard.events.iter().enumerate().skip(self.looked_at).find(|(_, e)| predicate(e));
                found.map(|(at, event)| (at, event.clone()))
            };
            if let Some((at, event)) = found {
                self.looked_at = at + 1;
                return event;
            }
            let left = bound.saturating_sub(began.elapsed());
            if left.is_zero() {
                let kinds: Vec<String> = self.collected().iter().map(|e| e.kind().to_string()).collect();
                panic!("no {what} within {bound:?}; the stream ended: {:?}; it had {kinds:?}", self.ended());
            }
            // A short bound beside the notification, which may have come between the two looks.
            let _ = tokio::time::timeout(left.min(Duration::from_millis(50)), notified).await;
        }
    }

    /// Waits for the next event of this type.
    pub async fn until_kind(&mut self, bound: Duration, kind: &str) -> Event {
        self.until(bound, kind, |event| event.kind() == kind).await
    }

    /// Waits until the session is idle: its `session.idle`.
    pub async fn until_idle(&mut self, bound: Duration, session: &str) -> Event {
        let idle = |event: &Event| event.kind() == "session.idle" && names_session(event, session);
        self.until(bound, "session.idle", idle).await
    }

    async fn wait_for_more(&self, than: usize) {
        crate::polling::eventually(OPEN_BOUND, "the first event of a stream", || async {
            let heard = self.shared.heard.lock().unwrap();
            assert!(!matches!(heard.ended, Some(Err(_))), "the stream did not open: {:?}", heard.ended);
            (heard.events.len() > than).then_some(())
        })
        .await;
    }
}

impl Drop for EventReader {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Whether an event names this session, however it does.
pub fn names_session(event: &Event, session: &str) -> bool {
    let properties = event.properties();
    [
        &properties["sessionID"],
        &properties["info"]["id"],
        &properties["info"]["sessionID"],
        &properties["part"]["sessionID"],
    ]
    .into_iter()
    .any(|id| id == session)
}

async fn read(url: String, headers: Vec<(String, String)>, last_id: Option<String>, shared: Arc<Shared>) {
    let ended = follow(&url, headers, last_id, &shared).await;
    shared.heard.lock().unwrap().ended = Some(ended);
    shared.more.notify_waiters();
}

async fn follow_again_and_again(url: String, headers: Vec<(String, String)>, shared: Arc<Shared>) {
    loop {
        let last_id = shared.heard.lock().unwrap().last_id.clone();
        let _however = follow(&url, headers.clone(), last_id, &shared).await;
        tokio::time::sleep(RETRY).await;
    }
}

async fn follow(
    url: &str,
    headers: Vec<(String, String)>,
    last_id: Option<String>,
    shared: &Shared,
) -> Result<(), String> {
    let mut request = http().get(url).header("accept", "text/event-stream");
    for (name, value) in headers {
        request = request.header(name, value);
    }
    let path = url.match_indices('/').nth(2).map_or("/", |(at, _)| &url[at..]);
    if let Some(id) = last_id {
        request = request.header("last-event-id", id);
    }
    let response = request.send().await.map_err(|e| format!("{e:?}"))?;
    if !response.status().is_success() {
        return Err(format!("status {}", response.status()));
    }
    let mut parser = SseParser::default();
    let mut bytes = response.bytes_stream();
    while let Some(piece) = bytes.next().await {
        let piece = piece.map_err(|e| format!("{e:?}"))?;
        for frame in parser.push(&piece) {
            let mut heard = shared.heard.lock().unwrap();
            heard.retry = frame.retry.or(heard.retry);
            if frame.id.is_some() {
                heard.last_id.clone_from(&frame.id);
            }
            if let Some(data) = frame.data {
                let data = serde_json::from_str(&data).map_err(|e| format!("{e}: {data}"))?;
                if let Some(contract) = &shared.contract {
                    contract.see_event(path, &data);
                }
                heard.events.push(Event { id: frame.id, data });
            }
        }
        shared.more.notify_waiters();
    }
    Ok(())
}
