//! SIGTERM: a replica hands its runs over at the next step and still answers its waiters.

use serde_json::json;
use testkit::client::text_of;
use testkit::model::{Gate, Usage};
use testkit::{Answer, BOUND, Mode, World, eventually};

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
