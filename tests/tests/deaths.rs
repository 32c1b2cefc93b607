//! takeover: a replica is killed at each durable point of each operation that holds a lease or a guard; the operation has the
//! end that docs/GUARANTEES.md states.

#![allow(clippy::unwrap_used)]

use serde_json::{Value, json};
use std::path::PathBuf;
use testkit::client::{text_of, text_prompt};
use testkit::{Answer, BOUND, Failpoint, Mode, World, WorldSpec, eventually, transcript};

/// Replicas with failpoints that notice a silence soon.
fn spec() -> WorldSpec {
    let args = ["--lease-ttl", "2s", "--tick", "300ms"].map(str::to_owned).to_vec();
    WorldSpec { args, failpoints: true, ..WorldSpec::default() }
}

/// Sends a request to the first replica, which dies at the point before it answers.
async fn dies(world: &mut World, point: &Failpoint, method: reqwest::Method, path: &str, body: Value) {
    let armed = world.replica(0).kill_at(point);
    let kind = [("content-type", "application/json")];
    let died = world.at(0).try_send(method, path, &kind, Some(body.to_string().into_bytes())).await;
    assert!(died.is_err(), "{point:?}: {died:?}");
    armed.reached(BOUND).await;
    world.replica(0).kill9();
}

/// The names of the files below a directory of the store that belong to a session, or to one of its messages.
fn files_of(world: &World, session: &str, messages: &[String]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut directories = vec![world.data_dir().join("storage"), world.data_dir().join("flotilla/open")];
    directories.extend(["flotilla/ticket", "flotilla/ask"].map(|name| world.data_dir().join(name)));
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(&directory).into_iter().flatten().flatten() {
            let path = entry.path();
            let text = path.to_string_lossy().into_owned();
            if path.is_dir() {
                directories.push(path);
            } else if text.contains(session) || messages.iter().any(|message| text.contains(message.as_str())) {
                found.push(path);
            }
        }
    }
    found
}

/// Waits until no marker is left.
async fn all_is_settled(world: &World, what: &str) {
    eventually(BOUND, &format!("no marker to be left ({what})"), || async {
        let open = std::fs::read_dir(world.data_dir().join("flotilla/open")).unwrap().count();
        (open == 0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_deletion_whose_replica_dies_is_finished_or_never_was() {
    if !Mode::is_fleet_or_skip() {
        return;
    }
    let head = |id: &str| format!("guard/{id}/head.json");
    type Point = fn(&str, &str) -> Failpoint;
    // Not yet durable: the session lives on, whole.
    let before: [Point; 2] = [
        // Its marker is made, and no more.
        |id, _| Failpoint::after("rename", format!("flotilla/open/{id}.deleted")),
        |_, head| Failpoint::before("rename", head),
    ];
    // Durable: somebody finishes it.
    let after: [Point; 5] = [
        |_, head| Failpoint::after("rename", head),
        |id, _| Failpoint::before("unlink", format!("storage/message/{id}")),
        |id, _| Failpoint::after("rmdir", format!("storage/message/{id}")),
        |_, head| Failpoint::before("rename", head).skip(1),
        |id, _| Failpoint::before("unlink", format!("flotilla/open/{id}.deleted")),
    ];
    let mut world = World::start_with(spec()).await;
    world.model.respond_with(|_| Answer::say("answered"));
    let points = before.iter().map(|point| (point, false)).chain(after.iter().map(|point| (point, true)));
    for (point, is_durable) in points {
        let id = world.session().await;
        let path = format!("/session/{id}");
        world.prompt(&id, "go").await;
        let messages: Vec<String> =
            world.messages(&id).await.iter().map(|m| m["info"]["id"].as_str().unwrap().to_owned()).collect();
        all_is_settled(&world, "before").await;
        let mut events = world.global_events(1).await;
        let point = point(&id, &head(&id));
        dies(&mut world, &point, reqwest::Method::DELETE, &path, json!({})).await;
        if is_durable {
            let gone = |event: &testkit::Event| {
                event.kind() == "session.deleted" && event.properties()["sessionID"] == id.as_str()
            };
            events.until(BOUND, "the deletion to be told", gone).await;
            for number in [1, 2] {
                assert_eq!(world.at(number).get(&path).await.status, 404, "{point:?}");
                let listed = world.at(number).get("/session").await.ok();
                assert!(!listed.to_string().contains(&id), "{point:?}: {listed}");
            }
        } else {
            // As if nobody had asked for it.
            for number in [1, 2] {
                assert_eq!(world.at(number).get(&path).await.status, 200, "{point:?}");
                assert_eq!(world.at(number).messages(&id).await.len(), 2, "{point:?}");
            }
            all_is_settled(&world, &format!("{point:?}")).await;
            assert_eq!(text_of(&world.at(1).prompt(&id, "still there?").await), "answered", "{point:?}");
            assert_eq!(world.at(2).delete(&path).await.status, 200, "{point:?}");
        }
        all_is_settled(&world, &format!("{point:?}")).await;
        eventually(BOUND, "nothing to be left of the session", || async {
            files_of(&world, &id, &messages).is_empty().then_some(())
        })
        .await;
        world.replica(0).start_again().await;
    }
}

#[tokio::test]
async fn an_abort_before_the_take_over_answers_with_the_turn_that_it_stopped() {
    if !Mode::is_fleet_or_skip() {
        return;
    }
    let mut world = World::start_with(spec()).await;
    world.model.respond_with(|_| Answer::say("first answer"));
    let id = world.session().await;
    assert_eq!(text_of(&world.prompt(&id, "first").await), "first answer");
    // Of the two messages that are stored now, the second is the answer: it is never placed.
    let armed = world.replica(0).kill_at(&Failpoint::before("rename", format!("storage/message/{id}")).skip(1));
    let mut second = text_prompt("second");
    second["messageID"] = json!("msg_second");
    let path = format!("/session/{id}/message");
    assert_eq!(world.at(0).post(&format!("/session/{id}/prompt_async"), &second).await.status, 204);
    armed.reached(BOUND).await;
    world.replica(0).kill9();
    // The same prompt at another replica: it joins, and waits.
    let waiter = {
        let (client, path) = (world.at(2), path.clone());
        tokio::spawn(async move { client.post(&path, &second).await.ok() })
    };
    world.at(1).abort(&id).await;
    let answer = waiter.await.unwrap();
    assert_eq!(answer["info"]["parentID"], "msg_second", "{answer}");
    assert_eq!(answer["info"]["error"]["name"], "MessageAbortedError", "{answer}");
    assert!(answer["info"]["time"]["completed"].is_u64(), "{answer}");
    assert_eq!(world.at(1).messages(&id).await.last().unwrap(), &answer);
    all_is_settled(&world, "the abort").await;
    assert_eq!(world.model.main_requests().len(), 1, "what was aborted is not asked");
    // What was aborted goes to the model with the next prompt.
    assert_eq!(text_of(&world.at(1).prompt(&id, "third").await), "first answer");
    let asked = world.model.main_requests().pop().unwrap();
    assert_eq!(transcript::user_texts(&asked.body), ["first", "second", "third"]);
}
