//! Versions side by side: what a later version adds to the store and to Redis is kept and fails nothing; a later format refuses
//! the start.

#![allow(clippy::unwrap_used)]

use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::time::Duration;
use testkit::client::{parts_of, text_of, text_prompt};
use testkit::model::Gate;
use testkit::process::Launch;
use testkit::{Answer, BOUND, Event, Mode, RedisServer, World, WorldSpec, eventually, flotilla_binary};

/// What a later version added.
fn later() -> Value {
    json!({"of": ["a later version", 2]})
}

fn read(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Adds to a record what a later version would have written there; of a list, to each of its items.
fn add(path: &Path) {
    let mut record = read(path);
    match &mut record {
        Value::Array(items) => items.iter_mut().for_each(|item| item["later"] = later()),
        record => record["later"] = later(),
    }
    let beside = path.with_extension("beside");
    std::fs::write(&beside, record.to_string()).unwrap();
    std::fs::rename(beside, path).unwrap();
}

/// The one file in a directory.
fn only(directory: &Path) -> PathBuf {
    let mut files: Vec<PathBuf> = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(files.len(), 1, "{files:?}");
    files.pop().unwrap()
}

/// What a replica says on stderr that refuses to start.
async fn refused(data: &Path, redis: Option<&RedisServer>) -> Vec<String> {
    let home = tempfile::tempdir().unwrap();
    let text = |path: &Path| path.to_string_lossy().into_owned();
    let mut launch = Launch::new("a replica", flotilla_binary())
        .args(["serve", "--port", "0", "--data-dir", &text(data), "--directory", &text(home.path())])
        .env("HOME", text(home.path()));
    if let Some(redis) = redis {
        launch = launch.args(["--redis-url", &redis.url()]);
    }
    let finished = launch.finish(Duration::from_secs(30)).await;
    assert_eq!(finished.code, Some(1), "{}", finished.stderr);
    finished.stderr.lines().map(str::to_owned).collect()
}

#[tokio::test]
async fn a_directory_of_a_later_format_refuses_the_start_with_one_line_and_stays_as_it_is() {
    let data = tempfile::tempdir().unwrap();
    let format = data.path().join("flotilla/format");
    std::fs::create_dir_all(format.parent().unwrap()).unwrap();
    std::fs::write(&format, "2\n").unwrap();
    let lines = refused(data.path(), None).await;
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(lines[0].starts_with("flotilla: ") && lines[0].contains("format 2"), "{lines:?}");
    assert_eq!(std::fs::read_to_string(&format).unwrap(), "2\n");
    only(&data.path().join("flotilla"));
    only(data.path());
}

#[tokio::test]
async fn a_redis_of_a_later_format_refuses_the_start_with_one_line() {
    let (redis, data) = (RedisServer::start().await, tempfile::tempdir().unwrap());
    redis.command(&["SET", "flotilla:format", "2"]);
    let lines = refused(data.path(), Some(&redis)).await;
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(lines[0].starts_with("flotilla: format 2 is in use in this Redis"), "{lines:?}");
    assert_eq!(redis.command(&["GET", "flotilla:format"]), "2");
    assert_eq!(redis.command(&["DBSIZE"]), "1");
}

#[tokio::test]
async fn what_a_later_version_added_to_records_outlives_all_work_on_them() {
    if !Mode::is_fleet_or_skip() {
        return;
    }
    let config = json!({"permission": {"bash": "ask"}});
    let world = World::start_with(WorldSpec { config, beyond_contract: true, ..WorldSpec::default() }).await;
    let flotilla = world.data_dir().join("flotilla");
    let storage = world.data_dir().join("storage");
    let gate = Gate::new();
    let call = |command: &str| Answer::call("c1", "bash", json!({"command": command, "description": "d"}));
    world.model.push(Answer::say("first answer"));
    world.model.push(call("mkdir made"));
    world.model.push(Answer::new().text("second ").wait(&gate).text("answer").stop());
    let id = world.session().await;
    let mut first = text_prompt("first");
    first["messageID"] = json!("msg_first");
    let path = format!("/session/{id}/message");
    let answered = world.at(0).post(&path, &first).await.ok();

    let rule = json!({"permission": "webfetch", "pattern": "*", "action": "deny"});
    assert_eq!(world.at(0).patch(&format!("/session/{id}"), &json!({"permission": [rule]})).await.status, 200);

    // A record of each kind.
    let session = only(&storage.join("session")).join(format!("{id}.json"));
    let user = storage.join(format!("message/{id}/msg_first.json"));
    let answer = storage.join(format!("message/{id}/{}.json", answered["info"]["id"].as_str().unwrap()));
    let asked_part = only(&storage.join("part/msg_first"));
    let head = flotilla.join(format!("guard/{id}/head.json"));
    let ticket = flotilla.join(format!("ticket/{id}/msg_first.json"));
    let name = only(&only(&flotilla.join("key")));
    for record in [&session, &user, &answer, &asked_part, &head, &ticket, &name] {
        add(record);
    }
    // What is within them, too.
    for (record, place) in [(&session, "/permission/0"), (&head, "/endings/0")] {
        let mut with_more = read(record);
        with_more.pointer_mut(place).unwrap()["later"] = later();
        std::fs::write(record, with_more.to_string()).unwrap();
    }
    // Files of kinds that this version does not know.
    let unknown = [
        flotilla.join(format!("open/{id}.1.later")),
        flotilla.join(format!("guard/{id}/later.json")),
        flotilla.join(format!("ask/{id}.later")),
        flotilla.join("later.json"),
    ];
    for file in &unknown {
        std::fs::write(file, later().to_string()).unwrap();
    }

    // The name still stands for its prompt, on every replica.
    for number in 0..3 {
        assert_eq!(text_of(&world.at(number).post(&path, &first).await.ok()), "first answer");
    }
    // A prompt with an ask, whose record and whose approval are a later version's, too.
    let second = world.spawn_prompt(1, &id, "second");
    let ask = eventually(BOUND, "the ask", || async {
        world.at(2).get("/permission").await.ok().as_array().unwrap().first().cloned()
    })
    .await;
    let stored = flotilla.join(format!("ask/{id}/{}.json", ask["id"].as_str().unwrap()));
    add(&stored);
    let reply = format!("/permission/{}/reply", ask["id"].as_str().unwrap());
    world.at(2).post(&reply, &json!({"reply": "always"})).await.ok();
    assert_eq!(read(&stored)["later"], later(), "the ask was answered");
    let approvals = only(&flotilla.join("approvals"));
    add(&approvals);
    gate.reached().await;
    gate.release();
    assert_eq!(text_of(&second.await.unwrap()), "second answer");
    // Another approval is added to the same record.
    world.model.push(call("touch made/this"));
    world.model.push(Answer::say("third answer"));
    let third = world.spawn_prompt(2, &id, "third");
    let ask = eventually(BOUND, "the second ask", || async {
        world.at(0).get("/permission").await.ok().as_array().unwrap().first().cloned()
    })
    .await;
    let reply = format!("/permission/{}/reply", ask["id"].as_str().unwrap());
    world.at(1).post(&reply, &json!({"reply": "always"})).await.ok();
    assert_eq!(text_of(&third.await.unwrap()), "third answer");
    // Changes by clients.
    assert_eq!(world.at(0).patch(&format!("/session/{id}"), &json!({"title": "changed"})).await.status, 200);
    let of_answer = format!("{path}/{}", answered["info"]["id"].as_str().unwrap());
    let part = parts_of(&answered).iter().find(|part| part["type"] == "text").unwrap();
    let mut edited = part.clone();
    (edited["text"], edited["later"]) = (json!("edited"), later());
    let of_part = format!("{of_answer}/part/{}", part["id"].as_str().unwrap());
    assert_eq!(world.at(1).patch(&of_part, &edited).await.ok(), edited);

    for record in [&session, &user, &answer, &asked_part, &head, &ticket, &name] {
        assert_eq!(read(record)["later"], later(), "{}", record.display());
    }
    assert_eq!(read(&session)["title"], "changed");
    assert_eq!(read(&session)["permission"][0]["later"], later());
    assert_eq!(read(&head)["endings"][0]["later"], later());
    let rules = read(&approvals);
    let kept: Vec<bool> = rules.as_array().unwrap().iter().map(|rule| rule["later"] == later()).collect();
    assert_eq!(kept, [true, false], "the first was a later version's: {rules}");
    let stored = storage.join(format!(
        "part/{}/{}.json",
        answered["info"]["id"].as_str().unwrap(),
        part["id"].as_str().unwrap()
    ));
    assert_eq!((&read(&stored)["later"], &read(&stored)["text"]), (&later(), &json!("edited")));
    // Clients are shown it.
    let shown = world.at(2).messages(&id).await;
    assert_eq!((&shown[0]["info"]["later"], &shown[0]["parts"][0]["later"]), (&later(), &later()));
    for file in &unknown {
        assert_eq!(read(file), later(), "{}", file.display());
    }
}

#[tokio::test]
async fn a_session_whose_head_has_a_later_format_is_left_alone_and_harms_no_other() {
    if !Mode::is_fleet_or_skip() {
        return;
    }
    let world = World::start_with(WorldSpec { beyond_contract: true, ..WorldSpec::default() }).await;
    world.model.respond_with(|_| Answer::say("answered"));
    let (id, other) = (world.session().await, world.session().await);
    world.prompt(&id, "go").await;
    let path = world.data_dir().join(format!("flotilla/guard/{id}/head.json"));
    let mut head = read(&path);
    head["format"] = json!(2);
    std::fs::write(&path, head.to_string()).unwrap();
    let stored = std::fs::read(&path).unwrap();
    for number in 0..3 {
        let client = world.at(number);
        for reply in [
            client.get(&format!("/session/{id}/message")).await,
            client.post(&format!("/session/{id}/message"), &text_prompt("again")).await,
            client.patch(&format!("/session/{id}"), &json!({"title": "changed"})).await,
        ] {
            assert_eq!(reply.status, 500, "{}", reply.text());
        }
        assert_eq!(text_of(&client.prompt(&other, "go").await), "answered");
    }
    assert_eq!(std::fs::read(&path).unwrap(), stored);
}

#[tokio::test]
async fn what_a_later_version_adds_in_redis_fails_nothing_and_is_passed_on() {
    if !Mode::is_fleet_or_skip() {
        return;
    }
    let args = ["--lease-ttl", "2s", "--tick", "300ms"].map(str::to_owned).to_vec();
    let mut world = World::start_with(WorldSpec { args, beyond_contract: true, ..WorldSpec::default() }).await;
    let (first, second) = (Gate::new(), Gate::new());
    world.model.push(Answer::new().text("half ").wait(&first).stop());
    world.model.push(Answer::new().text("who").wait(&second).text("le").stop());
    let mut readers = [world.faithful_events(1).await, world.faithful_events(2).await];
    let id = world.session().await;
    let name = |rest: &str| format!("flotilla:1:{{0}}:{rest}");
    let lease = name(&format!("lease:default/{id}"));
    world.at(0).prompt_async(&id, "go").await;
    first.reached().await;
    for reader in &mut readers {
        reader.until(BOUND, "the first word", |event| event.properties()["delta"] == "half ").await;
    }
    let redis = world.redis();
    redis.command(&["HSET", &lease, "later", "added"]);
    // Names and messages of kinds that this version does not know.
    redis.command(&["HSET", &name("later"), "a", "b"]);
    redis.command(&["PUBLISH", &name("wake"), "later"]);
    let alive = redis.command(&["HKEYS", &name("alive")]);
    for replica in alive.lines() {
        redis.command(&["PUBLISH", &name(&format!("ctl:{replica}")), "something later, and more"]);
    }
    // An event of a later kind, in an envelope and an entry with more in them.
    let last = redis.command(&["HGET", &name("meta:default"), "last"]);
    let number: u64 = last.split('-').next().unwrap().parse().unwrap();
    let next = format!("{}-7", number + 1);
    let payload = json!({"id": "evt_later", "type": "later.happened", "properties": {"sessionID": id, "later": later()}, "later": 1});
    let directory = world.directory_text();
    let body = json!({"directory": directory, "project": "global", "payload": payload, "later": 1}).to_string();
    let redis = world.redis();
    redis.command(&["XADD", &name("log:default"), &next, "t", "1", "b", &body, "later", "added"]);
    redis.command(&["HSET", &name("meta:default"), "last", &next, "later", "added"]);

    let is_it = |event: &Event| event.kind() == "later.happened";
    for reader in &mut readers {
        let event = reader.until(BOUND, "the event of a later version", is_it).await;
        assert_eq!(event.properties()["later"], later());
    }
    // Its run is taken over with what was added.
    world.replica(0).kill9();
    second.reached().await;
    assert_eq!(world.redis().command(&["HGET", &lease, "later"]), "added");
    second.release();
    for reader in &mut readers {
        reader.until_idle(BOUND, &id).await;
    }
    assert_eq!(text_of(world.at(1).messages(&id).await.last().unwrap()), "whole");
    assert_eq!(world.redis().command(&["HGET", &name("meta:default"), "later"]), "added");
}
