//! A prompt: its answer, its events, what the model is asked.

use std::time::Duration;

use serde_json::{Value, json};
use testkit::client::{id_of, text_prompt};
use testkit::model::Usage;
use testkit::outline::{joined_deltas, spine, to_idle};
use testkit::{Answer, BOUND, Event, Shape, World, WorldSpec, eventually, transcript};

const PROMPTED: &str = include_str!("../fixtures/session-prompted.json");
const USER: &str = include_str!("../fixtures/message-user.json");
const ASSISTANT: &str = include_str!("../fixtures/message-assistant.json");

/// The answer of the recording that the shapes are of.
fn greeting() -> Answer {
    let words = ["Hello ", "there,", " frien", "d of m", "ine"];
    let usage = Usage { prompt: 1000, completion: 50, cached: 400, reasoning: 20 };
    Answer::new().text_chunks(words, Duration::from_millis(20)).finish("stop", usage)
}

fn shaped(world: &World, shape: &str, session: &str) -> Shape {
    Shape::new(shape).with("directory", world.directory_text()).with("session", session)
}

#[tokio::test]
async fn a_prompt_is_answered_stored_and_counted_as_recorded() {
    let world = World::start().await;
    world.model.push(greeting());
    world.model.title_with(|_| Answer::say("\"Greeting the user\"\nextra line"));
    let client = world.client();
    let id = id_of(&client.create_session(&json!({})).await);
    let answer = client.prompt(&id, "Say hi to me").await;
    let messages = client.messages(&id).await;
    assert_eq!(messages.len(), 2);
    shaped(&world, USER, &id).check(&messages[0]);
    let parent = id_of(&messages[0]["info"]);
    shaped(&world, ASSISTANT, &id).with("parent", parent).check(&answer);
    assert_eq!(messages[1], answer);
    let title = eventually(BOUND, "the title", || async {
        let session = client.get(&format!("/session/{id}")).await.ok();
        (session["title"] == "\"Greeting the user\"").then_some(session)
    });
    shaped(&world, PROMPTED, &id).check(&title.await);
    for number in 0..3 {
        assert_eq!(world.at(number).messages(&id).await, messages, "replica {number}");
        let one = world.at(number).get(&format!("/session/{id}/message/{}", id_of(&answer["info"]))).await.ok();
        assert_eq!(one, answer);
        assert_eq!(world.at(number).status(&id).await, "idle");
    }
}

#[tokio::test]
async fn events_of_a_prompt_come_in_the_recorded_order() {
    let world = World::start().await;
    world.model.push(greeting());
    let mut events = world.events(1).await;
    let id = world.session().await;
    world.prompt(&id, "Say hi to me").await;
    events.until_idle(BOUND, &id).await;
    let all = events.of_session(&id);
    let expected = [
        "session.created",
        "message.updated user",
        "message.part.updated text full",
        "session.status busy",
        "message.updated assistant",
        "session.status busy",
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
    assert_eq!(spine(to_idle(&all)), expected);
    assert_eq!(joined_deltas(&all), "Hello there, friend of mine");
    let delta = all.iter().find(|e| e.kind() == "message.part.delta").unwrap();
    let shape = r#"{"id": "<evt>", "type": "message.part.delta", "properties":
        {"sessionID": "<session>", "messageID": "<msg>", "partID": "<prt>", "field": "text", "delta": "<string>"}}"#;
    Shape::new(shape).with("session", id.as_str()).check(&delta.data);
    let updated = all.iter().find(|e| e.kind() == "message.part.updated").unwrap();
    let shape = r#"{"id": "<evt>", "type": "message.part.updated", "properties":
        {"sessionID": "<session>", "part": "<object>", "time": "<time>"}}"#;
    Shape::new(shape).with("session", id.as_str()).check(&updated.data);
    let touched = all.iter().filter(|e| e.kind() == "session.updated").count();
    assert!(touched >= 2, "agent and model set, time touched: {touched}");
}

#[tokio::test]
async fn a_second_prompt_adds_to_the_sums_and_asks_for_no_title() {
    let world = World::start().await;
    world.model.script([greeting(), Answer::say("Second answer")]);
    let client = world.client();
    let id = id_of(&client.create_session(&json!({})).await);
    client.prompt(&id, "Say hi to me").await;
    client.prompt(&id, "And again").await;
    eventually(BOUND, "the title", || async { (world.model.requests().len() == 3).then_some(()) }).await;
    let session = client.get(&format!("/session/{id}")).await.ok();
    assert_eq!(
        session["tokens"],
        json!({"input": 700, "output": 40, "reasoning": 20, "cache": {"read": 400, "write": 0}})
    );
    assert!((session["cost"].as_f64().unwrap() - 0.003_12).abs() < 1e-9, "{}", session["cost"]);
    let asked = world.model.main_requests();
    assert_eq!(transcript::user_texts(&asked[1].body), ["Say hi to me", "And again"]);
}

#[tokio::test]
async fn the_model_is_asked_as_recorded() {
    let rules = ("AGENTS.md".to_string(), "Project rule: be kind to whales.\n".to_string());
    let world = World::start_with(WorldSpec { files: vec![rules], ..WorldSpec::default() }).await;
    world.model.push(Answer::say("hello"));
    let id = world.session().await;
    let body = json!({"system": "Speak like a sailor.", "parts": [{"type": "text", "text": "hi"}]});
    world.client().post(&format!("/session/{id}/message"), &body).await.ok();
    let asked = &world.model.main_requests()[0];
    assert_eq!(asked.session.as_deref(), Some(id.as_str()));
    assert_eq!(asked.headers["authorization"], "Bearer k");
    let body = &asked.body;
    assert_eq!(body["model"], "m");
    assert_eq!(body["max_tokens"], 4000);
    assert_eq!(body["stream"], true);
    assert_eq!(body["stream_options"], json!({"include_usage": true}));
    assert_eq!(body["tool_choice"], "auto");
    let tools = transcript::offered_tools(body);
    let mut sorted = tools.clone();
    sorted.sort();
    assert_eq!(tools, sorted);
    for tool in ["bash", "edit", "read", "write"] {
        assert!(tools.contains(&tool.to_string()), "{tool} in {tools:?}");
    }
    let system = body["messages"][0]["content"].as_str().unwrap();
    for text in ["be kind to whales", "Speak like a sailor.", &world.directory_text()] {
        assert!(system.contains(text), "{text:?} in {system}");
    }
    assert_eq!(body["messages"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn a_prompt_without_a_waiter_runs_and_one_without_reply_does_not() {
    let world = World::start().await;
    world.model.script([Answer::say("async answer"), Answer::say("third")]);
    let mut events = world.events(2).await;
    let id = world.session().await;
    world.prompt_async(&id, "async").await;
    events.until_idle(BOUND, &id).await;
    let client = world.client();
    let noted = json!({"noReply": true, "parts": [{"type": "text", "text": "context only"}]});
    let noted = client.post(&format!("/session/{id}/message"), &noted).await.ok();
    assert_eq!(noted["info"]["role"], "user");
    assert_eq!(noted["parts"][0]["text"], "context only");
    assert_eq!(client.status(&id).await, "idle");
    assert_eq!(world.model.main_requests().len(), 1);
    client.prompt(&id, "third prompt").await;
    let asked = world.model.main_requests();
    assert_eq!(transcript::user_texts(&asked[1].body), ["async", "context only", "third prompt"]);
    assert_eq!(client.post("/session/ses_nope/prompt_async", &text_prompt("x")).await.status, 404);
}

#[tokio::test]
async fn ids_that_the_client_made_are_kept() {
    let world = World::start().await;
    world.model.push(Answer::say("ok"));
    let id = world.session().await;
    let (message, part) = ("msg_zzzzzzzzzzzz00000000000000", "prt_zzzzzzzzzzzz00000000000000");
    let body = json!({"messageID": message, "parts": [{"id": part, "type": "text", "text": "with ids"}]});
    let answer = world.client().post(&format!("/session/{id}/message"), &body).await.ok();
    assert_eq!(answer["info"]["parentID"], message);
    let messages = world.messages(&id).await;
    assert_eq!((&messages[0]["info"]["id"], &messages[0]["parts"][0]["id"]), (&json!(message), &json!(part)));
}

#[tokio::test]
async fn messages_are_read_page_by_page() {
    let world = World::start().await;
    world.model.respond_with(|body| Answer::say(&format!("to {}", transcript::last_user_text(body))));
    let client = world.client();
    let id = world.session().await;
    for text in ["a", "b", "c"] {
        client.prompt(&id, text).await;
    }
    let all = client.messages(&id).await;
    let mut pages: Vec<Value> = Vec::new();
    let mut before = String::new();
    loop {
        let page = client.get(&format!("/session/{id}/message?limit=4{before}")).await;
        let Value::Array(messages) = page.ok() else { panic!("a page is a list") };
        pages.splice(0..0, messages);
        let cursor = page.header("x-next-cursor");
        if cursor.is_empty() {
            break;
        }
        assert!(page.header("link").contains("rel=\"next\""));
        before = format!("&before={}", testkit::client::encoded(cursor));
    }
    assert_eq!(pages, all);
    assert_eq!(client.get(&format!("/session/{id}/message?limit=0")).await.ok(), json!(all));
    let bad = client.get(&format!("/session/{id}/message?limit=2&before=abc")).await;
    assert_eq!((bad.status, bad.json()), (400, json!({"_tag": "BadRequest"})));
    for query in [format!("limit=0{before}"), format!("limit={before}"), "limit=".into()] {
        assert_eq!(client.get(&format!("/session/{id}/message?{query}")).await.ok(), json!(all), "{query}");
    }
    for query in [before.trim_start_matches('&'), "limit=0&before=abc"] {
        let bad = client.get(&format!("/session/{id}/message?{query}")).await;
        assert_eq!((bad.status, bad.json()), (400, json!({"_tag": "BadRequest"})), "{query}");
    }
    for (query, message) in [
        ("limit=1e20", "Expected an integer, got 100000000000000000000"),
        ("limit=1&limit=2", "Expected string | undefined, got [\"1\",\"2\"]"),
    ] {
        let bad = client.get(&format!("/session/{id}/message?{query}")).await.json();
        let message = format!("{message}\n  at [\"limit\"]");
        assert_eq!(bad, json!({"name": "BadRequest", "data": {"message": message, "kind": "Query"}}));
    }
}

#[tokio::test]
async fn reasoning_is_a_part_of_its_own() {
    let world = World::start().await;
    world.model.push(Answer::new().reasoning("let me ").reasoning("think").text("done").stop());
    let id = world.session().await;
    let answer = world.prompt(&id, "go").await;
    let kinds: Vec<&str> = answer["parts"].as_array().unwrap().iter().map(|p| p["type"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["step-start", "reasoning", "text", "step-finish"]);
    assert_eq!(answer["parts"][1]["text"], "let me think");
}

#[tokio::test]
async fn an_error_of_the_provider_is_on_the_message() {
    let world = World::start().await;
    let refused = json!({"error": {"message": "no such thing", "type": "invalid_request_error", "code": "bad"}});
    world.model.push(Answer::status(400, &refused));
    let mut events = world.events(1).await;
    let id = world.session().await;
    let answer = world.prompt(&id, "go").await;
    let error = &answer["info"]["error"];
    assert_eq!((&error["name"], &error["data"]["statusCode"]), (&json!("APIError"), &json!(400)), "{error}");
    assert_eq!(error["data"]["isRetryable"], false);
    let told = events.until_kind(BOUND, "session.error").await;
    assert_eq!(told.properties()["error"]["name"], "APIError");
    events.until_idle(BOUND, &id).await;
    world.model.push(Answer::say("better"));
    world.prompt(&id, "again").await;
    assert_eq!(world.model.main_requests().len(), 2, "400 is not tried again");
}

#[tokio::test]
async fn a_rate_limit_is_waited_for_and_shown_as_retry() {
    let world = World::start().await;
    let slow = json!({"error": {"message": "slow down", "type": "rate_limit"}});
    world.model.script([Answer::status(429, &slow).header("retry-after-ms", "700"), Answer::say("finally")]);
    let mut events = world.events(2).await;
    let id = world.session().await;
    let answer = world.prompt(&id, "go").await;
    assert_eq!(answer["parts"][1]["text"], "finally");
    let retrying = |e: &Event| e.properties()["status"]["type"] == "retry";
    let told = events.until(BOUND, "a retry", retrying).await;
    assert_eq!(told.properties()["status"]["attempt"], 1);
    assert!(told.properties()["status"]["next"].is_u64());
    let asked = world.model.main_requests();
    assert!(asked[1].began - asked[0].began >= Duration::from_millis(700), "the provider's wish is respected");
}

#[tokio::test]
async fn a_filtered_answer_is_told_on_the_message_first_and_has_no_total_without_usage() {
    let world = World::start().await;
    world
        .model
        .push(Answer::new().text("x").chunk(json!({"choices": [{"delta": {}, "finish_reason": "content_filter"}]})));
    let mut events = world.events(0).await;
    let id = world.session().await;
    let answer = world.prompt(&id, "go").await;
    assert_eq!(answer["info"]["error"]["name"], "ContentFilterError");
    assert_eq!(answer["info"]["tokens"].get("total"), None, "{}", answer["info"]);
    events.until_idle(BOUND, &id).await;
    let told = spine(&events.of_session(&id));
    let error = told.iter().position(|line| line == "session.error ContentFilterError").expect("the error is told");
    assert_eq!(told[error - 1], "message.updated assistant ContentFilterError content-filter completed", "{told:#?}");
    assert_eq!(told[error + 1..], ["session.status idle", "session.idle"], "{told:#?}");
}
