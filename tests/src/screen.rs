//! What a reader of events has on its screen, and whether it got each event once.

use serde_json::Value;
use std::collections::{BTreeMap, HashSet};
use testkit::outline::shown_texts;
use testkit::{BOUND, Client, Event, EventReader, eventually};

/// What was published: ids and bodies, without what belongs to a stream alone.
pub fn published(events: &[Event]) -> Vec<(Option<String>, Value)> {
    events
        .iter()
        .filter(|event| !event.is_of_the_stream())
        .map(|event| (event.id.clone(), event.data.clone()))
        .collect()
}

/// Checks that a reader saw no event twice.
///
/// # Panics
/// When it did.
pub fn saw_each_once(reader: &EventReader) {
    let mut seen = HashSet::new();
    for event in reader.collected() {
        let id = event.payload()["id"].as_str().unwrap_or_default().to_owned();
        assert!(seen.insert(id), "twice: {event:?}");
    }
}

/// Waits until a session is idle, and a reader's screen shows so, each of its texts, and how each message ended,
/// as they are stored.
///
/// # Panics
/// When it does not come to that.
pub async fn shows_what_is_stored(reader: &EventReader, client: &Client, session: &str) {
    eventually(BOUND, "a session to be idle", || async { (client.status(session).await == "idle").then_some(()) })
        .await;
    let messages = client.messages(session).await;
    let stored: BTreeMap<String, String> = texts(&messages).collect();
    assert!(!stored.is_empty());
    eventually(BOUND, &format!("{stored:?} on a screen"), || async {
        let events = reader.collected();
        let shown = shown_texts(&events);
        let is_whole = stored.iter().all(|(part, text)| shown.get(part) == Some(text));
        let of_status = |event: &&Event| event.kind() == "session.status" && event.properties()["sessionID"] == session;
        let status = events.iter().rev().find(of_status)?;
        let is_told = messages.iter().all(|message| {
            let told = events.iter().rev().find(|event| {
                event.kind() == "message.updated" && event.properties()["info"]["id"] == message["info"]["id"]
            });
            let end = |info: &Value| (info["time"]["completed"].clone(), info["finish"].clone(), info["error"].clone());
            told.is_some_and(|told| end(&told.properties()["info"]) == end(&message["info"]))
        });
        (is_whole && is_told && status.properties()["status"]["type"] == "idle").then_some(())
    })
    .await;
    saw_each_once(reader);
}

/// The texts of messages, by their parts' ids.
fn texts(messages: &[Value]) -> impl Iterator<Item = (String, String)> {
    let parts = messages.iter().flat_map(|message| message["parts"].as_array()).flatten();
    parts
        .filter(|part| part["type"] == "text")
        .filter_map(|part| Some((part["id"].as_str()?.to_owned(), part["text"].as_str()?.to_owned())))
}
