//! What goes wrong between a provider and a run: which errors end the turn, which are tried again, and what of it is seen
//! on every replica. Each test bears the number of the recording whose answers and order of events it has.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use testkit::client::{id_of, parts_of, text_of};
use testkit::model::Usage;
use testkit::outline::spine;
use testkit::{Answer, BOUND, Event, EventReader, Mode, Shape, World, WorldSpec, eventually, transcript};

/// How each turn of the recordings begins, up to the first request.
const BEGIN: [&str; 5] = [
    "message.updated user",
    "message.part.updated text full",
    "session.status busy",
    "message.updated assistant",
    "session.status busy",
];
/// An attempt that said something whole, and the end of the turn with it.
const ANSWERED: [&str; 10] = [
    "message.part.updated step-start",
    "message.part.updated text empty",
    "message.part.delta",
    "message.part.updated text full",
    "message.part.updated step-finish",
    "message.updated assistant stop",
    "message.updated assistant stop completed",
    "session.status busy",
    "session.status idle",
    "session.idle",
];
/// A wait, and the attempt after it.
const WAIT: [&str; 2] = ["session.status retry", "session.status busy"];

/// How a wait begins to say that the connection broke.
const CLOSED: &str = "Cannot connect to API: The socket connection was closed";

fn error(message: &str) -> Value {
    json!({"error": {"message": message}})
}

/// A refusal that is tried again at once.
fn hurried(status: u16, message: &str) -> Answer {
    Answer::status(status, &error(message)).header("retry-after-ms", "1")
}

/// Waits for the session to be idle so many times, and tells its events in short.
async fn told(events: &mut EventReader, session: &str, idle: usize) -> Vec<String> {
    for _ in 0..idle {
        events.until_idle(BOUND, session).await;
    }
    spine(&events.of_session(session))
}

/// The statuses of retries, in their order.
fn retries(events: &EventReader, session: &str) -> Vec<Value> {
    let all = events.of_session(session);
    let statuses = all.iter().map(|event| event.properties()["status"].clone());
    statuses.filter(|status| status["type"] == "retry").collect()
}

/// Waits until every replica tells the same wait.
async fn waiting_everywhere(world: &World, session: &str) -> Value {
    let mut seen = Vec::new();
    for number in 0..3 {
        let status = eventually(BOUND, "the wait", || async {
            let all = world.at(number).get("/session/status").await.ok();
            Some(all[session].clone()).filter(|status| status["type"] == "retry")
        });
        seen.push(status.await);
    }
    assert!(seen.iter().all(|status| *status == seen[0]), "{seen:?}");
    Shape::new(r#"{"type": "retry", "attempt": "<number>", "message": "<string>", "next": "<time>"}"#).check(&seen[0]);
    seen.remove(0)
}

fn is_retry(event: &Event) -> bool {
    event.properties()["status"]["type"] == "retry"
}

/// R60, R61, and of R70 the first and the last.
#[tokio::test]
async fn a_refusal_ends_the_turn_with_the_error_on_message_and_events() {
    let cases = [
        (400, json!({"error": {"message": "bad request", "type": "invalid_request_error", "code": "x"}})),
        (401, json!({"error": {"message": "invalid api key", "type": "auth", "code": "invalid_api_key"}})),
        (402, error("payment")),
        (404, error("model not found")),
    ];
    let world = World::start().await;
    for (status, body) in cases {
        world.model.push(Answer::status(status, &body));
        let id = world.session().await;
        let mut events = world.events(1).await;
        let answer = world.prompt(&id, "go").await;
        let shape = r#"{"name": "APIError", "data": {"message": "<message>", "statusCode": "<status>",
            "isRetryable": false, "responseHeaders": "<object>", "responseBody": "<body>", "metadata": {"url": "<url>"}}}"#;
        let shape = Shape::new(shape)
            .with("message", body["error"]["message"].clone())
            .with("status", status)
            .with("body", body.to_string())
            .with("url", format!("{}/chat/completions", world.model.url()));
        shape.check(&answer["info"]["error"]);
        assert_eq!(answer["info"].get("finish"), None);
        assert!(answer["info"]["time"]["completed"].is_u64() && parts_of(&answer).is_empty());
        let end = [
            "session.error APIError",
            "session.status idle",
            "session.idle",
            "message.updated assistant APIError completed",
            "session.status idle",
            "session.idle",
        ];
        assert_eq!(told(&mut events, &id, 2).await, [&BEGIN[..], &end[..]].concat(), "{status}");
        let said = events.of_session(&id).into_iter().find(|event| event.kind() == "session.error");
        shape.check(&said.unwrap().properties()["error"]);
        for number in 0..3 {
            assert_eq!(world.at(number).messages(&id).await[1], answer);
            assert_eq!(world.at(number).status(&id).await, "idle");
        }
    }
    assert_eq!(world.model.main_requests().len(), 4, "none is tried again");
}

/// R62: seconds, then milliseconds.
#[tokio::test]
async fn the_waits_that_a_provider_asks_for_are_kept_and_seen_on_every_replica() {
    let world = World::start().await;
    world.model.script([
        Answer::status(429, &error("slow down")).header("retry-after", "2"),
        Answer::status(429, &error("slow down 2")).header("retry-after-ms", "500"),
        Answer::say("finally"),
    ]);
    let id = world.session().await;
    let mut events = world.events(2).await;
    let prompt = world.spawn_prompt(0, &id, "go");
    let status = waiting_everywhere(&world, &id).await;
    assert_eq!((&status["attempt"], &status["message"]), (&json!(1), &json!("slow down")));
    let empty = world.at(1).messages(&id).await.pop().unwrap();
    assert!(empty["info"]["time"].get("completed").is_none() && parts_of(&empty).is_empty(), "{empty}");
    let answer = prompt.await.unwrap();
    assert_eq!(text_of(&answer), "finally");
    let expected = [&BEGIN[..], &WAIT, &WAIT, &ANSWERED].concat();
    assert_eq!(told(&mut events, &id, 1).await, expected);
    let waits = retries(&events, &id);
    assert_eq!((&waits[0], waits.len()), (&status, 2));
    assert_eq!((&waits[1]["attempt"], &waits[1]["message"]), (&json!(2), &json!("slow down 2")));
    let asked = world.model.main_requests();
    assert!(asked[1].began - asked[0].began >= Duration::from_secs(2));
    assert!(asked[2].began - asked[1].began >= Duration::from_millis(500));
    let bodies: Vec<&Value> = asked.iter().map(|request| &request.body).collect();
    assert_eq!((bodies[0], bodies[0]), (bodies[1], bodies[2]), "the same is asked again");
}

/// R63: without a wish of the provider the wait doubles; what is no JSON is told by the status.
#[tokio::test]
async fn a_failing_server_is_asked_again_after_a_growing_wait() {
    let world = World::start().await;
    world.model.script([
        Answer::status(500, &error("server exploded")),
        Answer::page(503, "<html>oops</html>"),
        Answer::say("recovered"),
    ]);
    let id = world.session().await;
    let mut events = world.events(1).await;
    assert_eq!(text_of(&world.prompt(&id, "go").await), "recovered");
    assert_eq!(told(&mut events, &id, 1).await, [&BEGIN[..], &WAIT, &WAIT, &ANSWERED].concat());
    let waits = retries(&events, &id);
    assert_eq!(
        (&waits[0]["message"], &waits[1]["message"]),
        (&json!("server exploded"), &json!("Service Unavailable"))
    );
    let asked = world.model.main_requests();
    for (at, least) in [(1, 2.0), (2, 4.0)] {
        let waited = (asked[at].began - asked[at - 1].began).as_secs_f64();
        assert!((least..least * 1.25 + 5.0).contains(&waited), "attempt {at} came after {waited} s");
    }
}

/// R64 and R71: nobody listens; the abort comes from another replica.
#[tokio::test]
async fn an_abort_while_waiting_completes_the_message_without_an_error() {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}/v1", nobody.local_addr().unwrap());
    drop(nobody);
    let config = json!({"provider": {"fake": {"options": {"baseURL": address}}}});
    let world = World::start_with(WorldSpec { config, ..WorldSpec::default() }).await;
    let id = world.session().await;
    let mut events = world.events(2).await;
    let prompt = world.spawn_prompt(0, &id, "go");
    let status = waiting_everywhere(&world, &id).await;
    let message = "Cannot connect to API: Unable to connect. Is the computer able to access the url?";
    assert_eq!((&status["attempt"], &status["message"]), (&json!(1), &json!(message)));
    world.at(1).abort(&id).await;
    let answer = prompt.await.unwrap();
    let info = &answer["info"];
    assert!(
        info.get("error").is_none() && info.get("finish").is_none() && info["time"]["completed"].is_u64(),
        "{info}"
    );
    assert!(parts_of(&answer).is_empty());
    let end = ["message.updated assistant completed", "session.status idle", "session.idle"];
    assert_eq!(told(&mut events, &id, 1).await, [&BEGIN[..], &["session.status retry"], &end].concat());
    for number in 0..3 {
        assert_eq!(world.at(number).status(&id).await, "idle");
        assert_eq!(world.at(number).messages(&id).await[1], answer);
    }
}

/// R65.
#[tokio::test]
async fn a_stream_that_breaks_before_anything_was_heard_leaves_no_trace_but_the_wait() {
    let world = World::start().await;
    world.model.script([Answer::new().cut(), Answer::say("second try")]);
    let id = world.session().await;
    let mut events = world.events(1).await;
    let answer = world.prompt(&id, "go").await;
    assert_eq!((text_of(&answer).as_str(), parts_of(&answer).len()), ("second try", 3));
    assert_eq!(told(&mut events, &id, 1).await, [&BEGIN[..], &WAIT, &ANSWERED].concat());
    assert!(retries(&events, &id)[0]["message"].as_str().unwrap().starts_with(CLOSED));
}

/// R67: what the broken attempt wrote stays, unfinished, before what the next one writes.
#[tokio::test]
async fn a_stream_that_breaks_is_asked_for_again_and_leaves_its_text_open() {
    let broken = json!({"message": "stream error", "type": "server_error", "code": "server_error"});
    let cases = [
        (Answer::new().text("before ").error_chunk(broken.clone()), broken.to_string()),
        (Answer::new().text("before ").pause(Duration::from_millis(300)).cut(), CLOSED.to_owned()),
    ];
    let world = World::start().await;
    for (answer, words) in cases {
        world.model.script([answer, Answer::say("again")]);
        let id = world.session().await;
        let mut events = world.events(1).await;
        let answer = world.prompt(&id, "go").await;
        let half = ["message.part.updated step-start", "message.part.updated text empty", "message.part.delta"];
        assert_eq!(told(&mut events, &id, 1).await, [&BEGIN[..], &half, &WAIT, &ANSWERED].concat());
        let message = retries(&events, &id)[0]["message"].as_str().unwrap().to_owned();
        assert!(message.starts_with(&words), "{message}");
        let step = r#"{"type": "step-start", "id": "<prt>", "sessionID": "<ses>", "messageID": "<msg>"}"#;
        let text = |text: &str, end: &str| {
            format!(
                r#"{{"type": "text", "text": "{text}", "time": {{"start": "<time>"{end}}},
                "id": "<prt>", "sessionID": "<ses>", "messageID": "<msg>"}}"#
            )
        };
        let (open, whole) = (text("", ""), text("again", r#", "end": "<time>""#));
        Shape::new(&format!(r#"[{step}, {open}, {step}, {whole}, "<object>"]"#)).check(&answer["parts"]);
        assert_eq!(answer["info"]["finish"], "stop");
        assert_eq!(world.at(2).messages(&id).await[1], answer);
    }
}

#[tokio::test]
async fn a_call_that_a_broken_stream_had_begun_is_closed_and_never_run() {
    let world = World::start().await;
    let half = Answer::new().tool_call("call_1", "bash", json!({"command": "touch ran", "description": "d"}));
    world.model.script([half.error_chunk(json!({"message": "overloaded"})), Answer::say("again")]);
    let id = world.session().await;
    let answer = world.prompt(&id, "go").await;
    let call = parts_of(&answer).iter().find(|part| part["type"] == "tool").unwrap();
    assert_eq!(
        (&call["state"]["status"], &call["state"]["error"]),
        (&json!("error"), &json!("Tool execution aborted"))
    );
    assert_eq!(text_of(&answer), "again");
    assert!(!world.file("ran").exists());
}

/// R66.
#[tokio::test]
async fn a_stream_that_is_no_json_ends_the_turn_and_keeps_what_was_said() {
    let world = World::start().await;
    world.model.push(Answer::new().text("before ").malformed("{not json").text("after").stop());
    let id = world.session().await;
    let mut events = world.events(1).await;
    let answer = world.prompt(&id, "go").await;
    assert_eq!(answer["info"]["error"]["name"], "UnknownError");
    let message = answer["info"]["error"]["data"]["message"].as_str().unwrap();
    assert!(message.starts_with("JSON parsing failed: Text: {not json.\nError message: "), "{message}");
    let parts = r#"["<object>", {"type": "text", "text": "before ", "time": {"start": "<time>", "end": "<time>"},
        "id": "<prt>", "sessionID": "<ses>", "messageID": "<msg>"}]"#;
    Shape::new(parts).check(&answer["parts"]);
    let end = [
        "message.part.updated step-start",
        "message.part.updated text empty",
        "message.part.delta",
        "session.error UnknownError",
        "session.status idle",
        "session.idle",
        "message.part.updated text full",
        "message.updated assistant UnknownError completed",
        "session.status idle",
        "session.idle",
    ];
    assert_eq!(told(&mut events, &id, 2).await, [&BEGIN[..], &end[..]].concat());
    assert_eq!(world.model.main_requests().len(), 1, "it is not tried again");
}

/// R68.
#[tokio::test]
async fn an_answer_at_its_limit_ends_the_turn_without_an_error() {
    let world = World::start().await;
    let usage = Usage { prompt: 100, completion: 4000, ..Usage::default() };
    world.model.push(Answer::new().text("cut off tex").finish("length", usage));
    let id = world.session().await;
    let answer = world.prompt(&id, "go").await;
    assert_eq!((&answer["info"]["finish"], answer["info"].get("error")), (&json!("length"), None));
    assert_eq!((&answer["info"]["tokens"]["total"], &answer["info"]["tokens"]["output"]), (&json!(4100), &json!(4000)));
    assert_eq!(answer["parts"][2]["reason"], "length");
    assert_eq!(world.model.main_requests().len(), 1);
}

/// R69: the filter; then an answer without a finish reason, after which the model is asked once more.
#[tokio::test]
async fn a_filter_ends_the_turn_and_an_answer_without_an_end_does_not() {
    let world = World::start().await;
    world.model.push(Answer::new().text("x").finish("content_filter", Usage::default()));
    let id = world.session().await;
    let mut events = world.events(1).await;
    let answer = world.prompt(&id, "go 0").await;
    let filtered = json!({"name": "ContentFilterError",
        "data": {"message": "The response was blocked by the provider's content filter"}});
    assert_eq!((&answer["info"]["error"], &answer["info"]["finish"]), (&filtered, &json!("content-filter")));
    assert_eq!(answer["parts"][2]["reason"], "content-filter");
    told(&mut events, &id, 1).await;

    let nothing = Usage { prompt: 5, completion: 0, ..Usage::default() };
    world.model.script([Answer::new().text("no finish"), Answer::new().finish("stop", nothing)]);
    let answer = world.prompt(&id, "go 1").await;
    assert_eq!((&answer["info"]["finish"], parts_of(&answer).len()), (&json!("stop"), 2), "{answer}");
    assert_eq!(answer["info"]["tokens"]["total"], 5);
    let messages = world.messages(&id).await;
    let unfinished = &messages[messages.len() - 2];
    assert_eq!((&unfinished["info"]["finish"], text_of(unfinished).as_str()), (&json!("unknown"), "no finish"));
    assert_eq!(unfinished["info"]["tokens"]["input"], 0);
    assert_eq!(unfinished["info"]["tokens"].get("total"), None);
    let asked = world.model.main_requests();
    assert_eq!(transcript::user_texts(&asked[1].body), ["go 0", "go 1"], "the filtered answer is left out");
    assert!(!asked[1].body["messages"].to_string().contains("\"x\""));
}

#[tokio::test]
async fn five_attempts_more_and_no_other_then_the_error_stands_on_the_message() {
    let world = World::start().await;
    world.model.respond_with(|_| hurried(503, "too busy"));
    let id = world.session().await;
    let mut events = world.events(2).await;
    let answer = world.prompt(&id, "go").await;
    let error = &answer["info"]["error"];
    assert_eq!((&error["name"], &error["data"]["isRetryable"]), (&json!("APIError"), &json!(true)));
    let end = [
        "session.error APIError",
        "session.status idle",
        "session.idle",
        "message.updated assistant APIError completed",
        "session.status idle",
        "session.idle",
    ];
    let waits = WAIT.repeat(5);
    assert_eq!(told(&mut events, &id, 2).await, [&BEGIN[..], &waits, &end].concat());
    let attempts: Vec<Value> = retries(&events, &id).iter().map(|status| status["attempt"].clone()).collect();
    assert_eq!(attempts, [1, 2, 3, 4, 5]);
    assert_eq!(world.model.main_requests().len(), 6);
    // A later turn begins to count anew, and leaves the failed answer out.
    world.model.respond_with(|_| Answer::say("there"));
    world.model.push(hurried(503, "too busy"));
    assert_eq!(text_of(&world.prompt(&id, "again").await), "there");
    assert_eq!(retries(&events, &id).last().unwrap()["attempt"], 1);
}

#[tokio::test]
async fn a_provider_that_falls_silent_is_asked_again() {
    let options = json!({"headerTimeout": 700, "chunkTimeout": 700});
    let config = json!({"provider": {"fake": {"options": options}}});
    let world = World::start_with(WorldSpec { config, ..WorldSpec::default() }).await;
    world.model.script([Answer::new().text("Hel").hang(), Answer::say("Hello")]);
    let id = world.session().await;
    let mut events = world.events(1).await;
    let answer = world.prompt(&id, "go").await;
    assert_eq!(text_of(&answer), "Hello", "the newest text: {answer}");
    events.until_idle(BOUND, &id).await;
    let waits = retries(&events, &id);
    assert_eq!((waits.len(), &waits[0]["message"]), (1, &json!("The model provider sent nothing within 0.7 seconds")));
    assert!(world.model.main_requests()[0].disconnected, "the silent connection is dropped");
}

/// The wait is nobody's: a replica that stops gives it away at once, and whoever goes on waits for the rest of it.
#[tokio::test]
async fn a_wait_is_handed_over_and_ends_when_it_was_to_end() {
    if !Mode::is_fleet_or_skip() {
        return;
    }
    let mut world = World::start().await;
    world.model.script([
        hurried(503, "too busy"),
        Answer::status(429, &error("slow down")).header("retry-after", "12"),
        Answer::say("finally"),
    ]);
    let id = world.session().await;
    let mut events = world.events(1).await;
    world.at(0).prompt_async(&id, "go").await;
    let second = |event: &Event| is_retry(event) && event.properties()["status"]["attempt"] == 2;
    let status = events.until(BOUND, "the wait", second).await.properties()["status"].clone();
    let began = Instant::now();
    world.replica(0).term();
    // The wait is told again by whoever has it now: the same attempt, the same moment.
    let again = events.until(BOUND, "the wait, elsewhere", is_retry).await;
    assert_eq!(again.properties()["status"], status);
    assert!(world.replica(0).wait_exit(BOUND).await.success());
    assert!(began.elapsed() < Duration::from_secs(10), "the drain did not wait for it: {:?}", began.elapsed());
    assert_eq!(world.at(1).get("/session/status").await.ok()[&id], status);
    events.until_idle(BOUND, &id).await;
    let asked = world.model.main_requests();
    assert_eq!(asked.len(), 3);
    let waited = asked[2].began - asked[1].began;
    assert!(waited >= Duration::from_secs(12), "the provider's wish is kept: {waited:?}");
    assert!(waited < Duration::from_secs(30), "{waited:?}");
    let messages = world.at(1).messages(&id).await;
    assert_eq!(messages.len(), 2, "the message that was begun is used: {messages:#?}");
    assert_eq!(text_of(&messages[1]), "finally");
}

/// R71, on a run that was taken over while it waited.
#[tokio::test]
async fn a_wait_of_a_dead_replica_is_taken_over_and_can_be_aborted() {
    if !Mode::is_fleet_or_skip() {
        return;
    }
    let args = ["--lease-ttl", "3s", "--tick", "300ms"].map(str::to_owned).to_vec();
    let mut world = World::start_with(WorldSpec { args, ..WorldSpec::default() }).await;
    world.model.push(Answer::status(429, &error("slow down")).header("retry-after", "600"));
    let id = world.session().await;
    let mut events = world.events(2).await;
    world.at(0).prompt_async(&id, "go").await;
    let status = events.until(BOUND, "the wait", is_retry).await.properties()["status"].clone();
    world.replica(0).kill9();
    let again = events.until(BOUND, "the wait, elsewhere", is_retry).await;
    assert_eq!(again.properties()["status"], status);
    world.at(1).abort(&id).await;
    events.until_idle(BOUND, &id).await;
    let answer = world.at(2).messages(&id).await.pop().unwrap();
    assert!(answer["info"].get("error").is_none() && answer["info"]["time"]["completed"].is_u64(), "{answer}");
    assert_eq!(world.model.main_requests().len(), 1);
    assert_eq!(id_of(&answer["info"]), id_of(&world.at(1).messages(&id).await[1]["info"]));
}
