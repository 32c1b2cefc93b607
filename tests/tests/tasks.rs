//! Tasks: work that goes to another agent, in a child session.

use serde_json::{Value, json};
use testkit::client::{id_of, parts_of, text_of};
use testkit::model::Gate;
use testkit::{Answer, BOUND, Failpoint, Mode, World, WorldSpec, eventually, transcript};

fn task(id: &str, prompt: &str, agent: &str) -> Answer {
    Answer::call(id, "task", json!({"description": "look around", "prompt": prompt, "subagent_type": agent}))
}

async fn children(world: &World, id: &str) -> Vec<Value> {
    world.client().get(&format!("/session/{id}/children")).await.ok().as_array().cloned().unwrap_or_default()
}

async fn task_state(world: &World, id: &str) -> Value {
    world.client().tool_parts(id).await.first().map(|part| part["state"].clone()).unwrap_or_default()
}

fn result(child: &str, text: &str) -> String {
    format!("<task id=\"{child}\" state=\"completed\">\n<task_result>\n{text}\n</task_result>\n</task>")
}

#[tokio::test]
async fn a_task_is_done_in_a_child_session_and_gone_on_with() {
    let world = World::start().await;
    let read = Answer::call("sub_1", "read", json!({"filePath": "README.md"}));
    world.model.script([task("call_1", "find the answer", "general"), read, Answer::say("42"), Answer::say("done")]);
    let mut events = world.events(2).await;
    let id = world.session().await;
    assert_eq!(text_of(&world.prompt(&id, "do it").await), "done");
    let all = children(&world, &id).await;
    assert_eq!(all.len(), 1);
    let child = id_of(&all[0]);
    assert_eq!((&all[0]["parentID"], &all[0]["agent"]), (&json!(id), &json!("general")));
    assert_eq!(all[0]["title"], "look around (@general subagent)");
    assert_eq!(all[0]["permission"], json!([{"permission": "task", "pattern": "*", "action": "deny"}]));
    let state = task_state(&world, &id).await;
    assert_eq!((&state["status"], &state["title"]), (&json!("completed"), &json!("look around")));
    assert_eq!(state["output"], result(&child, "42"));
    let model = json!({"modelID": "m", "providerID": "fake"});
    let metadata = json!({"parentSessionId": id, "sessionId": child, "model": model, "truncated": false});
    assert_eq!(state["metadata"], metadata);
    let said: Vec<(String, String)> = world.client().conversation(&child).await;
    assert_eq!((&said[0].1[..], &said.last().unwrap().1[..]), ("find the answer", "42"));
    let asked = world.model.main_requests();
    let tools = |index: usize| -> Vec<String> {
        let tools = asked[index].body["tools"].as_array().unwrap().iter();
        tools.map(|tool| tool["function"]["name"].as_str().unwrap().to_owned()).collect()
    };
    assert!(tools(0).contains(&"task".into()) && !tools(1).contains(&"task".into()), "a task is not divided further");
    assert_eq!(transcript::tool_texts(&asked[3].body), [result(&child, "42")]);

    // Which session does it is shown before the session says anything.
    let created = events
        .until(BOUND, "the child", |e| e.kind() == "session.created" && e.properties()["info"]["id"] == child.as_str())
        .await;
    assert_eq!(created.properties()["info"]["parentID"], id.as_str());
    let shown = events.until(BOUND, "the child's id in the call", |e| e.properties()["part"]["tool"] == "task").await;
    assert_eq!(shown.properties()["part"]["state"]["metadata"]["sessionId"], child.as_str());
    events
        .until(BOUND, "the child's end", |e| {
            e.kind() == "session.idle" && e.properties()["sessionID"] == child.as_str()
        })
        .await;

    let again = json!({"description": "again", "prompt": "follow up", "subagent_type": "general", "task_id": child});
    world.model.script([Answer::call("call_2", "task", again), Answer::say("second"), Answer::say("done")]);
    world.prompt(&id, "again").await;
    assert_eq!(children(&world, &id).await.len(), 1, "the same child");
    assert_eq!(world.client().tool_parts(&id).await[1]["state"]["output"], result(&child, "second"));
    world.model.push(Answer::say("directly"));
    assert_eq!(text_of(&world.prompt(&child, "a prompt for the child").await), "directly");
}

#[tokio::test]
async fn a_task_that_cannot_be_done_is_an_error_for_the_model() {
    let world = World::start().await;
    let failure = Answer::status(400, &json!({"error": {"message": "sub failed"}}));
    let script = [task("call_1", "x", "nope"), task("call_2", "fail please", "explore"), failure, Answer::say("done")];
    world.model.script(script);
    let id = world.session().await;
    assert_eq!(text_of(&world.prompt(&id, "do it").await), "done");
    let parts = world.client().tool_parts(&id).await;
    assert_eq!(parts[0]["state"]["error"], "Unknown agent type: nope is not a valid agent type");
    let child = id_of(&children(&world, &id).await[0]);
    assert_eq!(parts[1]["state"]["error"], format!("Subagent failed (task_id: {child}): sub failed"));
    let rules = children(&world, &id).await[0]["permission"].clone();
    let denied: Vec<&Value> = rules.as_array().unwrap().iter().map(|rule| &rule["permission"]).collect();
    assert_eq!(denied, ["todowrite", "task"]);
}

#[tokio::test]
async fn an_abort_of_the_parent_stops_the_child() {
    let world = World::start().await;
    let gate = Gate::new();
    world.model.script([task("call_1", "find it", "general"), Answer::new().text("half ").wait(&gate).stop()]);
    let id = world.session().await;
    let prompt = world.spawn_prompt(0, &id, "do it");
    gate.reached().await;
    let child = id_of(&children(&world, &id).await[0]);
    assert_eq!(world.at(1).status(&child).await, "busy");
    world.at(2).abort(&id).await;
    prompt.await.unwrap();
    eventually(BOUND, "the child to stop", || async { (world.status(&child).await == "idle").then_some(()) }).await;
    gate.release();
    let last = world.messages(&child).await.pop().unwrap();
    assert_eq!(last["info"]["error"]["name"], "MessageAbortedError");
    let state = task_state(&world, &id).await;
    assert_eq!((&state["status"], &state["metadata"]["interrupted"]), (&json!("error"), &json!(true)));
    assert_eq!(world.model.main_requests().len(), 2, "neither of them went on");
}

#[tokio::test]
async fn whoever_takes_the_parent_over_joins_the_child() {
    if !Mode::is_fleet_or_skip() {
        return;
    }
    let args = ["--lease-ttl", "3s", "--tick", "500ms"].map(str::to_owned).to_vec();
    let mut world = World::start_with(WorldSpec { args, ..WorldSpec::default() }).await;
    let gate = Gate::new();
    world.model.script([task("call_1", "find it", "general"), Answer::new().text("half ").wait(&gate).stop()]);
    let id = world.session().await;
    world.at(0).prompt_async(&id, "do it").await;
    gate.reached().await;
    let child = id_of(&children(&world, &id).await[0]);
    // The child's new runner asks again; its parent's waits for it.
    world.model.script([Answer::say("found"), Answer::say("done")]);
    world.replica(0).kill9();
    let client = world.at(1);
    eventually(BOUND, "the parent's answer", || async {
        (text_of(client.messages(&id).await.last()?) == "done").then_some(())
    })
    .await;
    assert_eq!(
        client.get(&format!("/session/{id}/children")).await.ok().as_array().unwrap().len(),
        1,
        "no other child"
    );
    let prompts = client.messages(&child).await.iter().filter(|m| m["info"]["role"] == "user").count();
    assert_eq!(prompts, 1, "it was prompted once");
    assert_eq!(client.tool_parts(&id).await[0]["state"]["output"], result(&child, "found"));
    for session in [&id, &child] {
        eventually(BOUND, "idle", || async { (client.status(session).await == "idle").then_some(()) }).await;
        assert_eq!(world.model.concurrent_runs(session), 1);
    }
}

#[tokio::test]
async fn a_prompt_and_a_command_ask_for_tasks_as_recorded() {
    let config = json!({"command": {"sub": {"template": "Do the sub thing $1", "agent": "general", "subtask": true}}});
    let world = World::start_with(WorldSpec { config, ..WorldSpec::default() }).await;
    world.model.script(["sub result", "after sub", "second result", "after all"].map(Answer::say));
    let id = world.session().await;
    let client = world.client();
    let body = json!({"command": "sub", "arguments": "now"});
    let answer = client.post(&format!("/session/{id}/command"), &body).await.ok();
    assert_eq!(text_of(&answer), "after sub");
    let messages = world.messages(&id).await;
    assert_eq!(messages.len(), 4);
    assert_eq!(parts_of(&messages[0])[0]["command"], "sub");
    let (info, call) = (&messages[1]["info"], &parts_of(&messages[1])[0]);
    assert_eq!(
        (&info["mode"], &info["finish"], parts_of(&messages[1]).len()),
        (&json!("general"), &json!("tool-calls"), 1)
    );
    let input =
        json!({"prompt": "Do the sub thing now", "description": "", "subagent_type": "general", "command": "sub"});
    assert_eq!((&call["tool"], &call["state"]["input"]), (&json!("task"), &input));
    let child = id_of(&children(&world, &id).await[0]);
    assert_eq!(call["state"]["output"], result(&child, "sub result"));
    assert_eq!((&messages[2]["info"]["role"], &parts_of(&messages[2])[0]["synthetic"]), (&json!("user"), &json!(true)));
    assert_eq!(answer["info"]["parentID"], messages[2]["info"]["id"]);

    let subtask = json!({"type": "subtask", "prompt": "sub prompt", "description": "sub desc", "agent": "general"});
    let answer = client.post(&format!("/session/{id}/message"), &json!({"parts": [subtask]})).await.ok();
    assert_eq!(text_of(&answer), "after all");
    let messages = world.messages(&id).await;
    assert_eq!(messages.len(), 7, "no message is put between a prompt's task and the answer");
    assert_eq!(parts_of(&messages[5])[0]["state"]["title"], "sub desc");
    assert_eq!(answer["info"]["parentID"], messages[4]["info"]["id"]);
    let asked = world.model.main_requests();
    assert_eq!(transcript::tool_texts(&asked[3].body).len(), 2);
}

#[tokio::test]
async fn a_child_that_a_death_left_half_made_is_made_by_whoever_goes_on() {
    if !Mode::is_fleet_or_skip() {
        return;
    }
    let args = ["--lease-ttl", "3s", "--tick", "500ms"].map(str::to_owned).to_vec();
    let mut world = World::start_with(WorldSpec { args, failpoints: true, ..WorldSpec::default() }).await;
    let id = world.session().await;
    world.model.script([task("call_1", "find it", "general"), Answer::say("found"), Answer::say("done")]);
    // The first is the parent's own record, when its prompt is stored; the child's guards are there, its record is not.
    let armed = world.replica(0).kill_at(&Failpoint::before("rename", "storage/session/").skip(1));
    world.at(0).prompt_async(&id, "do it").await;
    armed.reached(BOUND).await;
    let client = world.at(1);
    eventually(BOUND, "the parent's answer", || async {
        (text_of(client.messages(&id).await.last()?) == "done").then_some(())
    })
    .await;
    let all = client.get(&format!("/session/{id}/children")).await.ok();
    let made = all.as_array().unwrap();
    assert_eq!(made.len(), 1);
    assert_eq!(client.tool_parts(&id).await[0]["state"]["output"], result(&id_of(&made[0]), "found"));
}
