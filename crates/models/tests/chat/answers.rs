//! What is sent, and what is made of the answer.

use crate::scripted::*;
use models::{
    ChatMessage, FinishReason, Limits, ModelEvent, Secret, ToolCall, ToolChoice, ToolSpec, Usage, UserContent,
};
use serde_json::{Value, json};

fn start(index: u32, id: &str, name: &str) -> ModelEvent {
    ModelEvent::ToolCallStart { index, id: id.into(), name: name.into() }
}

fn end(index: u32, id: &str, name: &str, arguments: &str) -> ModelEvent {
    ModelEvent::ToolCallEnd { index, id: id.into(), name: name.into(), arguments: arguments.into() }
}

fn finished(reason: FinishReason) -> ModelEvent {
    ModelEvent::Finish { reason, usage: Usage { input: 100, output: 10, total: Some(110), ..Usage::default() } }
}

fn calls(calls: Value) -> Act {
    delta(json!({ "tool_calls": calls }))
}

#[tokio::test]
async fn a_request_has_the_shape_that_providers_know() {
    let mut model = Model::start(vec![vec![streamed(), finish("stop"), done()]]).await;
    let mut request = ask(&model.base_url);
    request.endpoint.api_key = Some(Secret::new("k"));
    request.endpoint.headers = vec![("x-team".into(), "blue".into()), ("x-session-id".into(), "none".into())];
    request.headers = vec![("x-session-id".into(), "ses_1".into())];
    request.max_tokens = Some(4000);
    request.top_p = Some(0.9);
    let options = json!({ "reasoningEffort": "high", "stream": false, "thinking": { "budgetTokens": 1 } });
    request.options = options.as_object().unwrap().clone();
    request.tools = vec![ToolSpec {
        name: "read".into(),
        description: "Reads".into(),
        parameters: json!({ "type": "object" }).into(),
    }];
    let tool_calls = vec![ToolCall { id: "c1".into(), name: "read".into(), arguments: "{\"filePath\":\"a\"}".into() }];
    let picture = UserContent::Image { mime: "image/png".into(), url: "data:image/png;base64,AA==".into() };
    let paper = "data:application/pdf;base64,AA==".to_owned();
    let paper = UserContent::File { mime: "application/pdf".into(), filename: Some("a.pdf".into()), url: paper };
    let sound = "data:audio/wav;base64,BB==".to_owned();
    let sound = UserContent::File { mime: "audio/wav".into(), filename: None, url: sound };
    request.messages = [
        ChatMessage::System("Be brief.".into()),
        ChatMessage::User(vec![UserContent::Text("go".into())]),
        ChatMessage::Assistant { text: None, reasoning: Some("use tool".into()), tool_calls },
        ChatMessage::Tool { call_id: "c1".into(), content: "1: x".into() },
        ChatMessage::User(vec![UserContent::Text("see".into()), picture, paper, sound]),
        ChatMessage::Assistant { text: Some("seen".into()), reasoning: None, tool_calls: Vec::new() },
    ]
    .into();
    let debug = format!("{:?}", request.endpoint);
    assert!(!debug.contains("\"k\"") && !debug.contains("blue"), "{debug}");
    assert_eq!(all(Limits::default(), request).await, (vec![finished(FinishReason::Stop)], None));

    let (head, body) = model.request().await;
    let mut lines = head.lines();
    assert_eq!(lines.next(), Some("POST /v1/chat/completions HTTP/1.1"));
    let lines: Vec<&str> = lines.collect();
    for line in ["authorization: Bearer k", "content-type: application/json", "x-team: blue", "x-session-id: ses_1"] {
        assert!(lines.contains(&line), "{line} in {head}");
    }
    assert!(lines.iter().any(|line| line.starts_with("user-agent: opencode/1.18.34 flotilla/")), "{head}");
    let function = json!({ "name": "read", "arguments": "{\"filePath\":\"a\"}" });
    let expected = json!({
        "model": "m",
        "max_tokens": 4000,
        "top_p": 0.9,
        "reasoning_effort": "high",
        "thinking": { "budgetTokens": 1 },
        "messages": [
            { "role": "system", "content": "Be brief." },
            { "role": "user", "content": "go" },
            {
                "role": "assistant", "content": "", "reasoning_content": "use tool",
                "tool_calls": [{ "id": "c1", "type": "function", "function": function }],
            },
            { "role": "tool", "tool_call_id": "c1", "content": "1: x" },
            { "role": "user", "content": [
                { "type": "text", "text": "see" },
                { "type": "image_url", "image_url": { "url": "data:image/png;base64,AA==" } },
                { "type": "file", "file": { "filename": "a.pdf", "file_data": "data:application/pdf;base64,AA==" } },
                { "type": "input_audio", "input_audio": { "data": "BB==", "format": "wav" } },
            ] },
            { "role": "assistant", "content": "seen" },
        ],
        "tools": [{ "type": "function", "function": {
            "name": "read", "description": "Reads", "parameters": { "type": "object" },
        } }],
        "tool_choice": "auto",
        "stream": true,
        "stream_options": { "include_usage": true },
    });
    assert_eq!(body.to_string(), expected.to_string());
}

#[tokio::test]
async fn without_tools_no_choice_of_tools_is_sent() {
    let script = || vec![streamed(), finish("stop"), done()];
    let mut model = Model::start(vec![script(), script()]).await;
    let mut request = ask(&model.base_url);
    request.tool_choice = ToolChoice::Required;
    all(Limits::default(), request.clone()).await;
    let (_, body) = model.request().await;
    assert!(body.get("tools").is_none() && body.get("tool_choice").is_none(), "{body}");

    request.tools = vec![ToolSpec { name: "t".into(), description: "".into(), parameters: json!({}).into() }];
    all(Limits::default(), request).await;
    assert_eq!(model.request().await.1["tool_choice"], "required");
}

#[tokio::test]
async fn text_and_usage() {
    let usage = json!({
        "prompt_tokens": 1000, "completion_tokens": 50, "total_tokens": 1050,
        "prompt_tokens_details": { "cached_tokens": 400 }, "completion_tokens_details": { "reasoning_tokens": 20 },
    });
    let ending = data(json!({ "choices": [{ "index": 0, "delta": {}, "finish_reason": "stop" }] }));
    let counted = data(json!({ "choices": [], "usage": usage }));
    let script =
        vec![streamed(), text(""), text("Hello "), raw(": still here\n\n"), text("you"), ending, counted, done()];
    let expected = vec![
        ModelEvent::TextStart,
        ModelEvent::TextDelta("Hello ".into()),
        ModelEvent::TextDelta("you".into()),
        ModelEvent::TextEnd,
        ModelEvent::Finish {
            reason: FinishReason::Stop,
            usage: Usage { input: 1000, output: 50, reasoning: 20, cache_read: 400, cache_write: 0, total: Some(1050) },
        },
    ];
    assert_eq!(answer(script).await, (expected, None));
}

#[tokio::test]
async fn reasoning_ends_where_the_text_begins() {
    for field in ["reasoning_content", "reasoning"] {
        let script = vec![
            streamed(),
            delta(json!({ field: "hm ", "content": null })),
            delta(json!({ field: "yes" })),
            text("A"),
            finish("stop"),
            done(),
        ];
        let expected = vec![
            ModelEvent::ReasoningStart,
            ModelEvent::ReasoningDelta("hm ".into()),
            ModelEvent::ReasoningDelta("yes".into()),
            ModelEvent::ReasoningEnd,
            ModelEvent::TextStart,
            ModelEvent::TextDelta("A".into()),
            ModelEvent::TextEnd,
            finished(FinishReason::Stop),
        ];
        assert_eq!(answer(script).await, (expected, None));
    }
}

#[tokio::test]
async fn tool_calls_and_text_may_be_interleaved() {
    let script = vec![
        streamed(),
        text("Let me "),
        calls(json!([{ "index": 0, "id": "a", "type": "function", "function": { "name": "read", "arguments": "" } }])),
        calls(json!([{ "index": 1, "id": "b", "function": { "name": "bash" } }])),
        calls(json!([{ "index": 0, "function": { "arguments": "{\"x\"" } }])),
        text("look"),
        calls(json!([
            { "index": 1, "function": { "arguments": "{\"y\":" } },
            { "index": 0, "function": { "arguments": ":1}" } },
        ])),
        calls(json!([{ "index": 1, "function": { "arguments": "2}" } }])),
        finish("tool_calls"),
        done(),
    ];
    let expected = vec![
        ModelEvent::TextStart,
        ModelEvent::TextDelta("Let me ".into()),
        start(0, "a", "read"),
        start(1, "b", "bash"),
        ModelEvent::TextDelta("look".into()),
        end(0, "a", "read", "{\"x\":1}"),
        end(1, "b", "bash", "{\"y\":2}"),
        ModelEvent::TextEnd,
        finished(FinishReason::ToolCalls),
    ];
    assert_eq!(answer(script).await, (expected, None));
}

#[tokio::test]
async fn calls_are_told_apart_where_providers_are_careless() {
    let whole = |id: &str, name: &str| json!([{ "index": 0, "id": id, "function": { "name": name, "arguments": {} } }]);
    let script = vec![
        streamed(),
        // The same index twice, then neither index nor id.
        calls(whole("a", "one")),
        calls(whole("b", "two")),
        calls(json!([{ "function": { "arguments": " " } }])),
        finish("tool_calls"),
        done(),
    ];
    let expected = vec![
        start(0, "a", "one"),
        start(1, "b", "two"),
        end(0, "a", "one", "{}"),
        end(1, "b", "two", "{} "),
        finished(FinishReason::ToolCalls),
    ];
    assert_eq!(answer(script).await, (expected, None));

    let script = vec![
        streamed(),
        calls(json!([{ "index": 0, "function": { "name": "one", "arguments": null } }])),
        finish("tool_calls"),
        done(),
    ];
    let id = "call_chatcmpl-x_0";
    let expected = vec![start(0, id, "one"), end(0, id, "one", ""), finished(FinishReason::ToolCalls)];
    assert_eq!(answer(script).await, (expected, None));
}

#[tokio::test]
async fn reasons_to_finish() {
    let reasons = [
        ("length", FinishReason::Length),
        ("content_filter", FinishReason::ContentFilter),
        ("function_call", FinishReason::ToolCalls),
        ("error", FinishReason::Error),
        ("eos", FinishReason::Other),
    ];
    for (name, reason) in reasons {
        assert_eq!(answer(vec![streamed(), finish(name), done()]).await, (vec![finished(reason)], None));
    }
}

#[tokio::test]
async fn a_missing_reason_is_unknown() {
    let usage = Usage::default();
    let (events, error) = answer(vec![streamed(), text("no finish"), done()]).await;
    assert_eq!(events.last(), Some(&ModelEvent::Finish { reason: FinishReason::Unknown, usage }));
    assert_eq!(error, None);
}

#[tokio::test]
async fn an_answer_that_gave_its_reason_is_whole_without_the_mark_of_the_end() {
    let (events, error) = answer(vec![streamed(), text("x"), finish("stop")]).await;
    assert_eq!((events.last(), error), (Some(&finished(FinishReason::Stop)), None));
}

/// This test is also run in a process of its own with a proxy in its environment: see below.
#[tokio::test]
async fn loopback_answers() {
    let (events, error) = answer(vec![streamed(), finish("stop"), done()]).await;
    assert_eq!((events, error), (vec![finished(FinishReason::Stop)], None));
}

#[test]
fn a_proxy_is_not_used_for_loopback() {
    let test = std::env::current_exe().unwrap();
    let mut child = std::process::Command::new(test);
    child.args(["--exact", "answers::loopback_answers"]).env_remove("NO_PROXY").env_remove("no_proxy");
    for name in ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"] {
        child.env(name, "http://127.0.0.1:1");
    }
    let output = child.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}
