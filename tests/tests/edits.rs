//! Single messages and parts: read, changed and removed through any replica.

use serde_json::{Value, json};
use testkit::client::{id_of, parts_of};
use testkit::failpoint::Failpoint;
use testkit::model::Gate;
use testkit::outline::outline;
use testkit::{Answer, BOUND, Client, Mode, Reply, World, WorldSpec};

fn not_found(what: &str, id: &str) -> Value {
    json!({"name": "NotFoundError", "data": {"message": format!("{what} not found: {id}")}})
}

/// The address of an answer, and the text part in it.
async fn answered(world: &World, id: &str) -> (String, Value) {
    let answer = world.prompt(id, "q").await;
    let part = parts_of(&answer).iter().find(|part| part["type"] == "text").cloned().unwrap_or_default();
    (format!("/session/{id}/message/{}", id_of(&answer["info"])), part)
}

fn with(part: &Value, key: &str, value: &str) -> Value {
    let mut part = part.clone();
    part[key] = json!(value);
    part
}

#[tokio::test]
async fn parts_and_messages_are_changed_and_removed_as_recorded() {
    let world = World::start().await;
    world.model.push(Answer::say("answer"));
    let id = world.session().await;
    let (message, part) = answered(&world, &id).await;
    let client = world.client();
    let mut events = world.events(2).await;
    let of_part = |part: &Value| format!("{message}/part/{}", id_of(part));
    let bad = |reply: Reply| (reply.status, reply.json());

    let edited = with(&part, "text", "edited");
    assert_eq!(client.patch(&of_part(&part), &edited).await.ok(), edited);
    let other = client.patch(&of_part(&part), &with(&edited, "id", "prt_other")).await;
    assert_eq!(bad(other), (400, json!({"_tag": "BadRequest"})));
    let missing = json!({"name": "BadRequest", "data": {"message": "Missing key\n  at [\"id\"]", "kind": "Payload"}});
    assert_eq!(bad(client.patch(&of_part(&part), &json!({"type": "text"})).await), (400, missing));
    let new = with(&with(&part, "text", "brand new"), "id", "prt_zzzz");
    assert_eq!(client.patch(&of_part(&new), &new).await.ok(), new);
    for number in 0..3 {
        let read = world.at(number).get(&message).await.ok();
        let texts: Vec<&Value> = parts_of(&read).iter().filter(|part| part["type"] == "text").collect();
        assert_eq!(texts, [&edited, &new], "replica {number}");
    }
    assert_eq!(client.delete(&of_part(&part)).await.ok(), json!(true));
    assert_eq!(client.delete(&format!("{message}/part/prt_nope")).await.ok(), json!(true));
    let read = client.get(&message).await.ok();
    let kinds: Vec<&Value> = parts_of(&read).iter().map(|part| &part["type"]).collect();
    assert_eq!(kinds, ["step-start", "step-finish", "text"]);

    assert_eq!(client.delete(&message).await.ok(), json!(true));
    for number in 0..3 {
        let gone = world.at(number).get(&message).await;
        assert_eq!(bad(gone), (404, not_found("Message", message.rsplit('/').next().unwrap())), "replica {number}");
    }
    assert_eq!(client.delete(&message).await.ok(), json!(true), "the second time");
    let left = world.messages(&id).await;
    assert_eq!(left.iter().map(|m| &m["info"]["role"]).collect::<Vec<_>>(), ["user"]);

    let removed = events.until_kind(BOUND, "message.removed").await;
    events.until_kind(BOUND, "message.removed").await;
    assert_eq!(removed.properties()["messageID"], part["messageID"]);
    let expected = [
        "message.part.updated text full",
        "message.part.updated text full",
        "message.part.removed",
        "message.part.removed",
        "message.removed",
        "message.removed",
    ];
    assert_eq!(outline(&events.of_session(&id)), expected);
}

#[tokio::test]
async fn a_part_stays_in_its_message_whichever_is_named() {
    let world = World::start().await;
    world.model.push(Answer::say("answer"));
    let id = world.session().await;
    let (message, part) = answered(&world, &id).await;
    let prompt = world.messages(&id).await.remove(0);
    let other = id_of(&prompt["info"]);
    let moved = with(&with(&part, "text", "changed"), "messageID", &other);
    let path = format!("/session/{id}/message/{other}/part/{}", id_of(&part));
    let expected = with(&part, "text", "changed");
    assert_eq!(world.client().patch(&path, &moved).await.ok(), expected, "it is told where it is");
    for number in 0..3 {
        let client = world.at(number);
        assert_eq!(client.get(&format!("/session/{id}/message/{other}")).await.ok(), prompt, "replica {number}");
        let read = client.get(&message).await.ok();
        let texts: Vec<&Value> = parts_of(&read).iter().filter(|part| part["type"] == "text").collect();
        assert_eq!(texts, [&expected], "replica {number}");
    }
}

#[tokio::test]
async fn what_is_not_there_is_said_as_recorded() {
    let world = World::start().await;
    world.model.push(Answer::say("answer"));
    let id = world.session().await;
    let (message, part) = answered(&world, &id).await;
    let client = world.client();
    let message_id = message.rsplit('/').next().unwrap();
    let get = async |path: String| {
        let reply = client.get(&path).await;
        (reply.status, reply.json())
    };
    assert_eq!(get(format!("/session/{id}/message/msg_nope")).await, (404, not_found("Message", "msg_nope")));
    let elsewhere = get(format!("/session/ses_nope/message/{message_id}")).await;
    assert_eq!(elsewhere, (404, not_found("Message", message_id)));
    let (status, body) = get(format!("/session/{id}/message/bad")).await;
    let expected = "Expected a string starting with \"msg\", got \"bad\"\n  at [\"messageID\"]";
    assert_eq!((status, &body["data"]["message"], &body["data"]["kind"]), (400, &json!(expected), &json!("Params")));
    let gone = client.delete(&format!("/session/ses_nope/message/{message_id}")).await;
    assert_eq!((gone.status, gone.json()), (404, not_found("Session", "ses_nope")));
    let stray = with(&with(&part, "messageID", "msg_nope"), "id", "prt_new");
    let nowhere = client.patch(&format!("/session/{id}/message/msg_nope/part/prt_new"), &stray).await;
    assert_eq!((nowhere.status, nowhere.json()), (404, not_found("Message", "msg_nope")));
    let bogus = with(&part, "type", "bogus");
    assert_eq!(client.patch(&format!("{message}/part/{}", id_of(&part)), &bogus).await.status, 400);
}

#[tokio::test]
async fn another_sessions_part_cannot_be_removed_through_this_one() {
    let world = World::start().await;
    world.model.script([Answer::say("answer"), Answer::say("other")]);
    let (id, other) = (world.session().await, world.session().await);
    let (message, part) = answered(&world, &other).await;
    let stray = message.replace(&other, &id);
    let client = world.client();
    assert_eq!(client.delete(&format!("{stray}/part/{}", id_of(&part))).await.ok(), json!(true));
    assert_eq!(client.delete(&stray).await.ok(), json!(true));
    assert_eq!(parts_of(&client.get(&message).await.ok()).len(), 3);
}

#[tokio::test]
async fn what_steps_used_is_taken_off_with_their_messages() {
    let world = World::start().await;
    world.model.script([Answer::say("one"), Answer::say("two")]);
    let id = world.session().await;
    let (first, _) = answered(&world, &id).await;
    answered(&world, &id).await;
    let client = world.client();
    let input = async || client.get(&format!("/session/{id}")).await.ok()["tokens"]["input"].clone();
    assert_eq!(input().await, 200);
    assert_eq!(client.delete(&first).await.ok(), json!(true));
    assert_eq!(input().await, 100);
}

#[tokio::test]
async fn a_running_session_keeps_its_messages_and_its_runner_its_own() {
    let world = World::start().await;
    let gate = Gate::new();
    world.model.script([Answer::say("warm"), Answer::new().text("half ").wait(&gate).text("done").stop()]);
    let id = world.session().await;
    let (message, part) = answered(&world, &id).await;
    let prompt = world.spawn_prompt(0, &id, "go");
    gate.reached().await;
    let client = world.client();
    let busy = json!({"_tag": "SessionBusyError", "sessionID": id, "message": format!("Session is busy: {id}")});
    let refused = |reply: Reply| assert_eq!((reply.status, reply.json()), (409, busy.clone()));
    refused(client.delete(&message).await);
    let edited = with(&part, "text", "edited");
    let path = format!("{message}/part/{}", id_of(&part));
    assert_eq!(client.patch(&path, &edited).await.ok(), edited, "a finished message is nobody's");
    let messages = world.messages(&id).await;
    let open = messages.last().unwrap();
    let own = &parts_of(open)[0];
    let path = format!("/session/{id}/message/{}/part/{}", id_of(&open["info"]), id_of(own));
    refused(client.patch(&path, own).await);
    refused(client.delete(&path).await);
    gate.release();
    assert_eq!(testkit::client::text_of(&prompt.await.unwrap()), "half done");
    assert_eq!(client.delete(&path).await.ok(), json!(true));
    assert_eq!(client.delete(&message).await.ok(), json!(true));
}

#[tokio::test]
async fn a_removal_that_a_death_cut_off_is_finished_by_the_same_request() {
    if !Mode::is_fleet_or_skip() {
        return;
    }
    let mut world = World::start_with(WorldSpec { failpoints: true, ..WorldSpec::default() }).await;
    world.model.push(Answer::say("answer"));
    let id = world.session().await;
    let (message, part) = answered(&world, &id).await;
    let name = [("idempotency-key", "removal-1")];
    let remove = async |client: Client| client.try_send(reqwest::Method::DELETE, &message, &name, None).await;
    let armed = world.replica(0).kill_at(&Failpoint::before("rename", "storage/part/"));
    assert!(remove(world.at(0)).await.is_err(), "the replica dies between the message and its parts");
    armed.reached(BOUND).await;
    assert_eq!(world.at(1).get(&message).await.status, 404, "nobody sees half a message");
    let mut events = world.events(2).await;
    assert_eq!(remove(world.at(1)).await.unwrap().ok(), json!(true));
    events.until_kind(BOUND, "message.removed").await;
    let parts = world.data_dir().join("storage/part").join(part["messageID"].as_str().unwrap());
    assert_eq!(std::fs::read_dir(parts).unwrap().count(), 0, "its parts are gone, too");
    assert_eq!(world.at(2).get(&format!("/session/{id}")).await.ok()["tokens"]["input"], 0);
}
