//! Sessions: created, read, listed, changed and deleted, through any replica.

use serde_json::{Value, json};
use testkit::client::id_of;
use testkit::model::Gate;
use testkit::polling::now_ms;
use testkit::{Answer, BOUND, Shape, World, eventually};

const SESSION: &str = include_str!("../fixtures/session.json");
const WITH_ALL: &str = include_str!("../fixtures/session-with-all.json");

fn session(world: &World, title: &str) -> Shape {
    Shape::new(&SESSION.replace("<title>", title)).with("directory", world.directory_text())
}

/// The value with one more field.
fn with(mut value: Value, key: &str, field: Value) -> Value {
    value[key] = field;
    value
}

#[tokio::test]
async fn a_new_session_has_the_recorded_shape_on_every_replica() {
    let world = World::start().await;
    let client = world.client();
    let plain = client.create_session(&json!({})).await;
    session(&world, "New session - <iso>").check(&plain);
    assert_eq!(plain["time"]["created"], plain["time"]["updated"]);
    session(&world, "Bravo title").check(&client.create_session(&json!({"title": "Bravo title"})).await);
    session(&world, "New session - <iso>").check(&client.create_session(&json!({"unknown": 1})).await);
    let empty = client.send(reqwest::Method::POST, "/session", &[], None).await.ok();
    session(&world, "New session - <iso>").check(&empty);
    let all = json!({
        "title": "With all",
        "agent": "plan",
        "model": {"providerID": "fake", "id": "m"},
        "permission": [{"permission": "bash", "pattern": "*", "action": "deny"}],
        "metadata": {"k": "v"},
    });
    let all = client.create_session(&all).await;
    Shape::new(WITH_ALL).with("directory", world.directory_text()).check(&all);
    for number in 0..3 {
        let read = world.at(number).get(&format!("/session/{}", id_of(&all))).await.ok();
        assert_eq!(read, all, "replica {number}");
    }
}

#[tokio::test]
async fn children_know_their_parent_and_go_with_it() {
    let world = World::start().await;
    let client = world.client();
    let parent = id_of(&client.create_session(&json!({"title": "Parent"})).await);
    let child = client.create_session(&json!({"parentID": parent})).await;
    assert_eq!(child["parentID"], parent.as_str());
    let plain = with(child.clone(), "parentID", Value::Null);
    let plain: Value =
        plain.as_object().unwrap().iter().filter(|(_, v)| !v.is_null()).map(|(k, v)| (k.clone(), v.clone())).collect();
    session(&world, "Child session - <iso>").check(&plain);
    let path = format!("/session/{parent}/children");
    assert_eq!(client.get(&path).await.ok(), json!([child]));
    assert_eq!(client.get(&format!("/session/{}/children", id_of(&child))).await.ok(), json!([]));
    assert_eq!(client.get("/session?roots=true").await.ok().as_array().unwrap().len(), 1);
    assert_eq!(client.get("/session?roots=false").await.ok().as_array().unwrap().len(), 2);

    let mut events = world.events(1).await;
    assert_eq!(client.delete(&format!("/session/{parent}")).await.ok(), json!(true));
    let first = events.until_kind(BOUND, "session.deleted").await;
    let second = events.until_kind(BOUND, "session.deleted").await;
    assert_eq!(first.properties()["info"]["id"], child["id"], "children first");
    assert_eq!(second.properties()["info"]["id"], parent.as_str());
    for number in 0..3 {
        for id in [&parent, &id_of(&child)] {
            let gone = world.at(number).get(&format!("/session/{id}")).await;
            let expected = json!({"name": "NotFoundError", "data": {"message": format!("Session not found: {id}")}});
            assert_eq!((gone.status, gone.json()), (404, expected));
        }
    }
    for path in ["", "/message", "/children", "/todo"] {
        assert_eq!(client.get(&format!("/session/{parent}{path}")).await.status, 404, "{path}");
    }
    assert_eq!(client.get(&format!("/session/{parent}/diff")).await.ok(), json!([]));
    assert_eq!(client.delete(&format!("/session/{parent}")).await.status, 404, "the second time");
    assert_eq!(client.get("/session").await.ok(), json!([]));
}

#[tokio::test]
async fn the_list_is_newest_first_and_can_be_narrowed() {
    let world = World::start().await;
    let client = world.client();
    let mut made = Vec::new();
    for title in ["alpha", "bravo", "charlie"] {
        made.push(client.create_session(&json!({ "title": title })).await);
        // Sessions of the same millisecond have no order among them.
        let last = made.last().unwrap()["time"]["updated"].as_u64().unwrap();
        eventually(BOUND, "the next millisecond", || async { (now_ms() > last).then_some(()) }).await;
    }
    made.reverse();
    let list = async |query: &str| client.get(&format!("/session{query}")).await.ok();
    for _ in 0..3 {
        assert_eq!(list("").await, json!(made), "the same from each replica");
    }
    assert_eq!(list("?limit=2").await, json!(made[..2]));
    assert_eq!(list("?limit=0").await, json!([]));
    assert_eq!(list("?limit=").await, json!([]));
    assert_eq!(list("?limit=0x2").await, json!(made[..2]));
    assert_eq!(list("?limit=abc").await, json!(made));
    assert_eq!(list("?search=BRAV").await, json!([made[1]]));
    assert_eq!(list("?search=zzz").await, json!([]));
    assert_eq!(list("?start=0").await, json!(made));
    assert_eq!(list(&format!("?start={}", made[0]["time"]["updated"])).await, json!([made[0]]));
    assert_eq!(list("?directory=/nowhere").await, json!([]));
    for (query, message) in [
        ("roots=1", "Expected \"true\" | \"false\", got \"1\"\n  at [\"roots\"]"),
        ("roots=", "Expected \"true\" | \"false\", got \"\"\n  at [\"roots\"]"),
        ("search=a&search=b", "Expected string | undefined, got [\"a\",\"b\"]\n  at [\"search\"]"),
        ("limit=1.5", "Expected an integer, got 1.5\n  at [\"limit\"]"),
    ] {
        let bad = client.get(&format!("/session?{query}")).await;
        let expected = json!({"name": "BadRequest", "data": {"message": message, "kind": "Query"}});
        assert_eq!((bad.status, bad.json()), (400, expected), "{query}");
    }
}

#[tokio::test]
async fn what_is_null_or_unknown_is_told_as_opencode_tells_it() {
    let world = World::start().await;
    let client = world.client();
    let id = world.session().await;
    let bad = json!({"_tag": "BadRequest"});
    for field in ["title", "parentID", "agent", "model", "permission", "metadata"] {
        let refused = client.post("/session", &json!({ field: null })).await;
        assert_eq!((refused.status, refused.json()), (400, bad.clone()), "{field}");
    }
    let refused = client.post(&format!("/session/{id}/fork"), &json!({"messageID": null})).await;
    assert_eq!((refused.status, refused.json()), (400, bad));
    assert_eq!(client.get("/session").await.ok().as_array().unwrap().len(), 1);
    for message in ["msg_nope", "msg_", "msg"] {
        assert_eq!(client.get(&format!("/session/{id}/diff?messageID={message}")).await.ok(), json!([]), "{message}");
    }
    for (message, got) in [("", "\"\""), ("bad", "\"bad\"")] {
        let refused = client.get(&format!("/session/{id}/diff?messageID={message}")).await;
        let message = format!("Expected a string starting with \"msg\", got {got}\n  at [\"messageID\"]");
        let expected = json!({"name": "BadRequest", "data": {"message": message, "kind": "Query"}});
        assert_eq!((refused.status, refused.json()), (400, expected));
    }
    let gone = |what: &str| (404, json!({"name": "NotFoundError", "data": {"message": what}}));
    for (path, what) in [
        ("/session/ses_".to_owned(), "Session not found: ses_"),
        (format!("/session/{id}/message/msg_"), "Message not found: msg_"),
    ] {
        let missing = client.get(&path).await;
        assert_eq!((missing.status, missing.json()), gone(what), "{path}");
    }
    let old = "/session/ses_nope/permissions/per_nope";
    let missing = client.post(old, &json!({"response": "once"})).await;
    assert_eq!((missing.status, missing.json()), gone("Session not found: ses_nope"));
}

#[tokio::test]
async fn a_session_is_changed_field_by_field() {
    let world = World::start().await;
    let client = world.client();
    let made = client.create_session(&json!({"title": "first"})).await;
    let path = format!("/session/{}", id_of(&made));
    let mut events = world.events(2).await;

    let renamed = client.patch(&path, &json!({"title": "Renamed"})).await.ok();
    assert_eq!(renamed, with(made.clone(), "title", json!("Renamed")), "a title does not touch the time");
    let told = events.until_kind(BOUND, "session.updated").await;
    assert_eq!(told.properties(), &json!({"sessionID": made["id"], "info": renamed}));

    let archived = client.patch(&path, &json!({"time": {"archived": 1_700_000_000_000_u64}})).await.ok();
    assert_eq!(archived["time"]["archived"], 1_700_000_000_000_u64);
    assert_eq!(archived["time"]["updated"], made["time"]["updated"]);
    let noted = client.patch(&path, &json!({"metadata": {"x": 1}})).await.ok();
    assert_eq!(noted["metadata"], json!({"x": 1}));
    assert!(noted["time"]["updated"].as_u64() >= made["time"]["updated"].as_u64());
    let rule = |name: &str| json!({"permission": name, "pattern": "*", "action": "ask"});
    client.patch(&path, &json!({"permission": [rule("edit")]})).await.ok();
    let permitted = client.patch(&path, &json!({"permission": [rule("bash")]})).await.ok();
    assert_eq!(permitted["permission"], json!([rule("edit"), rule("bash")]), "rules are added");
    assert_eq!(client.patch(&path, &json!({})).await.ok(), permitted, "nothing asked, nothing changed");
    for number in 0..3 {
        assert_eq!(world.at(number).get(&path).await.ok(), permitted, "replica {number}");
    }
    let missing = client.patch("/session/ses_nope", &json!({"title": "x"})).await;
    assert_eq!(missing.status, 404);
    let wrong = client.patch(&path, &json!({"title": 7})).await;
    assert_eq!(wrong.status, 400);
    assert_eq!(wrong.json()["name"], "BadRequest");
}

#[tokio::test]
async fn a_fresh_session_has_nothing_to_do_and_nothing_changed() {
    let world = World::start().await;
    let client = world.client();
    let id = world.session().await;
    for path in ["message", "children", "todo", "diff"] {
        assert_eq!(client.get(&format!("/session/{id}/{path}")).await.ok(), json!([]), "{path}");
    }
    assert_eq!(client.get("/session/status").await.ok(), json!({}));
}

#[tokio::test]
async fn deleting_a_session_stops_its_run_and_nothing_comes_back() {
    let world = World::start().await;
    let gate = Gate::new();
    world.model.push(Answer::new().text("one ").wait(&gate).text("two").stop());
    let id = world.session().await;
    let client = world.at(0);
    let prompt = tokio::spawn({
        let (client, path) = (client.clone(), format!("/session/{id}/message"));
        async move { client.post(&path, &testkit::client::text_prompt("go")).await }
    });
    gate.reached().await;
    assert_eq!(world.at(1).delete(&format!("/session/{id}")).await.ok(), json!(true));
    eventually(BOUND, "the model's connection to drop", || async {
        world.model.main_requests()[0].disconnected.then_some(())
    })
    .await;
    gate.release();
    prompt.await.unwrap();
    eventually(BOUND, "the session to be idle", || async {
        (world.client().get("/session/status").await.ok() == json!({})).then_some(())
    })
    .await;
    for number in 0..3 {
        assert_eq!(world.at(number).get(&format!("/session/{id}")).await.status, 404, "replica {number}");
        assert_eq!(world.at(number).get("/session").await.ok(), json!([]), "replica {number}");
    }
}
