//! Snapshots of the work tree: what a step changed is told, and a step that changes nothing spends none.

use serde_json::{Value, json};
use suite::side_by_side::{bash, side_by_side, write};
use testkit::client::{parts_of, text_prompt};
use testkit::model::Usage;
use testkit::outline::{outline, to_idle};
use testkit::{Answer, BOUND, Mode, World, WorldSpec, eventually};

fn typed<'a>(message: &'a Value, kind: &str) -> Option<&'a Value> {
    parts_of(message).iter().find(|part| part["type"] == kind)
}

/// The files that a message's patch names, without the work tree's path.
fn patched(world: &World, message: &Value) -> Vec<String> {
    let files = typed(message, "patch").and_then(|patch| patch["files"].as_array()).cloned().unwrap_or_default();
    let below = format!("{}/", world.directory_text());
    files.iter().filter_map(|file| Some(file.as_str()?.strip_prefix(&below)?.to_owned())).collect()
}

fn snapshots_in(world: &World) -> usize {
    std::fs::read_dir(world.data_dir().join("flotilla/snapshot")).map_or(0, Iterator::count)
}

#[tokio::test]
async fn what_a_step_changed_is_told_whether_a_tool_did_it_or_a_command() {
    let world = World::start().await;
    world.model.script([
        write("call_1", "out/new.txt", "alpha\nbeta\n"),
        bash(
            "call_2",
            "sed -i s/small/large/ README.md; echo x > .git/hidden; mkdir -p built; echo gone > gone; rm gone",
        ),
        Answer::say("done"),
    ]);
    let mut events = world.events(1).await;
    let id = world.session().await;
    world.prompt(&id, "do it").await;
    let messages = world.messages(&id).await;
    assert_eq!(patched(&world, &messages[1]), ["out/new.txt"]);
    assert_eq!(patched(&world, &messages[2]), ["README.md"]);
    assert_eq!(patched(&world, &messages[3]), [""; 0]);
    let (start, finish) = (|m| typed(m, "step-start").unwrap(), |m| typed(m, "step-finish").unwrap());
    let hash = |value: &Value| value.as_str().unwrap().to_owned();
    assert_eq!(typed(&messages[1], "patch").unwrap()["hash"], start(&messages[1])["snapshot"]);
    assert_eq!(hash(&finish(&messages[1])["snapshot"]), hash(&start(&messages[2])["snapshot"]));
    assert_ne!(hash(&start(&messages[2])["snapshot"]), hash(&finish(&messages[2])["snapshot"]));
    assert!(start(&messages[3])["snapshot"].is_null(), "an answer in words takes none");
    let order: Vec<&str> = parts_of(&messages[1]).iter().map(|part| part["type"].as_str().unwrap()).collect();
    assert_eq!(order, ["step-start", "tool", "step-finish", "patch"]);

    let user = messages[0]["info"]["id"].as_str().unwrap();
    let diffs = world.client().get(&format!("/session/{id}/diff?messageID={user}")).await.ok();
    let line = "=".repeat(67);
    let expected = json!([
        {
            "file": "README.md", "additions": 1, "deletions": 1, "status": "modified",
            "patch": format!("Index: README.md\n{line}\n--- README.md\t\n+++ README.md\t\n@@ -1,3 +1,3 @@\n # A project\n \n-It is small.\n+It is large.\n"),
        },
        {
            "file": "out/new.txt", "additions": 2, "deletions": 0, "status": "added",
            "patch": format!("Index: out/new.txt\n{line}\n--- out/new.txt\t\n+++ out/new.txt\t\n@@ -0,0 +1,2 @@\n+alpha\n+beta\n"),
        },
    ]);
    assert_eq!(diffs, expected);
    assert_eq!(messages[0]["info"]["summary"]["diffs"], expected);
    assert_eq!(world.client().get(&format!("/session/{id}/diff")).await.ok(), json!([]), "of nothing in particular");

    events.until_idle(BOUND, &id).await;
    let events = events.of_session(&id);
    let lines = outline(to_idle(&events));
    let end = lines.iter().position(|line| line.ends_with("patch")).unwrap();
    assert_eq!(
        lines[end - 2..=end + 1],
        [
            "message.part.updated step-finish",
            "message.updated assistant tool-calls",
            "message.part.updated patch",
            "message.updated assistant tool-calls completed",
        ]
    );
    let summaries = events.iter().filter(|event| event.properties()["info"]["role"] == "user");
    let told: Vec<usize> =
        summaries.filter_map(|event| Some(event.properties()["info"]["summary"]["diffs"].as_array()?.len())).collect();
    assert!(told.starts_with(&[0, 1, 2]), "each step tells what was changed so far: {told:?}");
}

#[tokio::test]
async fn steps_that_cannot_write_take_no_snapshot() {
    let world = World::start().await;
    let todos = json!({"todos": [{"content": "a", "status": "pending", "priority": "high"}]});
    world.model.script([
        Answer::call("call_1", "read", json!({"filePath": "README.md"})),
        Answer::call("call_2", "todowrite", todos),
        Answer::say("done"),
    ]);
    let id = world.session().await;
    world.prompt(&id, "look").await;
    assert_eq!(snapshots_in(&world), 0);
    let spec = WorldSpec { config: json!({"snapshot": false}), ..WorldSpec::default() };
    let world = World::start_with(spec).await;
    world.model.script([write("call_1", "new.txt", "x"), Answer::say("done")]);
    let id = world.session().await;
    world.prompt(&id, "write").await;
    assert_eq!(snapshots_in(&world), 0, "the configuration wants none");
    assert!(typed(&world.messages(&id).await[1], "patch").is_none());
}

#[tokio::test]
async fn a_step_that_speaks_before_it_writes_is_told_as_one_that_does_not() {
    let world = World::start().await;
    let step =
        Answer::new().text("I will. ").tool_call("call_1", "write", json!({"filePath": "a.txt", "content": "a"}));
    world.model.script([step.finish("tool_calls", Usage::default()), Answer::say("done")]);
    let id = world.session().await;
    world.prompt(&id, "write").await;
    let messages = world.messages(&id).await;
    assert_eq!(patched(&world, &messages[1]), ["a.txt"]);
    assert_eq!(typed(&messages[1], "step-start").unwrap()["snapshot"], typed(&messages[1], "patch").unwrap()["hash"]);
}

#[tokio::test]
async fn two_sessions_in_one_work_tree_tell_their_own_changes_only() {
    let world = World::start().await;
    let (a, b) = side_by_side(&world).await;
    let of = async |id: &str| patched(&world, &world.messages(id).await[1]);
    assert_eq!(of(&a).await, ["a.txt"]);
    assert_eq!(of(&b).await, ["b.txt"]);
}

#[tokio::test]
async fn a_step_whose_replica_dies_or_that_is_aborted_tells_what_it_had_changed() {
    if !Mode::is_fleet_or_skip() {
        return;
    }
    let mut world = World::start().await;
    let command = "echo a > a.txt; sleep 614";
    world.model.script([bash("call_1", command), Answer::say("going on"), bash("call_2", "echo b > b.txt; sleep 614")]);
    let id = world.session().await;
    world.at(0).prompt_async(&id, "go").await;
    eventually(BOUND, "the command to write", || async { world.file("a.txt").exists().then_some(()) }).await;
    world.replica(0).kill9();
    let other = world.at(1);
    eventually(BOUND, "the run to end", || async { (other.status(&id).await == "idle").then_some(()) }).await;
    assert_eq!(patched(&world, &other.messages(&id).await[1]), ["a.txt"]);

    let aborted = world.at(2);
    aborted.post(&format!("/session/{id}/prompt_async"), &text_prompt("again")).await;
    eventually(BOUND, "the second file", || async { world.file("b.txt").exists().then_some(()) }).await;
    aborted.abort(&id).await;
    assert_eq!(patched(&world, other.messages(&id).await.last().unwrap()), ["b.txt"]);
}
