//! The rows: what is done, and the harm that is looked for.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use reqwest::Method;
use serde_json::{Value, json};
use testkit::client::{parts_of, text_of, text_prompt};
use testkit::model::{Gate, Usage};
use testkit::{Answer, BOUND, eventually, outline, transcript};

use super::fleet::{Fleet, answered, path, within};

/// How long something that must not happen is given to happen.
const IN_VAIN: Duration = Duration::from_secs(3);

/// The rule that asks before each command.
fn ask_first() -> Value {
    json!([{"permission": "bash", "pattern": "*", "action": "ask"}])
}

fn no_rules() -> Value {
    json!([])
}

/// An answer that calls a command.
fn command(text: &str) -> Answer {
    let call = json!({"command": text, "description": "a command"});
    Answer::new().tool_call("call_1", "bash", call).finish("tool_calls", Usage::default())
}

/// Whether a request to the model ends with what a tool says.
fn follows_a_tool(body: &Value) -> bool {
    body["messages"].as_array().and_then(|messages| messages.last()).is_some_and(|last| last["role"] == "tool")
}

/// Has the model call a command at each prompt, and then say "done".
fn call_at_each_prompt(fleet: &Fleet, text: &'static str) {
    fleet.model().respond_with(move |body| if follows_a_tool(body) { Answer::say("done") } else { command(text) });
}

/// Replies to an ask.
async fn reply(fleet: &Fleet, number: usize, ask: &Value, reply: &str) -> Result<()> {
    let path = format!("/permission/{}/reply", ask["id"].as_str().unwrap_or_default());
    fleet.send(number, Method::POST, &path, &json!({"reply": reply})).await.map(drop)
}

pub(super) async fn any_replica(fleet: &Fleet) -> Result<()> {
    call_at_each_prompt(fleet, "echo hello");
    let id = fleet.session(ask_first()).await;
    let first = fleet.prompt(0, &id, "go");
    let ask = eventually(BOUND, "the ask at A", || async { fleet.asks(0, &id).await.pop() }).await;
    reply(fleet, 0, &ask, "always").await?;
    answered("the first prompt", first).await?;
    let second = fleet.prompt(1, &id, "go again");
    within("end at B", async || (second.is_finished() || !fleet.asks(1, &id).await.is_empty()).then_some(())).await?;
    ensure!(second.is_finished(), "B asks again for what was allowed for good at A");
    answered("the second prompt", second).await.map(drop)
}

pub(super) async fn busy(fleet: &Fleet) -> Result<()> {
    let gate = Gate::new();
    let held = gate.clone();
    fleet.model().respond_with(move |_| Answer::new().text("an ").wait(&held).text("answer").stop());
    let id = fleet.session(no_rules()).await;
    let first = fleet.prompt(0, &id, "first");
    fleet.until_asked(&id).await;
    let second = fleet.prompt(1, &id, "second");
    eventually(BOUND, "the second prompt to be stored", || async {
        fleet.at(1).messages(&id).await.iter().any(|message| text_of(message) == "second").then_some(())
    })
    .await;
    tokio::time::sleep(IN_VAIN).await;
    let asked = fleet.asked(&id).len();
    gate.release();
    ensure!(asked == 1, "B asks the model for the second prompt while A still answers the first");
    answered("the first prompt", first).await?;
    answered("the second prompt", second).await.map(drop)
}

pub(super) async fn cancel(fleet: &Fleet) -> Result<()> {
    fleet.model().respond_with(|_| Answer::new().text("some words").hang());
    let id = fleet.session(no_rules()).await;
    let caller = fleet.prompt(0, &id, "go");
    fleet.until_asked(&id).await;
    fleet.send(1, Method::POST, &format!("{}/abort", path(&id)), &json!({})).await?;
    let dropped = within("end of the run", async || fleet.asked(&id)[0].disconnected.then_some(()));
    dropped.await.context("B says that it stopped, and the model goes on")?;
    let answer = answered("the aborted caller", caller).await?;
    ensure!(answer["info"]["error"]["name"] == "MessageAbortedError", "the caller is not told: {}", answer["info"]);
    Ok(())
}

pub(super) async fn queued_callers(fleet: &Fleet) -> Result<()> {
    fleet.model().respond_with(|body| {
        let prompts = transcript::user_texts(body);
        if prompts.last().is_some_and(|text| text == "second") {
            Answer::say("the last answer")
        } else if follows_a_tool(body) {
            Answer::say("the first answer")
        } else {
            command("sleep 3; echo what the tool says")
        }
    });
    let id = fleet.session(no_rules()).await;
    let first = fleet.prompt(0, &id, "first");
    eventually(BOUND, "the tool to run", || async {
        let parts = fleet.at(0).tool_parts(&id).await;
        (parts.first()?["state"]["status"] == "running").then_some(())
    })
    .await;
    let second = fleet.prompt(1, &id, "second");
    let answers = [answered("the first caller", first).await, answered("the second caller", second).await];
    for request in fleet.asked(&id) {
        if transcript::user_texts(&request.body).iter().any(|text| text == "second") {
            let told = transcript::tool_texts(&request.body);
            let true_one = told.iter().any(|text| text.contains("what the tool says"));
            ensure!(true_one, "the model is told {told:?} of a tool that still runs");
        }
    }
    for answer in answers {
        let answer = answer?;
        ensure!(text_of(&answer) == "the last answer", "a caller gets {:?}", text_of(&answer));
    }
    Ok(())
}

pub(super) async fn events(fleet: &Fleet) -> Result<()> {
    fleet.model().respond_with(|_| Answer::new().text_chunks(["one ", "two ", "three"], Duration::ZERO).stop());
    let reader = fleet.at(1).events(&fleet.event_path()).await;
    let id = fleet.session(no_rules()).await;
    answered("the prompt", fleet.prompt(0, &id, "go")).await?;
    within("end of the run on B's stream", async || {
        reader.of_session(&id).iter().any(|event| event.kind() == "session.idle").then_some(())
    })
    .await?;
    let told = outline::joined_deltas(&reader.of_session(&id));
    ensure!(told == "one two three", "B's reader is told {told:?}");
    Ok(())
}

pub(super) async fn lost_updates(fleet: &Fleet) -> Result<()> {
    let id = fleet.session(no_rules()).await;
    let mut acknowledged = Vec::new();
    for round in 0..20 {
        let add = async |number: usize| {
            let pattern = format!("{round}.{number}");
            let rule = json!({"permission": [{"permission": "edit", "pattern": pattern, "action": "deny"}]});
            fleet.send(number, Method::PATCH, &path(&id), &rule).await.is_ok().then_some(pattern)
        };
        let (a, b, c) = tokio::join!(add(0), add(1), add(2));
        acknowledged.extend([a, b, c].into_iter().flatten());
    }
    ensure!(acknowledged.len() > 20, "only {} of 60 changes are taken", acknowledged.len());
    let stored = fleet.at(0).get(&path(&id)).await.ok();
    let is_there = |pattern: &&String| {
        let rules = stored["permission"].as_array();
        rules.is_some_and(|rules| rules.iter().any(|rule| rule["pattern"] == pattern.as_str()))
    };
    let lost = acknowledged.iter().filter(|pattern| !is_there(pattern)).count();
    ensure!(lost == 0, "{lost} of {} acknowledged rules are gone", acknowledged.len());
    Ok(())
}

pub(super) async fn status(fleet: &Fleet) -> Result<()> {
    let gate = Gate::new();
    let held = gate.clone();
    fleet.model().respond_with(move |_| Answer::new().text("an ").wait(&held).text("answer").stop());
    let id = fleet.session(no_rules()).await;
    let caller = fleet.prompt(0, &id, "go");
    fleet.until_asked(&id).await;
    let says = async |wanted: &str| (fleet.at(1).status(&id).await == wanted).then_some(());
    let busy = within("busy at B", async || says("busy").await).await;
    gate.release();
    busy.context("B says that the session is idle while A answers")?;
    answered("the prompt", caller).await?;
    within("idle at B", async || says("idle").await).await
}

pub(super) async fn one_runner(fleet: &Fleet) -> Result<()> {
    fleet.model().respond_with(|_| Answer::new().text_chunks(["an ", "answer"], Duration::from_millis(300)).stop());
    for _ in 0..3 {
        let id = fleet.session(no_rules()).await;
        let callers = [0, 1, 2].map(|number| fleet.prompt(number, &id, &format!("prompt {number}")));
        let mut answers = Vec::new();
        for caller in callers {
            answers.push(answered("a caller", caller).await);
        }
        let at_once = fleet.model().concurrent_runs(&id);
        ensure!(at_once == 1, "{at_once} runs of one session ask the model at once");
        for answer in answers {
            answer?;
        }
    }
    Ok(())
}

pub(super) async fn asks(fleet: &Fleet) -> Result<()> {
    // Another command than the one that is allowed for good by now.
    call_at_each_prompt(fleet, "printf hello");
    let id = fleet.session(ask_first()).await;
    let caller = fleet.prompt(0, &id, "go");
    eventually(BOUND, "the ask at A", || async { fleet.asks(0, &id).await.pop() }).await;
    let ask = within("ask at B", async || fleet.asks(1, &id).await.pop()).await?;
    reply(fleet, 1, &ask, "once").await?;
    let answer = answered("the prompt", caller).await?;
    ensure!(text_of(&answer) == "done", "the prompt is answered {:?}", text_of(&answer));
    Ok(())
}

pub(super) async fn delete(fleet: &Fleet) -> Result<()> {
    fleet.model().respond_with(|_| Answer::new().text("some words").hang());
    let id = fleet.session(no_rules()).await;
    let _caller = fleet.prompt(0, &id, "go");
    // Whoever has yet to store the answer's beginning may stumble over the deletion, and end by that.
    let said = async || {
        let messages = fleet.at(0).messages(&id).await;
        let is_text = |message: &Value| parts_of(message).iter().any(|part| part["type"] == "text");
        messages.iter().any(|message| message["info"]["role"] == "assistant" && is_text(message)).then_some(())
    };
    eventually(BOUND, "the beginning of the answer", said).await;
    fleet.send(1, Method::DELETE, &path(&id), &json!({})).await?;
    let ended = within("end of the run", async || fleet.asked(&id)[0].disconnected.then_some(()));
    ended.await.context("the session is gone, and A still runs it")?;
    let gone = fleet.at(2).get(&path(&id)).await.status;
    ensure!(gone == 404, "the deleted session is there: {gone}");
    Ok(())
}

pub(super) async fn double_click(fleet: &Fleet) -> Result<()> {
    fleet.model().respond_with(|_| Answer::say("the answer"));
    for round in 0..5 {
        let id = fleet.session(no_rules()).await;
        let mut body = text_prompt("go");
        body["messageID"] = json!(format!("msg_contrast{round}"));
        let callers = [0, 1].map(|number| fleet.caller(number, &id, body.clone()));
        for caller in callers {
            let answer = answered("a caller", caller).await?;
            ensure!(text_of(&answer) == "the answer", "a caller gets {answer}");
        }
        let asked = fleet.asked(&id).len();
        if asked != 1 {
            bail!("one prompt is run {asked} times");
        }
        let said = fleet.at(2).messages(&id).await;
        let prompts: Vec<&Value> = said.iter().filter(|message| message["info"]["role"] == "user").collect();
        ensure!(prompts.len() == 1 && parts_of(prompts[0]).len() == 1, "the prompt is stored twice: {prompts:?}");
    }
    Ok(())
}
