//! Clients that work through a balancer and take nothing amiss but a failure.

use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use testkit::client::{text_of, text_prompt};
use testkit::{Answer, BOUND, Client, World, eventually, transcript};
use tokio::task::JoinSet;

/// How the model answers a prompt of the load.
fn answer_to(prompt: &str) -> String {
    format!("answer to {prompt}")
}

/// Makes the model answer the prompts of a load, in some pieces, each after `pause`.
pub fn answer(world: &World, pause: Duration) {
    world.model.respond_with(move |body| {
        // After a take-over the conversation may end otherwise than with the prompt.
        let prompts = transcript::user_texts(body);
        let prompt = prompts.iter().rev().find(|text| text.starts_with("prompt ")).cloned().unwrap_or_default();
        Answer::new().text_chunks(answer_to(&prompt).split_inclusive(' '), pause).stop()
    });
}

/// How many prompts a session gets: then its client begins another one, so that a long load grows no long history.
const PROMPTS_OF_A_SESSION: usize = 40;

/// Clients at work. Each has a session of its own at a time.
#[derive(Debug)]
pub struct Load {
    clients: JoinSet<Worked>,
    stop: Arc<AtomicBool>,
    done: Arc<AtomicU64>,
}

/// What one client did.
#[derive(Debug)]
struct Worked {
    sessions: Vec<Talk>,
    failures: Vec<String>,
}

/// A session and the prompts that it got.
#[derive(Debug)]
struct Talk {
    session: String,
    prompts: Vec<String>,
}

impl Load {
    /// Starts clients of the balancer at `url`.
    pub fn start(url: &str, clients: usize) -> Self {
        let (stop, done) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let mut tasks = JoinSet::new();
        for number in 0..clients {
            let (client, stop, done) = (Client::new([url]), stop.clone(), done.clone());
            tasks.spawn(async move { work(client, number, &stop, &done).await });
        }
        Self { clients: tasks, stop, done }
    }

    /// Waits until so many more prompts are answered.
    pub async fn goes_on(&self, prompts: u64) {
        let goal = self.done.load(Ordering::Relaxed) + prompts;
        eventually(BOUND, "the load to go on", || async { (self.done.load(Ordering::Relaxed) >= goal).then_some(()) })
            .await;
    }

    /// Ends the load and checks that no request failed, that each prompt is stored once, in its order, and answered.
    /// Returns how many there were.
    ///
    /// # Panics
    /// When something is amiss.
    pub async fn finish(mut self, world: &World) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        let (mut talks, mut failures) = (Vec::new(), Vec::new());
        while let Some(worked) = self.clients.join_next().await {
            let worked = worked.unwrap_or_else(|error| panic!("a client broke off: {error}"));
            failures.extend(worked.failures);
            talks.extend(worked.sessions);
        }
        assert!(failures.is_empty(), "{} failures: {failures:#?}", failures.len());
        for talk in &talks {
            talk.check(world).await;
        }
        talks.iter().map(|talk| talk.prompts.len()).sum()
    }
}

impl Talk {
    /// Checks that each prompt is stored once, in its order, and answered once, by one run at a time.
    async fn check(&self, world: &World) {
        let said = world.client().messages(&self.session).await;
        let is_from = |message: &&Value, role: &str| message["info"]["role"] == *role;
        let asked: Vec<String> = said.iter().filter(|message| is_from(message, "user")).map(text_of).collect();
        assert_eq!(asked, self.prompts, "each prompt is stored once");
        for prompt in &self.prompts {
            // One that died with its replica keeps its text, and is not finished.
            let wanted = answer_to(prompt);
            let finished = said.iter().filter(|message| message["info"]["finish"] == "stop");
            assert_eq!(finished.filter(|message| text_of(message) == wanted).count(), 1, "{prompt}: {said:#?}");
        }
        assert!(world.model.concurrent_runs(&self.session) <= 1, "two runs of {}", self.session);
    }
}

/// One client, until it is told to stop.
async fn work(client: Client, number: usize, stop: &AtomicBool, done: &AtomicU64) -> Worked {
    let mut worked = Worked { sessions: Vec::new(), failures: Vec::new() };
    for round in 0.. {
        if stop.load(Ordering::Relaxed) || !worked.failures.is_empty() {
            break;
        }
        if round % PROMPTS_OF_A_SESSION == 0 {
            let title = Some(json!({"title": "load"}));
            let Some(session) = request(&client, "POST", "/session", title, &mut worked).await else { break };
            let session = session["id"].as_str().unwrap_or_default().to_owned();
            worked.sessions.push(Talk { session, prompts: Vec::new() });
        }
        let Some(talk) = worked.sessions.last_mut() else { break };
        let prompt = format!("prompt {number}.{round}");
        talk.prompts.push(prompt.clone());
        let path = format!("/session/{}", talk.session);
        let body = Some(text_prompt(&prompt));
        if round % 3 == 2 {
            request(&client, "POST", &format!("{path}/prompt_async"), body, &mut worked).await;
            answered(&client, &path, &prompt, &mut worked).await;
        } else if let Some(reply) = request(&client, "POST", &format!("{path}/message"), body, &mut worked).await
            && text_of(&reply) != answer_to(&prompt)
        {
            worked.failures.push(format!("{prompt} was answered {:?}", text_of(&reply)));
        }
        let title = format!("title {round}");
        let changed = request(&client, "PATCH", &path, Some(json!({"title": title})), &mut worked).await;
        if let Some(changed) = changed.filter(|changed| changed["title"] != *title) {
            worked.failures.push(format!("the title is {}", changed["title"]));
        }
        if let Some(made) = request(&client, "POST", "/session", Some(json!({"title": "passing"})), &mut worked).await {
            let path = format!("/session/{}", made["id"].as_str().unwrap_or_default());
            request(&client, "DELETE", &path, None, &mut worked).await;
        }
        done.fetch_add(1, Ordering::Relaxed);
    }
    worked
}

/// Waits for the answer to a prompt that nobody waits for.
async fn answered(client: &Client, path: &str, prompt: &str, worked: &mut Worked) {
    let wanted = answer_to(prompt);
    for _ in 0..600 {
        let Some(messages) = request(client, "GET", &format!("{path}/message"), None, worked).await else { return };
        let is_it = |message: &Value| text_of(message) == wanted && message["info"]["finish"] == "stop";
        if messages.as_array().is_some_and(|messages| messages.iter().any(is_it)) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    worked.failures.push(format!("{prompt} was not answered in 30 s"));
}

/// Sends a request once. None, and a failure, unless it is answered with a 2xx.
async fn request(client: &Client, method: &str, path: &str, body: Option<Value>, worked: &mut Worked) -> Option<Value> {
    let what = format!("{method} {path}");
    let bytes = body.map(|body| body.to_string().into_bytes());
    let kind = [("content-type", "application/json")];
    let headers: &[(&str, &str)] = if bytes.is_some() { &kind } else { &[] };
    let method = reqwest::Method::from_bytes(method.as_bytes()).ok()?;
    match client.try_send(method, path, headers, bytes).await {
        Ok(reply) if reply.status == 204 => None,
        Ok(reply) if reply.status == 200 => Some(reply.json()),
        Ok(reply) => {
            worked.failures.push(format!("{what}: {} {}", reply.status, reply.text()));
            None
        }
        Err(error) => {
            worked.failures.push(format!("{what}: {error:?}"));
            None
        }
    }
}
