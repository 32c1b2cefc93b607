//! Clients that do a bit of everything, and write down what they were told.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};
use testkit::client::{text_of, text_prompt};
use testkit::{Client, Reply};

use super::history::{Deed, What};
use super::model::said;
use crate::figures::Draws;

/// How many sessions are worked on at the same time.
const SESSIONS: usize = 10;
/// How long an operation is tried again, under one name, before it counts as failed.
const PATIENCE: Duration = Duration::from_secs(90);
/// How long an answer is waited for before the request is sent again.
const SILENCE: Duration = Duration::from_secs(12);
/// How long a client does nothing between two operations, at most, in milliseconds.
const REST_MS: usize = 400;

/// What the clients of a run share.
#[derive(Debug, Clone)]
pub struct Shared {
    /// When the run began.
    pub start: Instant,
    /// Set when they are to come to their ends.
    pub stop: Arc<AtomicBool>,
    sessions: Arc<Mutex<Vec<Arc<Session>>>>,
    deeds: Arc<Mutex<Vec<Deed>>>,
}

/// A session that clients work on.
#[derive(Debug)]
struct Session {
    id: String,
    /// The client that sets its titles, and the last number that it gave.
    titles: (usize, AtomicUsize),
}

impl Shared {
    /// Nothing yet.
    pub fn new() -> Self {
        Self { start: Instant::now(), stop: Arc::default(), sessions: Arc::default(), deeds: Arc::default() }
    }

    /// What was done so far.
    pub fn deeds(&self) -> Vec<Deed> {
        self.deeds.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn sessions(&self) -> std::sync::MutexGuard<'_, Vec<Arc<Session>>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, session: &str, began: Duration, what: What) {
        let deed = Deed { session: session.to_owned(), began, ended: self.start.elapsed(), what };
        self.deeds.lock().unwrap_or_else(PoisonError::into_inner).push(deed);
    }
}

impl Default for Shared {
    fn default() -> Self {
        Self::new()
    }
}

/// The number at the end of a title.
pub fn number_of(title: &Value) -> u64 {
    title.as_str().and_then(|title| title.rsplit(' ').next()?.parse().ok()).unwrap_or_default()
}

/// One client.
pub struct Worker {
    number: usize,
    client: Client,
    draws: Draws,
    shared: Shared,
    done: usize,
}

impl Worker {
    /// A client of the balancer at `url`.
    pub fn new(number: usize, url: &str, seed: u64, shared: Shared) -> Self {
        let draws = Draws::from_seed(seed.wrapping_mul(31).wrapping_add(number as u64));
        Self { number, client: Client::new([url]), draws, shared, done: 0 }
    }

    /// Works until it is told to stop.
    pub async fn work(mut self) {
        while !self.shared.stop.load(Ordering::Relaxed) {
            self.done += 1;
            let sessions = self.shared.sessions().clone();
            if sessions.len() < SESSIONS {
                self.make().await;
            } else {
                let session = sessions[self.draws.below(sessions.len())].clone();
                self.work_on(&session).await;
            }
            tokio::time::sleep(Duration::from_millis(self.draws.below(REST_MS) as u64)).await;
        }
    }

    async fn work_on(&mut self, session: &Arc<Session>) {
        let path = format!("/session/{}", session.id);
        match self.draws.below(100) {
            0..40 => self.prompt(session, &format!("{path}/message"), "").await,
            40..50 => self.prompt(session, &format!("{path}/message"), " with a command").await,
            50..60 => self.prompt(session, &format!("{path}/prompt_async"), "").await,
            60..65 => self.remark(session, &path).await,
            65..70 => self.abort(session, &path).await,
            70..80 => self.title(session, &path).await,
            80..92 => self.read(session, &path).await,
            92..97 => self.status(session).await,
            _ => self.delete(session, &path).await,
        }
    }

    async fn make(&mut self) {
        let began = self.shared.start.elapsed();
        match self.insist(Method::POST, "/session", Some(json!({"title": "chaos 0"}))).await {
            Ok(reply) if reply.status == 200 => {
                let id = reply.json()["id"].as_str().unwrap_or_default().to_owned();
                self.shared.note(&id, began, What::Made);
                let titles = (self.number, AtomicUsize::new(0));
                self.shared.sessions().push(Arc::new(Session { id, titles }));
            }
            Ok(reply) => self.shared.note("a new one", began, unexpected(&reply)),
            Err(error) => self.shared.note("a new one", began, What::Failed(error)),
        }
    }

    /// A prompt that asks for an answer, waited for or not.
    async fn prompt(&mut self, session: &Session, path: &str, how: &str) {
        let text = format!("prompt {}.{}{how}", self.number, self.done);
        let began = self.shared.start.elapsed();
        let Some(reply) = self.sent(session, Method::POST, path, Some(text_prompt(&text))).await else { return };
        if reply.status == 200 {
            let answer = reply.json();
            let failed = !answer["info"]["error"].is_null();
            let answered = What::Answered { prompt: text.clone(), text: said(&answer), failed };
            self.shared.note(&session.id, began, answered);
        }
        self.shared.note(&session.id, began, What::Prompted { text, asks: true });
    }

    /// Something said that asks for no answer.
    async fn remark(&mut self, session: &Session, path: &str) {
        let text = format!("remark {}.{}", self.number, self.done);
        let began = self.shared.start.elapsed();
        let body = json!({"noReply": true, "parts": [{"type": "text", "text": text}]});
        if self.sent(session, Method::POST, &format!("{path}/message"), Some(body)).await.is_some() {
            self.shared.note(&session.id, began, What::Prompted { text, asks: false });
        }
    }

    async fn abort(&mut self, session: &Session, path: &str) {
        let began = self.shared.start.elapsed();
        if self.sent(session, Method::POST, &format!("{path}/abort"), Some(json!({}))).await.is_some() {
            self.shared.note(&session.id, began, What::Aborted);
        }
    }

    async fn title(&mut self, session: &Session, path: &str) {
        let (owner, last) = &session.titles;
        if *owner != self.number {
            return;
        }
        let number = last.fetch_add(1, Ordering::Relaxed) + 1;
        let began = self.shared.start.elapsed();
        let body = json!({"title": format!("chaos {number}")});
        if self.sent(session, Method::PATCH, path, Some(body)).await.is_some() {
            self.shared.note(&session.id, began, What::Titled(number as u64));
        }
    }

    async fn read(&mut self, session: &Session, path: &str) {
        let began = self.shared.start.elapsed();
        let Some(record) = self.sent(session, Method::GET, path, None).await else { return };
        let Some(messages) = self.sent(session, Method::GET, &format!("{path}/message"), None).await else { return };
        let messages = messages.json();
        let by_user = messages.as_array().into_iter().flatten().filter(|message| message["info"]["role"] == "user");
        let prompts = by_user.map(text_of).collect();
        self.shared.note(&session.id, began, What::Read { title: number_of(&record.json()["title"]), prompts });
    }

    async fn status(&mut self, session: &Session) {
        let began = self.shared.start.elapsed();
        if let Some(reply) = self.sent(session, Method::GET, "/session/status", None).await {
            let busy = !reply.json()[&session.id].is_null();
            self.shared.note(&session.id, began, What::Status { busy });
        }
    }

    async fn delete(&mut self, session: &Arc<Session>, path: &str) {
        let began = self.shared.start.elapsed();
        // Nobody begins anything new on it. What was begun is told that it is gone.
        self.shared.sessions().retain(|other| other.id != session.id);
        match self.insist(Method::DELETE, path, None).await {
            // Another client may have been faster.
            Ok(reply) if [200, 404].contains(&reply.status) => self.shared.note(&session.id, began, What::Deleted),
            Ok(reply) => self.shared.note(&session.id, began, unexpected(&reply)),
            Err(error) => self.shared.note(&session.id, began, What::Failed(error)),
        }
    }

    /// The answer of an operation that was acknowledged; else it is noted how it ended.
    async fn sent(&mut self, session: &Session, method: Method, path: &str, body: Option<Value>) -> Option<Reply> {
        let began = self.shared.start.elapsed();
        let what = match self.insist(method, path, body).await {
            Ok(reply) if [200, 204].contains(&reply.status) => return Some(reply),
            Ok(reply) if reply.status == 404 => What::Absent,
            Ok(reply) => unexpected(&reply),
            Err(error) => What::Failed(format!("{path}: {error}")),
        };
        self.shared.note(&session.id, began, what);
        None
    }

    /// Sends a request until it is answered for good: whoever is told to come again, or loses its connection, sends it again
    /// under the same name.
    async fn insist(&mut self, method: Method, path: &str, body: Option<Value>) -> Result<Reply, String> {
        let name = format!("chaos {}.{}", self.number, self.done);
        let bytes = body.map(|body| body.to_string().into_bytes());
        let mut headers = vec![("idempotency-key", &*name)];
        if bytes.is_some() {
            headers.push(("content-type", "application/json"));
        }
        let began = Instant::now();
        loop {
            let sent = self.client.try_send(method.clone(), path, &headers, bytes.clone());
            let outcome = match tokio::time::timeout(SILENCE, sent).await {
                Ok(Ok(reply)) if ![502, 503, 504, 507].contains(&reply.status) => return Ok(reply),
                Ok(Ok(reply)) => format!("{} {}", reply.status, reply.text()),
                Ok(Err(error)) => format!("{error:?}"),
                Err(_) => "no answer".to_owned(),
            };
            if began.elapsed() > PATIENCE {
                return Err(outcome);
            }
            tokio::time::sleep(Duration::from_millis(100 + self.draws.below(200) as u64)).await;
        }
    }
}

fn unexpected(reply: &Reply) -> What {
    What::Failed(format!("{} {}", reply.status, reply.text()))
}
