//! Doing to Flotilla what was done to OpenCode. Test code: a failed expectation panics, and that is how a test fails.
#![allow(clippy::expect_used, reason = "a failed expectation is how a test fails")]

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};
use tempfile::TempDir;
use testkit::client::encoded;
use testkit::work_tree::{folder, repository};
use testkit::{BOUND, Client, EventReader, Reply, ScriptedModel, World};
use tokio::task::JoinHandle;

use super::compare::compare;
use super::events::kind;
use super::fixture::{Conversation, Recording, Request};
use super::ignored::Ignored;
use super::script::{Gates, Until, responder};
use super::text::Names;

/// How long it may take at the end until the last event is told.
const LAST_EVENT: Duration = Duration::from_secs(5);
/// Pauses between two looks at what was told.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// The headers of answers that are compared.
const HEADERS: [&str; 9] = [
    "content-type",
    "x-next-cursor",
    "link",
    "access-control-expose-headers",
    "access-control-allow-origin",
    "access-control-allow-methods",
    "access-control-allow-headers",
    "access-control-max-age",
    "www-authenticate",
];
/// What ids begin with that a client of a recording chose. Each time it is played they are others: an id is given once.
const CHOSEN: &str = "msg_zzzzzzzzzzzz";
/// The title of the session that is created at the end, so that its event shows that all before it were told.
const THE_END: &str = "the end of a recording";

/// Sends the requests of a recording, each to the next replica, in a work tree of their own, and collects the answers
/// and what one reader is told. `time` counts how often it was played before: less than ten.
///
/// # Panics
/// When the replicas cannot be reached.
pub async fn play(world: &World, name: &str, recording: &Recording, ignored: &Ignored, time: usize) -> Conversation {
    let model = ScriptedModel::start().await;
    let gates = Gates::default();
    let outside = folder(&files(&recording.outside, model.url()));
    let outside = Outside { path: outside.path().to_string_lossy().into_owned(), _files: outside };
    let pages = model.url().trim_end_matches("/v1").to_owned();
    let script = |answers: &[Value]| -> Vec<Value> {
        let text = json!(answers).to_string().replace("<pages>", &pages).replace("<outside>", &outside.path);
        serde_json::from_str(&text).expect("what was JSON is JSON still")
    };
    model.respond_with(responder(script(&recording.model.main), &gates, "(default reply)"));
    model.title_with(responder(script(&recording.model.small), &gates, "A fake title"));
    let files = files(&recording.files, model.url());
    let work = if recording.repository { repository(&files) } else { folder(&files) };
    let directory = work.path().to_string_lossy().into_owned();
    let path = format!("/event?directory={}", encoded(&directory));
    let stage = Arc::new(Stage {
        client: world.client(),
        directory,
        outside,
        pages,
        data: world.data_dir().to_string_lossy().into_owned(),
        chosen: format!("{}{time}", &CHOSEN[..CHOSEN.len() - 1]),
        events: world.client().events(&path).await,
        heard: Mutex::default(),
        over: Mutex::default(),
    });
    let watch = stage.watch(gates);
    let answers = stage.play(name, recording, ignored).await;
    let recorded = recording.conversation();
    let began = Instant::now();
    let (mut count, mut compared) = (0, false);
    while began.elapsed() < LAST_EVENT {
        let events = stage.told();
        // Compared when nothing came since the last look.
        if events.len() != count {
            (count, compared) = (events.len(), false);
        } else if !compared {
            compared = true;
            let here = Conversation { answers: answers.clone(), events };
            if compare(name, &recorded, &here, ignored).differences.is_empty() {
                break;
            }
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    let mut events = stage.to_the_end().await;
    watch.abort();
    for violation in model.take_violations() {
        events.push(json!({"type": "the model was asked wrongly", "properties": violation}));
    }
    Conversation { answers, events }
}

/// The directory outside of the work tree.
struct Outside {
    path: String,
    _files: TempDir,
}

fn files(files: &Map<String, Value>, model_url: &str) -> Vec<(String, Vec<u8>)> {
    let bytes = |file: &Value| match file {
        Value::String(text) => text.clone().into_bytes(),
        Value::Object(fields) if fields.contains_key("base64") => {
            testkit::client::from_base64(fields["base64"].as_str().unwrap_or_default())
        }
        json => json.to_string().replace("<model>", model_url).into_bytes(),
    };
    files.iter().map(|(path, file)| (path.clone(), bytes(file))).collect()
}

/// Where a recording is played.
struct Stage {
    client: Client,
    directory: String,
    outside: Outside,
    pages: String,
    data: String,
    /// What stands here for what ids begin with that a client chose.
    chosen: String,
    events: EventReader,
    /// The events so far, as a recording has them, and how many frames they come from.
    heard: Mutex<(usize, Vec<Value>)>,
    /// The steps that were answered, or left.
    over: Mutex<HashSet<usize>>,
}

impl Stage {
    async fn play(self: &Arc<Self>, name: &str, recording: &Recording, ignored: &Ignored) -> Vec<Value> {
        let recorded = recording.conversation();
        let mut names = Names::default();
        let mut answers = vec![Value::Null; recording.steps.len()];
        let mut open: BTreeMap<usize, JoinHandle<Value>> = BTreeMap::new();
        for (number, step) in recording.steps.iter().enumerate() {
            for before in (0..number).filter(|before| !step.meanwhile.contains(before)) {
                if let Some(answer) = open.remove(&before) {
                    answers[before] = answer.await.expect("a request does not panic");
                }
            }
            self.wait_for(&step.after).await;
            let request = json!({"path": step.send.path, "headers": step.send.headers, "body": step.send.body,
                "raw": step.send.raw})
            .to_string();
            if names.put_into(&request).is_none() {
                let here = Conversation { answers: answers.clone(), events: self.told() };
                names = compare(name, &recorded, &here, ignored).names;
            }
            let request =
                names.put_into(&request).and_then(|text| serde_json::from_str::<Value>(&self.here(&text)).ok());
            let Some(request) = request else {
                answers[number] = json!("not sent: an id that it names is not known");
                continue;
            };
            let request = Request {
                method: step.send.method.clone(),
                path: request["path"].as_str().unwrap_or_default().to_owned(),
                headers: serde_json::from_value(request["headers"].clone()).unwrap_or_default(),
                body: step.send.body.as_ref().map(|_| request["body"].clone()),
                raw: request["raw"].as_str().map(str::to_owned),
            };
            let sent = self.send(number, request);
            match &step.left {
                Some(kinds) => {
                    self.wait_for(kinds).await;
                    sent.abort();
                    self.is_over(number);
                }
                None => {
                    open.insert(number, sent);
                }
            }
        }
        for (number, answer) in open {
            answers[number] = answer.await.expect("a request does not panic");
        }
        answers
    }

    /// Sends a request in a task of its own.
    fn send(self: &Arc<Self>, number: usize, request: Request) -> JoinHandle<Value> {
        let method = request.method.parse().expect("a method");
        let mut headers: Vec<(String, String)> = request.headers.into_iter().collect();
        let is_told = |name: &str| headers.iter().any(|(told, _)| told == name);
        if !request.path.contains("directory=") && !is_told("x-opencode-directory") {
            headers.push(("x-opencode-directory".into(), encoded(&self.directory)));
        }
        let body = request.raw.map(String::into_bytes).or(request.body.map(|body| body.to_string().into_bytes()));
        if body.is_some() && !headers.iter().any(|(name, _)| name == "content-type") {
            headers.push(("content-type".into(), "application/json".into()));
        }
        let stage = self.clone();
        tokio::spawn(async move {
            let headers: Vec<(&str, &str)> = headers.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
            let server = stage.client.next_url();
            let client = stage.client.only(&server);
            let reply = tokio::time::timeout(BOUND, client.try_send(method, &request.path, &headers, body)).await;
            stage.is_over(number);
            match reply {
                Ok(Ok(reply)) => {
                    let text = answer(&reply).to_string().replace(&server, "<server>");
                    stage.as_recorded(&serde_json::from_str(&text).unwrap_or(Value::Null))
                }
                Ok(Err(error)) => json!(format!("no answer: {error:?}")),
                Err(_) => json!(format!("no answer within {BOUND:?}")),
            }
        })
    }

    fn is_over(&self, number: usize) {
        self.over.lock().unwrap_or_else(PoisonError::into_inner).insert(number);
    }

    /// The events so far, as a recording has them.
    fn told(&self) -> Vec<Value> {
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        let frames = self.events.collected();
        let new = frames.iter().skip(heard.0).filter(|event| !event.is_of_the_stream());
        let new: Vec<Value> = new.map(|event| self.as_recorded(&plain(event.data.clone()))).collect();
        heard.0 = frames.len();
        heard.1.extend(new);
        heard.1.clone()
    }

    /// Waits until so much was told. Where that takes too long, what follows differs and shows it.
    async fn wait_for(&self, kinds: &BTreeMap<String, usize>) {
        let began = Instant::now();
        while !was_told(&self.told(), kinds) && began.elapsed() < BOUND {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Opens the gates of the model when what they wait for has come.
    fn watch(self: &Arc<Self>, gates: Gates) -> JoinHandle<()> {
        let stage = self.clone();
        tokio::spawn(async move {
            loop {
                gates.open(|until| match until {
                    Until::Step(number) => stage.over.lock().unwrap_or_else(PoisonError::into_inner).contains(number),
                    Until::Told(kinds) => was_told(&stage.told(), kinds),
                });
                tokio::time::sleep(LOOK_EVERY).await;
            }
        })
    }

    /// All events up to that of a session which is created now.
    async fn to_the_end(&self) -> Vec<Value> {
        let headers = [("content-type", "application/json"), ("x-opencode-directory", &*encoded(&self.directory))];
        let body = json!({"title": THE_END}).to_string().into_bytes();
        let created = self.client.send("POST".parse().expect("a method"), "/session", &headers, Some(body)).await;
        assert_eq!(created.status, 200, "{}", created.text());
        let is_the_end = |event: &Value| event["properties"]["info"]["title"] == THE_END;
        testkit::eventually(BOUND, "the last event", || async { self.told().iter().any(is_the_end).then_some(()) })
            .await;
        self.told().into_iter().take_while(|event| !is_the_end(event)).collect()
    }

    /// The same with what stands for places in recordings.
    fn as_recorded(&self, value: &Value) -> Value {
        let model = format!("{}/v1", self.pages);
        let outside = self.outside.path.rsplit('/').next().unwrap_or_default();
        let places = [
            (&*self.outside.path, "<outside>"),
            (outside, "<outside name>"),
            (&*self.directory, "<work>"),
            (self.directory.trim_start_matches('/'), "<work of />"),
            (&*encoded(&self.directory), "<work%2F>"),
            (&*self.data, "<data>"),
            (&*model, "<model>"),
            (&*self.pages, "<pages>"),
            (&*self.chosen, CHOSEN),
        ];
        let text = places.iter().fold(value.to_string(), |text, (place, name)| text.replace(place, name));
        serde_json::from_str(&text).unwrap_or_else(|_| value.clone())
    }

    /// A text of a recording with what stands for places here.
    fn here(&self, text: &str) -> String {
        text.replace("<work%2F>", &encoded(&self.directory))
            .replace("<work%252F>", &encoded(&encoded(&self.directory)))
            .replace("<work>", &self.directory)
            .replace("<pages>", &self.pages)
            .replace(CHOSEN, &self.chosen)
    }
}

/// Whether so much was told. Beside kinds of events there are `streams` (parts of which pieces came), `prompts` (messages
/// of users), `titled` (titles of sessions) and `printed TEXT` (calls that run whose command has printed it).
fn was_told(events: &[Value], wanted: &BTreeMap<String, usize>) -> bool {
    let distinct = |kind: &str, what: &[&str]| {
        let of_kind = events.iter().filter(|event| event["type"] == kind);
        let keys = of_kind.map(|event| what.iter().map(|pointer| event.pointer(pointer).cloned()).collect::<Vec<_>>());
        keys.map(|key| json!(key).to_string()).collect::<HashSet<_>>().len()
    };
    wanted.iter().all(|(what, count)| {
        let told = match what.as_str() {
            "streams" => distinct("message.part.delta", &["/properties/partID"]),
            "titled" => distinct("session.updated", &["/properties/info/id", "/properties/info/title"]),
            "prompts" => {
                let infos = events.iter().filter(|event| kind(event) == "message.updated user");
                infos.map(|event| event["properties"]["info"]["id"].to_string()).collect::<HashSet<_>>().len()
            }
            what => match what.strip_prefix("printed ") {
                Some(text) => events.iter().filter(|event| has_printed(event, text)).count(),
                None => events.iter().filter(|event| kind(event) == what).count(),
            },
        };
        told >= *count
    })
}

fn has_printed(event: &Value, text: &str) -> bool {
    let state = &event["properties"]["part"]["state"];
    state["status"] == "running" && state["metadata"]["output"].as_str().is_some_and(|printed| printed.contains(text))
}

/// An event without its id, if that is one.
fn plain(mut event: Value) -> Value {
    let is_id =
        |id: &str| id.len() == 30 && id.starts_with("evt_") && id[4..].chars().all(|c| c.is_ascii_alphanumeric());
    if event["id"].as_str().is_some_and(is_id)
        && let Some(fields) = event.as_object_mut()
    {
        fields.remove("id");
    }
    event
}

fn answer(reply: &Reply) -> Value {
    let headers: Map<String, Value> = HEADERS
        .iter()
        .filter(|name| reply.headers.contains_key(**name))
        .map(|name| ((*name).to_owned(), json!(reply.header(name))))
        .collect();
    let body = if reply.body.is_empty() {
        Value::Null
    } else {
        serde_json::from_slice(&reply.body).unwrap_or_else(|_| json!(reply.text()))
    };
    let mut answer = json!({"status": reply.status, "headers": headers, "body": body});
    if headers.is_empty()
        && let Some(fields) = answer.as_object_mut()
    {
        fields.remove("headers");
    }
    answer
}
