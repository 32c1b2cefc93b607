//! one-runner and no-lost-update: a replica that is stopped in the middle of a write, for as long as it likes, changes nothing
//! when it wakes, and knows that it lost.

#![allow(clippy::unwrap_used)]

use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;
use testkit::model::{Gate, Usage};
use testkit::{Answer, BOUND, Failpoint, Mode, World, WorldSpec, eventually};

/// Replicas with failpoints that notice a silence soon.
fn spec() -> WorldSpec {
    let args = ["--lease-ttl", "2s", "--tick", "300ms"].map(str::to_owned).to_vec();
    WorldSpec { args, failpoints: true, ..WorldSpec::default() }
}

/// Every file below a directory with what is in it, but for what replicas write at any time, and for guards: a claim that
/// finds nothing to do moves their numbers.
fn files(root: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut directories = vec![root.to_path_buf()];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(root).unwrap().to_string_lossy().into_owned();
            if ["flotilla/probe", "flotilla/new", "flotilla/guard"].iter().any(|start| name.starts_with(start)) {
                continue;
            }
            if path.is_dir() {
                directories.push(path);
            } else {
                found.insert(name, std::fs::read(&path).unwrap());
            }
        }
    }
    found
}

/// What a session owes, and how its runs ended.
fn owes(world: &World, id: &str) -> Value {
    let head = std::fs::read(world.data_dir().join(format!("flotilla/guard/{id}/head.json"))).unwrap();
    let head: Value = serde_json::from_slice(&head).unwrap();
    json!([head["issued"], head["settled"], head["stopped"], head["endings"], head["spent"]])
}

/// Stops the owner at a point of its run, lets another take over and finish, wakes it, and compares.
async fn stopped_owner_changes_nothing(point: Failpoint) {
    stopped_in_an_answer(point, 0, half_an_answer).await;
}

fn half_an_answer(gate: &Gate) -> Answer {
    Answer::new().text("half ").wait(gate).text("done").stop()
}

/// The same in the midst of this answer, after its gate. With lock servers, all of them are dead by then.
async fn stopped_in_an_answer(point: Failpoint, lock_servers: usize, answer: impl FnOnce(&Gate) -> Answer) {
    let mut world = World::start_with(WorldSpec { lock_servers, ..spec() }).await;
    world.model.respond_with(|_| Answer::say("the answer"));
    let id = world.session().await;
    let gate = Gate::new();
    world.model.push(answer(&gate));
    world.at(0).prompt_async(&id, "go").await;
    gate.reached().await;
    let armed = world.replica(0).stop_at(&point);
    gate.release();
    armed.reached(BOUND).await;
    (0..lock_servers).for_each(|number| world.lock_server(number).kill());
    let began = std::time::Instant::now();
    eventually(BOUND, "another replica to take over and finish", || async {
        let said = world.at(1).messages(&id).await;
        let idle = world.at(1).status(&id).await == "idle" && world.at(2).status(&id).await == "idle";
        (idle && said.last()?["info"]["finish"] == "stop").then_some(())
    })
    .await;
    println!("figure take-over of a stopped owner ({point:?}): {} ms", began.elapsed().as_millis());
    // Markers are unlinked after the end; then nothing moves any more.
    eventually(BOUND, "no marker", || async {
        (std::fs::read_dir(world.data_dir().join("flotilla/open")).unwrap().count() == 0).then_some(())
    })
    .await;
    let settled = world.at(1).messages(&id).await;
    let (before, owed) = (files(world.data_dir()), owes(&world, &id));
    world.replica(0).cont();
    eventually(BOUND, "the woken replica to know that it lost", || async {
        world.replicas()[0].stderr().contains("the run was taken over by another replica").then_some(())
    })
    .await;
    assert_eq!(world.at(0).messages(&id).await, settled, "{point:?}");
    let after = files(world.data_dir());
    let changed: Vec<&String> =
        before.keys().chain(after.keys()).filter(|name| before.get(*name) != after.get(*name)).collect();
    assert!(changed.is_empty(), "{point:?}: {changed:?}");
    assert_eq!(owes(&world, &id), owed, "{point:?}");
    assert_eq!(world.model.concurrent_runs(&id), 1);
}

#[tokio::test]
async fn an_owner_that_is_stopped_before_a_part_is_placed_changes_nothing_when_it_wakes() {
    if Mode::is_fleet_or_skip() {
        stopped_owner_changes_nothing(Failpoint::before("rename", "storage/part/")).await;
    }
}

#[tokio::test]
async fn an_owner_that_is_stopped_before_a_message_is_placed_changes_nothing_when_it_wakes() {
    if Mode::is_fleet_or_skip() {
        stopped_owner_changes_nothing(Failpoint::before("rename", "storage/message/")).await;
    }
}

#[tokio::test]
async fn an_owner_that_is_stopped_before_its_head_is_placed_changes_nothing_when_it_wakes() {
    if Mode::is_fleet_or_skip() {
        stopped_owner_changes_nothing(Failpoint::before("rename", "head.json")).await;
    }
}

#[tokio::test]
async fn a_head_guard_whose_holder_stands_still_in_mid_commit_is_taken_without_a_lock() {
    if Mode::is_fleet_or_skip() {
        stopped_in_an_answer(Failpoint::before("rename", "head.json"), 3, half_an_answer).await;
    }
}

#[tokio::test]
async fn an_owner_that_is_stopped_before_its_todos_are_placed_changes_nothing_when_it_wakes() {
    if Mode::is_fleet_or_skip() {
        let todos = json!({"todos": [{"content": "a thing", "status": "pending", "priority": "high"}]});
        let answer = |gate: &Gate| {
            let call = Answer::new().text("first ").wait(gate).tool_call("c1", "todowrite", todos);
            call.finish("tool_calls", Usage::default())
        };
        stopped_in_an_answer(Failpoint::before("rename", "storage/todo/"), 0, answer).await;
    }
}

#[tokio::test]
async fn a_request_that_is_stopped_in_mid_write_loses_no_update_of_another() {
    if !Mode::is_fleet_or_skip() {
        return;
    }
    let mut world = World::start_with(spec()).await;
    let id = world.session().await;
    let path = format!("/session/{id}");
    let rule = |name: &str| json!({"permission": [{"permission": name, "pattern": "*", "action": "allow"}]});
    let armed = world.replica(0).stop_at(&Failpoint::before("rename", "storage/session/"));
    let stopped = tokio::spawn({
        let (client, path, rule) = (world.at(0), path.clone(), rule("first"));
        async move { client.patch(&path, &rule).await }
    });
    armed.reached(BOUND).await;
    let began = std::time::Instant::now();
    assert_eq!(world.at(1).patch(&path, &rule("second")).await.status, 200);
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    world.replica(0).cont();
    assert_eq!(stopped.await.unwrap().status, 200, "it is done again from the beginning");
    let session = world.at(2).get(&path).await.ok();
    let mut names: Vec<&str> =
        session["permission"].as_array().unwrap().iter().filter_map(|rule| rule["permission"].as_str()).collect();
    names.sort_unstable();
    assert_eq!(names, ["first", "second"]);
}

#[tokio::test]
async fn an_approval_that_is_stopped_in_mid_write_loses_no_approval_of_another() {
    if !Mode::is_fleet_or_skip() {
        return;
    }
    let config = json!({"permission": {"bash": "ask"}});
    let mut world = World::start_with(WorldSpec { config, ..spec() }).await;
    world.model.respond_with(|_| Answer::say("done"));
    let mut replies = Vec::new();
    for command in ["touch first", "mkdir second"] {
        world.model.push(Answer::call("c1", "bash", json!({"command": command, "description": "d"})));
        let id = world.session().await;
        world.at(2).prompt_async(&id, "go").await;
        let asked = eventually(BOUND, "the ask", || async {
            let asks = world.at(2).get("/permission").await.ok();
            asks.as_array().unwrap().iter().find(|ask| ask["sessionID"] == id.as_str()).cloned()
        })
        .await;
        replies.push(format!("/permission/{}/reply", asked["id"].as_str().unwrap()));
    }
    let always = json!({"reply": "always"});
    let armed = world.replica(0).stop_at(&Failpoint::before("rename", "flotilla/approvals/"));
    let stopped = tokio::spawn({
        let (client, path, always) = (world.at(0), replies[0].clone(), always.clone());
        async move { client.post(&path, &always).await }
    });
    armed.reached(BOUND).await;
    assert_eq!(world.at(1).post(&replies[1], &always).await.status, 200);
    world.replica(0).cont();
    assert_eq!(stopped.await.unwrap().status, 200, "it is done again from the beginning");
    let mut approved = String::new();
    for entry in std::fs::read_dir(world.data_dir().join("flotilla/approvals")).unwrap() {
        approved += &std::fs::read_to_string(entry.unwrap().path()).unwrap();
    }
    for file in ["first", "second"] {
        eventually(BOUND, "both commands to run", || async { world.file(file).exists().then_some(()) }).await;
    }
    let rules: Vec<Value> = serde_json::from_str(&approved).unwrap();
    let mut patterns: Vec<&str> = rules.iter().filter_map(|rule| rule["pattern"].as_str()).collect();
    patterns.sort_unstable();
    assert_eq!(patterns, ["mkdir *", "touch *"]);
}

#[tokio::test]
async fn no_update_of_many_clients_is_lost_while_lock_servers_die_and_hang() {
    if !Mode::is_fleet_or_skip() {
        return;
    }
    let mut world = World::start_with(WorldSpec { lock_servers: 3, ..WorldSpec::default() }).await;
    let id = world.session().await;
    let path = format!("/session/{id}");
    let mut storm = tokio::task::JoinSet::new();
    for writer in 0..6 {
        let (client, path) = (world.client(), path.clone());
        storm.spawn(async move {
            let mut taken = Vec::new();
            for number in 0..12 {
                let name = format!("w{writer}.{number}");
                let rule = json!({"permission": [{"permission": name, "pattern": "*", "action": "allow"}]});
                // Whoever waited in vain for the others to let go of the lock is told to come again.
                eventually(BOUND, "a change to be taken", || async {
                    let status = client.patch(&path, &rule).await.status;
                    assert!([200, 503].contains(&status), "{status}");
                    (status == 200).then_some(())
                })
                .await;
                taken.push(name);
            }
            taken
        });
    }
    let server = world.lock_server(0);
    let connections = server.connections();
    server.kill();
    // Until the replicas have found the first again, a second one that is away makes a majority.
    server.start_again_and_be_found(connections).await;
    world.lock_server(1).pause();
    let mut taken: Vec<String> = storm.join_all().await.into_iter().flatten().collect();
    world.lock_server(1).resume();
    let session: Value = world.at(0).get(&path).await.ok();
    let mut there: Vec<String> = session["permission"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|rule| rule["permission"].as_str().map(str::to_owned))
        .collect();
    taken.sort();
    there.sort();
    assert_eq!(there, taken);
}
