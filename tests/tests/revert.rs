//! Reverts: a conversation and the files that it changed go back, and forth again.

use serde_json::{Value, json};
use suite::side_by_side::{bash, side_by_side, write};
use testkit::client::{parts_of, text_of};
use testkit::failpoint::Failpoint;
use testkit::model::Gate;
use testkit::outline::outline;
use testkit::{Answer, BOUND, Mode, Reply, World, WorldSpec};

/// What a test knows of its work tree: `a.txt` and the last line of the README.
fn files(world: &World) -> (String, String) {
    let last = |name: &str| {
        let text = std::fs::read_to_string(world.file(name)).unwrap_or_default();
        text.lines().last().unwrap_or_default().to_owned()
    };
    (last("a.txt"), last("README.md"))
}

fn held(a: &str, readme: &str) -> (String, String) {
    (a.to_owned(), readme.to_owned())
}

async fn revert(world: &World, id: &str, body: Value) -> Reply {
    world.client().post(&format!("/session/{id}/revert"), &body).await
}

async fn unrevert(world: &World, id: &str) -> Value {
    world.client().send(reqwest::Method::POST, &format!("/session/{id}/unrevert"), &[], None).await.ok()
}

/// The recorded conversation: the first prompt writes `a.txt`, the second writes it again and has a command edit the README.
async fn two_turns(world: &World) -> (String, Vec<Value>) {
    world.model.script([
        write("c1", "a.txt", "one\n"),
        Answer::say("wrote one"),
        write("c2", "a.txt", "two\n"),
        bash("c3", "sed -i s/small/large/ README.md"),
        Answer::say("wrote two"),
    ]);
    let id = world.session().await;
    world.prompt(&id, "first").await;
    world.prompt(&id, "second").await;
    let messages = world.messages(&id).await;
    (id, messages)
}

#[tokio::test]
async fn files_go_back_and_forth_and_the_next_prompt_takes_the_messages_away() {
    let world = World::start().await;
    let (id, messages) = two_turns(&world).await;
    let mut events = world.events(1).await;
    let message = |n: usize| messages[n]["info"]["id"].as_str().unwrap().to_owned();
    assert_eq!(files(&world), held("two", "It is large."));

    let reverted = revert(&world, &id, json!({"messageID": message(3)})).await.ok();
    assert_eq!(files(&world), held("one", "It is small."));
    assert_eq!(reverted["summary"], json!({"additions": 2, "deletions": 2, "files": 2}));
    assert_eq!(reverted["revert"]["messageID"], message(3));
    let readme = "diff --git a/README.md b/README.md\nindex ";
    let a = "\n@@ -1,3 +1,3 @@\n # A project\n \n-It is large.\n+It is small.\ndiff --git a/a.txt b/a.txt\n\
             index f719efd..5626abf 100644\n--- a/a.txt\n+++ b/a.txt\n@@ -1 +1 @@\n-two\n+one";
    let diff = reverted["revert"]["diff"].as_str().unwrap();
    assert!(diff.starts_with(readme) && diff.ends_with(a), "{diff}");
    let finish = parts_of(&messages[5]).iter().find(|part| part["type"] == "step-finish").unwrap();
    assert_eq!(reverted["revert"]["snapshot"], finish["snapshot"]);
    assert_eq!(world.messages(&id).await, messages, "nothing is taken away yet");
    assert_eq!(world.client().get(&format!("/session/{id}/diff")).await.ok(), json!([]));

    let back = unrevert(&world, &id).await;
    assert_eq!(files(&world), held("two", "It is large."));
    assert!(back["revert"].is_null());
    assert_eq!(back["summary"], reverted["summary"]);
    assert_eq!(unrevert(&world, &id).await, back, "there is nothing to take back");

    // To a part: what comes before it in its message stands for nothing, so that the prompt is meant.
    let tool = parts_of(&messages[5]).iter().find(|part| part["type"] == "tool").unwrap();
    let partly = revert(&world, &id, json!({"messageID": message(5), "partID": tool["id"]})).await.ok();
    assert_eq!(files(&world), held("two", "It is small."));
    assert_eq!(partly["revert"]["messageID"], message(3));
    assert!(partly["revert"]["partID"].is_null());
    let further = revert(&world, &id, json!({"messageID": message(3)})).await.ok();
    assert_eq!(files(&world), held("one", "It is small."));
    assert_eq!(further["revert"]["snapshot"], reverted["revert"]["snapshot"], "of the tree before the first");
    assert_eq!(further["revert"]["diff"], reverted["revert"]["diff"]);
    assert_eq!(revert(&world, &id, json!({"messageID": "msg_nope"})).await.ok(), further, "unchanged");
    let bad = revert(&world, &id, json!({})).await;
    assert_eq!((bad.status, bad.json()["data"]["message"].clone()), (400, json!("Missing key\n  at [\"messageID\"]")));

    world.model.script([Answer::say("fresh answer")]);
    world.prompt(&id, "a different second").await;
    assert_eq!(files(&world), held("one", "It is small."), "what was reverted stays so");
    let said = [("user", "first"), ("assistant", ""), ("assistant", "wrote one")];
    let said = said.iter().chain(&[("user", "a different second"), ("assistant", "fresh answer")]);
    let said: Vec<_> = said.map(|(role, text)| (role.to_string(), text.to_string())).collect();
    assert_eq!(world.client().conversation(&id).await, said);
    let session = world.client().get(&format!("/session/{id}")).await.ok();
    assert!(session["revert"].is_null());
    assert_eq!(session["summary"], json!({"additions": 0, "deletions": 0, "files": 0}));
    assert_eq!(session["tokens"]["input"], 300, "what was taken away does not count");
    let sent = testkit::transcript::user_texts(&world.model.main_requests().pop().unwrap().body);
    assert_eq!(sent, ["first", "a different second"]);

    events.until_idle(BOUND, &id).await;
    let told = outline(&events.of_session(&id));
    let expected = [
        ["session.diff", "session.updated"].as_slice(),
        &["session.updated"],
        &["session.diff", "session.updated"],
        &["session.diff", "session.updated"],
        &["message.removed"; 4],
        &["session.updated", "message.updated user", "message.part.updated text full", "session.updated"],
        &["session.status busy"],
    ]
    .concat();
    assert_eq!(told[..expected.len()], expected);
    let diffs = events.of_session(&id);
    let diffs: Vec<_> = diffs.iter().filter(|event| event.kind() == "session.diff").collect();
    assert_eq!(diffs[0].properties()["diff"].as_array().unwrap().len(), 2);
    assert_eq!(diffs[0].properties()["diff"][1]["file"], "a.txt");
}

#[tokio::test]
async fn what_a_command_made_moved_or_removed_is_brought_back_and_nothing_else_is_touched() {
    let spec = WorldSpec {
        files: vec![
            ("keep.txt".into(), "kept\n".into()),
            ("run.sh".into(), "#!/bin/sh\n".into()),
            ("old".into(), "o\n".into()),
            ("swapped".into(), "a file\n".into()),
            ("folder/inner".into(), "in a folder\n".into()),
        ],
        ..WorldSpec::default()
    };
    let world = World::start_with(spec).await;
    let command = "rm keep.txt; chmod +x run.sh; mkdir made; echo x > made/file; ln -s README.md link; mv old moved; \
        rm swapped; mkdir -p swapped/deep; echo in > swapped/deep/file; rm -r folder; echo out > folder";
    world.model.script([bash("c1", command), Answer::say("done")]);
    let id = world.session().await;
    world.prompt(&id, "go").await;
    let done = &world.client().tool_parts(&id).await[0]["state"];
    assert_eq!((&done["status"], &done["metadata"]["exit"]), (&json!("completed"), &json!(0)), "{done}");
    std::fs::write(world.file("by-hand.txt"), "mine\n").unwrap();
    let user = world.messages(&id).await[0]["info"]["id"].clone();
    revert(&world, &id, json!({"messageID": user})).await.ok();
    let executable = || {
        use std::os::unix::fs::PermissionsExt;
        std::fs::metadata(world.file("run.sh")).unwrap().permissions().mode() & 0o111 != 0
    };
    let there = |name: &str| std::fs::symlink_metadata(world.file(name)).is_ok();
    assert_eq!(std::fs::read_to_string(world.file("keep.txt")).unwrap(), "kept\n");
    assert!(there("old") && there("by-hand.txt"));
    assert!(!executable() && !there("made/file") && !there("link") && !there("moved"));
    let text = |name: &str| std::fs::read_to_string(world.file(name)).unwrap_or_default();
    assert_eq!((text("swapped"), text("folder/inner")), ("a file\n".to_owned(), "in a folder\n".to_owned()));
    std::fs::write(world.file("by-hand.txt"), "changed\n").unwrap();
    unrevert(&world, &id).await;
    let after = (executable(), there("keep.txt"), there("old"), there("made/file"));
    assert_eq!(after, (true, false, false, true));
    assert_eq!((text("swapped/deep/file"), text("folder")), ("in\n".to_owned(), "out\n".to_owned()));
    assert_eq!(std::fs::read_link(world.file("link")).unwrap(), std::path::Path::new("README.md"));
    assert_eq!(std::fs::read_to_string(world.file("by-hand.txt")).unwrap(), "changed\n");
}

#[tokio::test]
async fn a_part_with_something_before_it_is_taken_away_alone_with_what_follows() {
    let world = World::start().await;
    let step =
        Answer::new().text("I will. ").tool_call("c1", "write", json!({"filePath": "a.txt", "content": "one\n"}));
    world.model.script([step.finish("tool_calls", testkit::model::Usage::default()), Answer::say("done")]);
    let id = world.session().await;
    world.prompt(&id, "go").await;
    let messages = world.messages(&id).await;
    let tool = parts_of(&messages[1]).iter().find(|part| part["type"] == "tool").unwrap();
    let reverted =
        revert(&world, &id, json!({"messageID": messages[1]["info"]["id"], "partID": tool["id"]})).await.ok();
    assert_eq!(reverted["revert"]["partID"], tool["id"]);
    assert!(!world.file("a.txt").exists());
    world.model.script([Answer::say("fresh")]);
    let mut events = world.events(2).await;
    world.prompt(&id, "another way").await;
    let left = world.messages(&id).await;
    let kinds: Vec<_> = parts_of(&left[1]).iter().map(|part| part["type"].as_str().unwrap()).collect();
    assert_eq!((left.len(), kinds), (4, vec!["step-start", "text"]));
    events.until_idle(BOUND, &id).await;
    let told = outline(&events.of_session(&id));
    let mut expected = vec!["message.part.removed"; 3];
    expected.extend(["message.removed", "session.updated", "message.updated user"]);
    let mut first: Vec<&str> = told[..expected.len()].iter().map(String::as_str).collect();
    first[..4].sort_unstable();
    assert_eq!(first, expected);
}

#[tokio::test]
async fn a_busy_session_is_neither_reverted_nor_unreverted() {
    let world = World::start().await;
    let gate = Gate::new();
    world.model.script([Answer::say("one"), Answer::new().wait(&gate).text("two").stop()]);
    let id = world.session().await;
    world.prompt(&id, "first").await;
    let message = world.messages(&id).await[0]["info"]["id"].clone();
    let running = world.spawn_prompt(0, &id, "second");
    gate.reached().await;
    let busy = json!({"_tag": "SessionBusyError", "sessionID": id, "message": format!("Session is busy: {id}")});
    let refused = revert(&world, &id, json!({"messageID": message})).await;
    assert_eq!((refused.status, refused.json()), (409, busy.clone()));
    let refused = world.client().post(&format!("/session/{id}/unrevert"), &json!({})).await;
    assert_eq!((refused.status, refused.json()), (409, busy));
    gate.release();
    assert_eq!(text_of(&running.await.unwrap()), "two");
    assert_eq!(revert(&world, "ses_nope", json!({"messageID": message})).await.status, 404);
}

#[tokio::test]
async fn a_revert_leaves_what_only_another_session_of_the_work_tree_changed() {
    let world = World::start().await;
    let (a, b) = side_by_side(&world).await;
    let there = || (world.file("a.txt").exists(), world.file("b.txt").exists());
    let prompt = async |id: &str| world.messages(id).await[0]["info"]["id"].clone();
    revert(&world, &a, json!({"messageID": prompt(&a).await})).await.ok();
    assert_eq!(there(), (false, true));
    unrevert(&world, &a).await;
    revert(&world, &b, json!({"messageID": prompt(&b).await})).await.ok();
    assert_eq!(there(), (true, false));
}

#[tokio::test]
async fn a_revert_whose_replica_dies_is_finished_by_another_and_prompts_wait_for_it() {
    if !Mode::is_fleet_or_skip() {
        return;
    }
    // Before the plan is stored; before the work tree is kept; when one of two files is brought back; before it is recorded.
    let places = [("revert/", 0), ("snapshot-of/", 0), ("/note/", 1), ("session_diff/", 0)];
    for (place, hits) in places {
        let spec = WorldSpec { failpoints: true, ..WorldSpec::default() };
        let mut world = World::start_with(spec).await;
        let (id, messages) = two_turns(&world).await;
        let body = json!({"messageID": messages[3]["info"]["id"]}).to_string().into_bytes();
        let headers = [("content-type", "application/json"), ("idempotency-key", "revert-1")];
        let send = async |client: testkit::Client| {
            client.try_send(reqwest::Method::POST, &format!("/session/{id}/revert"), &headers, Some(body.clone())).await
        };
        let armed = world.replica(0).kill_at(&Failpoint::before("rename", place).skip(hits));
        assert!(send(world.at(0)).await.is_err(), "the replica dies");
        armed.reached(BOUND).await;
        if place == "snapshot-of/" {
            world.model.script([Answer::say("fresh")]);
            assert_eq!(text_of(&world.at(2).prompt(&id, "a different second").await), "fresh");
            assert_eq!(world.at(1).messages(&id).await.len(), 5, "the prompt came after it and took the messages away");
            let again = send(world.at(1)).await.unwrap().ok();
            assert!(again["revert"].is_null(), "sent again, it reverts nothing more");
            assert_eq!(files(&world), held("one", "It is small."));
            continue;
        }
        let again = send(world.at(1)).await.unwrap().ok();
        assert_eq!(again["revert"]["messageID"], messages[3]["info"]["id"], "{place}");
        assert_eq!(send(world.at(2)).await.unwrap().ok(), again, "done once: {place}");
        assert_eq!(files(&world), held("one", "It is small."), "{place}");
        let finish = parts_of(&messages[5]).iter().find(|part| part["type"] == "step-finish").unwrap();
        assert_eq!(again["revert"]["snapshot"], finish["snapshot"], "the whole tree was kept first: {place}");
        world.at(1).post(&format!("/session/{id}/unrevert"), &json!({})).await.ok();
        assert_eq!(files(&world), held("two", "It is large."), "{place}");
    }
}
