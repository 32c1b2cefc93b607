//! Damage done to a recording, which the comparison must report.

use std::collections::HashSet;

use serde_json::{Value, json};

use super::compare::{Compared, compare};
use super::events::told;
use super::fixture::Conversation;
use super::ignored::Ignored;
use crate::figures::Draws;

/// A damaged recording, and what was done to it.
#[derive(Debug)]
pub struct Damaged {
    /// What was done.
    pub what: String,
    /// The rest.
    pub conversation: Conversation,
}

/// Damages a recording in each way at so many places at most, drawn: an event dropped, two swapped, a status, a value, an
/// identity, a key changed. Only what is compared is damaged.
pub fn damaged(
    name: &str,
    recorded: &Conversation,
    ignored: &Ignored,
    places: usize,
    draws: &mut Draws,
) -> Vec<Damaged> {
    let mut told = told(&recorded.events, name, ignored);
    // Of what is told again while it goes on, one time is as good as another.
    told.retain(|told| told.times == 1);
    let once: HashSet<usize> = told.iter().map(|told| told.place).collect();
    let mut compared = compare(name, recorded, recorded, ignored).compared;
    compared.retain(|one| !one.event || once.contains(&one.place));
    let mut all = Vec::new();
    for event in drawn(&told, places, draws) {
        let mut conversation = recorded.clone();
        conversation.events.remove(event.place);
        all.push(Damaged { what: format!("event {} ({}) dropped", event.place, event.kind), conversation });
    }
    let next_of_lane = |at: usize| told[at + 1..].iter().find(|other| other.lane == told[at].lane);
    let pairs: Vec<_> = (0..told.len()).filter_map(|at| Some((&told[at], next_of_lane(at)?))).collect();
    let pairs: Vec<_> = pairs.into_iter().filter(|(one, other)| one.kind != other.kind).collect();
    for (one, other) in drawn(&pairs, places, draws) {
        let mut conversation = recorded.clone();
        conversation.events.swap(one.place, other.place);
        all.push(Damaged { what: format!("events {} and {} swapped", one.place, other.place), conversation });
    }
    let (statuses, values): (Vec<_>, Vec<_>) = compared.iter().partition(|one| !one.event && one.pointer == "/status");
    let with_key: Vec<_> = values.iter().filter(|one| has_key(recorded, one)).collect();
    let named: Vec<_> = values.iter().filter(|one| is_told_twice(recorded, one)).collect();
    for (one, change) in drawn(&statuses, places, draws)
        .map(|one| (*one, Change::Value))
        .chain(drawn(&values, places, draws).map(|one| (*one, Change::Value)))
        .chain(drawn(&named, places, draws).map(|one| (**one, Change::Identity)))
        .chain(drawn(&with_key, places, draws).map(|one| (**one, Change::Key)))
        .collect::<Vec<_>>()
    {
        let mut conversation = recorded.clone();
        let root = if one.event { &mut conversation.events[one.place] } else { &mut conversation.answers[one.place] };
        if change.make(root, &one.pointer) {
            let kind = if one.event { "event" } else { "answer" };
            all.push(Damaged { what: format!("{change:?} of {kind} {} at {}", one.place, one.pointer), conversation });
        }
    }
    all
}

#[derive(Debug, Clone, Copy)]
enum Change {
    Value,
    Identity,
    Key,
}

impl Change {
    /// Changes what is at the pointer. Says whether it can be changed so that it is another.
    fn make(self, root: &mut Value, pointer: &str) -> bool {
        if matches!(self, Self::Key) {
            let Some((parent, key)) = pointer.rsplit_once('/') else { return false };
            let fields = root.pointer_mut(parent).and_then(Value::as_object_mut);
            let key = key.replace("~1", "/").replace("~0", "~");
            return fields.is_some_and(|fields| {
                fields.remove(&key).is_some_and(|value| {
                    fields.insert(format!("{key}2"), value);
                    true
                })
            });
        }
        let Some(value) = root.pointer_mut(pointer) else { return false };
        *value = match (&*value, self) {
            (Value::String(name), Self::Identity) => {
                let kind = name.trim_start_matches('<').split(' ').next().unwrap_or_default();
                json!(format!("<{kind} 9999>"))
            }
            (Value::String(text), _) if text.starts_with("<text>") && text.ends_with("<text>") => return false,
            (Value::String(text), _) if text.starts_with("<text>") => json!(format!("{text}!")),
            (Value::String(text), _) => json!(format!("!{text}")),
            (Value::Number(number), _) => json!(number.as_f64().unwrap_or(0.0) + 1.0),
            (Value::Bool(yes), _) => json!(!*yes),
            (Value::Null, _) => json!("something"),
            (Value::Array(_), _) => json!(["something"]),
            (Value::Object(_), _) => json!({"something": true}),
        };
        true
    }
}

fn at<'a>(recorded: &'a Conversation, one: &Compared) -> Option<&'a Value> {
    let root = if one.event { &recorded.events[one.place] } else { &recorded.answers[one.place] };
    root.pointer(&one.pointer)
}

fn has_key(recorded: &Conversation, one: &Compared) -> bool {
    let Some((parent, _)) = one.pointer.rsplit_once('/') else { return false };
    let parent = Compared { pointer: parent.to_owned(), ..one.clone() };
    at(recorded, &parent).is_some_and(Value::is_object)
}

/// Whether it is a name alone that occurs elsewhere, too, so that another in its place is not the same thing.
fn is_told_twice(recorded: &Conversation, one: &Compared) -> bool {
    let kinds = ["ses", "msg", "prt", "per", "que", "hash", "cursor"];
    at(recorded, one).and_then(Value::as_str).is_some_and(|name| {
        let is_name =
            kinds.iter().any(|kind| name.starts_with(&format!("<{kind} "))) && name.find('>') == Some(name.len() - 1);
        let all = recorded.answers.iter().chain(&recorded.events);
        is_name && all.map(|value| value.to_string().matches(&format!("\"{name}\"")).count()).sum::<usize>() > 1
    })
}

fn drawn<'a, T>(all: &'a [T], places: usize, draws: &mut Draws) -> impl Iterator<Item = &'a T> + use<'a, T> {
    let chosen: Vec<usize> = if all.len() <= places {
        (0..all.len()).collect()
    } else {
        (0..places).map(|_| draws.below(all.len())).collect()
    };
    chosen.into_iter().map(|at| &all[at])
}
