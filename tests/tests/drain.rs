//! SIGTERM: a replica hands its runs over at the next step and still answers its waiters.

use serde_json::json;
use std::net::TcpStream;
use std::time::{Duration, Instant};
use suite::figures::rounds;
use testkit::client::{text_of, text_prompt};
use testkit::model::{Gate, Usage};
use testkit::outline::{published, to_idle};
use testkit::{Answer, BOUND, Mode, World, WorldSpec, eventually};

/// Waits until a replica that was told to end says that it is not ready.
async fn until_draining(world: &World, number: usize) {
    eventually(BOUND, "the replica to say that it is not ready", || async {
        let ready = world.at(number).try_send(reqwest::Method::GET, "/readyz", &[], None).await;
        ready.map_or(true, |reply| reply.status == 503).then_some(())
    })
    .await;
}

/// Has a replica answer a prompt, which waits at the gate, while another one is queued.
async fn in_the_first_of_two_prompts(world: &World, number: usize) -> (String, Gate) {
    let gate = Gate::new();
    world.model.push(Answer::new().text("o").wait(&gate).text("ne").stop());
    world.model.push(Answer::say("two"));
    let id = world.session().await;
    world.at(number).prompt_async(&id, "first").await;
    gate.reached().await;
    world.at(number).prompt_async(&id, "second").await;
    (id, gate)
}

/// A world whose replicas stop as these settings say.
async fn stopping(args: &[&str]) -> World {
    let args = args.iter().map(|arg| (*arg).to_owned()).collect();
    World::start_with(WorldSpec { args, ..WorldSpec::default() }).await
}

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
    until_draining(&world, 0).await;
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
async fn a_second_signal_ends_a_draining_replica_at_once_and_its_run_goes_on() {
    if !Mode::is_fleet_or_skip() {
        return;
    }
    let mut world = stopping(&["--drain-notice", "1h", "--drain-deadline", "2h"]).await;
    let (id, _gate) = in_the_first_of_two_prompts(&world, 0).await;
    world.replica(0).term();
    until_draining(&world, 0).await;
    world.replica(0).term();
    let ended = world.replica(0).wait_exit(BOUND).await;
    assert_eq!(ended.code(), Some(1), "{}", world.replica(0).stderr());
    assert!(world.replica(0).stderr().contains("asked to stop twice"), "{}", world.replica(0).stderr());
    eventually(BOUND, "the work to go on", || async { (world.at(1).status(&id).await == "idle").then_some(()) }).await;
    assert_eq!(text_of(world.at(1).messages(&id).await.last().unwrap()), "two");
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

#[tokio::test]
async fn until_its_notice_is_over_a_draining_replica_answers_and_closes_each_connection_then_it_closes_its_port() {
    if !Mode::is_fleet_or_skip() {
        return;
    }
    let notice = Duration::from_secs(4);
    let mut world = stopping(&["--drain-notice", "4s"]).await;
    let gate = Gate::new();
    world.model.push(Answer::new().text("held ").wait(&gate).text("answer").stop());
    world.model.push(Answer::say("elsewhere"));
    let id = world.session().await;
    let held = world.spawn_prompt(0, &id, "go");
    gate.reached().await;
    let client = world.at(0);
    assert_eq!(client.get("/session").await.header("connection"), "", "before, connections are kept");
    let began = Instant::now();
    world.replica(0).term();
    until_draining(&world, 0).await;

    // A prompt that still comes is stored here, run elsewhere and answered here.
    let made = client.post("/session", &json!({"title": "late"})).await;
    assert_eq!(made.header("connection"), "close");
    let path = format!("/session/{}/message", made.ok()["id"].as_str().unwrap());
    let late = client.post(&path, &text_prompt("late")).await;
    assert_eq!((text_of(&late.ok()).as_str(), late.header("connection")), ("elsewhere", "close"));
    let begun = |metrics: String| {
        metrics.lines().find_map(|line| line.strip_prefix("flotilla_runs_begun_total ")?.parse::<u64>().ok())
    };
    assert_eq!(begun(client.get("/metrics").await.text()), Some(1), "the late prompt was not run here");
    assert!(began.elapsed() < notice, "too slow to tell: {:?}", began.elapsed());

    let address = ("127.0.0.1", world.replicas()[0].port());
    eventually(BOUND, "the port to be closed", || async { TcpStream::connect(address).is_err().then_some(()) }).await;
    assert!(began.elapsed() >= notice, "the port was closed early: {:?}", began.elapsed());
    // Who was there before is answered still.
    gate.release();
    assert_eq!(text_of(&held.await.unwrap()), "held answer");
    assert!(world.replica(0).wait_exit(BOUND).await.success());
}

#[tokio::test]
async fn a_stream_of_a_draining_replica_is_cut_after_the_last_event_and_goes_on_elsewhere() {
    if !Mode::is_fleet_or_skip() {
        return;
    }
    let mut world = stopping(&["--drain-notice", "500ms"]).await;
    let (mut reader, mut control) = (world.events(0).await, world.events(1).await);
    let (id, gate) = in_the_first_of_two_prompts(&world, 0).await;
    world.replica(0).term();
    until_draining(&world, 0).await;
    gate.release();
    let ended = eventually(BOUND, "the end of the stream", || async { reader.ended() }).await;
    assert!(ended.is_err(), "a clean end: clients take it for the end of all events");
    assert!(world.replica(0).wait_exit(BOUND).await.success());
    control.until_idle(BOUND, &id).await;
    let all = published(to_idle(&control.of_session(&id)));
    // It may have heard the end of the run, too, and what comes after it.
    let mut heard = published(&reader.of_session(&id));
    heard.truncate(all.len());
    assert!(all.starts_with(&heard), "another order");
    let is_of_the_step = |(_, data): &&(_, serde_json::Value)| data["properties"]["part"]["type"] == "step-finish";
    assert!(heard.iter().any(|event| is_of_the_step(&event)), "the stream was cut before the step's last events");
    world.reconnect(&mut reader, 1).await;
    reader.until_idle(BOUND, &id).await;
    assert_eq!(published(to_idle(&reader.of_session(&id))), all);
}

#[tokio::test]
async fn a_draining_replica_hands_its_run_over_within_half_a_second_of_the_steps_end() {
    if !Mode::is_fleet_or_skip() {
        return;
    }
    let mut world = stopping(&["--drain-notice", "500ms"]).await;
    let (mut since_term, mut since_end) = (Vec::new(), Vec::new());
    for round in 0..rounds(3) {
        let asked = world.model.main_requests().len();
        let (id, gate) = in_the_first_of_two_prompts(&world, round).await;
        let told = Instant::now();
        world.replica(round).term();
        until_draining(&world, round).await;
        let over = Instant::now();
        gate.release();
        while world.model.main_request(asked + 1).is_none() {
            assert!(over.elapsed() < BOUND, "nobody goes on");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        since_term.push(told.elapsed());
        since_end.push(over.elapsed());
        assert!(world.replica(round).wait_exit(BOUND).await.success());
        let survivor = world.at(round + 1);
        eventually(BOUND, "the end", || async { (survivor.status(&id).await == "idle").then_some(()) }).await;
        assert_eq!(text_of(survivor.messages(&id).await.last().unwrap()), "two");
        world.replica(round).start_again().await;
    }
    suite::figures::print("hand-over, SIGTERM to the next model request elsewhere", &mut since_term);
    suite::figures::print("hand-over, end of the step to the next model request elsewhere", &mut since_end);
    // Sooner than a tick would find it. Some may be late where the machine is loaded; many are not.
    assert!(since_end[0] < Duration::from_secs(1), "{since_end:?}");
    if since_end.len() >= 20 {
        assert!(since_end[since_end.len() / 2] < Duration::from_millis(500), "{since_end:?}");
    }
}

#[tokio::test]
async fn a_replica_is_gone_at_its_deadline_whatever_still_runs() {
    if !Mode::is_fleet_or_skip() {
        return;
    }
    let mut world = stopping(&["--drain-notice", "500ms", "--drain-deadline", "4s"]).await;
    let call = json!({"command": "echo begun | tee trace; sleep 615", "description": "sleep"});
    world.model.push(Answer::call("call_1", "bash", call));
    world.model.push(Answer::say("it was interrupted"));
    let _reader = world.events(0).await;
    let id = world.session().await;
    let (client, path) = (world.at(0), format!("/session/{id}/message"));
    let waiting = tokio::spawn(async move { client.post(&path, &text_prompt("go")).await });
    eventually(BOUND, "the command to begin", || async { world.file("trace").exists().then_some(()) }).await;
    let began = Instant::now();
    world.replica(0).term();
    assert!(world.replica(0).wait_exit(BOUND).await.success());
    println!("figure drain with a tool that does not end, 4 s deadline: {:.1} s", began.elapsed().as_secs_f64());
    assert!(began.elapsed() < Duration::from_secs(4), "gone after {:?}", began.elapsed());
    let told = waiting.await.unwrap();
    assert!(told.status == 503 || told.status == 200, "{}", told.text());
    let survivor = world.at(1);
    let last = eventually(BOUND, "the answer", || async {
        survivor.messages(&id).await.pop().filter(|last| last["info"]["finish"] == "stop")
    });
    assert_eq!(text_of(&last.await), "it was interrupted");
    let state = &survivor.tool_parts(&id).await[0]["state"];
    assert_eq!(
        (&state["status"], &state["metadata"]),
        (&json!("error"), &json!({"interrupted": true, "output": "begun\n"}))
    );
    assert!(!state.to_string().contains("User aborted"), "nobody did: {state}");
}
