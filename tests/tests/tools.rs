//! Tools: what they do, what is recorded of them, and permissions.

use serde_json::{Value, json};
use testkit::client::{id_of, text_of, text_prompt};
use testkit::model::Usage;
use testkit::outline::{spine, to_idle};
use testkit::{Answer, BOUND, Shape, World, WorldSpec, eventually, transcript};

const WRITE: &str = include_str!("../fixtures/part-write.json");
const BASH: &str = include_str!("../fixtures/part-bash.json");
const PERMISSION: &str = include_str!("../fixtures/permission.json");

fn asking(permission: Value) -> WorldSpec {
    WorldSpec { config: json!({ "permission": permission }), ..WorldSpec::default() }
}

fn bash(id: &str, command: &str) -> Answer {
    Answer::call(id, "bash", json!({"command": command, "description": "d"}))
}

#[tokio::test]
async fn write_makes_the_file_and_tells_of_it() {
    let world = World::start().await;
    let input = json!({"filePath": "out/new.txt", "content": "alpha\nbeta\n"});
    world.model.script([Answer::call("call_1", "write", input), Answer::say("done")]);
    let mut events = world.events(1).await;
    let id = world.session().await;
    let answer = world.prompt(&id, "do it").await;
    assert_eq!(answer["parts"][1]["text"], "done");
    assert_eq!(std::fs::read_to_string(world.file("out/new.txt")).unwrap(), "alpha\nbeta\n");
    let parts = world.client().tool_parts(&id).await;
    let file = world.file("out/new.txt").to_string_lossy().into_owned();
    Shape::new(WRITE).with("session", id.as_str()).with("file", file).check(&parts[0]);
    events.until_idle(BOUND, &id).await;
    let expected = [
        "session.created",
        "message.updated user",
        "message.part.updated text full",
        "session.status busy",
        "message.updated assistant",
        "session.status busy",
        "message.part.updated step-start",
        "message.part.updated tool write pending",
        "message.part.updated tool write running",
        "message.part.updated tool write completed",
        "message.part.updated step-finish",
        "message.updated assistant tool-calls",
        "message.updated assistant tool-calls completed",
        "session.status busy",
        "message.updated assistant",
        "session.status busy",
        "message.part.updated step-start",
        "message.part.updated text empty",
        "message.part.delta",
        "message.part.updated text full",
        "message.part.updated step-finish",
        "message.updated assistant stop",
        "message.updated assistant stop completed",
        "session.status busy",
        "session.status idle",
        "session.idle",
    ];
    assert_eq!(spine(to_idle(&events.of_session(&id))), expected);
    assert!(events.collected().iter().any(|e| e.kind() == "file.edited"), "the file's change is told");
    let asked = world.model.main_requests();
    assert_eq!(transcript::tool_texts(&asked[1].body).len(), 1);
}

#[tokio::test]
async fn bash_keeps_output_and_exit_code() {
    let world = World::start().await;
    let command = "echo hi; echo err >&2; exit 3";
    world.model.script([bash("call_1", command), bash("call_2", "true"), Answer::say("done")]);
    let id = world.session().await;
    world.prompt(&id, "go").await;
    let parts = world.client().tool_parts(&id).await;
    Shape::new(BASH)
        .with("session", id.as_str())
        .with("command", command)
        .with("output", "hi\nerr\n")
        .with("preview", "hi\nerr\n")
        .with("exit", 3)
        .check(&parts[0]);
    assert_eq!(parts[1]["state"]["output"], "(no output)");
    let asked = world.model.main_requests();
    assert_eq!(transcript::tool_texts(&asked[2].body), ["hi\nerr\n", "(no output)"]);
}

#[tokio::test]
async fn a_file_is_read_edited_and_the_edit_is_shown() {
    let world = World::start().await;
    let edit = json!({"filePath": "README.md", "oldString": "small", "newString": "large"});
    world.model.script([
        Answer::call("call_1", "read", json!({"filePath": world.file("README.md")})),
        Answer::call("call_2", "edit", edit),
        Answer::say("done"),
    ]);
    let id = world.session().await;
    world.prompt(&id, "go").await;
    assert_eq!(std::fs::read_to_string(world.file("README.md")).unwrap(), "# A project\n\nIt is large.\n");
    let parts = world.client().tool_parts(&id).await;
    let text = parts[0]["state"]["output"].as_str().unwrap();
    assert!(text.contains("3: It is small."), "{text}");
    let diff = parts[1]["state"]["metadata"]["diff"].as_str().unwrap();
    assert!(diff.contains("-It is small.") && diff.contains("+It is large."), "{diff}");
    assert_eq!(parts[1]["state"]["metadata"]["filediff"]["additions"], 1);
}

#[tokio::test]
async fn calls_of_one_step_run_together_and_keep_their_order() {
    let world = World::start().await;
    // Each of them waits for what the other does: one after the other they would time out.
    let first = json!({"command": "touch one; until [ -e two ]; do sleep 0.02; done; echo first", "description": "d"});
    let second =
        json!({"command": "touch two; until [ -e one ]; do sleep 0.02; done; echo second", "description": "d"});
    let calls = [("call_1", "bash", first), ("call_2", "bash", second)];
    let step = Answer::new().interleaved_calls(&calls, 4).finish("tool_calls", Usage::default());
    world.model.script([step, Answer::say("done")]);
    let id = world.session().await;
    world.prompt(&id, "go").await;
    let asked = world.model.main_requests();
    assert_eq!(transcript::tool_texts(&asked[1].body), ["first\n", "second\n"]);
    let called: Vec<Value> = world.client().tool_parts(&id).await.iter().map(|p| p["callID"].clone()).collect();
    assert_eq!(called, ["call_1", "call_2"]);
}

#[tokio::test]
async fn calls_that_make_no_sense_are_answered_to_the_model() {
    let world = World::start().await;
    world.model.script([
        Answer::call("call_1", "nosuchtool", json!({})),
        Answer::new().tool_call_text("call_2", "bash", "{\"command\": ", 2).finish("tool_calls", Usage::default()),
        Answer::call("call_3", "write", json!({"content": 5})),
        Answer::say("done"),
    ]);
    let id = world.session().await;
    let answer = world.prompt(&id, "go").await;
    assert_eq!(answer["parts"][1]["text"], "done");
    let parts = world.client().tool_parts(&id).await;
    let told: Vec<(&Value, &Value)> = parts.iter().map(|p| (&p["tool"], &p["state"]["status"])).collect();
    let (invalid, write) = (json!("invalid"), json!("write"));
    let (completed, error) = (json!("completed"), json!("error"));
    assert_eq!(told, [(&invalid, &completed), (&invalid, &completed), (&write, &error)]);
}

#[tokio::test]
async fn a_permission_is_asked_on_one_replica_and_answered_on_another() {
    let world = World::start_with(asking(json!({"bash": "ask"}))).await;
    world.model.script([bash("call_1", "git status --short"), bash("call_2", "git status"), Answer::say("done")]);
    let mut events = world.events(2).await;
    let id = world.session().await;
    let prompt = world.spawn_prompt(0, &id, "go");
    let asked = events.until_kind(BOUND, "permission.asked").await;
    let shape = Shape::new(PERMISSION).with("session", id.as_str());
    shape.check(asked.properties());
    for number in 0..3 {
        assert_eq!(world.at(number).get("/permission").await.ok(), json!([asked.properties()]), "replica {number}");
    }
    let waiting = world.client().tool_parts(&id).await;
    assert_eq!(waiting[0]["state"]["status"], "running");
    let reply = format!("/permission/{}/reply", id_of(asked.properties()));
    let bogus = world.at(1).post(&reply, &json!({"reply": "bogus"})).await;
    assert_eq!((bogus.status, &bogus.json()["data"]["kind"]), (400, &json!("Payload")));
    assert_eq!(world.at(1).post(&reply, &json!({"reply": "always"})).await.ok(), json!(true));
    let replied = events.until_kind(BOUND, "permission.replied").await;
    let expected = json!({"sessionID": id, "requestID": asked.properties()["id"], "reply": "always"});
    assert_eq!(replied.properties(), &expected);
    let again = world.at(2).post(&reply, &json!({"reply": "once"})).await;
    assert_eq!((again.status, &again.json()["_tag"]), (404, &json!("PermissionNotFoundError")));
    // What was allowed always is not asked again.
    assert_eq!(prompt.await.unwrap()["parts"][1]["text"], "done");
    assert_eq!(events.collected().iter().filter(|e| e.kind() == "permission.asked").count(), 1);
    assert_eq!(world.client().get("/permission").await.ok(), json!([]));
}

#[tokio::test]
async fn a_newcomer_is_told_what_is_asked_and_what_was_answered_before_it_came() {
    let world = World::start_with(asking(json!({"bash": "ask"}))).await;
    world.model.script([bash("call_1", "git status"), Answer::say("done")]);
    let id = world.session().await;
    let prompt = world.spawn_prompt(0, &id, "go");
    eventually(BOUND, "the ask", || async { (world.at(1).get("/permission").await.ok() != json!([])).then_some(()) })
        .await;
    // A terminal client that was cut off comes back so.
    let mut newcomer = world.global_events(1).await;
    let asked = newcomer.until_kind(BOUND, "permission.asked").await;
    assert_eq!(world.at(2).get("/permission").await.ok(), json!([asked.properties()]));
    let reply = format!("/permission/{}/reply", id_of(asked.properties()));
    world.at(2).post(&reply, &json!({"reply": "once"})).await.ok();
    assert_eq!(text_of(&prompt.await.unwrap()), "done");
    let mut late = world.global_events(1).await;
    let replied = late.until_kind(BOUND, "permission.replied").await;
    let expected = json!({"sessionID": id, "requestID": asked.properties()["id"], "reply": "once"});
    assert_eq!(replied.properties(), &expected);
}

#[tokio::test]
async fn what_a_running_command_printed_is_read_on_every_replica() {
    let world = World::start_with(asking(json!({"bash": "allow"}))).await;
    world.model.push(bash("call_1", "echo printed; sleep 614"));
    let id = world.session().await;
    world.at(0).prompt_async(&id, "go").await;
    for number in 0..3 {
        eventually(BOUND, "the output so far", || async {
            let parts = world.at(number).tool_parts(&id).await;
            let state = &parts.first()?["state"];
            (state["status"] == "running" && state["metadata"]["output"] == "printed\n").then_some(())
        })
        .await;
    }
    world.at(1).abort(&id).await;
}

#[tokio::test]
async fn a_rejected_permission_stops_the_run_and_one_with_advice_does_not() {
    let world = World::start_with(asking(json!({"bash": "ask"}))).await;
    world.model.script([bash("call_1", "echo x"), bash("call_2", "echo y"), Answer::say("after feedback")]);
    let mut events = world.events(1).await;
    let id = world.session().await;
    let prompt = world.spawn_prompt(0, &id, "go");
    let asked = events.until_kind(BOUND, "permission.asked").await;
    let reply = |asked: &Value| format!("/permission/{}/reply", id_of(asked));
    // Empty advice is none.
    world.at(2).post(&reply(asked.properties()), &json!({"reply": "reject", "message": ""})).await.ok();
    let answer = prompt.await.unwrap();
    assert_eq!((&answer["info"]["finish"], answer["info"].get("error")), (&json!("tool-calls"), None));
    let rejected = "The user rejected permission to use this specific tool call.";
    assert_eq!(world.client().tool_parts(&id).await[0]["state"]["error"], rejected);
    events.until_idle(BOUND, &id).await;
    let told = spine(&events.of_session(&id));
    let recorded = ["message.updated assistant tool-calls completed", "session.status idle", "session.idle"];
    assert_eq!(told[told.len() - 3..], recorded, "{told:#?}");

    let prompt = world.spawn_prompt(1, &id, "go again");
    let asked = events.until_kind(BOUND, "permission.asked").await;
    let advice = json!({"reply": "reject", "message": "say it differently"});
    world.at(0).post(&reply(asked.properties()), &advice).await.ok();
    assert_eq!(prompt.await.unwrap()["parts"][1]["text"], "after feedback");
    let error = world.client().tool_parts(&id).await[1]["state"]["error"].clone();
    assert!(error.as_str().unwrap().contains("say it differently"), "{error}");
}

#[tokio::test]
async fn nothing_is_asked_for_a_text_that_runs_nothing_and_what_a_substitution_runs_is() {
    let world = World::start_with(asking(json!({"bash": "ask"}))).await;
    let calls = ["A=b", "# rm -rf x", "", "A=$(touch made) # and so on"];
    world.model.script(calls.iter().enumerate().map(|(at, text)| bash(&format!("call_{at}"), text)));
    world.model.push(Answer::say("done"));
    let mut events = world.events(0).await;
    let id = world.session().await;
    let prompt = world.spawn_prompt(0, &id, "go");
    let asked = events.until_kind(BOUND, "permission.asked").await;
    assert_eq!(asked.properties()["patterns"], json!(["touch made"]));
    let reply = format!("/permission/{}/reply", id_of(asked.properties()));
    world.at(1).post(&reply, &json!({"reply": "reject", "message": "no"})).await.ok();
    assert_eq!(text_of(&prompt.await.unwrap()), "done");
    let parts = world.client().tool_parts(&id).await;
    let states: Vec<&Value> = parts.iter().map(|part| &part["state"]["status"]).collect();
    assert_eq!(states, ["completed", "completed", "completed", "error"]);
    assert!(!world.file("made").exists());
}

#[tokio::test]
async fn a_step_that_calls_tools_is_not_the_last_whatever_the_provider_says() {
    let world = World::start_with(asking(json!({"bash": "allow"}))).await;
    let call = Answer::new().tool_call("call_1", "bash", json!({"command": "echo x", "description": "echo"}));
    world.model.script([call.finish("stop", Usage::default()), Answer::say("saw it")]);
    let id = world.session().await;
    assert_eq!(text_of(&world.prompt(&id, "go").await), "saw it");
}

#[tokio::test]
async fn what_is_denied_is_not_done_and_what_is_off_is_not_offered() {
    let world = World::start_with(asking(json!({"bash": {"*": "allow", "rm *": "deny"}, "write": "allow"}))).await;
    world.model.script([bash("call_1", "rm README.md"), Answer::say("done"), Answer::say("without tools")]);
    let id = world.session().await;
    world.prompt(&id, "go").await;
    assert!(world.file("README.md").exists());
    assert_eq!(world.client().tool_parts(&id).await[0]["state"]["status"], "error");
    let mut off = text_prompt("go");
    off["tools"] = json!({"bash": false});
    world.client().post(&format!("/session/{id}/message"), &off).await.ok();
    let offered = transcript::offered_tools(&world.model.main_requests()[2].body);
    assert!(!offered.contains(&"bash".to_string()), "{offered:?}");
}
