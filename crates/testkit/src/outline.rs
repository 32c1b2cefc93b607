//! Streams of events in short, so that their order can be compared with what was recorded.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::events::Event;

/// One line per event: its type and what matters of it, such as `message.updated assistant stop completed`,
/// `message.part.updated tool bash running`, `session.status busy`. Deltas that follow one another are one line.
pub fn outline(events: &[Event]) -> Vec<String> {
    let mut lines: Vec<String> = events.iter().map(line).collect();
    lines.dedup_by(|a, b| a == b && a == "message.part.delta");
    lines
}

/// The outline without what runs beside a prompt and may come at any time: `session.updated`, `session.diff`, the
/// updates of the user message's summary, `server.*`, repeated `running` updates of one tool, and `patch` parts.
pub fn spine(events: &[Event]) -> Vec<String> {
    let beside = |event: &&Event| {
        let kind = event.kind();
        let info = &event.properties()["info"];
        let summary = info["role"] == "user" && info.get("summary").is_some();
        kind == "session.updated"
            || kind == "session.diff"
            || kind == "file.watcher.updated"
            || kind.starts_with("server.")
            || summary
            || event.properties()["part"]["type"] == "patch"
            || event.payload()["type"] == "sync"
    };
    let kept: Vec<Event> = events.iter().filter(|e| !beside(e)).cloned().collect();
    let mut lines = outline(&kept);
    lines.dedup_by(|a, b| a == b && a.ends_with(" running"));
    lines
}

fn line(event: &Event) -> String {
    let properties = event.properties();
    let info = &properties["info"];
    let part = &properties["part"];
    let completed = if info["time"]["completed"].is_number() { Some("completed") } else { None };
    let error = info["error"]["name"].as_str().or_else(|| properties["error"]["name"].as_str());
    let text = match &part["text"] {
        Value::String(text) if part["type"] != "tool" => Some(if text.is_empty() { "empty" } else { "full" }),
        _ => None,
    };
    [
        Some(event.kind()),
        info["role"].as_str(),
        error,
        info["finish"].as_str(),
        completed,
        part["type"].as_str(),
        text,
        part["tool"].as_str(),
        part["state"]["status"].as_str(),
        properties["status"]["type"].as_str(),
    ]
    .into_iter()
    .flatten()
    .collect::<Vec<_>>()
    .join(" ")
}

/// The text of each part as a screen would show it that applied the events in order: an update replaces, a delta
/// appends, a delta of an unknown part is lost.
pub fn shown_texts(events: &[Event]) -> BTreeMap<String, String> {
    let mut texts = BTreeMap::new();
    for event in events {
        let properties = event.properties();
        match event.kind() {
            "message.part.updated" => {
                let part = &properties["part"];
                if let (Some(id), Some(text)) = (part["id"].as_str(), part["text"].as_str()) {
                    texts.insert(id.to_string(), text.to_string());
                }
            }
            "message.part.delta" => {
                let known = properties["partID"].as_str().and_then(|id| texts.get_mut(id));
                if let (Some(text), Some(delta)) = (known, properties["delta"].as_str()) {
                    text.push_str(delta);
                }
            }
            _ => {}
        }
    }
    texts
}

/// What was published: ids and bodies, without what belongs to a stream alone.
pub fn published(events: &[Event]) -> Vec<(Option<String>, Value)> {
    events.iter().filter(|e| !e.is_of_the_stream()).map(|e| (e.id.clone(), e.data.clone())).collect()
}

/// The events up to the first `session.idle`.
///
/// # Panics
/// When there is none.
pub fn to_idle(events: &[Event]) -> &[Event] {
    let end = events.iter().position(|e| e.kind() == "session.idle").expect("the session became idle");
    &events[..=end]
}

/// All deltas of text, joined.
pub fn joined_deltas(events: &[Event]) -> String {
    events
        .iter()
        .filter(|e| e.kind() == "message.part.delta")
        .filter_map(|e| e.properties()["delta"].as_str())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn event(kind: &str, properties: Value) -> Event {
        Event { id: None, data: json!({"type": kind, "properties": properties}) }
    }

    #[test]
    fn a_stream_is_told_in_short() {
        let part = |text: &str| json!({"part": {"id": "p", "type": "text", "text": text}});
        let events = [
            event("server.connected", json!({})),
            event("message.updated", json!({"info": {"role": "user"}})),
            event("session.updated", json!({"info": {}})),
            event("message.part.updated", part("")),
            event("message.part.delta", json!({"partID": "p", "delta": "a"})),
            event("message.part.delta", json!({"partID": "p", "delta": "b"})),
            event("message.part.delta", json!({"partID": "unknown", "delta": "c"})),
            event("message.updated", json!({"info": {"role": "user", "summary": {}}})),
            event("session.status", json!({"status": {"type": "idle"}})),
        ];
        assert_eq!(
            spine(&events),
            ["message.updated user", "message.part.updated text empty", "message.part.delta", "session.status idle"]
        );
        assert_eq!(shown_texts(&events)["p"], "ab");
        assert_eq!(joined_deltas(&events), "abc");
    }
}
