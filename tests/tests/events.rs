//! Event streams: the same everywhere, whole after a cut.

use std::time::Duration;

use serde_json::{Value, json};
use testkit::model::Gate;
use testkit::outline::{joined_deltas, published, shown_texts, to_idle};
use testkit::{Answer, BOUND, Event, Mode, Shape, World, eventually};

fn words(count: usize) -> Vec<String> {
    (0..count).map(|n| format!("w{n} ")).collect()
}

#[tokio::test]
async fn every_replica_tells_the_same_events_in_the_same_order() {
    if !Mode::is_fleet_or_skip() {
        return;
    }
    let world = World::start().await;
    world.model.respond_with(|body| {
        if body["messages"].as_array().is_some_and(|m| m.iter().any(|m| m["role"] == "tool")) {
            return Answer::new().text_chunks(words(20), Duration::from_millis(1)).stop();
        }
        Answer::call("call_1", "bash", json!({"command": "echo hi", "description": "d"}))
    });
    let mut readers = [world.events(0).await, world.events(1).await, world.events(2).await];
    let mut global = [world.global_events(0).await, world.global_events(1).await, world.global_events(2).await];
    let sessions = [world.session().await, world.session().await, world.session().await];
    let prompts = [0, 1, 2].map(|n| world.spawn_prompt(n, &sessions[n], "go"));
    for prompt in prompts {
        prompt.await.unwrap();
    }
    let last = json!({"title": "the last event"});
    world.client().patch(&format!("/session/{}", sessions[0]), &last).await.ok();
    for reader in readers.iter_mut().chain(&mut global) {
        let is_last = |e: &Event| e.properties()["info"]["title"] == "the last event";
        reader.until(BOUND, "the last event", is_last).await;
    }
    let told = readers.each_ref().map(|reader| published(&reader.collected()));
    assert!(told[0].len() > 60, "{}", told[0].len());
    assert!(told[0].iter().all(|(id, _)| id.is_some()), "each published event has an id");
    assert_eq!(told[0], told[1]);
    assert_eq!(told[0], told[2]);
    // The global stream bears the same in an envelope.
    let of = |reader: &testkit::EventReader| -> Vec<Value> {
        let events = reader.collected().into_iter().filter(|e| !e.is_of_the_stream() && e.payload()["type"] != "sync");
        events.map(|e| e.payload().clone()).collect()
    };
    let bodies: Vec<Value> = told[0].iter().map(|(_, data)| data.clone()).collect();
    for reader in &global {
        assert_eq!(of(reader), bodies);
    }
}

#[tokio::test]
async fn a_reader_that_is_cut_misses_nothing_and_sees_nothing_twice_on_another_replica() {
    let world = World::start().await;
    let answer = Answer::new().text_chunks(words(300), Duration::from_millis(4)).stop();
    world.model.push(answer);
    let mut control = world.events(2).await;
    let mut reader = world.events(0).await;
    let id = world.session().await;
    world.at(0).prompt_async(&id, "go").await;
    for (cut_at, missed_until, number) in [(20, 60, 1), (100, 140, 2), (180, 220, 0)] {
        let at = |n: usize| move |e: &Event| e.properties()["delta"] == format!("w{n} ");
        reader.until(BOUND, "a delta", at(cut_at)).await;
        reader.cut();
        control.until(BOUND, "a delta", at(missed_until)).await;
        world.reconnect(&mut reader, number).await;
    }
    control.until_idle(BOUND, &id).await;
    reader.until_idle(BOUND, &id).await;
    let whole = published(to_idle(&control.of_session(&id)));
    let patched = published(to_idle(&reader.of_session(&id)));
    assert_eq!(patched.len(), whole.len());
    assert_eq!(patched, whole);
    assert_eq!(joined_deltas(&reader.collected()), words(300).concat());
}

#[tokio::test]
async fn a_reader_whose_connection_breaks_inside_a_frame_goes_on_where_it_was() {
    let world = World::start().await;
    world.model.push(Answer::new().text_chunks(words(200), Duration::from_millis(4)).stop());
    let proxy = testkit::CuttingProxy::start(world.replicas()[0].port());
    let client = testkit::Client::new([proxy.url()]);
    let mut reader = client.events(&world.event_path()).await;
    let mut control = world.events(1).await;
    let id = world.session().await;
    world.prompt_async(&id, "go").await;
    reader.until(BOUND, "a delta", |e| e.properties()["delta"] == "w10 ").await;
    proxy.cut_after(1777);
    eventually(BOUND, "the cut", || async { reader.ended().filter(Result::is_err).map(drop) }).await;
    proxy.heal();
    reader.reconnect(&format!("{}{}", proxy.url(), world.event_path())).await;
    reader.until_idle(BOUND, &id).await;
    control.until_idle(BOUND, &id).await;
    assert_eq!(published(to_idle(&reader.of_session(&id))), published(to_idle(&control.of_session(&id))));
}

#[tokio::test]
async fn a_newcomer_in_mid_answer_is_shown_the_whole_answer() {
    let world = World::start().await;
    let gate = Gate::new();
    let answer = Answer::new().text_chunks(words(10), Duration::ZERO).wait(&gate);
    world.model.push(answer.text_chunks(["and ", "the ", "rest"], Duration::from_millis(5)).stop());
    let mut first = world.events(0).await;
    let id = world.session().await;
    world.at(0).prompt_async(&id, "go").await;
    first.until(BOUND, "the tenth delta", |e| e.properties()["delta"] == "w9 ").await;
    // The terminal client reconnects so: no id, no other request.
    let mut newcomer = world.global_events(1).await;
    newcomer.until(BOUND, "the busy status", |e| e.properties()["status"]["type"] == "busy").await;
    let begun = words(10).concat();
    eventually(BOUND, "the text so far", || async {
        shown_texts(&newcomer.collected()).values().any(|text| *text == begun).then_some(())
    })
    .await;
    let assistant = newcomer.collected().into_iter().any(|e| e.properties()["info"]["role"] == "assistant");
    assert!(assistant, "the message comes with its parts");
    gate.release();
    newcomer.until_idle(BOUND, &id).await;
    let whole = format!("{begun}and the rest");
    assert!(shown_texts(&newcomer.collected()).values().any(|text| *text == whole), "nothing lost, nothing doubled");
    let envelope = newcomer.collected().into_iter().find(|e| e.kind() == "session.idle").unwrap();
    assert_eq!(envelope.data["directory"], world.directory_text());
}

#[tokio::test]
async fn a_newcomer_after_the_answer_is_shown_that_it_ended() {
    let world = World::start().await;
    world.model.push(Answer::new().text_chunks(words(5), Duration::ZERO).stop());
    let id = world.session().await;
    world.at(0).prompt(&id, "go").await;
    let mut newcomer = world.global_events(1).await;
    let ended =
        |e: &Event| e.properties()["info"]["finish"] == "stop" && e.properties()["info"]["time"]["completed"].is_u64();
    newcomer.until(BOUND, "the ended message", ended).await;
    newcomer.until(BOUND, "the idle status", |e| e.properties()["status"]["type"] == "idle").await;
    assert!(shown_texts(&newcomer.collected()).values().any(|text| *text == words(5).concat()));
}

#[tokio::test]
async fn a_stream_begins_as_clients_expect_and_beats() {
    let world = World::start().await;
    let reply = reqwest_head(&world).await;
    for (name, value) in [
        ("content-type", "text/event-stream"),
        ("cache-control", "no-cache"),
        ("x-accel-buffering", "no"),
        ("x-content-type-options", "nosniff"),
    ] {
        assert!(reply.contains(&format!("{name}: {value}")), "{name} in {reply}");
    }
    let mut events = world.events(1).await;
    let first = events.until_kind(BOUND, "server.connected").await;
    Shape::new(r#"{"id": "<evt>", "type": "server.connected", "properties": {}}"#).check(&first.data);
    assert_eq!(events.retry(), Some(200), "clients come back soon");
    let mut global = world.global_events(2).await;
    let first = global.until_kind(BOUND, "server.connected").await;
    Shape::new(r#"{"payload": {"id": "<evt>", "type": "server.connected", "properties": {}}}"#).check(&first.data);
    events.until_kind(Duration::from_secs(13), "server.heartbeat").await;
}

/// The head of an answer to `GET /event`, in lower case.
async fn reqwest_head(world: &World) -> String {
    let request = format!("GET {} HTTP/1.1\r\nhost: localhost\r\n\r\n", world.event_path());
    let answer = testkit::raw::exchange(world.replicas()[0].port(), request.as_bytes());
    answer.split("\r\n\r\n").next().unwrap_or_default().to_lowercase()
}

#[tokio::test]
async fn events_of_another_directory_are_not_told() {
    let world = World::start().await;
    let other = tempfile::tempdir().unwrap();
    let path = format!("/event?directory={}", testkit::client::encoded(&other.path().to_string_lossy()));
    let mut elsewhere = world.at(1).events(&path).await;
    let mut here = world.events(1).await;
    let id = world.session().await;
    here.until_kind(BOUND, "session.created").await;
    let there = format!("/session?directory={}", testkit::client::encoded(&other.path().to_string_lossy()));
    let made = world.client().post(&there, &json!({"title": "there"})).await.ok();
    let told = elsewhere.until_kind(BOUND, "session.created").await;
    assert_eq!(told.properties()["info"], made);
    assert!(elsewhere.of_session(&id).is_empty());
}

#[tokio::test]
async fn an_unknown_last_event_id_is_healed() {
    let world = World::start().await;
    world.model.push(Answer::say("the answer"));
    let mut reader = world.events(0).await;
    let id = world.session().await;
    world.prompt(&id, "go").await;
    reader.until_idle(BOUND, &id).await;
    let heard = reader.collected().len();
    reader.reopen(&format!("{}{}", world.url(1), world.event_path()), Some("0-nobodyknowsthis".into())).await;
    reader.until(BOUND, "the state again", |e| e.properties()["status"]["type"] == "idle").await;
    let again = &reader.collected()[heard..];
    assert_eq!(again[0].kind(), "server.connected");
    assert!(shown_texts(again).values().any(|text| text == "the answer"));
}
