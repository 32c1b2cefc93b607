//! Faults that once did harm: each stays mended.

use serde_json::json;
use std::time::Duration;
use testkit::client::{text_of, text_prompt};
use testkit::model::Gate;
use testkit::{Answer, BOUND, Mode, World, WorldSpec, eventually, transcript};
use tokio::io::AsyncWriteExt;

/// Replicas that notice a silence soon.
fn quick() -> WorldSpec {
    let args = ["--lease-ttl", "3s", "--tick", "500ms"].map(str::to_owned).to_vec();
    WorldSpec { args, ..WorldSpec::default() }
}

#[tokio::test]
async fn arguments_that_are_nested_too_deep_are_an_invalid_call() {
    let world = World::start().await;
    let deep = format!("{}1{}", "[".repeat(125), "]".repeat(125));
    let arguments = format!("{{\"command\":\"echo hi\",\"description\":\"d\",\"x\":{deep}}}");
    world
        .model
        .push(Answer::new().tool_call_text("c1", "bash", &arguments, 1).finish("tool_calls", Default::default()));
    world.model.push(Answer::say("fine"));
    let id = world.session().await;
    assert_eq!(text_of(&world.prompt(&id, "go").await), "fine");
    let parts = world.client().tool_parts(&id).await;
    assert_eq!(parts[0]["tool"], "invalid", "{}", parts[0]);
}

#[tokio::test]
async fn a_doom_loop_is_still_asked_about_after_a_take_over() {
    if !Mode::is_fleet_or_skip() {
        return;
    }
    let mut world = World::start_with(quick()).await;
    let call = || json!({"command": "echo x >> trace", "description": "d"});
    let step =
        Answer::new().tool_call("c1", "bash", call()).tool_call("c2", "bash", call()).tool_call("c3", "bash", call());
    world.model.push(step.finish("tool_calls", Default::default()));
    world.model.push(Answer::say("end"));
    let id = world.session().await;
    world.at(0).prompt_async(&id, "go").await;
    let lines = |world: &World| std::fs::read_to_string(world.file("trace")).unwrap_or_default().lines().count();
    let asked = eventually(BOUND, "two calls to end and the third to be asked about", || async {
        let asks = world.at(1).get("/permission").await.ok();
        asks.as_array().filter(|asks| asks.len() == 1 && lines(&world) == 2).map(|asks| asks[0].clone())
    })
    .await;
    assert_eq!(asked["permission"], "doom_loop");
    world.replica(0).kill9();
    eventually(BOUND, "the run to be taken over", || async {
        let taken: u64 = [1, 2].iter().map(|&n| metric(&world, n)).sum::<u64>();
        (taken > 0).then_some(())
    })
    .await;
    let path = format!("/permission/{}/reply", asked["id"].as_str().unwrap());
    assert_eq!(world.at(2).post(&path, &json!({"reply": "once"})).await.ok(), json!(true));
    eventually(BOUND, "the run to end", || async { (world.at(1).status(&id).await == "idle").then_some(()) }).await;
    assert_eq!(lines(&world), 3, "the third call ran when it was allowed, and once");
}

/// Buried replicas, as this one's log tells: whoever buries sweeps, and then claims.
fn metric(world: &World, number: usize) -> u64 {
    world.replicas()[number].stderr().matches("buried a replica").count() as u64
}

#[tokio::test]
async fn a_parked_run_answers_in_the_order_of_the_prompts() {
    if !Mode::is_fleet_or_skip() {
        return;
    }
    let mut world = World::start_with(quick()).await;
    let gate = Gate::new();
    world.model.push(Answer::new().text("half ").wait(&gate).text("rest").stop());
    world.model.respond_with(|body| Answer::say(&format!("to {}", transcript::last_user_text(body))));
    let id = world.session().await;
    let first = world.spawn_prompt(0, &id, "first");
    gate.reached().await;
    let second = world.spawn_prompt(1, &id, "second");
    eventually(BOUND, "the second prompt to be stored", || async {
        (world.at(2).messages(&id).await.len() >= 3).then_some(())
    })
    .await;
    world.redis().pause();
    eventually(BOUND, "the run to park", || async { world.model.main_requests()[0].disconnected.then_some(()) }).await;
    world.redis().resume();
    assert_eq!(text_of(&first.await.unwrap()), "to second");
    assert_eq!(text_of(&second.await.unwrap()), "to second");
    let said: Vec<(String, String)> = world.at(2).conversation(&id).await;
    let order: Vec<&str> = said.iter().map(|(_, text)| text.as_str()).collect();
    assert_eq!(order, ["first", "half ", "second", "to second"]);
}

#[tokio::test]
async fn coordination_that_forgets_everything_doubles_no_run() {
    if !Mode::is_fleet_or_skip() {
        return;
    }
    let mut world = World::start().await;
    let gate = Gate::new();
    world.model.push(Answer::new().text("half ").wait(&gate).text("rest").stop());
    world.model.respond_with(|_| Answer::say("again"));
    let mut events = world.events(2).await;
    let id = world.session().await;
    world.at(1).prompt_async(&id, "first").await;
    gate.reached().await;
    events.until_kind(BOUND, "message.part.delta").await;
    let waiting = world.spawn_prompt(0, &id, "second");
    eventually(BOUND, "the second prompt to be stored", || async {
        (world.at(2).messages(&id).await.len() >= 3).then_some(())
    })
    .await;
    world.redis().command(&["FLUSHALL"]);
    // Every replica notices within a tick, and the waiting caller looks twice at least.
    for number in 0..3 {
        eventually(BOUND, "the replica to join again", || async {
            world.replicas()[number].stderr().contains("joins the fleet again").then_some(())
        })
        .await;
    }
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    assert_eq!(world.model.main_requests().len(), 1, "the owner still runs, and nobody else");
    gate.release();
    assert_eq!(text_of(&waiting.await.unwrap()), "again");
    assert_eq!(world.model.concurrent_runs(&id), 1);
    assert!(world.at(0).conversation(&id).await.iter().any(|(_, text)| text == "half rest"));
}

#[tokio::test]
async fn a_deletion_whose_client_goes_away_is_told_and_finished() {
    let world = World::start().await;
    let events = world.global_events(0).await;
    let address = world.url(0).trim_start_matches("http://").to_owned();
    let mut ids = Vec::new();
    for number in 0..20_u64 {
        let id = world.session().await;
        let mut stream = tokio::net::TcpStream::connect(&address).await.unwrap();
        stream.write_all(format!("DELETE /session/{id} HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes()).await.unwrap();
        // Cut at another moment of the request each time.
        tokio::time::sleep(Duration::from_micros(500 * (number % 10))).await;
        drop(stream);
        ids.push(id);
    }
    for id in &ids {
        // A request that was cut before it was read does nothing; then it is asked again.
        let reply = world.at(0).delete(&format!("/session/{id}")).await;
        assert!([200, 404].contains(&reply.status), "{}", reply.text());
    }
    // In whatever order.
    eventually(BOUND, "each deletion to be told", || async {
        let events = events.collected();
        let is_told = |id: &String| {
            let is_it = |event: &testkit::Event| {
                event.kind() == "session.deleted" && event.properties()["sessionID"] == id.as_str()
            };
            events.iter().any(is_it)
        };
        ids.iter().all(is_told).then_some(())
    })
    .await;
    eventually(BOUND, "no deletion to be left half-done", || async {
        let open = std::fs::read_dir(world.data_dir().join("flotilla/open")).unwrap().count();
        (open == 0).then_some(())
    })
    .await;
    assert_eq!(world.client().post("/session/ses_none/message", &text_prompt("x")).await.status, 404);
}
