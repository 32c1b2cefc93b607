//! What a fleet does while its Redis is away, and afterwards.

use crate::figures;
use crate::screen::shows_what_is_stored;
use reqwest::Method;
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use testkit::client::{text_of, text_prompt};
use testkit::model::Gate;
use testkit::{Answer, BOUND, EventReader, World, eventually};
use tokio::task::JoinHandle;

/// How long a refusal may take on a machine that is busy with other tests. The figure tells what it takes.
const REFUSED_WITHIN: Duration = Duration::from_secs(2);

/// A fleet at work: on each replica a run in the middle of its answer with a caller that waits for it, and a reader of
/// events that comes back whenever it is cut.
#[derive(Debug)]
pub struct AtWork {
    sessions: Vec<String>,
    prompts: Vec<JoinHandle<Value>>,
    readers: Vec<EventReader>,
    gate: Gate,
    refused: Vec<Duration>,
}

impl AtWork {
    /// Begins. Whatever is asked after the first answers is answered at once.
    pub async fn begin(world: &World) -> Self {
        let gate = Gate::new();
        let (mut sessions, mut prompts, mut readers) = (Vec::new(), Vec::new(), Vec::new());
        for number in 0..3 {
            readers.push(world.faithful_events(number).await);
            world.model.push(Answer::new().text("half ").wait(&gate).text("rest").stop());
        }
        world.model.respond_with(|_| Answer::say("whole"));
        for number in 0..3 {
            let session = world.session().await;
            prompts.push(world.spawn_prompt(number, &session, "go"));
            sessions.push(session);
        }
        gate.reached_by(3).await;
        Self { sessions, prompts, readers, gate, refused: Vec::new() }
    }

    /// The session that runs on a replica.
    pub fn session(&self, number: usize) -> &str {
        &self.sessions[number]
    }

    /// The reader at a replica.
    pub fn reader(&mut self, number: usize) -> &mut EventReader {
        &mut self.readers[number]
    }

    /// Checks a replica that cannot reach Redis: reads are answered, what writes is refused in time with `Retry-After`.
    pub async fn is_cut_off(&mut self, world: &World, number: usize) {
        let client = world.at(number);
        let (own, other) = (&self.sessions[number], &self.sessions[(number + 1) % 3]);
        for path in ["/session", "/session/status", "/permission", "/question", "/config", "/agent"] {
            assert_eq!(client.get(path).await.status, 200, "{path} on replica {number}");
        }
        for session in [own, other] {
            for path in ["", "/message", "/todo", "/children"] {
                assert_eq!(client.get(&format!("/session/{session}{path}")).await.status, 200, "{path}");
            }
        }
        for (method, path, body) in [
            (Method::PATCH, format!("/session/{other}"), json!({"title": "not now"})),
            (Method::POST, format!("/session/{other}/message"), text_prompt("not now")),
            (Method::POST, format!("/session/{other}/prompt_async"), text_prompt("not now")),
            (Method::POST, format!("/session/{other}/abort"), json!({})),
            (Method::DELETE, format!("/session/{other}"), json!({})),
        ] {
            let began = Instant::now();
            let json = [("content-type", "application/json")];
            let reply = client.send(method.clone(), &path, &json, Some(body.to_string().into_bytes())).await;
            let took = began.elapsed();
            let what = format!("{method} {path} on replica {number}: {}", reply.text());
            assert_eq!((reply.status, reply.header("retry-after")), (503, "1"), "{what}");
            assert!(took < REFUSED_WITHIN, "{took:?}: {what}");
            self.refused.push(took);
        }
    }

    /// Waits until a replica knows that it cannot reach Redis, and checks that it makes no sessions then.
    pub async fn knows_it(&mut self, world: &World, number: usize) {
        let client = world.at(number);
        eventually(BOUND, "a replica to be unready", || async {
            (client.get("/readyz").await.status == 503).then_some(())
        })
        .await;
        let reply = client.post("/session", &json!({})).await;
        assert_eq!((reply.status, reply.header("retry-after")), (503, "1"), "{}", reply.text());
        self.is_cut_off(world, number).await;
    }

    /// Waits until a replica is frozen and its runs are parked.
    pub async fn parks(&self, world: &World, number: usize) {
        let session = &self.sessions[number];
        eventually(BOUND, "a run to park", || async {
            let requests = world.model.main_requests();
            requests.iter().find(|request| request.session.as_ref() == Some(session) && request.disconnected).map(drop)
        })
        .await;
    }

    /// Checks that no stream of events was cut since it was opened.
    pub fn streams_are_open(&self) {
        for reader in &self.readers {
            assert_eq!(reader.connections(), 1, "a stream was cut");
        }
    }

    /// Waits until each replica takes writes again; returns how long it took.
    pub async fn is_back(&self, world: &World) -> Duration {
        let began = Instant::now();
        for number in 0..3 {
            let path = format!("/session/{}", self.sessions[number]);
            eventually(BOUND, "writes to be taken again", || async {
                (world.at(number).patch(&path, &json!({"title": "taken again"})).await.status == 200).then_some(())
            })
            .await;
        }
        began.elapsed()
    }

    /// Ends the work: each caller gets a whole answer, from one run; each screen shows what is stored. Prints the figure
    /// of the refusals.
    pub async fn finish(mut self, world: &World, what: &str) {
        self.gate.release();
        for prompt in self.prompts {
            let reply = prompt.await.unwrap_or_else(|error| panic!("a caller broke off: {error}"));
            assert_eq!(reply["info"]["finish"], "stop", "{reply}");
            assert!(reply["info"]["error"].is_null(), "{reply}");
            assert!(["half rest", "whole"].contains(&text_of(&reply).as_str()), "{reply}");
        }
        for session in &self.sessions {
            assert_eq!(world.model.concurrent_runs(session), 1);
            assert_eq!(world.at(0).get(&format!("/session/{session}")).await.ok()["title"], "taken again");
            for (number, reader) in self.readers.iter().enumerate() {
                shows_what_is_stored(reader, &world.at(number), session).await;
            }
        }
        for number in 0..3 {
            eventually(BOUND, "no session to be busy", || async {
                (world.at(number).get("/session/status").await.ok() == json!({})).then_some(())
            })
            .await;
        }
        if !self.refused.is_empty() {
            figures::print(&format!("{what}: a write refused"), &mut self.refused);
        }
    }
}
