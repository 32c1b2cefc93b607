//! A scripted model: an OpenAI-compatible streaming server whose answers the test decides.

mod answer;
mod record;
mod serve;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use serde_json::Value;
use tokio::sync::oneshot;

pub use answer::{Answer, Gate, Usage};
pub use record::Recorded;

use crate::polling::eventually;

/// The name of the model that titles are asked of.
pub const SMALL: &str = "small";
/// The title that it gives unless a test says otherwise.
pub const DEFAULT_TITLE: &str = "A fitting title";

type Responder = Box<dyn Fn(&Value) -> Answer + Send>;

struct State {
    queue: VecDeque<Answer>,
    responder: Option<Responder>,
    title: Responder,
    requests: Vec<Recorded>,
    violations: Vec<String>,
}

impl State {
    fn answer(&mut self, body: &Value) -> Answer {
        if body["model"] == SMALL {
            return (self.title)(body);
        }
        if let Some(answer) = self.queue.pop_front() {
            return answer;
        }
        if let Some(responder) = &self.responder {
            return responder(body);
        }
        let asked = crate::transcript::last_user_text(body);
        self.violations.push(format!("no answer is scripted for a request, last asked: {asked:?}"));
        Answer::status(400, &serde_json::json!({"error": {"message": "no answer is scripted", "type": "script"}}))
    }
}

#[derive(Clone)]
struct Shared(Arc<Mutex<State>>);

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // A responder that panics must not hide the failure behind a poisoned lock.
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// A running scripted model. It serves on a thread of its own, so that a test that blocks does not block it.
///
/// Answers come from the queue first, then from [`respond_with`](Self::respond_with); a request for which there is
/// neither is a violation. Requests for the model [`SMALL`] get the title.
///
/// Dropping it panics if a request violated an invariant (unless the test is failing already).
pub struct ScriptedModel {
    url: String,
    port: u16,
    shared: Shared,
    stop: Option<oneshot::Sender<()>>,
    server: Option<std::thread::JoinHandle<()>>,
}

impl ScriptedModel {
    /// Starts the model on a free loopback port.
    pub async fn start() -> Self {
        let title: Responder = Box::new(|_| Answer::say(DEFAULT_TITLE));
        let state =
            State { queue: VecDeque::new(), responder: None, title, requests: Vec::new(), violations: Vec::new() };
        let shared = Shared(Arc::new(Mutex::new(state)));
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a free loopback port");
        listener.set_nonblocking(true).expect("a socket can be non-blocking");
        let address = listener.local_addr().expect("a bound socket has an address");
        let (url, port) = (format!("http://{address}/v1"), address.port());
        let (stop, stopped) = oneshot::channel();
        let server = std::thread::spawn({
            let shared = shared.clone();
            move || serve::serve(listener, shared, stopped)
        });
        Self { url, port, shared, stop: Some(stop), server: Some(server) }
    }

    /// The base URL for a provider's configuration: `http://127.0.0.1:PORT/v1`.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The port that it listens on.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Adds an answer to the queue.
    pub fn push(&self, answer: Answer) {
        self.shared.lock().queue.push_back(answer);
    }

    /// Adds answers to the queue.
    pub fn script(&self, answers: impl IntoIterator<Item = Answer>) {
        self.shared.lock().queue.extend(answers);
    }

    /// How many answers are queued still.
    pub fn queued(&self) -> usize {
        self.shared.lock().queue.len()
    }

    /// Answers by a function of the request whatever the queue has no answer for.
    pub fn respond_with(&self, responder: impl Fn(&Value) -> Answer + Send + 'static) {
        self.shared.lock().responder = Some(Box::new(responder));
    }

    /// Answers requests for a title by a function of the request.
    pub fn title_with(&self, responder: impl Fn(&Value) -> Answer + Send + 'static) {
        self.shared.lock().title = Box::new(responder);
    }

    /// Every request so far, in the order in which they came.
    pub fn requests(&self) -> Vec<Recorded> {
        self.shared.lock().requests.clone()
    }

    /// The requests so far that are not for a title.
    pub fn main_requests(&self) -> Vec<Recorded> {
        self.requests().into_iter().filter(|r| r.model != SMALL).collect()
    }

    /// One of the requests that are not for a title, by its place among them.
    pub fn main_request(&self, place: usize) -> Option<Recorded> {
        self.shared.lock().requests.iter().filter(|request| request.model != SMALL).nth(place).cloned()
    }

    /// Waits until there were so many requests that are not for a title, and returns them.
    ///
    /// # Panics
    /// When there were fewer within `bound`.
    pub async fn wait_main_requests(&self, count: usize, bound: Duration) -> Vec<Recorded> {
        eventually(bound, &format!("{count} model requests"), || async {
            Some(self.main_requests()).filter(|requests| requests.len() >= count)
        })
        .await
    }

    /// How many of a session's requests were open at the same time, at most; those for titles aside.
    pub fn concurrent_runs(&self, session: &str) -> usize {
        let state = self.shared.lock();
        let of_session = |r: &&Recorded| r.model != SMALL && r.session.as_deref() == Some(session);
        let requests: Vec<&Recorded> = state.requests.iter().filter(of_session).collect();
        record::most_at_once(&requests)
    }

    /// What was wrong so far.
    pub fn violations(&self) -> Vec<String> {
        self.shared.lock().violations.clone()
    }

    /// Takes what was wrong so far, so that it fails the test no longer.
    pub fn take_violations(&self) -> Vec<String> {
        std::mem::take(&mut self.shared.lock().violations)
    }

    /// Ends the model.
    ///
    /// # Panics
    /// When a request violated an invariant.
    pub fn finish(self) {
        drop(self);
    }
}

impl Drop for ScriptedModel {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _already_ended = stop.send(());
        }
        let served = self.server.take().map(std::thread::JoinHandle::join);
        if std::thread::panicking() {
            return;
        }
        assert!(matches!(served, Some(Ok(()))), "the scripted model panicked");
        let violations = self.take_violations();
        assert!(violations.is_empty(), "the model was asked wrongly:\n{}", violations.join("\n"));
    }
}
