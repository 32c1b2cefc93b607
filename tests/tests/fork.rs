//! Forks: a new session that begins with a copy of another's messages.

use serde_json::{Value, json};
use testkit::client::{id_of, parts_of};
use testkit::failpoint::Failpoint;
use testkit::model::Gate;
use testkit::outline::outline;
use testkit::{Answer, BOUND, Shape, World};

const SESSION: &str = include_str!("../fixtures/session.json");

fn said(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    expected.iter().map(|(role, text)| (role.to_string(), text.to_string())).collect()
}

async fn fork(world: &World, id: &str, body: &Value) -> Value {
    world.client().post(&format!("/session/{id}/fork"), body).await.ok()
}

/// The messages without what a copy changes.
fn without_ids(messages: &[Value]) -> Vec<Value> {
    let mut messages = messages.to_vec();
    for message in &mut messages {
        let strip = |value: &mut Value, ids: &[&str]| {
            value.as_object_mut().into_iter().for_each(|fields| fields.retain(|name, _| !ids.contains(&name.as_str())));
        };
        strip(&mut message["info"], &["id", "sessionID", "parentID"]);
        for part in message["parts"].as_array_mut().into_iter().flatten() {
            strip(part, &["id", "sessionID", "messageID"]);
        }
    }
    messages
}

#[tokio::test]
async fn a_fork_begins_with_a_copy_and_goes_on_by_itself() {
    let world = World::start().await;
    world.model.script([Answer::say("one"), Answer::say("two"), Answer::say("three")]);
    let id = world.session().await;
    world.prompt(&id, "first").await;
    world.prompt(&id, "second").await;
    let before = world.messages(&id).await;

    let mut events = world.events(2).await;
    let whole = fork(&world, &id, &json!({})).await;
    Shape::new(&SESSION.replace("<title>", "A titled session (fork #1)"))
        .with("directory", world.directory_text())
        .check(&whole);
    let copy = id_of(&whole);
    let messages = world.messages(&copy).await;
    assert_eq!(without_ids(&messages), without_ids(&before));
    for (old, new) in before.iter().zip(&messages) {
        assert_ne!(old["info"]["id"], new["info"]["id"]);
        for (old, new) in parts_of(old).iter().zip(parts_of(new)) {
            assert_ne!(old["id"], new["id"]);
            assert_eq!(new["sessionID"], copy.as_str());
        }
    }
    assert_eq!(messages[1]["info"]["parentID"], messages[0]["info"]["id"], "an answer refers to the copied prompt");
    let last = &parts_of(&messages[3]).last().unwrap()["id"];
    events.until(BOUND, "the last copied part", |event| event.properties()["part"]["id"] == *last).await;
    let answer = [
        "message.updated user",
        "message.part.updated text full",
        "message.updated assistant stop completed",
        "message.part.updated step-start",
        "message.part.updated text full",
        "message.part.updated step-finish",
    ];
    let expected: Vec<&str> = std::iter::once("session.created").chain(answer).chain(answer).collect();
    assert_eq!(outline(&events.of_session(&copy)), expected);

    world.prompt(&copy, "third").await;
    let asked = world.model.main_requests();
    assert_eq!(testkit::transcript::user_texts(&asked[2].body), ["first", "second", "third"]);
    assert_eq!(world.messages(&id).await, before, "the other session stays as it was");
    let read = world.client().get(&format!("/session/{copy}")).await.ok();
    assert_eq!((&read["tokens"]["input"], &read["agent"]), (&json!(300), &json!("build")), "copied steps count");
    assert_eq!(world.client().get(&format!("/session/{id}/children")).await.ok(), json!([]), "a fork is no child");
    assert_eq!(fork(&world, &copy, &json!({})).await["title"], "A titled session (fork #2)");
}

#[tokio::test]
async fn a_fork_keeps_what_its_clients_noted_of_the_session() {
    let world = World::start().await;
    let noted = json!({"kept": {"by": "a client"}});
    let session = world.client().post("/session", &json!({"metadata": noted})).await.ok();
    assert_eq!(fork(&world, &id_of(&session), &json!({})).await["metadata"], noted);
}

#[tokio::test]
async fn a_fork_ends_before_the_message_that_it_names() {
    let world = World::start().await;
    world.model.script([Answer::say("one"), Answer::say("two")]);
    let id = world.session().await;
    world.prompt(&id, "first").await;
    world.prompt(&id, "second").await;
    let messages = world.messages(&id).await;
    let client = world.client();
    let all = [("user", "first"), ("assistant", "one"), ("user", "second"), ("assistant", "two")];
    for (upto, kept) in [(&messages[2]["info"]["id"], 2), (&messages[1]["info"]["id"], 1), (&json!("msg_nope"), 4)] {
        let copy = id_of(&fork(&world, &id, &json!({ "messageID": upto })).await);
        assert_eq!(client.conversation(&copy).await, said(&all[..kept]), "{upto}");
    }
    let path = format!("/session/{id}/fork");
    let copy = id_of(&client.send(reqwest::Method::POST, &path, &[], None).await.ok());
    assert_eq!(client.conversation(&copy).await, said(&all), "without a body");
    let bad = client.post(&path, &json!({"messageID": "bad"})).await;
    assert_eq!((bad.status, bad.json()), (400, json!({"_tag": "BadRequest"})));
    assert_eq!(client.post("/session/ses_nope/fork", &json!({})).await.status, 404);
}

#[tokio::test]
async fn a_fork_of_a_running_session_is_closed_and_runs_nothing() {
    let world = World::start().await;
    let gate = Gate::new();
    world.model.script([Answer::new().text("half ").wait(&gate).text("done").stop(), Answer::say("in the fork")]);
    let id = world.session().await;
    let prompt = world.spawn_prompt(0, &id, "go");
    gate.reached().await;
    let copy = id_of(&fork(&world, &id, &json!({})).await);
    let messages = world.messages(&copy).await;
    assert_eq!(messages.len(), 2);
    assert!(messages[1]["info"]["time"]["completed"].is_number(), "nobody works for the copy: {messages:#?}");
    assert_eq!(world.status(&copy).await, "idle");
    assert_eq!(testkit::client::text_of(&world.prompt(&copy, "more").await), "in the fork");
    gate.release();
    assert_eq!(testkit::client::text_of(&prompt.await.unwrap()), "half done");
}

#[tokio::test]
async fn a_fork_that_is_sent_again_after_a_death_is_made_once_and_whole() {
    if !testkit::Mode::is_fleet_or_skip() {
        return;
    }
    let spec = testkit::WorldSpec { failpoints: true, ..testkit::WorldSpec::default() };
    let mut world = World::start_with(spec).await;
    world.model.script([Answer::say("one")]);
    let id = world.session().await;
    world.prompt(&id, "first").await;
    let key = [("content-type", "application/json"), ("idempotency-key", "fork-1")];
    let send = async |client: testkit::Client| {
        client.try_send(reqwest::Method::POST, &format!("/session/{id}/fork"), &key, Some(b"{}".to_vec())).await
    };
    // Half of the copies are in their places.
    let armed = world.replica(0).kill_at(&Failpoint::before("rename", "storage/message/").skip(1));
    assert!(send(world.at(0)).await.is_err(), "the replica dies");
    armed.reached(BOUND).await;
    let listed = world.at(1).get("/session").await.ok();
    assert_eq!(listed.as_array().unwrap().len(), 1, "nobody sees half a fork");
    let made = send(world.at(1)).await.unwrap().ok();
    assert_eq!(send(world.at(2)).await.unwrap().ok(), made, "made once");
    let copy = id_of(&made);
    assert_eq!(world.at(1).conversation(&copy).await, said(&[("user", "first"), ("assistant", "one")]));
}
