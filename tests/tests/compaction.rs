//! Compaction: a conversation that grew too long goes on from a summary of it.

use serde_json::{Value, json};
use testkit::client::{parts_of, text_of};
use testkit::model::{Gate, Usage};
use testkit::{Answer, BOUND, Client, Failpoint, Mode, Reply, World, WorldSpec, eventually, transcript};

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
async fn a_conversation_that_a_final_answer_fills_is_shortened_at_once_and_goes_on() {
    let world = World::start_with(small_context()).await;
    let full = || Usage { prompt: 19000, completion: 500, ..Usage::default() };
    let filling = |text: &str, reason: &str| Answer::new().text(text).finish(reason, full());
    world.model.script([filling("all of it", "stop"), Answer::say("SUMMARY"), Answer::say("nothing left")]);
    let id = world.session().await;
    let mut events = world.events(1).await;
    assert_eq!(text_of(&world.prompt(&id, "fill the context").await), "nothing left");
    events.until_kind(BOUND, "session.compacted").await;
    let messages = world.messages(&id).await;
    let roles: Vec<&str> = messages.iter().map(|m| m["info"]["role"].as_str().unwrap()).collect();
    assert_eq!(roles, ["user", "assistant", "user", "assistant", "user", "assistant"]);
    assert_eq!((text_of(&messages[1]), &messages[1]["info"]["finish"]), ("all of it".into(), &json!("stop")));
    let asked = &parts_of(&messages[2])[0];
    assert_eq!((&asked["auto"], &asked["overflow"]), (&json!(true), &json!(false)));
    assert_eq!(parts_of(&messages[4])[0]["metadata"]["compaction_continue"], true);

    // An answer that follows a summary and fills the context again is the last: it would never end.
    let cut_off = filling("cut off", "length");
    world.model.script([cut_off, Answer::say("SUMMARY"), filling("still full", "stop")]);
    let id = world.session().await;
    assert_eq!(text_of(&world.prompt(&id, "again").await), "still full");
    assert_eq!(world.status(&id).await, "idle");
    assert_eq!(world.model.main_requests().len(), 6);
}

#[tokio::test]
async fn a_first_prompt_that_is_too_long_is_answered_from_a_summary_of_it() {
    let world = World::start().await;
    let script = [overflow(), Answer::say("SUMMARY of the long one"), Answer::say("it was too large")];
    world.model.script(script);
    let id = world.session().await;
    assert_eq!(text_of(&world.prompt(&id, "much too long").await), "it was too large");
    let messages = world.messages(&id).await;
    assert_eq!(messages.len(), 6, "{messages:#?}");
    let (asked, told) = (&parts_of(&messages[2])[0], &parts_of(&messages[4])[0]);
    assert_eq!((&asked["type"], &asked["overflow"]), (&json!("compaction"), &json!(true)));
    assert_eq!((&told["synthetic"], &told["metadata"]["compaction_continue"]), (&json!(true), &json!(true)));
    assert!(told["text"].as_str().is_some_and(|text| text.contains("too large")), "{told}");
    let requests = world.model.main_requests();
    assert!(said(&requests[1].body)[0].1.contains("much too long"), "the summary is of it");
    let shown = said(&requests[2].body);
    assert_eq!((shown.len(), &shown[1].1[..]), (3, "SUMMARY of the long one"));

    // One that is too long after a summary of all before it, too.
    world.model.script([Answer::say("small"), overflow(), Answer::say("SUMMARY"), overflow()]);
    world.model.script([Answer::say("SUMMARY of both"), Answer::say("that was too large")]);
    let id = world.session().await;
    world.prompt(&id, "one").await;
    assert_eq!(text_of(&world.prompt(&id, "two, much too long").await), "that was too large");
    assert_eq!(world.messages(&id).await.len(), 12);

    // Where even that is too long, the turn ends.
    world.model.script([overflow(), Answer::say("SUMMARY"), overflow()]);
    let id = world.session().await;
    assert_eq!(world.prompt(&id, "hopeless").await["info"]["error"]["name"], "ContextOverflowError");
    assert_eq!(world.status(&id).await, "idle");
}

#[tokio::test]
async fn a_prompt_that_is_asked_again_names_its_images_and_does_not_show_them() {
    let eyes = json!({"name": "Eyes", "modalities": {"input": ["text", "image", "pdf"], "output": ["text"]}});
    let config = json!({"provider": {"fake": {"models": {"eyes": eyes}}}});
    let world = World::start_with(WorldSpec { config, ..WorldSpec::default() }).await;
    world.model.script([Answer::say("small"), overflow(), Answer::say("SUMMARY"), Answer::say("replayed")]);
    let id = world.session().await;
    let send = async |parts: Value| {
        let body = json!({"model": {"providerID": "fake", "modelID": "eyes"}, "parts": parts});
        world.client().post(&format!("/session/{id}/message"), &body).await.ok()
    };
    send(json!([{"type": "text", "text": "one"}])).await;
    let file = |mime: &str, name: &str, data: &str| json!({"type": "file", "mime": mime, "filename": name, "url": format!("data:{mime};base64,{data}")});
    let png = file("image/png", "shot.png", "iVBORw0KGgogYW5kIG1vcmU=");
    let parts = json!([{"type": "text", "text": "see"}, png, file("application/pdf", "paper.pdf", "JVBERi0xLjQK")]);
    assert_eq!(text_of(&send(parts).await), "replayed");
    let messages = world.messages(&id).await;
    let again = parts_of(&messages[6]);
    let texts: Vec<&str> = again.iter().filter_map(|part| part["text"].as_str()).collect();
    assert_eq!((texts.len(), texts[0], again.len()), (3, "see", 3), "{again:?}");
    assert!(texts[1].contains("shot.png") && texts[2].contains("paper.pdf"), "{texts:?}");
    assert_eq!(parts_of(&messages[2])[1]["type"], "file", "what was refused stays as it was sent");
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

#[tokio::test]
async fn the_newest_turns_are_kept_beside_a_summary_as_far_as_there_is_room() {
    let config = json!({"compaction": {"preserve_recent_tokens": 2000}});
    let world = World::start_with(WorldSpec { config, ..WorldSpec::default() }).await;
    let long = "many words ".repeat(1000);
    world.model.script([&long, "two", "three", "SUMMARY", "four", "NEXT SUMMARY", "five"].map(Answer::say));
    let id = world.session().await;
    let client = world.client();
    for prompt in ["first", "second", "third"] {
        world.prompt(&id, prompt).await;
    }
    assert_eq!(summarize(&client, &id, model()).await.ok(), json!(true));
    let messages = world.messages(&id).await;
    let tail = |message: &Value| parts_of(message)[0]["tail_start_id"].clone();
    assert_eq!(tail(&messages[6]), messages[2]["info"]["id"], "{messages:#?}");
    world.prompt(&id, "fourth").await;
    let texts = |asked: usize| -> Vec<String> {
        said(&world.model.main_requests()[asked].body).into_iter().map(|(_, text)| text).skip(1).collect()
    };
    let made_from = &said(&world.model.main_requests()[3].body)[0].1;
    assert!(made_from.contains("first") && !made_from.contains("second"), "{made_from}");
    assert_eq!(texts(4), ["SUMMARY", "second", "two", "third", "three", "fourth"]);

    // The next summary is made of the former one and of what is not kept any more.
    assert_eq!(summarize(&client, &id, model()).await.ok(), json!(true));
    world.prompt(&id, "fifth").await;
    let made_from = &said(&world.model.main_requests()[5].body)[0].1;
    assert!(made_from.contains("SUMMARY") && made_from.contains("two") && !made_from.contains("third"), "{made_from}");
    assert_eq!(texts(6), ["NEXT SUMMARY", "third", "three", "fourth", "four", "fifth"]);
}

#[tokio::test]
async fn of_a_turn_that_is_too_long_the_newest_steps_are_kept() {
    let config = json!({"compaction": {"preserve_recent_tokens": 1000}});
    let world = World::start_with(WorldSpec { config, ..WorldSpec::default() }).await;
    let call = |id: &str, command: &str| Answer::call(id, "bash", json!({"command": command, "description": "d"}));
    world.model.script([call("c1", "yes much | head -c 8000"), call("c2", "echo short")]);
    world.model.script(["two", "SUMMARY", "three"].map(Answer::say));
    let id = world.session().await;
    world.prompt(&id, "first").await;
    assert_eq!(summarize(&world.client(), &id, model()).await.ok(), json!(true));
    let messages = world.messages(&id).await;
    let tail = &parts_of(&messages[4])[0]["tail_start_id"];
    assert_eq!(tail, &messages[2]["info"]["id"], "{messages:#?}");
    world.prompt(&id, "second").await;
    let asked = world.model.main_requests();
    let made_from = &said(&asked[3].body)[0].1;
    assert!(made_from.contains("first") && made_from.contains("yes much"), "{made_from}");
    assert!(!made_from.contains("echo short") && !made_from.contains("two"), "{made_from}");
    let shown = said(&asked[4].body);
    let shown: Vec<(&str, &str)> = shown.iter().map(|(role, text)| (role.as_str(), text.trim_end())).collect();
    let kept =
        [("assistant", "SUMMARY"), ("assistant", ""), ("tool", "short"), ("assistant", "two"), ("user", "second")];
    assert_eq!(shown[1..], kept);
}

#[tokio::test]
async fn a_prompt_that_was_too_long_and_whose_summary_failed_is_not_forgotten_by_the_next_one() {
    let world = World::start().await;
    let id = world.session().await;
    let paid = || Answer::status(402, &json!({"error": {"message": "payment"}}));
    // The next prompt fits: both are read.
    world.model.script([Answer::say("one"), overflow(), paid(), Answer::say("both")]);
    world.prompt(&id, "small").await;
    assert_eq!(world.prompt(&id, "too long").await["info"]["error"]["name"], "APIError");
    assert_eq!(text_of(&world.prompt(&id, "next").await), "both");
    let asked = world.model.main_requests();
    assert_eq!(transcript::user_texts(&asked[3].body), ["small", "too long", "next"]);
    // It does not: beside the summary the one before it is read, too.
    world.model.script([overflow(), paid(), overflow(), Answer::say("SUMMARY"), Answer::say("both again")]);
    world.prompt(&id, "again too long").await;
    assert_eq!(text_of(&world.prompt(&id, "the last").await), "both again");
    let read = transcript::user_texts(&world.model.main_requests()[8].body);
    assert_eq!(read[1..], ["next", "again too long", "the last"], "{read:?}");
    assert_eq!(world.status(&id).await, "idle");
}

#[tokio::test]
async fn a_conversation_is_shortened_once_where_what_filled_it_is_kept() {
    let world = World::start_with(small_context()).await;
    let full = Usage { prompt: 19000, completion: 500, ..Usage::default() };
    let call = json!({"command": "echo a", "description": "a"});
    let big = Answer::new().text("big one").tool_call("call_1", "bash", call).finish("tool_calls", full);
    let rest = ["AUTO SUMMARY", "continued"].map(Answer::say);
    world.model.script([Answer::say("one"), Answer::say("two"), big].into_iter().chain(rest));
    let id = world.session().await;
    for prompt in ["first", "second"] {
        world.prompt(&id, prompt).await;
    }
    assert_eq!(text_of(&world.prompt(&id, "fill the context").await), "continued");
    let shown = said(&world.model.main_requests()[4].body);
    let texts: Vec<&str> = shown.iter().map(|(_, text)| text.as_str()).skip(1).take(4).collect();
    assert_eq!(texts, ["AUTO SUMMARY", "second", "two", "fill the context"]);
    assert_eq!(world.model.main_requests().len(), 5, "it is not shortened again");
}

/// Outputs may be large, and are taken out of sight when they are old.
fn pruning() -> WorldSpec {
    let config = json!({"compaction": {"prune": true}, "tool_output": {"max_bytes": 1_000_000, "max_lines": 100_000}});
    let args = ["--lease-ttl", "3s", "--tick", "500ms"].map(str::to_owned).to_vec();
    WorldSpec { config, args, failpoints: true, ..WorldSpec::default() }
}

/// A turn whose tool prints so much that it is old two turns later; then a second turn. Returns the tool's part.
async fn much_printed(world: &World, id: &str) -> Value {
    let call = json!({"command": "yes 0123456789 | head -c 250000", "description": "prints much"});
    let printed = Answer::new().tool_call("call_1", "bash", call).finish("tool_calls", Usage::default());
    world.model.script([printed, Answer::say("one"), Answer::say("two")]);
    for prompt in ["first", "second"] {
        world.prompt(id, prompt).await;
    }
    let part = tool_part(&world.messages(id).await);
    assert!(part["state"]["time"].get("compacted").is_none(), "the newest turns are kept");
    part
}

fn tool_part(messages: &[Value]) -> Value {
    messages.iter().flat_map(parts_of).find(|part| part["type"] == "tool").cloned().unwrap_or_default()
}

#[tokio::test]
async fn old_outputs_of_tools_are_taken_out_of_the_models_sight_and_stay_stored() {
    let world = World::start_with(pruning()).await;
    let id = world.session().await;
    let part = much_printed(&world, &id).await;
    world.model.script(["three", "four"].map(Answer::say));
    let mut events = world.events(1).await;
    world.prompt(&id, "third").await;
    let told = events.until_kind(BOUND, "message.part.updated").await;
    let mut told = told.properties()["part"].clone();
    while told["type"] != "tool" {
        told = events.until_kind(BOUND, "message.part.updated").await.properties()["part"].clone();
    }
    assert!(told["state"]["time"]["compacted"].is_number());
    for number in 0..3 {
        let read = tool_part(&world.at(number).messages(&id).await);
        assert!(read["state"]["time"]["compacted"].is_number(), "replica {number}");
        assert_eq!(read["state"]["output"], part["state"]["output"], "replica {number}: it stays stored");
    }
    world.prompt(&id, "fourth").await;
    let asked = world.model.main_requests();
    let size = |number: usize| asked[number].body["messages"].to_string().len();
    assert!(size(3) > 250_000, "the turn in which it becomes old is shown it still");
    assert!(size(4) < 100_000, "{}", size(4));
}

#[tokio::test]
async fn outputs_that_a_death_left_in_sight_go_when_the_run_is_taken_over() {
    if !Mode::is_fleet_or_skip() {
        return;
    }
    let mut world = World::start_with(pruning()).await;
    let id = world.session().await;
    let part = much_printed(&world, &id).await;
    world.model.script([Answer::say("three")]);
    let point = Failpoint::before("rename", part["id"].as_str().unwrap_or_default());
    let armed = world.replica(0).kill_at(&point);
    let path = format!("/session/{id}/message");
    let body = json!({"parts": [{"type": "text", "text": "third"}]}).to_string().into_bytes();
    let kind = [("content-type", "application/json")];
    assert!(world.at(0).try_send(reqwest::Method::POST, &path, &kind, Some(body)).await.is_err());
    armed.reached(BOUND).await;
    world.replica(0).kill9();
    eventually(BOUND, "the session to rest", || async { (world.at(1).status(&id).await == "idle").then_some(()) })
        .await;
    let messages = world.at(2).messages(&id).await;
    assert!(tool_part(&messages)["state"]["time"]["compacted"].is_number());
    assert_eq!(text_of(messages.last().unwrap()), "three");
    assert_eq!(world.model.main_requests().len(), 4, "the model is not asked again");
}
