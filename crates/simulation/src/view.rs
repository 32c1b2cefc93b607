//! What a client knows that follows the events, as far as messages, parts, statuses and asks go.

use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use storage::{StoreError, TenantStore};
use wire::ids::SessionId;
use wire::permission::PermissionRequest;

/// An event, as far as a client looks at it.
pub(crate) struct Told {
    pub kind: String,
    properties: Value,
}

impl Told {
    /// What the body of `/global/event` says.
    pub(crate) fn read_envelope(body: &[u8]) -> Option<Self> {
        let mut envelope: Value = serde_json::from_slice(body).ok()?;
        Self::of(envelope["payload"].take())
    }

    /// What the body of `/event` says.
    pub(crate) fn read_payload(body: &[u8]) -> Option<Self> {
        Self::of(serde_json::from_slice(body).ok()?)
    }

    fn of(mut payload: Value) -> Option<Self> {
        Some(Self { kind: payload["type"].as_str()?.to_owned(), properties: payload["properties"].take() })
    }
}

/// What a client knows.
#[derive(Clone, Default)]
pub(crate) struct View {
    sessions: BTreeMap<String, Known>,
    /// What is told of these later is passed over: it was under way.
    deleted: BTreeSet<String>,
}

/// What is known of a session, by ids.
#[derive(Clone, Default)]
struct Known {
    status: Option<Value>,
    messages: BTreeMap<String, Value>,
    parts: BTreeMap<String, Value>,
    /// What runs ask for.
    asks: BTreeMap<String, Value>,
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// What a turn changed is told at each of its steps, and stored with its prompt where it comes to its end.
fn without_summary(mut info: Value) -> Value {
    if let Some(info) = info.as_object_mut().filter(|info| info["role"] == "user") {
        info.remove("summary");
    }
    info
}

impl View {
    /// What a client knows that has just read all anew: of what is gone nothing, whatever is still under way.
    pub(crate) fn anew(&self) -> Self {
        Self { deleted: self.deleted.clone(), ..Self::default() }
    }

    /// Takes an event in.
    pub(crate) fn take(&mut self, told: &Told) {
        let properties = &told.properties;
        let id = text(&properties["sessionID"]);
        if told.kind == "session.deleted" {
            self.sessions.remove(&id);
            self.deleted.insert(id);
            return;
        }
        if self.deleted.contains(&id) {
            return;
        }
        let session = self.sessions.entry(id).or_default();
        match told.kind.as_str() {
            "session.status" => session.status = Some(properties["status"].clone()),
            "message.updated" => {
                let info = &properties["info"];
                session.messages.insert(text(&info["id"]), without_summary(info.clone()));
            }
            "message.part.updated" => {
                let part = &properties["part"];
                session.parts.insert(text(&part["id"]), part.clone());
            }
            "message.part.delta" => {
                let part = session.parts.get_mut(&text(&properties["partID"]));
                if let Some(Value::String(said)) = part.map(|part| &mut part["text"]) {
                    said.push_str(&text(&properties["delta"]));
                }
            }
            "message.removed" => {
                let id = text(&properties["messageID"]);
                session.messages.remove(&id);
                session.parts.retain(|_, part| part["messageID"] != *id);
            }
            "permission.asked" => drop(session.asks.insert(text(&properties["id"]), properties.clone())),
            "permission.replied" => drop(session.asks.remove(&text(&properties["requestID"]))),
            "message.part.removed" => drop(session.parts.remove(&text(&properties["partID"]))),
            _ => {}
        }
    }

    /// What runs are known to ask for.
    pub(crate) fn asks(&self) -> Vec<PermissionRequest> {
        let asks = self.sessions.values().flat_map(|known| known.asks.values());
        asks.filter_map(|ask| serde_json::from_value(ask.clone()).ok()).collect()
    }

    /// True if the session's newest status is idle.
    pub(crate) fn is_idle(&self, session: &SessionId) -> bool {
        let status = self.sessions.get(session.as_str()).and_then(|known| known.status.as_ref());
        status.is_some_and(|status| status["type"] == "idle")
    }

    /// Where it says something else than the store does now that nothing runs; and what it does not say, of a view that
    /// `has_all`.
    pub(crate) fn differs(
        &self,
        store: &TenantStore,
        live: &[SessionId],
        has_all: bool,
    ) -> Result<Vec<String>, StoreError> {
        let mut differs = Vec::new();
        let mut others: BTreeSet<&str> = self.sessions.keys().map(String::as_str).collect();
        for id in live {
            others.remove(id.as_str());
            let known = self.sessions.get(id.as_str()).cloned().unwrap_or_default();
            if known.status.as_ref().is_some_and(|status| status["type"] != "idle") {
                differs.push(format!("{id} is said to be {:?}", known.status));
            }
            differs.extend(known.asks.keys().map(|ask| format!("{ask} of {id} is told to be open")));
            let (mut messages, mut parts) = (BTreeMap::new(), BTreeMap::new());
            for item in store.messages(id, None, None)?.items {
                let info = serde_json::to_value(&item.info).unwrap_or_default();
                messages.insert(item.info.id().to_string(), without_summary(info));
                for part in &item.parts {
                    parts.insert(part.id.to_string(), serde_json::to_value(part).unwrap_or_default());
                }
            }
            compare(id, &known.messages, &messages, &mut differs);
            compare(id, &known.parts, &parts, &mut differs);
            let told = |id: &&String| known.messages.contains_key(*id) || known.parts.contains_key(*id);
            let untold = messages.keys().chain(parts.keys()).filter(|id| has_all && !told(id));
            differs.extend(untold.map(|of| format!("{of} of {id} is stored, and nobody said so")));
        }
        for id in others {
            if self.sessions[id].messages.is_empty() && self.sessions[id].parts.is_empty() {
                continue;
            }
            differs.push(format!("{id} is gone, and nobody said so"));
        }
        Ok(differs)
    }
}

fn compare(
    of: &SessionId,
    told: &BTreeMap<String, Value>,
    stored: &BTreeMap<String, Value>,
    differs: &mut Vec<String>,
) {
    for (id, value) in told {
        match stored.get(id) {
            Some(stored) if stored == value => {}
            Some(stored) => {
                let fields = stored.as_object().into_iter().chain(value.as_object()).flat_map(|fields| fields.keys());
                let others: BTreeSet<_> = fields.filter(|field| stored[field] != value[field]).collect();
                let told = others.iter().map(|field| format!("{field}: {} for {}", value[field], stored[field]));
                differs.push(format!("{id} of {of} is told with {}", told.collect::<Vec<_>>().join(", ")));
            }
            None => differs.push(format!("{id} of {of} is told and not stored")),
        }
    }
}
