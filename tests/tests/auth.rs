//! The password.

use serde_json::json;
use testkit::client::{base64, basic, id_of};
use testkit::{Answer, BOUND, Client, World, WorldSpec};

const PASSWORD: &str = "sekret";

async fn guarded() -> World {
    World::start_with(WorldSpec { password: Some(PASSWORD.into()), ..WorldSpec::default() }).await
}

/// A client without the password.
fn stranger(world: &World) -> Client {
    Client::new(world.replicas().iter().map(|r| r.url()))
}

#[tokio::test]
async fn without_the_password_nothing_is_told() {
    let world = guarded().await;
    let stranger = stranger(&world);
    for path in ["/session", "/global/health", "/doc", "/event", "/nosuch", "/config", "/session/bad"] {
        let reply = stranger.get(path).await;
        assert_eq!((reply.status, reply.text().as_str()), (401, ""), "{path}");
        assert_eq!(reply.header("www-authenticate"), "Basic realm=\"Secure Area\"");
    }
    assert_eq!(stranger.post("/session", &json!({})).await.status, 401);
    assert_eq!(stranger.send(reqwest::Method::OPTIONS, "/session", &[], None).await.status, 204);
    assert_eq!(world.client().get("/session").await.ok(), json!([]), "nothing was made");
}

#[tokio::test]
async fn the_password_counts_in_the_header_and_in_the_address() {
    let world = guarded().await;
    let stranger = stranger(&world);
    let get = async |path: &str, authorization: &str| {
        let headers: Vec<(&str, &str)> =
            if authorization.is_empty() { vec![] } else { vec![("authorization", authorization)] };
        stranger.send(reqwest::Method::GET, path, &headers, None).await.status
    };
    let right = basic("opencode", PASSWORD);
    assert_eq!(get("/session", &right).await, 200);
    assert_eq!(get("/session", &right.replace("Basic", "basic")).await, 200);
    assert_eq!(get("/session", &basic("opencode", "wrong")).await, 401);
    assert_eq!(get("/session", &basic("other", PASSWORD)).await, 401);
    assert_eq!(get("/session", "Basic !!!").await, 401);
    assert_eq!(get("/session", &format!("Bearer {PASSWORD}")).await, 401);
    let token = base64(&format!("opencode:{PASSWORD}"));
    assert_eq!(get(&format!("/session?auth_token={token}"), "").await, 200);
    assert_eq!(get("/session?auth_token=bad", "").await, 401);
    assert_eq!(get("/session?auth_token=bad", &right).await, 401, "the address has precedence");
    assert_eq!(get(&format!("/session?auth_token={token}"), &basic("opencode", "wrong")).await, 200);
}

#[tokio::test]
async fn probes_need_no_password_and_tell_nothing_of_sessions() {
    let world = guarded().await;
    let id = id_of(&world.client().create_session(&json!({"title": "a secret title"})).await);
    let stranger = stranger(&world);
    for path in ["/livez", "/readyz", "/metrics"] {
        let reply = stranger.get(path).await;
        assert_eq!(reply.status, 200, "{path}: {}", reply.text());
        assert!(!reply.text().contains(&id) && !reply.text().contains("secret"), "{path}: {}", reply.text());
    }
}

#[tokio::test]
async fn work_is_done_with_the_password() {
    let world = guarded().await;
    world.model.push(Answer::say("hello"));
    let mut events = world.events(1).await;
    let id = world.session().await;
    world.prompt(&id, "go").await;
    events.until_idle(BOUND, &id).await;
}

#[tokio::test]
async fn the_password_is_not_in_the_environment_of_tools() {
    let world = guarded().await;
    world
        .model
        .script([Answer::call("call_1", "bash", json!({"command": "env", "description": "d"})), Answer::say("done")]);
    let id = world.session().await;
    world.prompt(&id, "go").await;
    let output = world.client().tool_parts(&id).await[0]["state"]["output"].to_string();
    assert!(output.contains("PATH=") && !output.contains(PASSWORD), "{output}");
}
