//! no-lost-update: locks on several independent masters. A majority is enough; without one, requests are refused at once and
//! nothing is written.

use serde_json::json;
use std::time::{Duration, Instant};
use testkit::client::text_prompt;
use testkit::{Answer, BOUND, Mode, World, WorldSpec, eventually};

#[tokio::test]
async fn locks_work_with_one_of_three_masters_down_and_with_one_that_hangs() {
    if !Mode::is_fleet_or_skip() {
        return;
    }
    let mut world = World::start_with(WorldSpec { lock_servers: 3, ..WorldSpec::default() }).await;
    world.model.respond_with(|_| Answer::say("answered"));
    let id = world.session().await;
    let connections = world.lock_server(0).connections();
    world.lock_server(0).kill();
    assert_eq!(world.prompt(&id, "with one dead").await["info"]["finish"], "stop");
    world.lock_server(0).start_again_and_be_found(connections).await;
    // One that hangs costs no time-out: a majority of the others decides.
    world.lock_server(1).pause();
    for number in 0..6 {
        let began = Instant::now();
        let title = json!({"title": format!("title {number}")});
        assert_eq!(world.client().patch(&format!("/session/{id}"), &title).await.status, 200);
        assert!(began.elapsed() < Duration::from_millis(500), "{:?}", began.elapsed());
    }
    assert_eq!(world.prompt(&id, "with one hung").await["info"]["finish"], "stop");
    world.lock_server(1).resume();
}

#[tokio::test]
async fn locks_work_with_two_of_five_masters_down() {
    if !Mode::is_fleet_or_skip() {
        return;
    }
    let mut world = World::start_with(WorldSpec { lock_servers: 5, ..WorldSpec::default() }).await;
    world.model.respond_with(|_| Answer::say("answered"));
    let id = world.session().await;
    world.lock_server(0).kill();
    world.lock_server(3).kill();
    assert_eq!(world.prompt(&id, "go").await["info"]["finish"], "stop");
    assert_eq!(world.client().patch(&format!("/session/{id}"), &json!({"title": "new"})).await.status, 200);
}

#[tokio::test]
async fn without_a_majority_of_lock_masters_writes_are_refused_within_a_second_and_leave_the_store_as_it_was() {
    if !Mode::is_fleet_or_skip() {
        return;
    }
    let mut world = World::start_with(WorldSpec { lock_servers: 3, ..WorldSpec::default() }).await;
    let id = world.session().await;
    let path = format!("/session/{id}");
    let stored = |world: &World| {
        let project = std::fs::read_dir(world.data_dir().join("storage/session")).unwrap().next().unwrap().unwrap();
        let guard = world.data_dir().join(format!("flotilla/guard/{id}/head.json"));
        (std::fs::read(project.path().join(format!("{id}.json"))).unwrap(), std::fs::read(guard).unwrap())
    };
    let before = stored(&world);
    for hangs in [false, true] {
        for number in [0, 1] {
            if hangs {
                world.lock_server(number).pause();
            } else {
                world.lock_server(number).kill();
            }
        }
        for number in 0..3 {
            let client = world.at(number);
            for what in ["patch", "prompt", "abort", "delete"] {
                let began = Instant::now();
                let reply = match what {
                    "patch" => client.patch(&path, &json!({"title": "new"})).await,
                    "prompt" => client.post(&format!("{path}/message"), &text_prompt("go")).await,
                    "abort" => client.post(&format!("{path}/abort"), &json!({})).await,
                    _ => client.delete(&path).await,
                };
                assert_eq!((reply.status, reply.header("retry-after")), (503, "1"), "{what}: {}", reply.text());
                let took = began.elapsed();
                assert!(took < Duration::from_secs(1), "{what} was refused after {took:?} (hangs: {hangs})");
            }
            assert_eq!(client.get(&path).await.status, 200, "reads go on");
        }
        assert_eq!(stored(&world), before, "byte for byte");
        for number in [0, 1] {
            if hangs {
                world.lock_server(number).resume();
            } else {
                world.lock_server(number).start_again().await;
            }
        }
        eventually(BOUND, "writes to be taken again", || async {
            (world.client().patch(&path, &json!({})).await.status == 200).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn without_a_majority_of_lock_masters_an_approval_is_refused_and_can_be_given_later() {
    if !Mode::is_fleet_or_skip() {
        return;
    }
    let config = json!({"permission": {"bash": "ask"}});
    let mut world = World::start_with(WorldSpec { lock_servers: 3, config, ..WorldSpec::default() }).await;
    world.model.push(Answer::call("c1", "bash", json!({"command": "touch made", "description": "makes a file"})));
    world.model.respond_with(|_| Answer::say("done"));
    let id = world.session().await;
    let waiting = world.spawn_prompt(0, &id, "go");
    let ask =
        eventually(BOUND, "the ask", || async { world.client().get("/permission").await.ok().get(0).cloned() }).await;
    let path = format!("/permission/{}/reply", ask["id"].as_str().unwrap());
    let connections = world.lock_server(0).connections();
    world.lock_server(0).kill();
    world.lock_server(1).kill();
    for number in 0..3 {
        let client = world.at(number);
        let reply = client.post(&path, &json!({"reply": "always"})).await;
        assert_eq!((reply.status, reply.header("retry-after")), (503, "1"), "{}", reply.text());
        assert_eq!(client.get("/permission").await.ok()[0]["id"], ask["id"], "it is still asked");
    }
    assert!(!world.data_dir().join("flotilla/approvals").read_dir().is_ok_and(|mut found| found.next().is_some()));
    assert!(!world.file("made").exists());
    world.lock_server(0).start_again_and_be_found(connections).await;
    assert_eq!(world.at(1).post(&path, &json!({"reply": "always"})).await.status, 200);
    assert_eq!(waiting.await.unwrap()["info"]["finish"], "stop");
    assert!(world.file("made").exists());
}

#[tokio::test]
async fn a_lock_that_somebody_else_holds_is_waited_for() {
    if !Mode::is_fleet_or_skip() {
        return;
    }
    let mut world = World::start().await;
    let id = world.session().await;
    let path = format!("/session/{id}");
    assert_eq!(world.client().patch(&path, &json!({"title": "first"})).await.status, 200);
    let name = format!("flotilla:1:{{0}}:lock:head/default/{id}");
    world.redis().command(&["SET", &name, "a test", "PX", "60000"]);
    world.redis().command(&["CONFIG", "RESETSTAT"]);
    let waiting = tokio::spawn({
        let (client, path) = (world.client(), path.clone());
        async move { client.patch(&path, &json!({"title": "second"})).await.status }
    });
    let redis = std::sync::Mutex::new(&mut world);
    eventually(BOUND, "the lock to be asked for", || async {
        let asked = redis.lock().unwrap().redis().command(&["INFO", "commandstats"]);
        asked.contains("cmdstat_set:").then_some(())
    })
    .await;
    assert!(!waiting.is_finished());
    assert_eq!(world.client().get(&path).await.ok()["title"], "first");
    world.redis().command(&["DEL", &name]);
    assert_eq!(waiting.await.unwrap(), 200);
    assert_eq!(world.client().get(&path).await.ok()["title"], "second");
}
