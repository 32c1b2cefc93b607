//! SIGTERM: a replica hands its runs over at the next step and still answers its waiters.

use serde_json::json;
use std::time::{Duration, Instant};
use testkit::client::{text_of, text_prompt};
use testkit::model::{Gate, Usage};
use testkit::{Answer, BOUND, Mode, World, WorldSpec, eventually};

#[tokio::test]
async fn a_draining_replica_hands_its_run_over_and_answers_its_caller() {
    if !Mode::is_fleet_or_skip() {
        return;
    }
    let mut world = World::start().await;
    let gate = Gate::new();
    let call = json!({"command": "echo one", "description": "echo"});
    let step = Answer::new().tool_call("call_1", "bash", call).wait(&gate);
    world.model.push(step.finish("tool_calls", Usage::default()));
    world.model.push(Answer::say("two"));
    let id = world.session().await;
    let prompt = world.spawn_prompt(0, &id, "go");
    gate.reached().await;
    world.replica(0).term();
    // The step ends while the replica drains: the next one is somebody else's.
    eventually(BOUND, "the replica to say that it is not ready", || async {
        let ready = world.at(0).try_send(reqwest::Method::GET, "/readyz", &[], None).await;
        ready.map_or(true, |reply| reply.status == 503).then_some(())
    })
    .await;
    gate.release();
    assert_eq!(text_of(&prompt.await.unwrap()), "two", "the draining replica answers its caller");
    let parts = world.at(1).tool_parts(&id).await;
    assert_eq!(parts.len(), 1);
    assert_eq!(parts[0]["state"]["status"], "completed", "the tool ran once and was not interrupted: {}", parts[0]);
    assert_eq!(world.model.main_requests().len(), 2);
    let ended = world.replica(0).wait_exit(BOUND).await;
    assert!(ended.success(), "the replica ends in order: {ended}");
}

#[tokio::test]
async fn a_run_that_waits_for_a_permission_is_handed_over_at_once_and_waits_on_the_same_ask() {
    if !Mode::is_fleet_or_skip() {
        return;
    }
    let config = json!({"permission": {"bash": "ask"}});
    let mut world = World::start_with(WorldSpec { config, ..WorldSpec::default() }).await;
    world.model.push(Answer::call("call_1", "bash", json!({"command": "echo x >> trace", "description": "echo"})));
    world.model.push(Answer::say("two"));
    let id = world.session().await;
    world.at(0).prompt_async(&id, "go").await;
    let asked = eventually(BOUND, "the ask", || async {
        world.at(1).get("/permission").await.ok().as_array().unwrap().first().cloned()
    })
    .await;
    let began = Instant::now();
    world.replica(0).term();
    assert!(world.replica(0).wait_exit(BOUND).await.success());
    assert!(began.elapsed() < Duration::from_secs(8), "it did not wait for people: {:?}", began.elapsed());
    assert_eq!(world.at(1).get("/permission").await.ok(), json!([asked]), "the same ask, and no other");
    assert_eq!(world.at(2).status(&id).await, "busy");
    let path = format!("/permission/{}/reply", asked["id"].as_str().unwrap());
    assert_eq!(world.at(2).post(&path, &json!({"reply": "once"})).await.ok(), json!(true));
    let last = eventually(BOUND, "the answer", || async {
        world.at(1).messages(&id).await.pop().filter(|last| last["info"]["finish"] == "stop")
    });
    assert_eq!(text_of(&last.await), "two");
    assert_eq!(std::fs::read_to_string(world.file("trace")).unwrap(), "x\n", "it ran once");
}

#[tokio::test]
async fn who_still_waits_at_the_deadline_is_told_to_ask_elsewhere() {
    if !Mode::is_fleet_or_skip() {
        return;
    }
    let args = ["--drain-notice", "0s", "--drain-deadline", "2s"].map(str::to_owned).to_vec();
    let config = json!({"permission": {"bash": "ask"}});
    let mut world = World::start_with(WorldSpec { config, args, ..WorldSpec::default() }).await;
    world.model.push(Answer::call("call_1", "bash", json!({"command": "true", "description": "nothing"})));
    world.model.respond_with(|_| Answer::say("elsewhere"));
    let id = world.session().await;
    let (client, path) = (world.at(0).with_header("idempotency-key", "k"), format!("/session/{id}/message"));
    let waiting = tokio::spawn({
        let path = path.clone();
        async move { client.post(&path, &text_prompt("go")).await }
    });
    let asked = eventually(BOUND, "the ask", || async {
        world.at(1).get("/permission").await.ok().as_array().unwrap().first().cloned()
    })
    .await;
    world.replica(0).term();
    let told = waiting.await.unwrap();
    assert_eq!((told.status, told.header("retry-after")), (503, "1"), "{}", told.text());
    assert!(world.replica(0).wait_exit(Duration::from_secs(10)).await.success());
    let client = world.at(1).with_header("idempotency-key", "k");
    let again = tokio::spawn(async move { client.post(&path, &text_prompt("go")).await.ok() });
    let reply = format!("/permission/{}/reply", asked["id"].as_str().unwrap());
    assert_eq!(world.at(2).post(&reply, &json!({"reply": "once"})).await.ok(), json!(true));
    assert_eq!(text_of(&again.await.unwrap()), "elsewhere");
    let said = world.at(2).conversation(&id).await;
    assert_eq!(said.iter().filter(|(role, _)| role == "user").count(), 1, "{said:?}");
}
