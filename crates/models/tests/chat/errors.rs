//! What goes wrong between a provider and us, and how a message shows it.

use crate::scripted::*;
use models::{ApiError, Limits, ModelError, ModelEvent, content_filter_error, retry_delay};
use serde_json::{Value, json};
use std::time::Duration;

const JSON: &str = "content-type: application/json\r\ndate: Sun, 22 Nov 2026 13:33:49 GMT\r\n";

/// The error that one unstreamed answer gives, and its shape in a message with the address taken out.
async fn refused(status: &str, headers: &str, body: &str) -> (ModelError, Value) {
    let (events, error) = answer(plain(status, headers, body)).await;
    assert_eq!(events, []);
    let error = error.unwrap();
    let mut shown = serde_json::to_value(error.to_message_error()).unwrap();
    if let Some(metadata) = shown["data"].as_object_mut().and_then(|data| data.shift_remove("metadata")) {
        assert!(metadata["url"].as_str().unwrap().ends_with("/v1/chat/completions"), "{metadata}");
    }
    (error, shown)
}

#[tokio::test]
async fn a_refusal_is_shown_as_the_provider_gave_it() {
    let cases = [
        ("400 Bad Request", "{\"error\": {\"message\": \"bad request\", \"code\": \"x\"}}", "bad request", false),
        ("401 Unauthorized", "{\"error\": {\"message\": \"invalid api key\"}}", "invalid api key", false),
        ("402 Payment Required", "{\"error\": {\"message\": \"payment\"}}", "payment", false),
        ("404 Not Found", "{\"error\": {\"message\": \"model not found\"}}", "model not found", false),
        ("429 Too Many Requests", "{\"error\": {\"message\": \"slow down\"}}", "slow down", true),
        ("500 Internal Server Error", "{\"error\": \"server exploded\"}", "server exploded", true),
        ("503 Service Unavailable", "<html>oops</html>", "Service Unavailable", true),
        ("503 Service Unavailable", "", "Service Unavailable", true),
        ("502 Bad Gateway", "no model here", "Bad Gateway: no model here", true),
        ("307 Temporary Redirect", "", "Temporary Redirect", false),
    ];
    for (status, body, message, retryable) in cases {
        let secrets = format!("{JSON}set-cookie: a=b\r\nlocation: http://127.0.0.1:1/\r\n");
        let (error, shown) = refused(status, &secrets, body).await;
        let code: u16 = status[..3].parse().unwrap();
        let headers = json!({
            "content-length": body.len().to_string(),
            "content-type": "application/json",
            "date": "Sun, 22 Nov 2026 13:33:49 GMT",
            "location": "http://127.0.0.1:1/",
        });
        let expected = json!({ "name": "APIError", "data": {
            "message": message, "statusCode": code, "isRetryable": retryable,
            "responseHeaders": headers, "responseBody": body,
        } });
        assert_eq!(shown.to_string(), expected.to_string());
        assert_eq!((error.is_retryable(), error.status()), (retryable, Some(code)));
        assert!(error.has_response_headers());
    }
}

#[tokio::test]
async fn a_refusal_that_speaks_of_a_rate_limit_is_retried_whatever_its_status() {
    let (error, _) = refused("403 Forbidden", JSON, "{\"error\": {\"message\": \"Rate limit reached\"}}").await;
    assert!(error.is_retryable());
}

#[tokio::test]
async fn a_conversation_that_is_too_long() {
    let long = "{\"error\": {\"message\": \"This model's maximum context length is 100 tokens.\"}}";
    let coded = "{\"error\": {\"message\": \"too much\", \"code\": \"context_length_exceeded\"}}";
    let local = "{\"error\": {\"message\": \"the request exceeds the available context size\"}}";
    let cases = [
        ("400 Bad Request", long, "This model's maximum context length is 100 tokens."),
        ("400 Bad Request", coded, "too much"),
        ("400 Bad Request", local, "the request exceeds the available context size"),
        ("413 Content Too Large", "{\"error\": {\"message\": \"too large\"}}", "too large"),
    ];
    for (status, body, message) in cases {
        let (error, shown) = refused(status, JSON, body).await;
        let data = json!({ "message": message, "responseBody": body });
        assert_eq!(shown, json!({ "name": "ContextOverflowError", "data": data }));
        assert!(!error.is_retryable());
    }
    let (error, _) = refused("429 Too Many Requests", JSON, long).await;
    assert!(matches!(error, ModelError::Api(_)), "{error:?}");
}

#[tokio::test]
async fn a_long_error_body_is_cut() {
    let (error, _) = refused("500 Internal Server Error", JSON, &"x".repeat(1 << 20)).await;
    let ModelError::Api(api) = error else { panic!("{error:?}") };
    assert_eq!(api.body.len(), 64 << 10);
}

#[tokio::test]
async fn the_wait_that_the_provider_asks_for_is_kept() {
    let cases = [
        ("retry-after: 2\r\n", 2000),
        ("retry-after-ms: 500\r\nretry-after: 2\r\n", 500),
        ("retry-after: Sun, 22 Nov 2026 13:33:59 GMT\r\n", 10_000),
        ("retry-after: Sun, 22 Nov 2026 13:33:09 GMT\r\n", 0),
    ];
    for (header, ms) in cases {
        let (error, _) = refused("429 Too Many Requests", &format!("{JSON}{header}"), "").await;
        assert_eq!(error.retry_after_ms(), Some(ms), "{header}");
        assert_eq!(retry_delay(3, &error, u64::MAX), Duration::from_millis(ms));
    }
    let (error, _) = refused("429 Too Many Requests", &format!("{JSON}retry-after: soon\r\n"), "").await;
    assert_eq!(error.retry_after_ms(), None);
}

#[test]
fn the_wait_doubles_with_up_to_a_quarter_of_jitter() {
    let cut = ModelError::Cut { url: String::new() };
    let api =
        ApiError { message: String::new(), status: 500, headers: Vec::new(), body: String::new(), url: String::new() };
    let api = ModelError::Api(Box::new(api));
    let seconds = |attempt, error, random| retry_delay(attempt, error, random).as_secs_f64();
    for (attempt, least) in [(1, 2.0), (2, 4.0), (3, 8.0), (4, 16.0)] {
        assert_eq!(seconds(attempt, &cut, 0), least);
        assert_eq!(seconds(attempt, &cut, u64::MAX), least * 1.25);
    }
    assert_eq!(seconds(5, &cut, 0), 30.0, "capped where no header could ask for more");
    assert_eq!(seconds(5, &api, 0), 32.0);
    assert_eq!(seconds(u32::MAX, &api, u64::MAX), 86_400.0);
    assert_eq!(seconds(u32::MAX, &cut, u64::MAX), 30.0);
}

#[tokio::test]
async fn a_refused_connection_is_retried() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let (_, error) = all(Limits::default(), ask(&url)).await;
    let error = error.unwrap();
    assert!(error.is_retryable() && !error.has_response_headers());
    let message = "Cannot connect to API: Unable to connect. Is the computer able to access the url?";
    let data = json!({
        "message": message, "isRetryable": true, "metadata": { "url": format!("{url}/chat/completions") },
    });
    assert_eq!(serde_json::to_value(error.to_message_error()).unwrap(), json!({ "name": "APIError", "data": data }));
}

#[tokio::test]
async fn a_cut_stream_is_retried_and_leaves_its_text_open() {
    let half = json!([{ "index": 0, "id": "a", "function": { "name": "bash", "arguments": "{\"command\":\"rm" } }]);
    let (events, error) = answer(vec![streamed(), text("partial "), delta(json!({ "tool_calls": half }))]).await;
    let start = ModelEvent::ToolCallStart { index: 0, id: "a".into(), name: "bash".into() };
    assert_eq!(events, [ModelEvent::TextStart, ModelEvent::TextDelta("partial ".into()), start]);
    let error = error.unwrap();
    assert!(matches!(error, ModelError::Cut { .. }) && error.is_retryable());
    let message = error.to_string();
    assert!(message.starts_with("Cannot connect to API: The socket connection was closed unexpectedly."), "{message}");

    // A proper end of the body is no end of the answer.
    let (_, error) = answer(vec![streamed(), text("partial "), Act::Send(b"0\r\n\r\n".to_vec())]).await;
    assert!(matches!(error, Some(ModelError::Cut { .. })), "{error:?}");
}

#[tokio::test]
async fn a_malformed_event_is_not_retried() {
    let (events, error) = answer(vec![streamed(), text("before "), raw("data: {not json\n\n"), text("after")]).await;
    assert_eq!(events, [ModelEvent::TextStart, ModelEvent::TextDelta("before ".into())]);
    let error = error.unwrap();
    assert!(!error.is_retryable());
    let shown = error.to_message_error();
    assert_eq!(shown.name, "UnknownError");
    let message = shown.data["message"].as_str().unwrap();
    assert!(message.starts_with("JSON parsing failed: Text: {not json.\nError message: "), "{message}");
}

#[tokio::test]
async fn an_error_object_in_the_stream() {
    let cases = [
        (json!({ "message": "stream error", "type": "server_error", "code": "server_error" }), true),
        (json!({ "message": "Overloaded", "type": "invalid_request_error" }), true),
        (json!({ "message": "no", "type": "invalid_request_error", "code": null }), false),
        (json!({ "message": "no", "code": 403 }), false),
        (json!({ "message": "wait", "code": 429 }), true),
    ];
    for (object, retryable) in cases {
        let (events, error) = answer(vec![streamed(), text("before "), data(json!({ "error": object }))]).await;
        assert_eq!(events.len(), 2);
        let error = error.unwrap();
        assert_eq!(error.is_retryable(), retryable, "{object}");
        let data = json!({ "message": object.to_string() });
        let shown = serde_json::to_value(error.to_message_error()).unwrap();
        assert_eq!(shown, json!({ "name": "UnknownError", "data": data }));
    }
    let long = json!({ "error": { "message": "too much", "code": "context_length_exceeded" } });
    let (_, error) = answer(vec![streamed(), data(long)]).await;
    assert!(matches!(error, Some(ModelError::ContextOverflow { message, .. }) if message == "too much"));
}

#[tokio::test]
async fn an_answer_without_events() {
    let (_, error) = answer(plain("200 OK", JSON, "{\"error\": {\"message\": \"sorry\"}}")).await;
    assert_eq!(error.unwrap().to_string(), "{\"message\":\"sorry\"}");
    let (_, error) = answer(plain("200 OK", JSON, "{\"choices\": []}")).await;
    assert!(matches!(error, Some(ModelError::Malformed { .. })), "{error:?}");
}

#[tokio::test]
async fn a_request_that_cannot_be_sent_says_why_without_its_secrets() {
    for url in ["", "api.example.com", "file:///etc/passwd", "http://"] {
        let (_, error) = all(Limits::default(), ask(url)).await;
        assert!(matches!(error, Some(ModelError::Invalid { .. })), "{url}: {error:?}");
    }
    let mut request = ask("http://127.0.0.1:1");
    request.endpoint.headers = vec![("x-key".into(), "secret\n".into())];
    let (_, error) = all(Limits::default(), request).await;
    assert_eq!(error.unwrap().to_string(), "The value of the header x-key cannot be sent");

    let (_, error) = all(Limits::default(), ask("http://user:secret@127.0.0.1:1/v1?key=secret")).await;
    let shown = format!("{:?} {:?}", error, error.as_ref().unwrap().to_message_error());
    assert!(shown.contains("127.0.0.1:1/v1") && !shown.contains("secret"), "{shown}");
}

#[test]
fn the_filter_of_a_provider() {
    let data = json!({ "message": "The response was blocked by the provider's content filter" });
    let shown = serde_json::to_value(content_filter_error()).unwrap();
    assert_eq!(shown, json!({ "name": "ContentFilterError", "data": data }));
}
