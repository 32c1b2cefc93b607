//! Requests and answers.

use crate::world::World;
use axum::body::Body;
use http::Request;
use serde_json::{Value, json};

fn text(text: &str) -> Value {
    json!({ "parts": [{ "type": "text", "text": text }] })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_from_its_beginning_to_its_end() {
    let world = World::new().await;
    let id = world.session().await;
    let path = format!("/session/{id}");
    assert_eq!(world.get(&path).await.json()["title"], "t");
    let renamed = world.with_body("PATCH", &path, r#"{"title":"Renamed"}"#).await;
    assert_eq!(renamed.json()["title"], "Renamed");
    assert_eq!(world.get("/session?search=renam").await.json().as_array().unwrap().len(), 1);
    assert_eq!(world.get("/session?limit=0").await.json(), json!([]));
    assert_eq!(world.get("/session?directory=/nonexistent").await.json(), json!([]));
    for (part, empty) in [("children", json!([])), ("todo", json!([])), ("diff", json!([])), ("message", json!([]))] {
        assert_eq!(world.get(&format!("{path}/{part}")).await.json(), empty, "{part}");
    }
    let delete = || Request::delete(&path).body(Body::empty()).unwrap();
    assert_eq!(world.ask(delete()).await.json(), json!(true));
    let again = world.ask(delete()).await;
    assert_eq!((again.status, again.json()["name"].clone()), (404, json!("NotFoundError")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prompt_is_answered_when_it_is_done() {
    let world = World::new().await;
    let id = world.session().await;
    let answer = world.post(&format!("/session/{id}/message"), text("hello")).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("content-type"), Some("application/json"));
    let message = answer.json();
    assert_eq!(message["info"]["role"], "assistant");
    assert!(message["info"]["time"]["completed"].is_u64());
    let one = format!("/session/{id}/message/{}", message["info"]["id"].as_str().unwrap());
    assert_eq!(world.get(&one).await.json(), message);
    let stored = world.post(&format!("/session/{id}/message"), json!({ "noReply": true, "parts": [] })).await;
    assert_eq!(stored.json()["info"]["role"], "user");
    let later = world.post(&format!("/session/{id}/prompt_async"), text("again")).await;
    assert_eq!((later.status, later.body.len()), (204, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_lead_to_the_oldest_message() {
    let world = World::new().await;
    let id = world.session().await;
    for n in 0..5 {
        let mut body = text(&format!("q{n}"));
        body["noReply"] = json!(true);
        assert_eq!(world.post(&format!("/session/{id}/message"), body).await.status, 200);
    }
    let all = world.get(&format!("/session/{id}/message")).await;
    assert_eq!(all.header("x-next-cursor"), None);
    let mut gathered = Vec::new();
    let mut query = "limit=2".to_owned();
    loop {
        let page = world.get(&format!("/session/{id}/message?{query}")).await;
        let mut items = page.json().as_array().unwrap().clone();
        items.append(&mut gathered);
        gathered = items;
        let Some(next) = page.header("x-next-cursor") else { break };
        assert!(page.header("link").unwrap().contains(&format!("before={next}>; rel=\"next\"")));
        assert_eq!(page.header("access-control-expose-headers"), Some("Link, X-Next-Cursor"));
        query = format!("limit=2&before={next}");
    }
    assert_eq!(json!(gathered), all.json());
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_requests_are_refused_in_shape() {
    let world = World::new().await;
    let id = world.session().await;
    let message = format!("/session/{id}/message");
    for (method, path, body, status, kind) in [
        ("GET", "/session/bad", "", 400, json!("Params")),
        ("POST", message.as_str(), "{bad", 400, json!("Payload")),
        ("POST", message.as_str(), "", 400, json!("Payload")),
        ("GET", "/session?roots=1", "", 400, json!("Query")),
        ("POST", "/permission/bad/reply", r#"{"reply":"once"}"#, 400, json!("Params")),
        ("POST", "/log", r#"{"service":"s","level":"bogus","message":"m"}"#, 400, json!("Payload")),
    ] {
        let answer = world.with_body(method, path, body).await;
        assert_eq!(answer.status, status, "{method} {path} {body}");
        let body = answer.json();
        assert_eq!((body["name"].clone(), body["data"]["kind"].clone()), (json!("BadRequest"), kind), "{path} {body}");
    }
    for (path, body) in [("/session", "{bad"), ("/session", r#"{"title":5}"#)] {
        let answer = world.with_body("POST", path, body).await;
        assert_eq!((answer.status, answer.json()), (400, json!({ "_tag": "BadRequest" })));
    }
    for (path, tag) in [
        ("/permission/per_nope/reply", "PermissionNotFoundError"),
        ("/question/que_nope/reply", "QuestionNotFoundError"),
    ] {
        let answer = world.post(path, json!({ "reply": "once", "answers": [] })).await;
        assert_eq!((answer.status, answer.json()["_tag"].clone()), (404, json!(tag)));
    }
    let unknown = world.post(&message, json!({ "parts": [], "model": { "providerID": "nope", "modelID": "m" } })).await;
    assert_eq!((unknown.status, unknown.json()["name"].clone()), (500, json!("UnknownError")));
    assert!(unknown.json()["data"]["ref"].as_str().unwrap().starts_with("err_"));
    let plain = Request::post(&message).header("content-type", "text/plain").body("{}".into()).unwrap();
    let plain = world.ask(plain).await;
    assert_eq!((plain.status, plain.body), (415, b"Unsupported content-type: text/plain".to_vec()));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_is_told_in_shape() {
    let world = World::new().await;
    for path in ["/nosuch", "/api/health", "/"] {
        let answer = world.get(path).await;
        assert_eq!((answer.status, answer.json()["name"].clone()), (404, json!("NotFoundError")), "{path}");
    }
    let answer = world.with_body("PUT", "/session", "{}").await;
    assert_eq!((answer.status, answer.json()["name"].clone()), (405, json!("MethodNotAllowedError")));
    let allowed = answer.header("allow").unwrap();
    assert!(allowed.contains("GET") && allowed.contains("POST"), "{allowed}");
    assert_eq!(world.get("//session/").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_read_of_a_start_up_is_served() {
    let world = World::new().await;
    for (path, expected) in [
        ("/global/health", Some(json!({ "healthy": true, "version": wire::OPENCODE_VERSION }))),
        ("/session/status", Some(json!({}))),
        ("/permission", Some(json!([]))),
        ("/question", Some(json!([]))),
        ("/provider/auth", Some(json!({}))),
        ("/skill", Some(json!([]))),
        ("/lsp", Some(json!([]))),
        ("/formatter", Some(json!([]))),
        ("/mcp", Some(json!({}))),
        ("/experimental/capabilities", Some(json!({ "backgroundSubagents": false }))),
        ("/experimental/console", Some(json!({ "consoleManagedProviders": [], "switchableOrgCount": 0 }))),
        ("/experimental/resource", Some(json!({}))),
        ("/experimental/workspace", Some(json!([]))),
        ("/experimental/workspace/status", Some(json!([]))),
        ("/vcs", None),
        ("/config", None),
        ("/global/config", None),
        ("/config/providers", None),
        ("/provider", None),
        ("/agent", None),
        ("/command", None),
        ("/project", None),
        ("/project/current", None),
        ("/project/global/directories", Some(json!([{ "directory": "/" }]))),
        ("/doc", None),
        ("/livez", None),
        ("/readyz", Some(json!({ "ready": true, "reasons": [] }))),
    ] {
        let answer = world.get(path).await;
        assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/json")), "{path}");
        if let Some(expected) = expected {
            assert_eq!(answer.json(), expected, "{path}");
        }
    }
    assert_eq!(world.get("/project/nope/directories").await.json()["_tag"], "ProjectNotFoundError");
    assert_eq!(
        world.post("/log", json!({ "service": "s", "level": "info", "message": "m" })).await.json(),
        json!(true)
    );
    assert!(String::from_utf8(world.get("/metrics").await.body).unwrap().contains("flotilla_runs 0"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_directory_is_the_clients_choice() {
    let world = World::new().await;
    let root = world.root.path().to_str().unwrap();
    assert_eq!(world.get("/path").await.json()["directory"], format!("{root}/ws"));
    assert_eq!(world.get("/path?directory=..%2Fother").await.json()["directory"], format!("{root}/other"));
    let by_header = Request::get("/path").header("x-opencode-directory", "%2Fa%20b").body(Body::empty()).unwrap();
    assert_eq!(world.ask(by_header).await.json()["directory"], "/a b");
    let long = world.get(&format!("/path?directory=/{}", "a".repeat(4096))).await;
    assert_eq!(long.json()["data"]["kind"], "Query");
    let workspace = world.get("/path?workspace=wrk_x").await;
    assert_eq!((workspace.status, workspace.body), (500, b"Workspace not found: wrk_x".to_vec()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_closes_all_but_the_probes() {
    let world = World::new().await.with_password();
    for path in ["/session", "/doc", "/nosuch", "/event"] {
        let answer = world.get(path).await;
        assert_eq!((answer.status, answer.body.len()), (401, 0), "{path}");
        assert_eq!(answer.header("www-authenticate"), Some("Basic realm=\"Secure Area\""));
    }
    for path in ["/livez", "/readyz", "/metrics", "/session?auth_token=b3BlbmNvZGU6c2VrcmV0"] {
        assert_eq!(world.get(path).await.status, 200, "{path}");
    }
    let preflight = Request::options("/session").header("origin", "http://localhost:3000").body(Body::empty()).unwrap();
    let preflight = world.ask(preflight).await;
    assert_eq!(preflight.status, 204);
    assert_eq!(preflight.header("access-control-allow-origin"), Some("http://localhost:3000"));
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_are_told() {
    let mut world = World::new().await;
    world.app.limits.body = 1000;
    world.app.limits.body_idle = std::time::Duration::from_millis(50);
    let long = format!("/session?search={}", "a".repeat(16 * 1024));
    assert_eq!(world.get(&long).await.status, 414);
    let wide = Request::get("/session").header("x-wide", "a".repeat(64 * 1024)).body(Body::empty()).unwrap();
    assert_eq!(world.ask(wide).await.status, 431);
    let fits = json!({ "title": "a".repeat(900) }).to_string();
    assert_eq!(world.with_body("POST", "/session", &fits).await.status, 200);
    let big = world.with_body("POST", "/session", &json!({ "title": "a".repeat(1000) }).to_string()).await;
    assert_eq!((big.status, big.json()["name"].clone()), (413, json!("PayloadTooLargeError")));
    let chunks = futures_util::stream::iter((0..20).map(|_| Ok::<_, std::io::Error>("x".repeat(100))));
    let chunked = Request::post("/session").body(Body::from_stream(chunks)).unwrap();
    assert_eq!(world.ask(chunked).await.status, 413);
    let silent = futures_util::stream::pending::<Result<String, std::io::Error>>();
    let silent = Request::post("/session").body(Body::from_stream(silent)).unwrap();
    assert_eq!(world.ask(silent).await.status, 408);
}

#[tokio::test(flavor = "multi_thread")]
async fn large_answers_are_compressed_for_who_asks() {
    let world = World::new().await;
    let asking = |path: &str| Request::get(path).header("accept-encoding", "gzip").body(Body::empty()).unwrap();
    assert_eq!(world.ask(asking("/doc")).await.header("content-encoding"), Some("gzip"));
    assert_eq!(world.ask(asking("/global/health")).await.header("content-encoding"), None);
    assert_eq!(world.get("/doc").await.header("content-encoding"), None);
    let id = world.session().await;
    let prompt = json!({ "noReply": true, "parts": [{ "type": "text", "text": "x".repeat(5000) }] }).to_string();
    let prompt = Request::post(format!("/session/{id}/message"))
        .header("accept-encoding", "gzip")
        .header("content-type", "application/json")
        .body(prompt.into())
        .unwrap();
    let answer = world.ask(prompt).await;
    assert_eq!((answer.status, answer.header("content-encoding")), (200, None));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_keeps_its_id() {
    let world = World::new().await;
    let request = Request::get("/path").header("x-request-id", "abc-1").body(Body::empty()).unwrap();
    assert_eq!(world.ask(request).await.header("x-request-id"), Some("abc-1"));
    assert_eq!(world.get("/path").await.header("x-request-id").unwrap().len(), 32);
}
