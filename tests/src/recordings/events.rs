//! Events made ready for comparison: their kinds, their lanes, and what is one event however often it is told.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use serde_json::{Value, json};

use super::ignored::Ignored;

/// An event that is compared.
#[derive(Debug, Clone)]
pub struct Told<'a> {
    /// Its place among all events.
    pub place: usize,
    /// Its kind, with how far what it tells of has come.
    pub kind: String,
    /// Events of a lane keep their order; those of different lanes need not. Each session has lanes of its own.
    pub lane: String,
    /// The event.
    pub event: Cow<'a, Value>,
    /// How often it was told.
    pub times: usize,
}

/// The kind of an event: its type, and of parts their type and state, of messages who speaks and how it ended, of
/// statuses which.
pub fn kind(event: &Value) -> String {
    let kind = event["type"].as_str().unwrap_or_default();
    let properties = &event["properties"];
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    match kind {
        "message.part.updated" => {
            let part = &properties["part"];
            let state = match part["type"].as_str() {
                Some("tool") => text(&part["state"]["status"]),
                Some("text" | "reasoning") if part["time"]["end"].is_null() && !part["time"].is_null() => {
                    "begun".into()
                }
                _ => String::new(),
            };
            format!("{kind} {} {state}", text(&part["type"])).trim_end().to_owned()
        }
        "message.updated" => {
            let info = &properties["info"];
            let mut kind = format!("{kind} {}", text(&info["role"]));
            for (field, word) in [("finish", "finished"), ("error", "failed")] {
                if !info[field].is_null() {
                    kind = format!("{kind} {word}");
                }
            }
            if info["time"]["completed"].is_null() { kind } else { format!("{kind} completed") }
        }
        "session.status" => format!("{kind} {}", text(&properties["status"]["type"])),
        _ => kind.to_owned(),
    }
}

/// The events that are compared. Deltas of a part are one, where the first stands. A call that runs is told again whenever
/// there is more to tell: that of a command is compared as it was told first, without what it had printed; that of any other
/// tool as it was told last.
pub fn told<'a>(events: &'a [Value], recording: &str, ignored: &Ignored) -> Vec<Told<'a>> {
    let parallel = parallel_calls(events);
    let mut sessions: Vec<&Value> = Vec::new();
    let mut all: Vec<Told> = Vec::new();
    let mut streams: HashMap<String, usize> = HashMap::new();
    let mut running: HashMap<String, usize> = HashMap::new();
    let mut users = HashSet::new();
    for (place, event) in events.iter().enumerate() {
        let mut event = Cow::Borrowed(event);
        let mut kind = kind(&event);
        if kind == "message.updated user" && !users.insert(event["properties"]["info"]["id"].to_string()) {
            kind.push_str(" again");
        }
        if ignored.holds(recording, &["events".into(), kind.clone()]) {
            continue;
        }
        let properties = &events[place]["properties"];
        let part = &properties["part"];
        let part_id = part["id"].as_str().unwrap_or_default().to_owned();
        if kind == "message.part.updated tool running" {
            let first = *running.entry(part_id.clone()).or_insert(all.len());
            let is_command = part["tool"] == "bash";
            if let Some(before) = all.get_mut(first) {
                before.times += 1;
                if !is_command {
                    before.event = event;
                }
                continue;
            }
            if is_command && let Some(state) = event.to_mut()["properties"]["part"]["state"].as_object_mut() {
                state.remove("metadata");
            }
        }
        if kind == "message.part.delta" {
            let stream = format!("{} {}", properties["partID"], properties["field"]);
            let first = *streams.entry(stream).or_insert(all.len());
            if let Some(before) = all.get_mut(first) {
                let text = |event: &Value| event["properties"]["delta"].as_str().unwrap_or_default().to_owned();
                before.times += 1;
                let joined = text(&before.event) + &text(&event);
                before.event.to_mut()["properties"]["delta"] = json!(joined);
                continue;
            }
        }
        let session = &properties["sessionID"];
        let number = sessions.iter().position(|known| *known == session).unwrap_or_else(|| {
            sessions.push(session);
            sessions.len() - 1
        });
        // What calls of one step ask and tell comes in any order.
        let asking = &properties["tool"];
        let call = match (part["callID"].as_str(), asking["callID"].as_str()) {
            (Some(call), _) if parallel.contains(&part_id) => call,
            (_, Some(call)) if parallel.contains(asking["messageID"].as_str().unwrap_or_default()) => call,
            _ => "",
        };
        let lane = ignored.lane(&kind).unwrap_or(if call.is_empty() { "run" } else { "call" });
        let lane = format!("{number} {lane} {call}");
        all.push(Told { place, kind, lane, event, times: 1 });
    }
    all
}

/// The parts of calls that are not alone in their step, and the messages that are those steps.
fn parallel_calls(events: &[Value]) -> HashSet<String> {
    let mut calls: HashMap<&str, HashSet<&str>> = HashMap::new();
    for part in events.iter().map(|event| &event["properties"]["part"]).filter(|part| part["type"] == "tool") {
        if let (Some(message), Some(id)) = (part["messageID"].as_str(), part["id"].as_str()) {
            calls.entry(message).or_default().insert(id);
        }
    }
    let of_many = calls.into_iter().filter(|(_, parts)| parts.len() > 1);
    of_many.flat_map(|(message, parts)| parts.into_iter().chain([message])).map(str::to_owned).collect()
}
