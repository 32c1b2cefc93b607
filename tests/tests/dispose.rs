//! Disposal: a directory's configuration is read anew and its runs are stopped, on every replica.

use serde_json::{Value, json};
use tempfile::TempDir;
use testkit::client::encoded;
use testkit::work_tree::folder;
use testkit::{Answer, BOUND, Event, EventReader, World, eventually, transcript};

/// Another directory, with this configuration.
fn another(config: Vec<u8>) -> TempDir {
    folder(&[("opencode.json".to_owned(), config)])
}

/// A model that answers nobody to the end.
fn never_done(world: &World) {
    world.model.respond_with(|body| Answer::new().text(&transcript::last_user_text(body)).hang());
}

async fn dispose(world: &World, number: usize) {
    assert_eq!(world.at(number).post("/instance/dispose", &json!({})).await.ok(), json!(true));
}

/// Waits until the answer to a prompt has begun.
async fn begun(events: &EventReader, said: &str) {
    let is_begun = || events.collected().iter().any(|event| event.properties()["delta"] == said);
    eventually(BOUND, "the beginning of an answer", || async { is_begun().then_some(()) }).await;
}

#[tokio::test]
async fn the_runs_of_a_directory_that_is_disposed_are_stopped_wherever_they_are() {
    let world = World::start().await;
    never_done(&world);
    let other = another(std::fs::read(world.file("opencode.json")).unwrap());
    let mut readers = [world.events(0).await, world.events(1).await, world.events(2).await];
    let mut global = world.global_events(1).await;
    let there = format!("/session?directory={}", encoded(&other.path().to_string_lossy()));
    let elsewhere = world.client().post(&there, &json!({"title": "there"})).await.ok()["id"].clone();
    let elsewhere = elsewhere.as_str().unwrap();
    let sessions = [world.session().await, world.session().await];
    let prompts = [0, 1].map(|number| world.spawn_prompt(number, &sessions[number], &format!("prompt {number}")));
    world.at(2).prompt_async(elsewhere, "stays").await;
    for said in ["prompt 0", "prompt 1", "stays"] {
        begun(&global, said).await;
    }

    dispose(&world, 2).await;
    for prompt in prompts {
        let answer = prompt.await.unwrap();
        assert_eq!(answer["info"]["error"], json!({"name": "MessageAbortedError", "data": {"message": "Aborted"}}));
    }
    let status = |directory: String| {
        let (client, path) = (world.client(), format!("/session/status?directory={}", encoded(&directory)));
        async move { client.get(&path).await.ok() }
    };
    assert_eq!(status(world.directory_text()).await, json!({}));
    let other_path = other.path().to_string_lossy().into_owned();
    assert_eq!(status(other_path).await, json!({elsewhere: {"type": "busy"}}), "other directories are let be");

    world.client().patch(&format!("/session/{}", sessions[0]), &json!({"title": "after it"})).await.ok();
    for reader in &mut readers {
        let told = reader.until_kind(BOUND, "server.instance.disposed").await;
        assert_eq!(told.properties(), &json!({"directory": world.directory_text()}));
        let heard = reader.collected();
        let before: Vec<&str> = heard.iter().map(Event::kind).take_while(|kind| *kind != told.kind()).collect();
        let idle = before.iter().filter(|kind| **kind == "session.idle").count();
        assert!(idle >= 2, "what was stopped is told before: {before:?}");
        // The stream goes on: a client that is cut off might not come back.
        reader.until(BOUND, "what comes after it", |e| e.properties()["info"]["title"] == "after it").await;
    }
    let told = global.until_kind(BOUND, "server.instance.disposed").await;
    assert_eq!(
        (told.data["directory"].as_str(), told.data["project"].is_string()),
        (Some(&*world.directory_text()), true)
    );
    world.abort(elsewhere).await;
}

#[tokio::test]
async fn who_is_told_of_a_disposal_reads_the_configuration_as_it_is_then() {
    let world = World::start().await;
    let mut readers = [world.events(0).await, world.events(1).await, world.events(2).await];
    let path = world.file("opencode.json");
    let mut config: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    for round in 0..5 {
        for number in 0..3 {
            world.at(number).get("/config").await.ok();
        }
        config["username"] = json!(format!("user {round}"));
        std::fs::write(&path, config.to_string()).unwrap();
        dispose(&world, round).await;
        for (number, reader) in readers.iter_mut().enumerate() {
            reader.until_kind(BOUND, "server.instance.disposed").await;
            let read = world.at(number).get("/config").await.ok();
            assert_eq!(read["username"], config["username"], "replica {number}, round {round}");
        }
    }

    // What is wrong in it is no hindrance: it may be why somebody disposes.
    std::fs::write(&path, "{").unwrap();
    dispose(&world, 0).await;
    readers[1].until_kind(BOUND, "server.instance.disposed").await;
    assert_eq!(world.at(1).get("/config").await.status, 400);
    std::fs::write(&path, config.to_string()).unwrap();
    dispose(&world, 1).await;
    readers[2].until_kind(BOUND, "server.instance.disposed").await;
    readers[2].until_kind(BOUND, "server.instance.disposed").await;
    assert_eq!(world.at(2).get("/config").await.ok()["username"], config["username"]);
}

#[tokio::test]
async fn everything_is_disposed_at_once() {
    let world = World::start().await;
    never_done(&world);
    let other = another(std::fs::read(world.file("opencode.json")).unwrap());
    let directories = [world.directory_text(), other.path().to_string_lossy().into_owned()];
    let mut streams = [world.global_events(0).await, world.global_events(1).await, world.global_events(2).await];
    let mut here = world.events(1).await;
    for (number, directory) in directories.iter().enumerate() {
        let path = format!("/session?directory={}", encoded(directory));
        let id = world.client().post(&path, &json!({"title": "t"})).await.ok()["id"].as_str().unwrap().to_owned();
        world.at(number).prompt_async(&id, &format!("prompt {number}")).await;
        begun(&streams[2], &format!("prompt {number}")).await;
    }

    assert_eq!(world.at(2).post("/global/dispose", &json!({})).await.ok(), json!(true));
    for stream in &mut streams {
        let last = stream.until_kind(BOUND, "global.disposed").await;
        assert_eq!((&last.data["directory"], last.data.get("project")), (&json!("global"), None));
        assert_eq!(last.properties(), &json!({}));
        let told = stream.collected();
        let disposed = told.iter().filter(|event| event.kind() == "server.instance.disposed");
        let disposed: Vec<&Value> = disposed.map(|event| &event.properties()["directory"]).collect();
        for directory in &directories {
            assert_eq!(disposed.iter().filter(|told| **told == directory).count(), 1, "{directory} in {disposed:?}");
        }
    }
    for directory in &directories {
        let path = format!("/session/status?directory={}", encoded(directory));
        assert_eq!(world.client().get(&path).await.ok(), json!({}));
    }
    here.until_kind(BOUND, "server.instance.disposed").await;
    world.client().post("/session", &json!({"title": "the last"})).await.ok();
    here.until(BOUND, "the last event", |event| event.properties()["info"]["title"] == "the last").await;
    assert!(here.collected().iter().all(|event| event.kind() != "global.disposed"), "it is of no directory");
}
