//! Events that are too large for the log: their body lies in the store, and the log has their outline.
//!
//! So a prompt of many megabytes goes neither through coordination nor into the memory of the replicas that tell it:
//! whoever reads it is sent it in pieces.

use crate::api::EngineError;
use crate::commit::body;
use crate::engine::blocking;
use bytes::Bytes;
use serde_json::{Map, Value};
use storage::TenantStore;
use wire::event::Event;
use wire::ids::SessionId;

/// Bytes of an event, in its envelope, above which it is kept aside.
pub(crate) const LARGE: usize = 64 * 1024;
/// Bytes of a piece.
const PIECE: usize = 64 * 1024;

/// What of an event its outline has: short texts, in objects that are not too deep and not too large.
const SHORT: usize = 256;
const DEPTH: usize = 4;
const FIELDS: usize = 64;

/// The body of an event that lies in the store.
#[derive(Clone)]
pub struct Aside {
    store: TenantStore,
    name: String,
    /// What an envelope has before the body; after it, it has one brace.
    pub head: Bytes,
}

impl Aside {
    pub(crate) fn new(store: TenantStore, name: String, head: Bytes) -> Self {
        Self { store, name, head }
    }

    /// The next bytes from a place on, and whether they are the last. None if the body is no longer kept.
    ///
    /// Errors: `Store`, when it cannot be read now.
    pub async fn piece(&self, from: u64) -> Result<Option<(Bytes, bool)>, EngineError> {
        let (store, name) = (self.store.clone(), self.name.clone());
        let piece = blocking(move || Ok(store.event_piece(&name, from, PIECE)?)).await?;
        Ok(piece.map(|bytes| {
            let is_last = bytes.len() < PIECE;
            (bytes.into(), is_last)
        }))
    }
}

/// Keeps the body of a large event aside. Returns its name, and the event's outline.
///
/// Errors: the body, if the store does not take it.
pub(crate) async fn keep(store: TenantStore, event: Event) -> Result<(String, Event), Vec<u8>> {
    let outline =
        Event { properties: outline(&event.properties, DEPTH), id: event.id.clone(), kind: event.kind.clone() };
    let body = body(&event).unwrap_or_default();
    // Clients know of asks from events alone: what is not answered yet must still be there for newcomers.
    let asks = event
        .kind
        .ends_with(".asked")
        .then(|| event.properties["sessionID"].as_str().and_then(|id| SessionId::parse(id).ok()));
    let of = asks.flatten();
    drop(event);
    let kept = blocking(move || {
        Ok(store.keep_event(&body, of.as_ref()).map_err(|error| {
            tracing::warn!(%error, "a large event is not kept aside");
            body
        }))
    });
    // What did not end leaves nothing to send.
    Ok((kept.await.unwrap_or_else(|_| Err(Vec::new()))?, outline))
}

/// What remains of a value: how it is built, and its short texts.
fn outline(value: &Value, depth: usize) -> Value {
    match value {
        Value::String(text) if text.len() > SHORT => Value::String(String::new()),
        Value::Array(_) => Value::Array(Vec::new()),
        Value::Object(fields) if depth == 0 || fields.len() > FIELDS => Value::Object(Map::new()),
        Value::Object(fields) => {
            let short = fields.iter().filter(|(name, _)| name.len() <= SHORT);
            Value::Object(short.map(|(name, value)| (name.clone(), outline(value, depth - 1))).collect())
        }
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_outline_is_small_and_tells_what_the_event_is_about() {
        let part = json!({
            "id": "prt_a", "messageID": "msg_a", "type": "tool",
            "state": { "status": "completed", "output": "x".repeat(1 << 20), "metadata": { "deep": { "deeper": 1 } } },
            "many": (0..1000).map(|n| (n.to_string(), json!(n))).collect::<Map<_, _>>(),
            "list": [1, 2, 3],
        });
        let properties = json!({ "sessionID": "ses_a", "part": part, "time": 7 });
        let event = Event { id: "evt_a".into(), kind: "message.part.updated".into(), properties };
        assert!(crate::commit::json_within(&event, LARGE).unwrap().is_none());
        let outlined = outline(&event.properties, DEPTH);
        assert_eq!(
            outlined,
            json!({ "sessionID": "ses_a", "time": 7, "part": {
                "id": "prt_a", "messageID": "msg_a", "type": "tool", "list": [], "many": {},
                "state": { "status": "completed", "output": "", "metadata": { "deep": {} } },
            } })
        );
    }
}
