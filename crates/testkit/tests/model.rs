//! The scripted model, as a client sees it.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::time::Duration;

use serde_json::{Value, json};
use testkit::model::Usage;
use testkit::{Answer, Client, Gate, ScriptedModel, eventually};

const BOUND: Duration = Duration::from_secs(10);

fn asked(text: &str) -> Value {
    json!({
        "model": "m",
        "stream": true,
        "messages": [{"role": "system", "content": "s"}, {"role": "user", "content": text}],
    })
}

fn client(model: &ScriptedModel) -> Client {
    Client::new([model.url()]).with_header("x-opencode-session-id", "ses_1")
}

/// The JSON of each `data:` line, without the closing mark.
fn chunks(text: &str) -> Vec<Value> {
    let lines = text.lines().filter_map(|line| line.strip_prefix("data: ")).filter(|line| *line != "[DONE]");
    lines.map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test]
async fn answers_come_from_the_queue_and_then_from_the_function() {
    let model = ScriptedModel::start().await;
    model.push(Answer::say("queued"));
    model.respond_with(|body| Answer::say(&format!("you said {}", testkit::transcript::last_user_text(body))));
    let client = client(&model);
    assert!(client.post("/chat/completions", &asked("a")).await.text().contains("queued"));
    assert!(client.post("/chat/completions", &asked("b")).await.text().contains("you said b"));
    let mut title = asked("c");
    title["model"] = json!("small");
    assert!(client.post("/chat/completions", &title).await.text().contains(testkit::model::DEFAULT_TITLE));
    assert_eq!(model.requests().len(), 3);
    let main = model.main_requests();
    assert_eq!(main.len(), 2);
    assert!(main.iter().all(|r| r.session.as_deref() == Some("ses_1") && r.ended.is_some() && !r.disconnected));
    assert_eq!(model.concurrent_runs("ses_1"), 1);
}

#[tokio::test]
async fn a_stream_bears_what_was_scripted() {
    let model = ScriptedModel::start().await;
    let usage = Usage { prompt: 50, completion: 7, cached: 20, reasoning: 3 };
    let calls = [("c1", "read", json!({"path": "a"})), ("c2", "bash", json!({"command": "ls"}))];
    let answer = Answer::new().reasoning("hm").text("so").interleaved_calls(&calls, 3).finish("tool_calls", usage);
    model.push(answer);
    let text = client(&model).post("/chat/completions", &asked("a")).await.text();
    assert!(text.ends_with("data: [DONE]\n\n"));
    let chunks = chunks(&text);
    let mut arguments = [String::new(), String::new()];
    let mut order = Vec::new();
    for call in chunks.iter().filter_map(|c| c["choices"][0]["delta"]["tool_calls"].get(0)) {
        let index = usize::try_from(call["index"].as_u64().unwrap()).unwrap();
        arguments[index].push_str(call["function"]["arguments"].as_str().unwrap());
        order.push(index);
    }
    assert_eq!(arguments, [r#"{"path":"a"}"#, r#"{"command":"ls"}"#]);
    assert_eq!(order, [0, 1, 0, 1, 0, 1, 0, 1]);
    let last = chunks.last().unwrap();
    assert_eq!(last["usage"]["prompt_tokens_details"]["cached_tokens"], 20);
    assert_eq!(last["usage"]["total_tokens"], 57);
}

#[tokio::test]
async fn errors_cuts_and_malformed_lines_arrive_as_such() {
    let model = ScriptedModel::start().await;
    model.script([
        Answer::status(429, &json!({"error": {"message": "slow down"}})).header("retry-after", "2"),
        Answer::new().text("half").cut(),
        Answer::new().malformed("{no").error_chunk(json!({"message": "broken"})),
    ]);
    let client = client(&model);
    let limited = client.post("/chat/completions", &asked("a")).await;
    assert_eq!((limited.status, limited.header("retry-after")), (429, "2"));
    let body = Some(asked("b").to_string().into_bytes());
    let cut = client.try_send(reqwest::Method::POST, "/chat/completions", &[], body).await;
    assert!(cut.is_err(), "a cut stream is no whole answer");
    let text = client.post("/chat/completions", &asked("c")).await.text();
    assert!(text.contains("data: {no\n\n") && text.contains(r#"{"error":{"message":"broken"}}"#), "{text}");
}

#[tokio::test]
async fn a_client_that_goes_away_is_noticed_while_the_answer_hangs() {
    let model = ScriptedModel::start().await;
    let gate = Gate::new();
    model.script([Answer::new().text("a").wait(&gate).stop(), Answer::new().text("b").wait(&gate).stop()]);
    let (one, two) = (client(&model), client(&model));
    let first = tokio::spawn(async move { one.post("/chat/completions", &asked("a")).await });
    let second = tokio::spawn(async move { two.post("/chat/completions", &asked("b")).await });
    gate.reached_by(2).await;
    assert_eq!(model.concurrent_runs("ses_1"), 2);
    first.abort();
    eventually(BOUND, "the model to notice", || async {
        model.requests().iter().any(|r| r.disconnected).then_some(())
    })
    .await;
    gate.release();
    assert!(second.await.unwrap().text().ends_with("[DONE]\n\n"));
    assert_eq!(model.requests().iter().filter(|r| r.disconnected).count(), 1);
}

#[tokio::test]
async fn doctored_transcripts_and_unscripted_requests_are_reported() {
    let model = ScriptedModel::start().await;
    model.push(Answer::say("x"));
    let client = client(&model);
    let mut doctored = asked("a");
    doctored["messages"].as_array_mut().unwrap().push(json!({"role": "assistant", "content": ""}));
    client.post("/chat/completions", &doctored).await;
    let found = model.take_violations();
    assert_eq!(found.len(), 1);
    assert!(found[0].contains("empty assistant"), "{found:?}");
    assert_eq!(client.post("/chat/completions", &asked("b")).await.status, 400);
    assert!(model.take_violations()[0].contains("no answer is scripted"));
}

#[tokio::test]
async fn a_violation_fails_the_test_at_the_end() {
    let model = ScriptedModel::start().await;
    client(&model).post("/chat/completions", &asked("b")).await;
    let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| model.finish()));
    assert!(ended.is_err());
}
