//! Prompts whose answer must have the form of a JSON schema.

use serde_json::{Value, json};
use testkit::model::{Gate, Usage};
use testkit::{Answer, BOUND, Mode, World, eventually};

const TOOL: &str = "StructuredOutput";

fn schema() -> Value {
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema", "type": "object",
        "properties": {"name": {"type": "string"}, "n": {"type": "number"}}, "required": ["name", "n"],
    })
}

fn prompt(text: &str) -> Value {
    json!({"parts": [{"type": "text", "text": text}], "format": {"type": "json_schema", "schema": schema()}})
}

/// The tools that a request offers, by name, and what it says of the choice among them.
fn offered(request: &Value) -> (Vec<&str>, &Value) {
    let tools = request["tools"].as_array().into_iter().flatten();
    (tools.filter_map(|tool| tool["function"]["name"].as_str()).collect(), &request["tool_choice"])
}

#[tokio::test]
async fn an_answer_in_the_wanted_form_is_in_the_message_and_read_on_any_replica() {
    let world = World::start().await;
    let mut events = world.events(1).await;
    let id = world.session().await;
    let path = format!("/session/{id}/message");
    let ann = json!({"name": "Ann", "n": 3});
    world.model.push(Answer::call("call_1", "glob", json!({"pattern": "*"})));
    world.model.push(Answer::call("call_2", TOOL, ann.clone()));
    let answer = world.client().post(&path, &prompt("who is it?")).await.ok();
    assert_eq!(answer["info"]["structured"], ann);
    assert!(answer["info"].get("error").is_none(), "{answer}");
    let part = &answer["parts"][1];
    assert_eq!(
        (&part["tool"], &part["state"]["status"], &part["state"]["input"]),
        (&json!(TOOL), &json!("completed"), &ann)
    );
    assert_eq!(part["state"]["metadata"]["valid"], true);
    events.until(BOUND, "the answer", |event| event.properties()["info"]["structured"] == ann).await;
    events.until_idle(BOUND, &id).await;

    let requests = world.model.main_requests();
    assert_eq!(requests.len(), 2, "nothing comes after the answer");
    for request in &requests {
        let (tools, choice) = offered(&request.body);
        assert!(tools.contains(&TOOL) && tools.contains(&"bash"), "{tools:?}");
        assert_eq!(choice, "required");
    }
    let tools = requests[0].body["tools"].as_array().unwrap();
    let told = tools.iter().find(|tool| tool["function"]["name"] == TOOL).unwrap();
    let mut plain = schema();
    plain.as_object_mut().unwrap().remove("$schema");
    assert_eq!(told["function"]["parameters"], plain);

    // The prompt keeps its form, and a prompt without one is asked as ever.
    world.model.push(Answer::say("plain"));
    world.prompt(&id, "and now in words").await;
    let third = world.model.main_request(2).unwrap();
    let (tools, choice) = offered(&third.body);
    assert!(!tools.contains(&TOOL) && choice == "auto", "{tools:?} {choice}");
    for number in 0..3 {
        let messages = world.at(number).messages(&id).await;
        let kept = json!({"type": "json_schema", "schema": schema(), "retryCount": 2});
        assert_eq!(messages[0]["info"]["format"], kept);
        assert_eq!(messages[2]["info"]["structured"], ann);
        assert!(messages[3]["info"].get("format").is_none());
    }
}

#[tokio::test]
async fn a_model_that_answers_in_words_failed_and_is_not_asked_again() {
    let world = World::start().await;
    let id = world.session().await;
    world.model.push(Answer::say("just words"));
    let answer = world.client().post(&format!("/session/{id}/message"), &prompt("who is it?")).await.ok();
    let error = json!({"name": "StructuredOutputError", "data": {
        "message": "Model did not produce structured output", "retries": 0}});
    assert_eq!(answer["info"]["error"], error);
    assert_eq!(answer["info"]["finish"], "stop");
    assert!(answer["info"].get("structured").is_none(), "{answer}");
    assert_eq!(world.model.main_requests().len(), 1);
    assert_eq!(world.client().messages(&id).await[1], answer);
}

#[tokio::test]
async fn a_wanted_form_outlives_the_replica_that_ran() {
    if !Mode::is_fleet_or_skip() {
        return;
    }
    let mut world = World::start().await;
    let id = world.session().await;
    let (gate, bob) = (Gate::new(), json!({"name": "Bob", "n": 1}));
    world.model.push(Answer::new().text("hm").wait(&gate).cut());
    let given = bob.clone();
    world.model.respond_with(move |_| Answer::call("call_1", TOOL, given.clone()));
    let begun = world.at(0).post(&format!("/session/{id}/prompt_async"), &prompt("who is it?")).await;
    assert_eq!(begun.status, 204);
    gate.reached().await;
    world.replica(0).kill9();
    // Should another one run it, for the first was slow to begin: its model breaks off.
    gate.release();
    let survivor = world.at(1);
    eventually(BOUND, "the answer", || async {
        let messages = survivor.messages(&id).await;
        (messages.last().unwrap()["info"]["structured"] == bob).then_some(())
    })
    .await;
    eventually(BOUND, "the end", || async { (survivor.status(&id).await == "idle").then_some(()) }).await;
    let last = world.model.main_requests().pop().unwrap();
    assert_eq!(offered(&last.body).1, "required", "whoever goes on wants it, too");
}

#[tokio::test]
async fn an_answer_that_was_given_is_not_asked_for_again_by_whoever_goes_on() {
    if !Mode::is_fleet_or_skip() {
        return;
    }
    let mut world = World::start().await;
    let id = world.session().await;
    let bob = json!({"name": "Bob", "n": 1});
    // The command keeps the step open until its replica dies; should another one run it, until the file is there.
    let command = "echo begun > trace; until [ -e end ]; do sleep 0.1; done";
    let command = json!({"command": command, "description": "d"});
    let answer = Answer::new().tool_call("call_1", TOOL, bob.clone()).tool_call("call_2", "bash", command);
    world.model.push(answer.finish("tool_calls", Usage::default()));
    world.model.respond_with(|_| Answer::say("asked again"));
    world.at(0).post(&format!("/session/{id}/prompt_async"), &prompt("who is it?")).await;
    eventually(BOUND, "the command to begin", || async { world.file("trace").exists().then_some(()) }).await;
    eventually(BOUND, "the call to end", || async {
        let parts = world.at(1).tool_parts(&id).await;
        (!parts.is_empty() && parts[0]["state"]["status"] == "completed").then_some(())
    })
    .await;
    world.replica(0).kill9();
    std::fs::write(world.file("end"), "").unwrap();
    let survivor = world.at(1);
    eventually(BOUND, "the answer", || async {
        let messages = survivor.messages(&id).await;
        (messages[1]["info"]["structured"] == bob).then_some(())
    })
    .await;
    eventually(BOUND, "the end", || async { (survivor.status(&id).await == "idle").then_some(()) }).await;
    assert_eq!(survivor.messages(&id).await.len(), 2);
    assert_eq!(world.model.main_requests().len(), 1, "it was given already");
}
