//! What every request to a model must satisfy.

use std::collections::HashSet;

use serde_json::Value;

/// Everything that is wrong with the messages of one chat completion request; empty if nothing is.
///
/// System messages come first and only there. An assistant message has content or tool calls. Each of its calls is
/// answered by exactly one tool message, in the order of the calls and before any other message, and its arguments are
/// a JSON object. Nothing else is answered.
pub fn violations(body: &Value) -> Vec<String> {
    let mut found = Vec::new();
    let messages = body["messages"].as_array().map(Vec::as_slice).unwrap_or_default();
    if role(messages.first().unwrap_or(&Value::Null)) != "system" {
        found.push("the first message is not a system message".to_string());
    }
    let first_other = messages.iter().position(|m| role(m) != "system").unwrap_or(messages.len());
    let mut expected: Vec<String> = Vec::new();
    let mut called = HashSet::new();
    for (at, message) in messages.iter().enumerate() {
        match role(message) {
            "tool" => {
                let id = message["tool_call_id"].as_str().unwrap_or_default();
                if expected.first().map(String::as_str) == Some(id) {
                    expected.remove(0);
                } else {
                    found.push(format!("message {at} answers call {id:?}, expected was {:?}", expected.first()));
                }
                continue;
            }
            _ if !expected.is_empty() => {
                found.push(format!("before message {at} these calls are not answered: {expected:?}"));
                expected.clear();
            }
            _ => {}
        }
        match role(message) {
            "system" if at > first_other => found.push(format!("message {at} is a system message after others")),
            "system" => {}
            "user" if is_empty(&message["content"]) => found.push(format!("message {at} is an empty user message")),
            "user" => {}
            "assistant" => expected = calls(at, message, &mut called, &mut found),
            other => found.push(format!("message {at} has the unknown role {other:?}")),
        }
    }
    if !expected.is_empty() {
        found.push(format!("at the end these calls are not answered: {expected:?}"));
    }
    found
}

/// The text of each user message, in order; the texts of one message's parts are joined by newlines.
pub fn user_texts(body: &Value) -> Vec<String> {
    let messages = body["messages"].as_array().map(Vec::as_slice).unwrap_or_default();
    messages.iter().filter(|m| role(m) == "user").map(|m| content_text(&m["content"])).collect()
}

/// The text of the newest user message; empty if there is none.
pub fn last_user_text(body: &Value) -> String {
    user_texts(body).pop().unwrap_or_default()
}

/// The texts of the tool messages, in order.
pub fn tool_texts(body: &Value) -> Vec<String> {
    let messages = body["messages"].as_array().map(Vec::as_slice).unwrap_or_default();
    messages.iter().filter(|m| role(m) == "tool").map(|m| content_text(&m["content"])).collect()
}

/// The names of the tools that the request offers, in order.
pub fn offered_tools(body: &Value) -> Vec<String> {
    let tools = body["tools"].as_array().map(Vec::as_slice).unwrap_or_default();
    tools.iter().filter_map(|t| t["function"]["name"].as_str()).map(str::to_string).collect()
}

fn calls(at: usize, message: &Value, called: &mut HashSet<String>, found: &mut Vec<String>) -> Vec<String> {
    let calls = message["tool_calls"].as_array().map(Vec::as_slice).unwrap_or_default();
    if calls.is_empty() && is_empty(&message["content"]) {
        found.push(format!("message {at} is an empty assistant message"));
    }
    let mut ids = Vec::new();
    for call in calls {
        let id = call["id"].as_str().unwrap_or_default().to_string();
        if id.is_empty() || !called.insert(format!("{at}/{id}")) {
            found.push(format!("message {at} has a call with the empty or repeated id {id:?}"));
        }
        let arguments = call["function"]["arguments"].as_str().unwrap_or_default();
        if !serde_json::from_str::<Value>(arguments).is_ok_and(|a| a.is_object()) {
            found.push(format!("message {at}, call {id:?}: the arguments are no JSON object: {arguments:?}"));
        }
        ids.push(id);
    }
    ids
}

fn role(message: &Value) -> &str {
    message["role"].as_str().unwrap_or_default()
}

fn is_empty(content: &Value) -> bool {
    match content {
        Value::String(text) => text.is_empty(),
        Value::Array(parts) => parts.is_empty(),
        _ => true,
    }
}

fn content_text(content: &Value) -> String {
    match content {
        Value::String(text) => text.clone(),
        Value::Array(parts) => parts.iter().filter_map(|p| p["text"].as_str()).collect::<Vec<_>>().join("\n"),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn body(rest: Value) -> Value {
        let mut messages = vec![json!({"role": "system", "content": "be brief"})];
        messages.extend(rest.as_array().unwrap().iter().cloned());
        json!({ "messages": messages })
    }

    fn call(id: &str) -> Value {
        json!({"id": id, "type": "function", "function": {"name": "read", "arguments": "{}"}})
    }

    fn one(found: Vec<String>, says: &str) {
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].contains(says), "{found:?}");
    }

    #[test]
    fn a_whole_transcript_is_fine() {
        let whole = body(json!([
            {"role": "user", "content": "go"},
            {"role": "assistant", "content": "", "tool_calls": [call("a"), call("b")]},
            {"role": "tool", "tool_call_id": "a", "content": "1"},
            {"role": "tool", "tool_call_id": "b", "content": "2"},
            {"role": "assistant", "content": "done"},
            {"role": "user", "content": [{"type": "text", "text": "more"}]},
        ]));
        assert_eq!(violations(&whole), Vec::<String>::new());
        assert_eq!(user_texts(&whole), ["go", "more"]);
        assert_eq!(tool_texts(&whole), ["1", "2"]);
    }

    #[test]
    fn an_unanswered_call_is_reported() {
        let doctored =
            body(json!([{"role": "assistant", "tool_calls": [call("a")]}, {"role": "user", "content": "x"}]));
        one(violations(&doctored), "not answered");
        one(violations(&body(json!([{"role": "assistant", "tool_calls": [call("a")]}]))), "at the end");
    }

    #[test]
    fn answers_out_of_order_or_twice_are_reported() {
        let calls = json!({"role": "assistant", "tool_calls": [call("a"), call("b")]});
        let answer = |id: &str| json!({"role": "tool", "tool_call_id": id, "content": "x"});
        assert!(!violations(&body(json!([calls, answer("b"), answer("a")]))).is_empty());
        one(violations(&body(json!([calls, answer("a"), answer("b"), answer("b")]))), "expected was None");
    }

    #[test]
    fn empty_and_misplaced_messages_are_reported() {
        one(violations(&body(json!([{"role": "assistant", "content": ""}]))), "empty assistant");
        one(violations(&body(json!([{"role": "user", "content": ""}]))), "empty user");
        one(violations(&json!({"messages": [{"role": "user", "content": "x"}]})), "not a system");
        one(violations(&body(json!([{"role": "user", "content": "x"}, {"role": "system", "content": "y"}]))), "after");
    }

    #[test]
    fn broken_arguments_and_repeated_ids_are_reported() {
        let broken = json!({"id": "a", "function": {"name": "read", "arguments": "{"}});
        let answer = json!({"role": "tool", "tool_call_id": "a", "content": "x"});
        one(violations(&body(json!([{"role": "assistant", "tool_calls": [broken]}, answer]))), "no JSON object");
        let twice = json!({"role": "assistant", "tool_calls": [call("a"), call("a")]});
        one(violations(&body(json!([twice, answer, answer]))), "repeated id");
    }
}
