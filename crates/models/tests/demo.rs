//! The demo model: always alike, and never in disguise.

#![allow(clippy::unwrap_used, reason = "a test may fail where it stands")]

use models::demo::Demo;
use models::{
    ChatMessage, ChatRequest, Endpoint, FinishReason, ModelEvent, Provider, Timeouts, ToolChoice, ToolSpec, UserContent,
};
use serde_json::{Map, Value, json};
use std::time::Duration;

fn request(tools: &[&str], messages: Vec<ChatMessage>) -> ChatRequest {
    let tool = |name: &&str| ToolSpec { name: (*name).into(), description: "".into(), parameters: json!({}).into() };
    ChatRequest {
        endpoint: Endpoint {
            base_url: String::new(),
            api_key: None,
            headers: Vec::new(),
            timeouts: Timeouts::default(),
        },
        model: "demo".into(),
        messages: messages.into(),
        tools: tools.iter().map(tool).collect(),
        tool_choice: ToolChoice::Auto,
        max_tokens: None,
        temperature: None,
        top_p: None,
        options: Map::new(),
        headers: Vec::new(),
    }
}

fn user(text: &str) -> ChatMessage {
    ChatMessage::User(vec![UserContent::Text(text.into()), UserContent::Text("a reminder".into())])
}

async fn events(request: ChatRequest) -> Vec<ModelEvent> {
    let mut stream = Demo::new(Duration::from_millis(1)).stream(request).await.unwrap();
    let mut events = Vec::new();
    while let Some(event) = stream.next().await {
        events.push(event.unwrap());
    }
    events
}

async fn text(request: ChatRequest) -> String {
    let events = events(request).await;
    assert_eq!(events.first(), Some(&ModelEvent::TextStart));
    assert!(
        matches!(events.last(), Some(ModelEvent::Finish { reason: FinishReason::Stop, usage }) if usage.output > 0)
    );
    let deltas = events.iter().filter_map(|event| match event {
        ModelEvent::TextDelta(text) => Some(text.as_str()),
        _ => None,
    });
    deltas.collect()
}

#[tokio::test]
async fn it_says_that_it_is_a_demo_and_echoes() {
    let said =
        text(request(&["write", "bash"], vec![ChatMessage::System("Be brief.".into()), user("hello you")])).await;
    assert_eq!(said, "This is the demo model; no real model was asked. You said: hello you");
}

#[tokio::test]
async fn a_title_is_short() {
    let messages = vec![ChatMessage::System("You write a title.".into()), user("one two three four five six")];
    assert_eq!(text(request(&[], messages)).await, "Demo: one two three four five");
}

#[tokio::test]
async fn it_calls_the_tool_that_was_asked_for_and_closes() {
    let cases = [
        ("write a.txt some words", "write", json!({ "filePath": "a.txt", "content": "some words\n" })),
        ("run ls -l", "bash", json!({ "command": "ls -l", "description": "Runs what the demo was told to run" })),
    ];
    for (said, tool, expected) in cases {
        let mut messages = vec![user(said)];
        let events = events(request(&["write", "bash"], messages.clone())).await;
        let [ModelEvent::ToolCallStart { id, .. }, ModelEvent::ToolCallEnd { name, arguments, .. }, last] =
            events.as_slice()
        else {
            panic!("{events:?}");
        };
        assert_eq!((name.as_str(), serde_json::from_str::<Value>(arguments).unwrap()), (tool, expected));
        assert!(matches!(last, ModelEvent::Finish { reason: FinishReason::ToolCalls, .. }));

        messages.push(ChatMessage::Tool { call_id: id.clone(), content: "fine\nthanks".into() });
        let closing = text(request(&["write", "bash"], messages)).await;
        assert_eq!(closing, "The demo model has run its tool, which answered: fine");
    }
}

#[tokio::test]
async fn a_tool_that_is_not_on_offer_is_not_called() {
    assert!(text(request(&["read"], vec![user("run ls")])).await.ends_with("You said: run ls"));
}
