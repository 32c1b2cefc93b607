//! Abort, on another replica than the one that runs.

use serde_json::json;
use std::time::Instant;
use suite::figures::rounds;
use testkit::client::parts_of;
use testkit::model::{Gate, Usage};
use testkit::outline::spine;
use testkit::{Answer, BOUND, Shape, World, eventually, transcript};

const ABORTED: &str = include_str!("../fixtures/message-aborted.json");

#[tokio::test]
async fn an_abort_in_mid_answer_reaches_the_model_the_message_and_the_caller() {
    let world = World::start().await;
    world.model.push(Answer::new().text("some words ").text("here an").hang());
    let mut events = world.events(2).await;
    let id = world.session().await;
    let prompt = world.spawn_prompt(0, &id, "go");
    events.until(BOUND, "the second delta", |e| e.properties()["delta"] == "here an").await;
    assert_eq!(world.at(1).status(&id).await, "busy");
    world.at(1).abort(&id).await;
    eventually(BOUND, "the model's connection to drop", || async {
        world.model.main_requests()[0].disconnected.then_some(())
    })
    .await;
    assert_eq!(world.at(2).status(&id).await, "idle");
    let answer = prompt.await.unwrap();
    Shape::new(ABORTED)
        .with("session", id.as_str())
        .with("directory", world.directory_text())
        .with("text", "some words here an")
        .check(&answer);
    for number in 0..3 {
        assert_eq!(world.at(number).messages(&id).await[1], answer, "replica {number}");
    }
    events.until_idle(BOUND, &id).await;
    let told = spine(&events.of_session(&id));
    let error = told.iter().position(|line| line == "session.error MessageAbortedError").expect("the error is told");
    let idle = told.iter().position(|line| line == "session.idle").expect("the session is told idle");
    assert!(error < idle, "{told:?}");

    // The next prompt goes on: what was said before the abort is in the history.
    world.model.push(Answer::say("after abort"));
    assert_eq!(world.prompt(&id, "continue").await["parts"][1]["text"], "after abort");
    let asked = world.model.main_requests();
    assert_eq!(transcript::user_texts(&asked[1].body), ["go", "continue"]);
    assert!(asked[1].body["messages"].to_string().contains("some words here an"));
}

#[tokio::test]
async fn an_abort_ends_a_command_with_its_grandchildren() {
    let world = World::start().await;
    let command = "echo before; (sleep 611 & sleep 612 & wait) & sleep 613; echo after";
    let call = json!({"command": command, "description": "sleep"});
    let step = Answer::new().text("running").tool_call("call_1", "bash", call).finish("tool_calls", Usage::default());
    world.model.push(step);
    let id = world.session().await;
    let prompt = world.spawn_prompt(0, &id, "go");
    let sleeping = |world: &World| {
        let processes = world.tool_processes().into_iter();
        processes.filter(|(_, line)| line.starts_with("sleep 61")).count()
    };
    eventually(BOUND, "three sleeping processes", || async { (sleeping(&world) == 3).then_some(()) }).await;
    world.at(1).abort(&id).await;
    let answer = prompt.await.unwrap();
    assert_eq!(answer["info"]["error"], json!({"name": "MessageAbortedError", "data": {"message": "Aborted"}}));
    eventually(BOUND, "the processes to end", || async { (sleeping(&world) == 0).then_some(()) }).await;
    let part = parts_of(&answer).iter().find(|p| p["type"] == "tool").unwrap();
    let status = part["state"]["status"].as_str().unwrap();
    assert!(["completed", "error"].contains(&status), "{part}");
    assert!(part["state"].to_string().contains("before"), "what was printed is kept: {part}");
    assert_eq!(world.at(2).status(&id).await, "idle");
    assert_eq!(world.model.main_requests().len(), 1, "an aborted run asks no more");
}

#[tokio::test]
async fn an_abort_before_the_first_token_leaves_an_aborted_message() {
    let world = World::start().await;
    let gate = Gate::new();
    world.model.push(Answer::new().wait(&gate).text("never"));
    let id = world.session().await;
    let prompt = world.spawn_prompt(0, &id, "go");
    gate.reached().await;
    world.at(1).abort(&id).await;
    let answer = prompt.await.unwrap();
    assert_eq!(answer["info"]["error"]["name"], "MessageAbortedError");
    assert_eq!(answer["parts"], json!([]), "a step begins with the first thing that the model says");
    assert!(world.model.main_requests()[0].disconnected);
}

#[tokio::test]
async fn an_abort_takes_its_pending_asks_along() {
    let config = json!({"permission": {"bash": "ask"}});
    let world = World::start_with(testkit::WorldSpec { config, ..Default::default() }).await;
    world.model.push(Answer::call("call_1", "bash", json!({"command": "echo x", "description": "d"})));
    let mut events = world.events(2).await;
    let id = world.session().await;
    let prompt = world.spawn_prompt(0, &id, "go");
    events.until_kind(BOUND, "permission.asked").await;
    world.at(1).abort(&id).await;
    assert_eq!(prompt.await.unwrap()["info"]["error"]["name"], "MessageAbortedError");
    for number in 0..3 {
        assert_eq!(world.at(number).get("/permission").await.ok(), json!([]), "replica {number}");
    }
}

#[tokio::test]
async fn an_abort_of_an_idle_or_unknown_session_says_idle() {
    let world = World::start().await;
    let id = world.session().await;
    let mut events = world.events(1).await;
    world.at(2).abort(&id).await;
    let status = events.until_kind(BOUND, "session.status").await;
    assert_eq!(status.properties(), &json!({"sessionID": id, "status": {"type": "idle"}}));
    events.until_idle(BOUND, &id).await;
    // A session that nobody knows has no directory: only those who watch all of them are told.
    let mut everywhere = world.global_events(1).await;
    let unknown = "ses_dfc9ffffffffabcdefghijklmn";
    world.at(2).abort(unknown).await;
    everywhere.until_idle(BOUND, unknown).await;
}

#[tokio::test]
async fn an_abort_on_another_replica_drops_the_model_connection_at_once() {
    let world = World::start().await;
    let mut took = Vec::new();
    for round in 0..rounds(5) {
        let id = world.session().await;
        world.model.push(Answer::new().text("some words").hang());
        world.at(round).prompt_async(&id, "go").await;
        let asked = world.model.wait_main_requests(round + 1, BOUND).await.len();
        let (client, session, began) = (world.at(round + 1), id.clone(), Instant::now());
        let aborting = tokio::spawn(async move { client.abort(&session).await });
        while !world.model.main_request(asked - 1).unwrap().disconnected {
            assert!(began.elapsed() < BOUND, "the model's connection stays");
            tokio::task::yield_now().await;
        }
        took.push(began.elapsed());
        aborting.await.unwrap();
        eventually(BOUND, "the end", || async { (world.status(&id).await == "idle").then_some(()) }).await;
    }
    suite::figures::print("cancel", &mut took);
}
