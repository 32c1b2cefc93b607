//! The replica that runs is killed: another one goes on.

use serde_json::json;
use std::time::{Duration, Instant};
use suite::figures::rounds;
use testkit::client::text_of;
use testkit::model::Gate;
use testkit::{Answer, BOUND, Mode, World, WorldSpec, eventually, transcript};

#[tokio::test]
async fn the_run_of_a_killed_replica_goes_on_and_a_waiter_elsewhere_is_answered() {
    if !Mode::is_fleet_or_skip() {
        return;
    }
    let mut world = World::start().await;
    let gate = Gate::new();
    world.model.push(Answer::new().text("half an ").wait(&gate).text("answer").stop());
    world.model.respond_with(|_| Answer::say("the whole answer"));
    let mut events = world.events(2).await;
    let id = world.session().await;
    let (client, path) = (world.at(0), format!("/session/{id}/message"));
    let lost = tokio::spawn(async move {
        let body = Some(testkit::client::text_prompt("first prompt").to_string().into_bytes());
        client.try_send(reqwest::Method::POST, &path, &[("content-type", "application/json")], body).await
    });
    gate.reached().await;
    let waiter = world.spawn_prompt(1, &id, "second prompt");
    events.until(BOUND, "the second prompt", |e| e.properties()["part"]["text"] == "second prompt").await;
    world.replica(0).kill9();
    assert!(lost.await.unwrap().is_err(), "the caller of the killed replica is cut off");
    let answer = waiter.await.unwrap();
    assert_eq!(text_of(&answer), "the whole answer");
    assert_eq!(answer["info"]["finish"], "stop");
    assert!(world.model.main_requests()[0].disconnected);
    let last = world.model.main_requests().pop().unwrap();
    assert_eq!(transcript::user_texts(&last.body), ["first prompt", "second prompt"], "once each, in order");
    assert_eq!(world.model.concurrent_runs(&id), 1);
    events.until_idle(BOUND, &id).await;
    for number in [1, 2] {
        assert_eq!(world.at(number).status(&id).await, "idle");
        let messages = world.at(number).messages(&id).await;
        let open =
            messages.iter().filter(|m| m["info"]["role"] == "assistant" && m["info"]["time"]["completed"].is_null());
        assert_eq!(open.count(), 0, "no message stays open: {messages:#?}");
        assert_eq!(messages.last().unwrap(), &answer);
    }
}

#[tokio::test]
async fn a_command_of_a_killed_replica_ends_and_is_not_run_again() {
    if !Mode::is_fleet_or_skip() {
        return;
    }
    let mut world = World::start().await;
    let command = "echo begun >> trace; echo printed; sleep 614";
    world.model.push(Answer::call("call_1", "bash", json!({"command": command, "description": "d"})));
    world.model.push(Answer::say("going on"));
    let id = world.session().await;
    world.at(0).prompt_async(&id, "go").await;
    eventually(BOUND, "its output", || async {
        let parts = world.at(2).tool_parts(&id).await;
        (parts.first()?["state"]["metadata"]["output"] == "printed\n").then_some(())
    })
    .await;
    world.replica(0).kill9();
    eventually(BOUND, "the command to end", || async {
        (!world.tool_processes().iter().any(|(_, line)| line.contains("sleep 614"))).then_some(())
    })
    .await;
    let survivors = world.at(1);
    eventually(BOUND, "the run to end", || async { (survivors.status(&id).await == "idle").then_some(()) }).await;
    let messages = world.at(2).messages(&id).await;
    assert_eq!(text_of(messages.last().unwrap()), "going on");
    let part = &world.at(2).tool_parts(&id).await[0];
    assert_eq!(part["state"]["status"], "error", "{part}");
    assert_eq!(part["state"]["metadata"], json!({"output": "printed\n", "interrupted": true}), "{part}");
    assert_eq!(std::fs::read_to_string(world.file("trace")).unwrap(), "begun\n", "it ran once");
    let told = transcript::tool_texts(&world.model.main_requests()[1].body);
    assert_eq!(told.len(), 1);
    assert!(told[0].contains("printed") && told[0].contains("interrupted"), "the model is told: {told:?}");
}

#[tokio::test]
async fn no_command_of_a_stopped_replica_lives_when_its_run_is_taken_over() {
    if !Mode::is_fleet_or_skip() {
        return;
    }
    let args = ["--lease-ttl", "4s", "--tick", "1010ms"].map(str::to_owned).to_vec();
    let mut world = World::start_with(WorldSpec { args, ..WorldSpec::default() }).await;
    let command = "while :; do date +%s%N >> trace; sleep 0.01; done";
    for round in 0..rounds(2) {
        let _ = std::fs::remove_file(world.file("trace"));
        world.model.push(Answer::call("call_1", "bash", json!({"command": command, "description": "d"})));
        world.model.push(Answer::say("going on"));
        let id = world.session().await;
        world.at(0).prompt_async(&id, "go").await;
        eventually(BOUND, "the command to begin", || async { world.file("trace").exists().then_some(()) }).await;
        // The worst moment: right before a beat, so that the last one is as old as can be.
        let beats = |world: &mut World| world.redis().command(&["HVALS", "flotilla:1:{0}:alive"]);
        let before = beats(&mut world);
        eventually(BOUND, "a beat", || {
            let now = beats(&mut world);
            let changed = now != before;
            async move { changed.then_some(()) }
        })
        .await;
        tokio::time::sleep(Duration::from_millis(900)).await;
        world.replica(0).stop();
        let guard = world.data_dir().join(format!("flotilla/guard/{id}/run"));
        let taken_before = std::fs::metadata(&guard).unwrap().modified().unwrap();
        let taken = eventually(BOUND, "the run to be taken over", || async {
            let taken = std::fs::metadata(&guard).unwrap().modified().unwrap();
            (taken != taken_before).then_some(taken)
        })
        .await;
        let survivor = world.at(1);
        eventually(BOUND, "the end", || async { (survivor.status(&id).await == "idle").then_some(()) }).await;
        let trace = std::fs::read_to_string(world.file("trace")).unwrap();
        let last: u128 = trace.lines().filter_map(|line| line.parse().ok()).max().unwrap();
        let taken = taken.duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos();
        println!(
            "figure command of a stopped replica: dead {} ms before the take-over",
            taken.saturating_sub(last) / 1_000_000
        );
        assert!(last < taken, "round {round}: it lived {} ms longer", (last - taken) / 1_000_000);
        world.replica(0).cont();
        let woken = world.at(0);
        let is_ready = || async { (woken.get("/readyz").await.status == 200).then_some(()) };
        eventually(BOUND, "the woken replica to be ready", is_ready).await;
    }
}

#[tokio::test]
async fn a_prompt_that_nobody_waits_for_survives_the_death_of_its_replica() {
    if !Mode::is_fleet_or_skip() {
        return;
    }
    let mut world = World::start().await;
    let gate = Gate::new();
    world.model.push(Answer::new().wait(&gate));
    world.model.respond_with(|_| Answer::say("answered"));
    let id = world.session().await;
    world.at(0).prompt_async(&id, "go").await;
    gate.reached().await;
    world.replica(0).kill9();
    let survivor = world.at(1);
    let answered = eventually(BOUND, "the answer", || async {
        let last = survivor.messages(&id).await.pop()?;
        (last["info"]["finish"] == "stop").then_some(last)
    });
    assert_eq!(text_of(&answered.await), "answered");
    assert!(world.model.main_requests()[0].disconnected);
    assert_eq!(world.model.concurrent_runs(&id), 1);
}

#[tokio::test]
async fn with_the_default_settings_a_killed_run_goes_on_within_five_seconds() {
    if !Mode::is_fleet_or_skip() {
        return;
    }
    let mut world = World::start().await;
    let mut took = Vec::new();
    for round in 0..rounds(2) {
        let gate = Gate::new();
        let asked = world.model.main_requests().len();
        world.model.push(Answer::new().text("half ").wait(&gate).stop());
        world.model.push(Answer::say("whole"));
        let id = world.session().await;
        world.at(round).prompt_async(&id, "go").await;
        gate.reached().await;
        world.replica(round).kill9();
        let began = Instant::now();
        world.model.wait_main_requests(asked + 2, BOUND).await;
        took.push(began.elapsed());
        let survivor = world.at(round + 1);
        eventually(BOUND, "the end", || async { (survivor.status(&id).await == "idle").then_some(()) }).await;
        assert_eq!(text_of(survivor.messages(&id).await.last().unwrap()), "whole");
        world.replica(round).start_again().await;
    }
    suite::figures::print("take-over after kill -9", &mut took);
    assert!(took.iter().all(|took| *took < Duration::from_secs(5)), "{took:?}");
}
