//! The present state of what runs, folded from a tenant's events.

use crate::aside::Aside;
use crate::engine::Engine;
use crate::feed::FeedItem;
use coordination::Cursor;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use wire::event::Happened;
use wire::ids::{MessageId, PartId, SessionId};
use wire::message::MessageWithParts;
use wire::part::Part;

/// How long an ended session is still shown to newcomers, in milliseconds.
const SHOWN_AFTER_END: u64 = 60_000;
/// Messages of a session that are kept: the newest prompts and answers. An answer that is open is never let go.
const KEPT_MESSAGES: usize = 4;

/// Messages of a session of which it is kept how much of them was told, and parts of a prompt.
const HEARD: usize = 32;

/// Asks of a session of which it is kept how they were told to have ended.
const KEPT_ENDED_ASKS: usize = 8;

/// What is told of an ask, by the field that names it.
const ASKS: [(&str, &str); 5] = [
    ("permission.asked", "id"),
    ("permission.replied", "requestID"),
    ("question.asked", "id"),
    ("question.replied", "requestID"),
    ("question.rejected", "requestID"),
];

/// How often sessions that ended are let go of, in milliseconds.
const FORGET: u64 = 1_000;

#[derive(Default)]
pub(crate) struct Fold {
    sessions: HashMap<SessionId, Live>,
    forgot: u64,
}

/// An event as it stands in the log; parsed as far as it matters here.
#[derive(Deserialize)]
pub(crate) struct Told<'a> {
    #[serde(rename = "type", borrow)]
    pub kind: Cow<'a, str>,
    #[serde(borrow)]
    pub properties: Properties<'a>,
}

/// What of an event's properties matters; each is there where the event's type calls for it.
#[derive(Deserialize)]
pub(crate) struct Properties<'a> {
    #[serde(rename = "sessionID", borrow, default)]
    pub session: Option<&'a RawValue>,
    #[serde(borrow, default)]
    status: Option<&'a RawValue>,
    #[serde(borrow, default)]
    info: Option<&'a RawValue>,
    #[serde(borrow, default)]
    part: Option<&'a RawValue>,
    #[serde(rename = "messageID", borrow, default)]
    message_id: Option<&'a RawValue>,
    #[serde(rename = "partID", borrow, default)]
    part_id: Option<&'a RawValue>,
    #[serde(borrow, default)]
    delta: Option<&'a RawValue>,
}

fn value(raw: Option<&RawValue>) -> Value {
    raw.and_then(|raw| serde_json::from_str(raw.get()).ok()).unwrap_or_default()
}

fn text<'a>(raw: Option<&'a RawValue>) -> Option<Cow<'a, str>> {
    #[derive(Deserialize)]
    struct Text<'a>(#[serde(borrow)] Cow<'a, str>);
    raw.and_then(|raw| serde_json::from_str::<Text<'a>>(raw.get()).ok()).map(|text| text.0)
}

/// What newcomers are shown of a session.
struct Live {
    directory: Option<String>,
    project: Value,
    /// None until an event told it.
    status: Option<Value>,
    /// When it became idle, by this replica's clock.
    ended: Option<u64>,
    messages: VecDeque<(String, Option<Shown>, BTreeMap<String, Shown>)>,
    heard: Heard,
    /// What was told last of each ask, oldest first. Clients know of asks from events only: one that was not listening would
    /// show for ever what was answered meanwhile.
    asks: VecDeque<Ask>,
}

/// What readers heard of the newest messages of a session.
#[derive(Clone, Default)]
pub(crate) struct Heard {
    /// By their ids, in the order of their first word.
    messages: VecDeque<(String, HeardOf)>,
    /// When the newest of those was created that were let go: of it and of older ones nothing is known.
    forgotten: u64,
}

/// What readers heard of a message.
#[derive(Clone, Default)]
struct HeardOf {
    /// 0 while readers heard of its parts only, as where one of an old answer is changed.
    created: u64,
    /// The message itself; of an answer its end, before which its parts are told.
    is_told: bool,
    is_answer: bool,
    /// The parts of a prompt, which are told after it.
    parts: BTreeSet<String>,
}

impl Heard {
    /// True if readers heard this message, and would have heard those after it.
    pub(crate) fn knows(&self, message: &MessageId) -> bool {
        self.of(message).is_some_and(|heard| heard.created > self.forgotten)
    }

    /// True if readers heard of an answer and not of its end.
    pub(crate) fn waits_for(&self, answer: &MessageWithParts) -> bool {
        self.of(answer.info.id()).is_some_and(|heard| heard.is_answer && !heard.is_told)
    }

    /// True if there is anything of this prompt, or of this answer that has ended, that readers did not hear.
    pub(crate) fn misses(&self, message: &MessageWithParts) -> bool {
        let is_all = |heard: &HeardOf| {
            let is_heard = |part: &Part| heard.parts.contains(part.id.as_str());
            heard.is_told && (heard.is_answer || heard.parts.len() >= HEARD || message.parts.iter().all(is_heard))
        };
        message.info.created() > self.forgotten && !self.of(message.info.id()).is_some_and(is_all)
    }

    fn of(&self, message: &MessageId) -> Option<&HeardOf> {
        self.messages.iter().find(|(known, _)| known == message.as_str()).map(|(_, heard)| heard)
    }

    fn hear(&mut self, id: &str) -> &mut HeardOf {
        let at = self.messages.iter().position(|(known, _)| known == id);
        let at = at.unwrap_or_else(|| {
            if self.messages.len() >= HEARD
                && let Some((_, oldest)) = self.messages.pop_front()
            {
                self.forgotten = self.forgotten.max(oldest.created);
            }
            self.messages.push_back((id.to_owned(), HeardOf::default()));
            self.messages.len() - 1
        });
        &mut self.messages[at].1
    }
}

/// What was told last of an ask.
struct Ask {
    id: String,
    kind: &'static str,
    shown: Shown,
}

impl Ask {
    fn is_open(&self) -> bool {
        self.kind.ends_with(".asked")
    }
}

/// An ask that readers were told of.
pub(crate) struct ToldAsk {
    /// The ask.
    pub id: String,
    /// They were not told of its end.
    pub is_open: bool,
}

/// A message or a part. Of a large one only the outline is here.
struct Shown {
    value: Value,
    aside: Option<Aside>,
}

impl Fold {
    /// Takes an event in.
    pub(crate) fn take(&mut self, item: &FeedItem, event: &Told<'_>, now: u64) {
        let Some(session) = &item.session else { return };
        if event.kind == "session.deleted" {
            self.sessions.remove(session);
            return;
        }
        let ask = ASKS.iter().find(|(kind, _)| *kind == event.kind);
        if ask.is_none() && event.kind != "session.status" && !event.kind.starts_with("message.") {
            return;
        }
        let live = self.sessions.entry(session.clone()).or_insert_with(|| Live {
            directory: item.directory.clone(),
            project: serde_json::from_slice::<Value>(&item.envelope)
                .map(|mut e| e["project"].take())
                .unwrap_or_default(),
            status: None,
            // Until it is told to be at work.
            ended: Some(now),
            messages: VecDeque::new(),
            heard: Heard::default(),
            asks: VecDeque::new(),
        });
        match ask {
            Some((kind, named_by)) => live.take_ask(kind, named_by, item),
            None => live.take(event, item.aside.as_ref(), now),
        }
    }

    /// Lets go of sessions that ended long enough ago.
    pub(crate) fn forget_idle(&mut self, now: u64) {
        if now.abs_diff(self.forgot) < FORGET {
            return;
        }
        self.forgot = now;
        self.sessions.retain(|_, live| live.ended.is_none_or(|ended| now.saturating_sub(ended) < SHOWN_AFTER_END));
    }

    /// True unless the newest status that was told of the session is another than idle.
    pub(crate) fn is_idle(&self, session: &SessionId) -> bool {
        let status = self.sessions.get(session).and_then(|live| live.status.as_ref());
        status.is_none_or(|status| status["type"] == "idle")
    }

    /// The sessions of which another status than idle was told last.
    pub(crate) fn busy(&self) -> Vec<SessionId> {
        self.sessions.keys().filter(|session| !self.is_idle(session)).cloned().collect()
    }

    /// What readers heard of a session lately.
    pub(crate) fn heard(&self, session: &SessionId) -> Heard {
        self.sessions.get(session).map(|live| live.heard.clone()).unwrap_or_default()
    }

    /// What was told of the asks of a session lately.
    pub(crate) fn asks(&self, session: &SessionId) -> Vec<ToldAsk> {
        let asks = self.sessions.get(session).into_iter().flat_map(|live| &live.asks);
        asks.map(|ask| ToldAsk { id: ask.id.clone(), is_open: ask.is_open() }).collect()
    }

    /// The text of a part, deltas included; none of one that came whole and large.
    pub(crate) fn text(&self, part: &PartId) -> Option<String> {
        self.part(part)?["text"].as_str().map(str::to_owned)
    }

    /// What a running call said of itself last: its title and metadata.
    pub(crate) fn progress(&self, part: &PartId) -> Option<(Option<String>, Option<Value>)> {
        let state = &self.part(part)?["state"];
        let metadata = state.get("metadata").cloned();
        (state["status"] == "running").then(|| (state["title"].as_str().map(str::to_owned), metadata))
    }

    fn part(&self, part: &PartId) -> Option<&Value> {
        let parts = self.sessions.values().flat_map(|live| live.messages.iter());
        let found = parts.filter_map(|(_, _, parts)| parts.get(part.as_str())).next()?;
        found.aside.is_none().then_some(&found.value)
    }

    /// What a newcomer gets before anything live: messages, whole parts, asks, then the status. The last item bears the cursor
    /// that all of it stands for.
    pub(crate) fn heal(&self, engine: &Engine, cursor: Option<&Cursor>) -> Vec<Arc<FeedItem>> {
        let mut items: Vec<FeedItem> = Vec::new();
        for (session, live) in &self.sessions {
            let mut push = |kind: &'static str, properties: Value, aside: Option<&Aside>| {
                let event = engine.new_event(Happened { kind, properties });
                let payload = serde_json::to_vec(&event).unwrap_or_default();
                let envelope = json!({ "directory": live.directory, "project": live.project, "payload": event });
                let envelope = serde_json::to_vec(&envelope).unwrap_or_default();
                let (directory, session) = (live.directory.clone(), Some(session.clone()));
                let item = FeedItem::whole(None, directory, session, payload.into(), envelope.into());
                // A large one is told as it was told before.
                items.push(FeedItem { aside: aside.cloned(), ..item });
            };
            for (_, info, parts) in &live.messages {
                if let Some(Shown { value, aside }) = info {
                    push("message.updated", json!({ "sessionID": session, "info": value }), aside.as_ref());
                }
                for Shown { value, aside } in parts.values() {
                    let properties = json!({ "sessionID": session, "part": value, "time": engine.now_ms() });
                    push("message.part.updated", properties, aside.as_ref());
                }
            }
            for Ask { kind, shown: Shown { value, aside }, .. } in &live.asks {
                push(kind, value.clone(), aside.as_ref());
            }
            if let Some(status) = &live.status {
                push("session.status", json!({ "sessionID": session, "status": status }), None);
            }
        }
        if let (Some(last), Some(cursor)) = (items.last_mut(), cursor) {
            last.cursor = Some(cursor.0.clone());
        }
        items.into_iter().map(Arc::new).collect()
    }
}

/// True for a part that is still being written, or a call that has not ended.
fn is_open(part: &Value) -> bool {
    let is_written = !part["time"]["start"].is_null() && part["time"]["end"].is_null();
    is_written || matches!(part["state"]["status"].as_str(), Some("pending" | "running"))
}

impl Live {
    fn take(&mut self, event: &Told<'_>, aside: Option<&Aside>, now: u64) {
        let properties = &event.properties;
        match &*event.kind {
            "session.status" => {
                let status = value(properties.status);
                self.ended = (status["type"] == "idle").then_some(now);
                self.status = Some(status);
            }
            "message.updated" => {
                let info = value(properties.info);
                if let Some(id) = info["id"].as_str().map(str::to_owned) {
                    let heard = self.heard.hear(&id);
                    heard.created = info["time"]["created"].as_u64().unwrap_or_default();
                    heard.is_answer = info["role"] == "assistant";
                    heard.is_told = !heard.is_answer || !info["time"]["completed"].is_null();
                    if heard.is_answer {
                        heard.parts.clear();
                    }
                    self.message(&id).1 = Some(Shown { value: info, aside: aside.cloned() });
                }
            }
            "message.part.updated" => {
                let part = value(properties.part);
                if let (Some(message), Some(id)) = (part["messageID"].as_str(), part["id"].as_str()) {
                    let (message, id) = (message.to_owned(), id.to_owned());
                    let heard = self.heard.hear(&message);
                    if heard.created == 0 {
                        heard.is_told = !is_open(&part) && (heard.is_told || !heard.is_answer);
                        heard.is_answer = true;
                    } else if !heard.is_answer && heard.parts.len() < HEARD {
                        heard.parts.insert(id.clone());
                    }
                    self.message(&message).2.insert(id, Shown { value: part, aside: aside.cloned() });
                }
            }
            "message.part.delta" => {
                let (message, id) = (text(properties.message_id), text(properties.part_id));
                let (Some(message), Some(id), Some(delta)) = (message, id, text(properties.delta)) else { return };
                let known = self.messages.iter_mut().find(|(known, _, _)| *known == message);
                let part = known.and_then(|(_, _, parts)| parts.get_mut(&*id)).filter(|part| part.aside.is_none());
                if let Some(Value::String(text)) = part.map(|part| &mut part.value["text"]) {
                    text.push_str(&delta);
                }
            }
            "message.removed" => {
                let id = text(properties.message_id);
                self.messages.retain(|(known, _, _)| id.as_deref() != Some(known));
                self.heard.messages.retain(|(known, _)| id.as_deref() != Some(known));
            }
            "message.part.removed" => {
                let id = text(properties.part_id).unwrap_or_default();
                for (_, _, parts) in &mut self.messages {
                    parts.remove(&*id);
                }
                for (_, heard) in &mut self.heard.messages {
                    heard.parts.remove(&*id);
                }
            }
            _ => {}
        }
    }

    fn take_ask(&mut self, kind: &'static str, named_by: &str, item: &FeedItem) {
        let mut event: Value = serde_json::from_slice(&item.payload).unwrap_or_default();
        let value = event["properties"].take();
        let Some(id) = value[named_by].as_str().map(str::to_owned) else { return };
        let ask = Ask { id, kind, shown: Shown { value, aside: item.aside.clone() } };
        self.asks.retain(|known| known.id != ask.id);
        self.asks.push_back(ask);
        if self.asks.iter().filter(|ask| !ask.is_open()).count() > KEPT_ENDED_ASKS
            && let Some(oldest) = self.asks.iter().position(|ask| !ask.is_open())
        {
            self.asks.remove(oldest);
        }
    }

    fn message(&mut self, id: &str) -> &mut (String, Option<Shown>, BTreeMap<String, Shown>) {
        let at = self.messages.iter().position(|(known, _, _)| known == id);
        let at = at.unwrap_or_else(|| {
            let is_open = |info: &Option<Shown>| {
                let value = info.as_ref().map(|info| &info.value);
                value.is_some_and(|info| info["role"] == "assistant" && info["time"]["completed"].is_null())
            };
            if self.messages.len() >= KEPT_MESSAGES
                && let Some(oldest) = self.messages.iter().position(|(_, info, _)| !is_open(info))
            {
                self.messages.remove(oldest);
            }
            self.messages.push_back((id.to_owned(), None, BTreeMap::new()));
            self.messages.len() - 1
        });
        &mut self.messages[at]
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test")]
mod tests {
    use super::*;

    fn message(k: u64, role: &str, parts: &[&str]) -> MessageWithParts {
        let id = format!("msg_{k:03}");
        let mut info = json!({ "id": id, "sessionID": "ses_a", "role": role, "time": { "created": k } });
        match role {
            "user" => info["model"] = json!({ "providerID": "p", "modelID": "m" }),
            _ => info["time"]["completed"] = json!(k + 1),
        }
        for (field, value) in [
            ("agent", json!("build")),
            ("mode", json!("build")),
            ("parentID", json!("msg_000")),
            ("providerID", json!("p")),
            ("modelID", json!("m")),
            ("path", json!({ "cwd": "/", "root": "/" })),
            ("cost", json!(0)),
            ("tokens", json!({ "input": 0, "output": 0, "reasoning": 0, "cache": { "read": 0, "write": 0 } })),
        ] {
            info[field] = value;
        }
        let part =
            |part: &&str| json!({ "id": part, "sessionID": "ses_a", "messageID": id, "type": "text", "text": "" });
        let parts: Vec<Value> = parts.iter().map(part).collect();
        serde_json::from_value(json!({ "info": info, "parts": parts })).unwrap()
    }

    fn tell(fold: &mut Fold, happened: Happened) {
        let event = json!({ "type": happened.kind, "properties": happened.properties }).to_string();
        let session: SessionId = serde_json::from_value(json!("ses_a")).unwrap();
        let item = FeedItem::whole(None, None, Some(session), event.clone().into(), event.clone().into());
        fold.take(&item, &serde_json::from_str(&event).unwrap(), 0);
    }

    fn heard(fold: &Fold) -> Heard {
        fold.heard(&serde_json::from_value(json!("ses_a")).unwrap())
    }

    #[test]
    fn a_prompt_is_told_with_its_parts_and_an_answer_with_its_end() {
        let (prompt, answer) = (message(1, "user", &["prt_1", "prt_2"]), message(2, "assistant", &["prt_3"]));
        let mut fold = Fold::default();
        assert!(heard(&fold).misses(&prompt) && !heard(&fold).knows(prompt.info.id()));
        tell(&mut fold, wire::event::message_updated(&prompt.info));
        tell(&mut fold, wire::event::part_updated(&prompt.parts[0], 0));
        assert!(heard(&fold).misses(&prompt) && heard(&fold).knows(prompt.info.id()));
        tell(&mut fold, wire::event::part_updated(&prompt.parts[1], 0));
        assert!(!heard(&fold).misses(&prompt));
        let mut begun = wire::event::part_updated(&answer.parts[0], 0);
        begun.properties["part"]["time"] = json!({ "start": 2 });
        tell(&mut fold, begun);
        assert!(heard(&fold).misses(&answer) && heard(&fold).waits_for(&answer));
        tell(&mut fold, wire::event::part_updated(&answer.parts[0], 0));
        assert!(heard(&fold).waits_for(&answer));
        tell(&mut fold, wire::event::message_updated(&answer.info));
        assert!(!heard(&fold).misses(&answer) && !heard(&fold).waits_for(&answer));
    }

    #[test]
    fn that_a_part_of_an_old_answer_is_changed_says_nothing_of_what_follows_it() {
        let (old, prompt) = (message(1, "assistant", &["prt_1"]), message(9, "user", &[]));
        let mut fold = Fold::default();
        tell(&mut fold, wire::event::message_updated(&prompt.info));
        tell(&mut fold, wire::event::part_updated(&old.parts[0], 0));
        let heard = heard(&fold);
        assert!(!heard.knows(old.info.id()) && !heard.waits_for(&old) && heard.knows(prompt.info.id()));
    }

    #[test]
    fn of_what_was_told_long_ago_nothing_is_missed() {
        let mut fold = Fold::default();
        let prompt = message(1, "user", &["prt_1"]);
        tell(&mut fold, wire::event::message_updated(&prompt.info));
        tell(&mut fold, wire::event::part_updated(&prompt.parts[0], 0));
        let answers: Vec<_> = (2..100).map(|k| message(k, "assistant", &[])).collect();
        for answer in &answers {
            tell(&mut fold, wire::event::message_updated(&answer.info));
        }
        // A turn's end tells what it changed with its prompt.
        tell(&mut fold, wire::event::message_updated(&prompt.info));
        let heard = heard(&fold);
        assert!(!heard.knows(prompt.info.id()) && !heard.misses(&prompt));
        assert!(answers.iter().all(|answer| !heard.misses(answer)));
        assert!(heard.misses(&message(100, "user", &[])));
    }
}
