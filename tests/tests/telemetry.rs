//! Traces and logs: what a run exports, what it passes on, what it says, and what it never says.

#![allow(clippy::unwrap_used)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use testkit::client::{id_of, text_prompt};
use testkit::{Answer, BOUND, Client, Mode, Replica, ReplicaSpec, World, WorldSpec, eventually};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const SPAN: &str = "00f067aa0ba902b7";

fn traceparent() -> String {
    format!("00-{TRACE}-{SPAN}-01")
}

/// Sends a prompt as part of [`TRACE`] and waits for its answer.
async fn prompt_traced(client: &Client, session: &str, text: &str) -> Value {
    let headers = [("content-type", "application/json"), ("traceparent", &traceparent())];
    let body = text_prompt(text).to_string().into_bytes();
    client.send(Method::POST, &format!("/session/{session}/message"), &headers, Some(body)).await.ok()
}

/// A collector of OTLP over HTTP that keeps what it gets.
struct Collector {
    url: String,
    bodies: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl Collector {
    fn start() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let bodies = Arc::new(Mutex::new(Vec::new()));
        let kept = bodies.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let kept = kept.clone();
                std::thread::spawn(move || {
                    while let Some(body) = receive(&stream) {
                        kept.lock().unwrap().push(body);
                    }
                });
            }
        });
        Self { url, bodies }
    }

    fn received(&self) -> Vec<u8> {
        self.bodies.lock().unwrap().concat()
    }
}

/// Reads one request and grants it. Nothing when the connection is over.
fn receive(stream: &TcpStream) -> Option<Vec<u8>> {
    let mut reader = BufReader::new(stream);
    let mut length = 0;
    let mut line = String::new();
    loop {
        line.clear();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        let header = line.trim_end().to_ascii_lowercase();
        if header.is_empty() {
            break;
        }
        if let Some(value) = header.strip_prefix("content-length:") {
            length = value.trim().parse().ok()?;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let mut stream = stream;
    stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\ncontent-length: 0\r\n\r\n").ok()?;
    Some(body)
}

fn from_hex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

/// The names of the spans of a trace, with the parents' ids, in exported bytes: a span begins with `trace_id` (field 1),
/// `span_id` (2), perhaps `parent_span_id` (4), and `name` (5).
fn spans_of(bytes: &[u8], trace: &str) -> Vec<(String, Vec<u8>)> {
    let start = [&[0x0a, 16][..], &from_hex(trace)].concat();
    let at = (0..bytes.len()).filter(|at| bytes[*at..].starts_with(&start));
    at.filter_map(|at| {
        let rest = bytes[at + start.len()..].strip_prefix(&[0x12, 8])?.get(8..)?;
        let (parent, rest) = match rest.strip_prefix(&[0x22, 8]) {
            Some(rest) => rest.split_at(8),
            None => (&[][..], rest),
        };
        let [length, name @ ..] = rest.strip_prefix(&[0x2a])? else { return None };
        Some((String::from_utf8_lossy(name.get(..usize::from(*length))?).into_owned(), parent.to_vec()))
    })
    .collect()
}

#[tokio::test]
async fn a_run_is_exported_as_part_of_its_callers_trace() {
    let collector = Collector::start();
    let (data, work) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut replica = Replica::start(ReplicaSpec {
        name: "traced".into(),
        data_dir: data.path().to_path_buf(),
        directory: work.path().to_path_buf(),
        args: vec!["--demo".into()],
        env: vec![
            ("OTEL_EXPORTER_OTLP_ENDPOINT".into(), collector.url.clone()),
            ("OTEL_SERVICE_NAME".into(), "fleet-under-test".into()),
        ],
        ..ReplicaSpec::default()
    })
    .await;
    let client = Client::new([replica.url()]);
    let session = id_of(&client.create_session(&json!({})).await);
    prompt_traced(&client, &session, "run echo traced").await;
    replica.term();
    // What has not been exported yet is at the end.
    assert!(replica.wait_exit(Duration::from_secs(20)).await.success());
    let bytes = collector.received();
    let spans = spans_of(&bytes, TRACE);
    for name in ["run", "step", "model", "tool"] {
        assert!(spans.iter().any(|(known, _)| known == name), "{name} is missing: {spans:?}");
    }
    let request = spans.iter().find(|(name, _)| name == "POST /session/{sessionID}/message");
    assert_eq!(request.map(|(_, parent)| parent.clone()), Some(from_hex(SPAN)), "{spans:?}");
    for text in ["fleet-under-test", &session, "attempt", "fence"] {
        assert!(bytes.windows(text.len()).any(|bytes| bytes == text.as_bytes()), "{text} is missing");
    }
}

#[tokio::test]
async fn the_callers_trace_reaches_the_model_without_any_export() {
    let world = World::start_in(Mode::Embedded, WorldSpec::default()).await;
    world.model.push(Answer::say("hello"));
    let client = world.client();
    let session = id_of(&client.create_session(&json!({})).await);
    prompt_traced(&client, &session, "hi").await;
    // The answer's request and the title's.
    let requests = eventually(BOUND, "both requests to the model", || async {
        Some(world.model.requests()).filter(|requests| requests.len() == 2)
    });
    for request in requests.await {
        let given = request.headers.get("traceparent").cloned().unwrap_or_default();
        let fields: Vec<&str> = given.split('-').collect();
        assert_eq!((fields[0], fields.get(1), fields.len()), ("00", Some(&TRACE), 4), "{given}");
        assert_ne!(fields[2], "0000000000000000");
    }
}

#[tokio::test]
async fn a_prompt_of_nobodys_trace_begins_one() {
    let world = World::start_in(Mode::Embedded, WorldSpec::default()).await;
    world.model.push(Answer::say("hello"));
    let session = world.session().await;
    world.prompt(&session, "hi").await;
    let given = world.model.requests()[0].headers.get("traceparent").cloned().unwrap_or_default();
    let trace = given.split('-').nth(1).unwrap_or_default();
    assert!(trace.len() == 32 && trace.bytes().any(|byte| byte != b'0'), "{given}");
}

#[tokio::test]
async fn json_logs_are_objects_by_line_and_hold_no_secret() {
    const SECRETS: [&str; 3] = ["pass-of-the-server", "key-of-the-provider", "header-of-the-provider"];
    let options = json!({ "apiKey": SECRETS[1], "headers": { "x-team": SECRETS[2] } });
    let spec = WorldSpec {
        config: json!({ "provider": { "fake": { "options": options } } }),
        args: ["--log-format", "json", "--log-level", "trace"].map(String::from).to_vec(),
        password: Some(SECRETS[0].into()),
        ..WorldSpec::default()
    };
    let mut world = World::start_in(Mode::Embedded, spec).await;
    world.model.push(Answer::say("hello"));
    world.model.push(Answer::status(401, &json!({ "error": { "message": "no" } })));
    let session = world.session().await;
    world.prompt(&session, "hi").await;
    world.prompt(&session, "refused").await;
    let stranger = Client::new([world.url(0)]);
    assert_eq!(stranger.get("/session").await.status, 401);
    world.replica(0).term();
    world.replica(0).wait_exit(Duration::from_secs(20)).await;
    let log = world.replica(0).stderr();
    for secret in SECRETS.map(str::to_owned).into_iter().chain([testkit::world::base64(SECRETS[0])]) {
        assert!(!log.contains(&secret), "{secret} is logged");
    }
    let lines: Vec<Value> =
        log.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect();
    let request = lines.iter().find(|line| line["message"] == "request" && line["session"] == *session);
    let request = request.unwrap_or_else(|| panic!("no line of a request: {log}"));
    for name in ["id", "tenant", "session", "replica", "method", "route", "status", "latency_ms", "trace_id"] {
        assert!(!request[name].is_null(), "{name} is missing: {request}");
    }
    let tenths = request["latency_ms"].as_f64().unwrap() * 10.0;
    assert!((tenths - tenths.round()).abs() < 1e-6, "{request}");
    assert!(lines.iter().all(|line| line.as_object().is_some_and(|line| line.values().all(|value| *value != ""))));
}

#[tokio::test]
async fn a_request_is_one_line_that_says_each_thing_once() {
    let mut world = World::start_in(Mode::Embedded, WorldSpec::default()).await;
    let session = world.session().await;
    world.messages(&session).await;
    world.replica(0).term();
    world.replica(0).wait_exit(Duration::from_secs(20)).await;
    let log = world.replica(0).stderr();
    let of_session: Vec<&str> = log.lines().filter(|line| line.contains(&session)).collect();
    assert_eq!(of_session.len(), 1, "{log}");
    let names: Vec<&str> = of_session[0].split(' ').filter_map(|word| Some(word.split_once('=')?.0)).collect();
    assert_eq!(names, ["id", "tenant", "session", "replica", "method", "route", "status", "latency_ms"]);
}
