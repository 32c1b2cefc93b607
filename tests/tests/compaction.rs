//! Compaction: a conversation that grew too long goes on from a summary of it.

use serde_json::{Value, json};
use testkit::client::{parts_of, text_of};
use testkit::model::{Gate, Usage};
use testkit::{Answer, BOUND, Client, Mode, Reply, World, WorldSpec, eventually, transcript};

async fn summarize(client: &Client, id: &str, body: Value) -> Reply {
    client.post(&format!("/session/{id}/summarize"), &body).await
}

fn model() -> Value {
    json!({"providerID": "fake", "modelID": "m"})
}

/// A model that reads so many tokens, as recorded.
fn small_context() -> WorldSpec {
    let limit = json!({"context": 20000, "output": 4000});
    let config = json!({"provider": {"fake": {"models": {"m": {"limit": limit}}}}});
    WorldSpec { config, ..WorldSpec::default() }
}

fn said(body: &Value) -> Vec<(String, String)> {
    let messages = body["messages"].as_array().cloned().unwrap_or_default();
    let text = |content: &Value| match content {
        Value::String(text) => text.clone(),
        parts => parts[0]["text"].as_str().unwrap_or_default().to_owned(),
    };
    messages.iter().skip(1).map(|m| (m["role"].as_str().unwrap_or_default().to_owned(), text(&m["content"]))).collect()
}

fn overflow() -> Answer {
    let error =
        json!({"message": "This model's maximum context length is 100 tokens.", "code": "context_length_exceeded"});
    Answer::status(400, &json!({ "error": error }))
}

#[tokio::test]
async fn a_conversation_is_shortened_when_a_person_asks_and_goes_on_from_the_summary() {
    let world = World::start().await;
    world.model.script(["one", "two", "SUMMARY of it all", "three"].map(Answer::say));
    let id = world.session().await;
    let client = world.client();
    world.prompt(&id, "first").await;
    world.prompt(&id, "second").await;
    let mut events = world.events(2).await;
    assert_eq!(summarize(&client, &id, model()).await.ok(), json!(true));
    let told = events.until_kind(BOUND, "session.compacted").await;
    assert_eq!(told.properties(), &json!({"sessionID": id}));
    let messages = world.messages(&id).await;
    assert_eq!(messages.len(), 6, "the old messages stay listed");
    assert_eq!(
        (&parts_of(&messages[4])[0]["type"], &parts_of(&messages[4])[0]["auto"]),
        (&json!("compaction"), &json!(false))
    );
    let summary = &messages[5]["info"];
    assert_eq!(
        (&summary["summary"], &summary["mode"], &summary["finish"]),
        (&json!(true), &json!("compaction"), &json!("stop"))
    );
    assert_eq!(world.client().get(&format!("/session/{id}")).await.ok()["agent"], "build");

    world.prompt(&id, "third").await;
    let asked = world.model.main_requests();
    assert!(asked[2].body.get("tools").is_none(), "a summary needs no tools");
    let whole = &said(&asked[2].body)[0].1;
    assert!(["first", "one", "second", "two"].iter().all(|text| whole.contains(text)), "{whole}");
    let shown = said(&asked[3].body);
    assert_eq!(shown.len(), 3);
    assert_eq!((&shown[1].1[..], &shown[2].1[..]), ("SUMMARY of it all", "third"));

    let missing = summarize(&client, &id, json!({})).await;
    assert_eq!(
        (missing.status, missing.json()["data"]["message"].clone()),
        (400, json!("Missing key\n  at [\"providerID\"]"))
    );
    assert_eq!(summarize(&client, &id, json!({"providerID": "fake", "modelID": "nope"})).await.status, 500);
    assert_eq!(world.messages(&id).await.len(), 8, "a model that does not exist leaves nothing");
}

#[tokio::test]
async fn a_conversation_that_fills_the_context_is_shortened_by_itself_and_goes_on() {
    let world = World::start_with(small_context()).await;
    let full = Usage { prompt: 19000, completion: 500, ..Usage::default() };
    let call = json!({"command": "echo a", "description": "a"});
    let big = Answer::new().text("big one").tool_call("call_1", "bash", call).finish("tool_calls", full);
    world.model.script([big, Answer::say("AUTO SUMMARY"), Answer::say("continued"), Answer::say("next answer")]);
    let id = world.session().await;
    assert_eq!(text_of(&world.prompt(&id, "fill the context").await), "continued");
    let messages = world.messages(&id).await;
    let roles: Vec<&str> = messages.iter().map(|m| m["info"]["role"].as_str().unwrap()).collect();
    assert_eq!(roles, ["user", "assistant", "user", "assistant", "user", "assistant"]);
    let asked = &parts_of(&messages[2])[0];
    assert_eq!(
        (&asked["type"], &asked["auto"], &asked["overflow"]),
        (&json!("compaction"), &json!(true), &json!(false))
    );
    let goes_on = &parts_of(&messages[4])[0];
    assert_eq!((&goes_on["synthetic"], &goes_on["metadata"]["compaction_continue"]), (&json!(true), &json!(true)));
    world.prompt(&id, "next").await;
    let shown = said(&world.model.main_requests()[3].body);
    let texts: Vec<&str> = shown.iter().map(|(_, text)| text.as_str()).collect();
    assert_eq!((texts.len(), texts[1], texts[3], texts[4]), (5, "AUTO SUMMARY", "continued", "next"));
}

#[tokio::test]
async fn a_prompt_that_the_provider_finds_too_long_is_asked_again_after_a_summary() {
    let world = World::start().await;
    let script = [Answer::say("small"), overflow(), Answer::say("OVERFLOW SUMMARY"), Answer::say("replayed")];
    world.model.script(script);
    let id = world.session().await;
    world.prompt(&id, "one").await;
    let mut events = world.events(1).await;
    assert_eq!(text_of(&world.prompt(&id, "two that overflows").await), "replayed");
    let error = events.until_kind(BOUND, "session.error").await;
    assert_eq!(error.properties()["error"]["name"], "ContextOverflowError");
    let messages = world.messages(&id).await;
    assert_eq!(messages.len(), 8);
    let refused = &messages[3]["info"];
    assert!(refused.get("error").is_none() && refused.get("finish").is_none(), "{refused}");
    assert!(refused["time"]["completed"].is_number());
    let asked = world.model.main_requests();
    assert!(!said(&asked[2].body)[0].1.contains("two that overflows"), "the summary is of what came before");
    let shown = said(&asked[3].body);
    assert_eq!((&shown[1].1[..], &shown[2].1[..], shown.len()), ("OVERFLOW SUMMARY", "two that overflows", 3));

    // What is too long even then is an error: it is not shortened for ever.
    world.model.script([overflow(), Answer::say("AGAIN"), overflow()]);
    let answer = world.prompt(&id, "much too long").await;
    assert_eq!(answer["info"]["error"]["name"], "ContextOverflowError");
    assert_eq!(world.status(&id).await, "idle");
}

#[tokio::test]
async fn without_automatic_compaction_an_overflow_is_an_error() {
    let config = json!({"compaction": {"auto": false}});
    let world = World::start_with(WorldSpec { config, ..WorldSpec::default() }).await;
    world.model.push(overflow());
    let id = world.session().await;
    assert_eq!(world.prompt(&id, "too long").await["info"]["error"]["name"], "ContextOverflowError");
    assert_eq!(world.messages(&id).await.len(), 2);
}

#[tokio::test]
async fn a_summary_that_a_death_broke_off_is_made_again_by_whoever_goes_on() {
    if !Mode::is_fleet_or_skip() {
        return;
    }
    let args = ["--lease-ttl", "3s", "--tick", "500ms"].map(str::to_owned).to_vec();
    let mut world = World::start_with(WorldSpec { args, ..WorldSpec::default() }).await;
    let gate = Gate::new();
    world.model.script([Answer::say("one"), Answer::new().text("half a ").wait(&gate).stop()]);
    let id = world.session().await;
    world.prompt(&id, "first").await;
    let lost = tokio::spawn({
        let (client, path) = (world.at(0), format!("/session/{id}/summarize"));
        let kind = [("content-type", "application/json"), ("idempotency-key", "summary-1")];
        async move { client.try_send(reqwest::Method::POST, &path, &kind, Some(model().to_string().into_bytes())).await }
    });
    gate.reached().await;
    world.model.script([Answer::say("the WHOLE summary"), Answer::say("two")]);
    world.replica(0).kill9();
    assert!(lost.await.unwrap().is_err());
    let again = world.at(1).with_header("idempotency-key", "summary-1");
    assert_eq!(summarize(&again, &id, model()).await.ok(), json!(true));
    eventually(BOUND, "idle", || async { (world.at(2).status(&id).await == "idle").then_some(()) }).await;
    assert_eq!(text_of(&world.at(1).prompt(&id, "second").await), "two");
    let shown = said(&world.model.main_requests().pop().unwrap().body);
    assert_eq!(shown[1].1, "the WHOLE summary", "{shown:#?}");
    assert_eq!(transcript::user_texts(&world.model.main_requests().pop().unwrap().body).len(), 2);
}
