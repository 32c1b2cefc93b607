//! Requests that are wrong: what is answered, and that nothing is written.

use reqwest::Method;
use serde_json::{Value, json};
use testkit::client::{encoded, text_prompt};
use testkit::raw::{exchange, status};
use testkit::{Answer, Client, World, transcript};

const JSON: (&str, &str) = ("content-type", "application/json");

fn payload(message: &str) -> Value {
    json!({"name": "BadRequest", "data": {"message": message, "kind": "Payload"}})
}

fn not_found(message: &str) -> Value {
    json!({"name": "NotFoundError", "data": {"message": message}})
}

async fn post_text(client: &Client, path: &str, text: &str) -> (u16, String) {
    let reply = client.send(Method::POST, path, &[JSON], Some(text.as_bytes().to_vec())).await;
    (reply.status, reply.text())
}

#[tokio::test]
async fn wrong_prompts_are_refused_as_recorded_and_leave_nothing() {
    let world = World::start().await;
    let client = world.client();
    let id = world.session().await;
    let path = format!("/session/{id}/message");
    let cases = [
        (json!({}), "Missing key\n  at [\"parts\"]"),
        (json!({"parts": [{"type": "text"}]}), "Missing key\n  at [\"parts\"][0][\"text\"]"),
        (
            json!({"parts": [{"type": "text", "text": "x"}], "messageID": "bad"}),
            "Expected a string starting with \"msg\", got \"bad\"\n  at [\"messageID\"]",
        ),
        (
            json!({"parts": [{"type": "text", "text": "x"}], "model": "fake/m"}),
            "Expected object | null, got \"fake/m\"\n  at [\"model\"]",
        ),
    ];
    for (body, message) in cases {
        let reply = client.post(&path, &body).await;
        assert_eq!((reply.status, reply.json()), (400, payload(message)), "{body}");
    }
    let bogus = client.post(&path, &json!({"parts": [{"type": "bogus"}]})).await;
    assert_eq!((bogus.status, &bogus.json()["name"]), (400, &json!("BadRequest")));
    let empty = client.send(Method::POST, &path, &[JSON], None).await;
    assert_eq!((empty.status, empty.json()), (400, payload("Expected object, got undefined")));
    let plain = client.send(Method::POST, &path, &[("content-type", "text/plain")], Some(b"{}".to_vec())).await;
    assert_eq!((plain.status, plain.text().contains("Unsupported content-type: text/plain")), (415, true));
    assert_eq!(client.messages(&id).await, Vec::<Value>::new());
    assert_eq!(client.get("/session/status").await.ok(), json!({}));
}

#[tokio::test]
async fn malformed_json_and_malformed_ids_are_bad_requests() {
    let world = World::start().await;
    let client = world.client();
    let id = world.session().await;
    let (code, text) = post_text(&client, &format!("/session/{id}/message"), "{bad").await;
    assert_eq!(code, 400, "{text}");
    assert_eq!(serde_json::from_str::<Value>(&text).unwrap()["name"], "BadRequest");
    let (code, text) = post_text(&client, "/session", "{bad").await;
    assert_eq!((code, text.as_str()), (400, "{\"_tag\":\"BadRequest\"}"));
    assert_eq!(client.post("/session", &json!({"title": 5})).await.json(), json!({"_tag": "BadRequest"}));
    assert_eq!(client.post("/session", &json!({"parentID": "bad"})).await.json(), json!({"_tag": "BadRequest"}));
    for (method, path) in [
        (Method::GET, "/session/bad".to_string()),
        (Method::DELETE, "/session/bad".to_string()),
        (Method::POST, "/session/bad/abort".to_string()),
        (Method::GET, format!("/session/{id}/message/bad")),
        (Method::POST, "/permission/bad/reply".to_string()),
    ] {
        let body = (method == Method::POST).then(|| b"{\"reply\":\"once\"}".to_vec());
        let reply = client.send(method.clone(), &path, &[JSON], body).await;
        assert_eq!(reply.status, 400, "{method} {path}: {}", reply.text());
        assert_eq!(reply.json()["name"], "BadRequest", "{method} {path}");
    }
    for path in ["ses_%2e%2e%2f%2e%2e%2fetc", "ses_..%2f..%2fx/message", &format!("ses_{}", "a".repeat(65))] {
        let reply = client.get(&format!("/session/{path}")).await;
        assert_eq!((reply.status, &reply.json()["name"]), (404, &json!("NotFoundError")), "{path}");
    }
}

#[tokio::test]
async fn what_is_not_there_is_not_found() {
    let world = World::start().await;
    let client = world.client();
    let id = world.session().await;
    let missing = |id: &str| not_found(&format!("Session not found: {id}"));
    for (method, path) in [
        (Method::GET, "/session/ses_nope"),
        (Method::PATCH, "/session/ses_nope"),
        (Method::DELETE, "/session/ses_nope"),
        (Method::GET, "/session/ses_nope/message"),
        (Method::POST, "/session/ses_nope/message"),
        (Method::POST, "/session/ses_nope/prompt_async"),
    ] {
        let body = (method != Method::GET).then(|| text_prompt("x").to_string().into_bytes());
        let reply = client.send(method.clone(), path, &[JSON], body).await;
        assert_eq!((reply.status, reply.json()), (404, missing("ses_nope")), "{method} {path}");
    }
    let message = client.get(&format!("/session/{id}/message/msg_nope")).await;
    assert_eq!((message.status, message.json()), (404, not_found("Message not found: msg_nope")));
    let permission = client.post("/permission/per_nope/reply", &json!({"reply": "once"})).await;
    let text = "Permission request not found: per_nope";
    let expected = json!({"_tag": "PermissionNotFoundError", "requestID": "per_nope", "message": text});
    assert_eq!((permission.status, permission.json()), (404, expected));
    let question = client.post("/question/que_nope/reply", &json!({"answers": [["x"]]})).await;
    assert_eq!((question.status, &question.json()["_tag"]), (404, &json!("QuestionNotFoundError")));
}

#[tokio::test]
async fn unknown_routes_and_wrong_methods_are_told_in_json() {
    let world = World::start().await;
    let client = world.client();
    for (method, path) in [(Method::GET, "/nosuchroute"), (Method::POST, "/nosuchroute"), (Method::GET, "/api/health")]
    {
        let reply = client.send(method.clone(), path, &[JSON], None).await;
        assert_eq!((reply.status, &reply.json()["name"]), (404, &json!("NotFoundError")), "{method} {path}");
        assert!(reply.header("content-type").starts_with("application/json"));
    }
    for (method, path, allowed) in [
        (Method::PUT, "/session", "GET"),
        (Method::DELETE, "/session", "POST"),
        (Method::POST, "/event", "GET"),
        (Method::POST, "/global/health", "GET"),
        (Method::GET, "/session/ses_x/abort", "POST"),
    ] {
        let reply = client.send(method.clone(), path, &[JSON], None).await;
        assert_eq!(reply.status, 405, "{method} {path}: {}", reply.text());
        assert!(reply.header("allow").contains(allowed), "{method} {path}: {}", reply.header("allow"));
        assert!(reply.json()["name"].is_string());
    }
    assert_eq!(client.get("/session/").await.ok(), json!([]), "a trailing slash is tolerated");
    assert_eq!(client.get("//session").await.ok(), json!([]), "a double slash is tolerated");
}

#[tokio::test]
async fn an_unknown_model_or_agent_fails_and_is_told() {
    let world = World::start().await;
    let mut events = world.events(1).await;
    let id = world.session().await;
    let path = format!("/session/{id}/message");
    let mut other_model = text_prompt("x");
    other_model["model"] = json!({"providerID": "nope", "modelID": "m"});
    let mut other_agent = text_prompt("x");
    other_agent["agent"] = json!("nope");
    for body in [&other_model, &other_agent] {
        let reply = world.client().post(&path, body).await;
        assert_eq!((reply.status, &reply.json()["name"]), (500, &json!("UnknownError")), "{}", reply.text());
        let reference = reply.json()["data"]["ref"].as_str().unwrap().to_string();
        assert!(reference.starts_with("err_") && reference.len() == 12, "{reference}");
        let told = events.until_kind(testkit::BOUND, "session.error").await;
        assert_eq!(told.properties()["sessionID"], id.as_str());
    }
    // Without a waiter only the events tell.
    let reply = world.client().post(&format!("/session/{id}/prompt_async"), &other_agent).await;
    assert_eq!(reply.status, 204, "{}", reply.text());
    let told = events.until_kind(testkit::BOUND, "session.error").await;
    let missing = "Agent not found: \"nope\". Available agents: build, explore, general, plan";
    assert_eq!(told.properties()["error"], json!({"name": "UnknownError", "data": {"message": missing}}));
    let stored = world.messages(&id).await;
    assert_eq!(stored.len(), 1, "a prompt for an unknown agent leaves nothing: {stored:?}");
    assert_eq!(world.client().get(&format!("/session/{id}")).await.ok()["agent"], "build");
    assert_eq!(world.client().get("/session/status").await.ok(), json!({}));
    assert!(world.model.main_requests().is_empty());
}

#[tokio::test]
async fn limits_hold_at_the_limit_and_beyond() {
    let world = World::start().await;
    world.model.respond_with(|_| Answer::say("ok"));
    let client = world.client();
    let id = world.session().await;
    let path = format!("/session/{id}");

    let title = |length: usize| json!({"title": "t".repeat(length)});
    assert_eq!(client.patch(&path, &title(1000)).await.status, 200);
    assert_eq!(client.patch(&path, &title(1001)).await.status, 400);
    assert_eq!(client.post("/session", &title(1001)).await.status, 400);

    let parts = |count: usize| {
        let parts: Vec<Value> = (0..count).map(|n| json!({"type": "text", "text": format!("p{n}")})).collect();
        json!({"noReply": true, "parts": parts})
    };
    assert_eq!(client.post(&format!("{path}/message"), &parts(1000)).await.status, 200);
    assert_eq!(client.post(&format!("{path}/message"), &parts(1001)).await.status, 400);

    let nested = |depth: usize| format!("{{\"metadata\":{}1{}}}", "[".repeat(depth - 1), "]".repeat(depth - 1));
    let patch = async |text: String| {
        let reply = client.send(Method::PATCH, &path, &[JSON], Some(text.into_bytes())).await;
        reply.status
    };
    assert_eq!(patch(nested(120)).await, 400);

    let directory = |length: usize| format!("/session?directory={}", encoded(&format!("/{}", "d".repeat(length - 1))));
    assert_eq!(client.get(&directory(4096)).await.status, 200);
    assert_eq!(client.get(&directory(4097)).await.status, 400);
    assert_eq!(client.get("/session?directory=%2Ftmp%00x").await.status, 400);

    let port = world.replicas()[0].port();
    let get = |target: &str, headers: &str| {
        let request = format!("GET {target} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{headers}\r\n");
        status(&exchange(port, request.as_bytes()))
    };
    assert_eq!(get("/session", ""), 200);
    assert_eq!(get(&format!("/session?search={}", "s".repeat(17 * 1024)), ""), 414);
    assert_eq!(get("/session", &format!("x-long: {}\r\n", "h".repeat(70 * 1024))), 431);
    let announced = 64 * 1024 * 1024 + 1;
    let head = format!("POST {path}/message HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n");
    let answer = exchange(port, format!("{head}content-length: {announced}\r\n\r\n").as_bytes());
    assert_eq!(status(&answer), 413, "{answer}");

    let long = "x".repeat(5 * 1024 * 1024);
    world.prompt(&id, &long).await;
    let asked = world.model.main_requests().pop().unwrap();
    assert!(transcript::last_user_text(&asked.body).ends_with(&long), "five megabytes are no problem");
}
