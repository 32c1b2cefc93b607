//! A second prompt while the first runs.

use serde_json::json;
use testkit::client::id_of;
use testkit::model::Gate;
use testkit::outline::spine;
use testkit::{Answer, BOUND, World, eventually, transcript};

fn said(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    expected.iter().map(|(role, text)| (role.to_string(), text.to_string())).collect()
}

#[tokio::test]
async fn a_prompt_during_the_last_step_is_answered_by_one_more() {
    let world = World::start().await;
    let gate = Gate::new();
    world.model.script([Answer::new().text("first ").wait(&gate).text("answer").stop(), Answer::say("second answer")]);
    let mut events = world.events(2).await;
    let id = world.session().await;
    let first = world.spawn_prompt(0, &id, "first prompt");
    gate.reached().await;
    let second = world.spawn_prompt(1, &id, "second prompt");
    events.until(BOUND, "the second prompt", |e| e.properties()["part"]["text"] == "second prompt").await;
    gate.release();
    let (first, second) = (first.await.unwrap(), second.await.unwrap());
    assert_eq!(first, second, "both callers get the same, last message");
    assert_eq!(first["parts"][1]["text"], "second answer");
    let expected = [
        ("user", "first prompt"),
        ("assistant", "first answer"),
        ("user", "second prompt"),
        ("assistant", "second answer"),
    ];
    assert_eq!(world.client().conversation(&id).await, said(&expected));
    let messages = world.messages(&id).await;
    assert_eq!(messages[1]["info"]["parentID"], messages[0]["info"]["id"]);
    assert_eq!(messages[3]["info"]["parentID"], messages[2]["info"]["id"]);
    let asked = world.model.main_requests();
    assert_eq!(asked.len(), 2);
    assert_eq!(transcript::user_texts(&asked[0].body), ["first prompt"]);
    assert_eq!(transcript::user_texts(&asked[1].body), ["first prompt", "second prompt"]);
    assert_eq!(world.model.concurrent_runs(&id), 1);
    events.until_idle(BOUND, &id).await;
    let told = spine(&events.of_session(&id));
    let ended =
        told.iter().position(|line| line == "message.updated assistant stop completed").expect("the first ends");
    let recorded = ["session.status busy", "message.updated assistant", "session.status busy"];
    assert_eq!(told[ended + 1..ended + 4], recorded, "{told:#?}");
}

#[tokio::test]
async fn a_prompt_during_a_tool_is_seen_by_the_next_step() {
    let world = World::start().await;
    let command = "touch begun; until [ -e go ]; do sleep 0.02; done; echo ok";
    let call = Answer::call("call_1", "bash", json!({"command": command, "description": "d"}));
    world.model.script([call, Answer::say("answer after both")]);
    let mut events = world.events(2).await;
    let id = world.session().await;
    let first = world.spawn_prompt(0, &id, "first prompt");
    eventually(BOUND, "the tool to begin", || async { world.file("begun").exists().then_some(()) }).await;
    let second = world.spawn_prompt(1, &id, "second prompt");
    events.until(BOUND, "the second prompt", |e| e.properties()["part"]["text"] == "second prompt").await;
    std::fs::write(world.file("go"), "").unwrap();
    let (first, second) = (first.await.unwrap(), second.await.unwrap());
    assert_eq!(first, second, "both callers get the same, last message");
    assert_eq!(first["parts"][1]["text"], "answer after both");
    let messages = world.messages(&id).await;
    let newest_user = messages.iter().rfind(|m| m["info"]["role"] == "user").unwrap();
    assert_eq!(first["info"]["parentID"], id_of(&newest_user["info"]));
    let asked = world.model.main_requests();
    assert_eq!(asked.len(), 2);
    assert_eq!(transcript::user_texts(&asked[1].body), ["first prompt", "second prompt"]);
    assert_eq!(transcript::tool_texts(&asked[1].body), ["ok\n"]);
    let last = asked[1].body["messages"].as_array().unwrap().last().unwrap();
    assert_eq!(last["role"], "user", "the queued prompt comes after the tool's result");
}

#[tokio::test]
async fn an_abort_drops_the_queued_prompt_which_the_model_sees_with_the_next() {
    let world = World::start().await;
    let gate = Gate::new();
    world.model.push(Answer::new().text("first answer").wait(&gate).text(" words").stop());
    let mut events = world.events(2).await;
    let id = world.session().await;
    let first = world.spawn_prompt(0, &id, "first prompt");
    gate.reached().await;
    let second = world.spawn_prompt(1, &id, "second prompt");
    events.until(BOUND, "the second prompt", |e| e.properties()["part"]["text"] == "second prompt").await;
    world.at(2).abort(&id).await;
    let (first, second) = (first.await.unwrap(), second.await.unwrap());
    assert_eq!(first, second, "both callers get the aborted message");
    assert_eq!(first["info"]["error"]["name"], "MessageAbortedError");
    let expected = [("user", "first prompt"), ("assistant", "first answer"), ("user", "second prompt")];
    assert_eq!(world.client().conversation(&id).await, said(&expected));
    assert_eq!(world.client().get("/session/status").await.ok(), json!({}));
    assert_eq!(world.model.main_requests().len(), 1, "the queued prompt is not run");

    world.model.push(Answer::say("to both"));
    assert_eq!(world.prompt(&id, "third prompt").await["parts"][1]["text"], "to both");
    let asked = world.model.main_requests();
    assert_eq!(transcript::user_texts(&asked[1].body), ["first prompt", "second prompt", "third prompt"]);
}

#[tokio::test]
async fn prompts_of_many_callers_are_seen_once_each_in_the_acknowledged_order() {
    let world = World::start().await;
    let gate = Gate::new();
    world.model.push(Answer::new().wait(&gate).text("a0").stop());
    world.model.respond_with(|body| Answer::say(&format!("to {}", transcript::last_user_text(body))));
    let id = world.session().await;
    let first = world.spawn_prompt(0, &id, "p0");
    gate.reached().await;
    for number in 1..6 {
        world.at(number).prompt_async(&id, &format!("p{number}")).await;
    }
    gate.release();
    let answer = first.await.unwrap();
    assert_eq!(answer["parts"][1]["text"], "to p5");
    let asked = world.model.main_requests();
    assert_eq!(transcript::user_texts(&asked.last().unwrap().body), ["p0", "p1", "p2", "p3", "p4", "p5"]);
    assert_eq!(world.model.concurrent_runs(&id), 1);
}
