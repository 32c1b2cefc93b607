//! Comparing what was recorded with what came here, field by field.

use serde_json::Value;

use super::align::align;
use super::events::{Told, told};
use super::fixture::Conversation;
use super::ignored::Ignored;
use super::text::Names;

/// How far two numbers may lie apart that are the same: sums of costs.
const SAME: f64 = 1e-9;
/// From here on a number of milliseconds is a moment of this century.
const THIS_CENTURY: f64 = 1.6e12;

/// Something that is not as recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// Where: the path that the list of ignored places speaks of.
    pub at: String,
    /// What was recorded; nothing where it was not there.
    pub recorded: Option<String>,
    /// What is here; nothing where it is not there.
    pub here: Option<String>,
}

/// A value that was compared: where it is in the recording.
#[derive(Debug, Clone)]
pub struct Compared {
    /// Whether it is in an event; else in an answer.
    pub event: bool,
    /// The place of the event or answer.
    pub place: usize,
    /// Where in it: a JSON pointer.
    pub pointer: String,
}

/// The outcome.
#[derive(Debug, Clone, Default)]
pub struct Comparison {
    /// Every field that was compared.
    pub compared: Vec<Compared>,
    /// How many fields were passed over.
    pub ignored: usize,
    /// What is not as recorded.
    pub differences: Vec<Difference>,
    /// What the names of the recording stand for here.
    pub names: Names,
}

/// Compares what was recorded with what came here.
pub fn compare(recording: &str, recorded: &Conversation, here: &Conversation, ignored: &Ignored) -> Comparison {
    let mut walk = Walk {
        recording,
        ignored,
        path: Vec::new(),
        pointer: String::new(),
        of: (false, 0),
        found: Comparison::default(),
    };
    // Events first: each session has its own, so that they tell best what a name stands for.
    let told_then = told(&recorded.events, recording, ignored);
    let told_here = told(&here.events, recording, ignored);
    let mut lanes: Vec<&str> = told_then.iter().chain(&told_here).map(|told| told.lane.as_str()).collect();
    lanes.sort_unstable();
    lanes.dedup();
    for lane in lanes {
        let of_lane = |told: &&Told| told.lane == lane;
        let then: Vec<&Told> = told_then.iter().filter(of_lane).collect();
        let here: Vec<&Told> = told_here.iter().filter(of_lane).collect();
        walk.lane(&then, &here);
    }
    for (place, answer) in recorded.answers.iter().enumerate() {
        walk.of = (false, place);
        walk.within(&["answers", &place.to_string()], |walk| {
            walk.value(answer, here.answers.get(place).unwrap_or(&Value::Null));
        });
    }
    walk.found
}

struct Walk<'a> {
    recording: &'a str,
    ignored: &'a Ignored,
    path: Vec<String>,
    pointer: String,
    of: (bool, usize),
    found: Comparison,
}

impl Walk<'_> {
    fn within(&mut self, names: &[&str], walk: impl FnOnce(&mut Self)) {
        let depth = self.path.len();
        self.path.extend(names.iter().map(|name| (*name).to_owned()));
        walk(self);
        self.path.truncate(depth);
    }

    fn lane(&mut self, recorded: &[&Told], here: &[&Told]) {
        let recorded_kinds: Vec<&str> = recorded.iter().map(|told| told.kind.as_str()).collect();
        let kinds_here: Vec<&str> = here.iter().map(|told| told.kind.as_str()).collect();
        for pair in align(&recorded_kinds, &kinds_here) {
            match pair {
                (Some(r), Some(h)) => {
                    let (recorded, here) = (recorded[r], here[h]);
                    self.of = (true, recorded.place);
                    self.within(&["events", &recorded.kind], |walk| {
                        walk.value(&recorded.event, &here.event);
                    });
                }
                (Some(r), None) => {
                    let recorded = recorded[r];
                    self.within(&["events", &recorded.kind], |walk| walk.differ(Some(&recorded.event), None));
                }
                (None, Some(h)) => {
                    let here = here[h];
                    self.within(&["events", &here.kind], |walk| walk.differ(None, Some(&here.event)));
                }
                (None, None) => {}
            }
        }
    }

    /// Compares what is at the present place.
    fn value(&mut self, recorded: &Value, here: &Value) {
        if self.ignored.holds(self.recording, &self.path) {
            self.found.ignored += leaves(recorded);
            return;
        }
        match (recorded, here) {
            (Value::Object(recorded), Value::Object(here)) => {
                for (key, value) in recorded {
                    let known = if key.starts_with('<') { self.found.names.put_into(key) } else { None };
                    match here.get(known.as_ref().unwrap_or(key)) {
                        Some(here) => self.at(key, key, |walk| walk.value(value, here)),
                        None => self.at(key, key, |walk| walk.only(Some(value), None)),
                    }
                }
                for (key, value) in here {
                    if !recorded.contains_key(self.name_of(key)) {
                        self.at(key, key, |walk| walk.only(None, Some(value)));
                    }
                }
                if recorded.is_empty() && here.is_empty() {
                    self.compared();
                }
            }
            (Value::Array(recorded), Value::Array(here)) => self.list(recorded, here),
            (Value::String(text), Value::String(_)) if text == "<text>" => self.found.ignored += 1,
            _ => {
                self.compared();
                if !self.same(recorded, here) {
                    self.differ(Some(recorded), Some(here));
                }
            }
        }
    }

    fn list(&mut self, recorded: &[Value], here: &[Value]) {
        if recorded.is_empty() && here.is_empty() {
            self.compared();
        }
        let keys =
            |all: &[Value], key: &dyn Fn(&Value) -> Option<String>| all.iter().map(key).collect::<Option<Vec<_>>>();
        let kinds = (keys(recorded, &kind_of), keys(here, &kind_of));
        let by_id = |element: &Value| element["id"].as_str().map(|id| self.name_of(id).to_owned());
        let pairs = match (kinds, keys(recorded, &by_id), keys(here, &by_id)) {
            ((Some(recorded), Some(here)), ..) => align(&recorded, &here),
            (_, Some(of_recorded), Some(of_here)) if recorded.len() != here.len() => align(&of_recorded, &of_here),
            _ => {
                let longer = recorded.len().max(here.len());
                (0..longer)
                    .map(|n| (Some(n).filter(|n| *n < recorded.len()), Some(n).filter(|n| *n < here.len())))
                    .collect()
            }
        };
        for (r, h) in pairs {
            let element = r.map(|r| &recorded[r]).or(h.map(|h| &here[h]));
            let index = r.or(h).unwrap_or_default().to_string();
            let name = element.and_then(|element| element["type"].as_str()).unwrap_or(&index).to_owned();
            self.at(&name, &index, |walk| match (r, h) {
                (Some(r), Some(h)) => walk.value(&recorded[r], &here[h]),
                (r, h) => walk.only(r.map(|r| &recorded[r]), h.map(|h| &here[h])),
            });
        }
    }

    /// What is on one side only.
    fn only(&mut self, recorded: Option<&Value>, here: Option<&Value>) {
        if self.ignored.holds(self.recording, &self.path) {
            self.found.ignored += leaves(recorded.or(here).unwrap_or(&Value::Null));
        } else {
            self.differ(recorded, here);
        }
    }

    fn same(&mut self, recorded: &Value, here: &Value) -> bool {
        match (recorded, here) {
            (Value::String(time), Value::Number(number)) if time == "<time>" => {
                number.as_f64().is_some_and(|number| number > THIS_CENTURY)
            }
            (Value::String(recorded), Value::String(here)) => self.found.names.matches(recorded, here),
            (Value::Number(recorded), Value::Number(here)) => match (recorded.as_f64(), here.as_f64()) {
                (Some(recorded), Some(here)) => (recorded - here).abs() < SAME,
                _ => false,
            },
            _ => recorded == here,
        }
    }

    fn at(&mut self, name: &str, key: &str, walk: impl FnOnce(&mut Self)) {
        let length = self.pointer.len();
        self.pointer.push('/');
        self.pointer.push_str(&key.replace('~', "~0").replace('/', "~1"));
        self.within(&[name], walk);
        self.pointer.truncate(length);
    }

    /// The name of the recording for a value here, or the value.
    fn name_of<'a>(&'a self, value: &'a str) -> &'a str {
        self.found.names.of(value).unwrap_or(value)
    }

    fn compared(&mut self) {
        let (event, place) = self.of;
        self.found.compared.push(Compared { event, place, pointer: self.pointer.clone() });
    }

    fn differ(&mut self, recorded: Option<&Value>, here: Option<&Value>) {
        let at = self.path.join("/");
        let [recorded, here] = [recorded, here].map(|value| value.map(Value::to_string));
        self.found.differences.push(Difference { at, recorded, here });
    }
}

/// What an element of a list is recognised by: parts by their type, messages by who speaks.
fn kind_of(element: &Value) -> Option<String> {
    if let Some(kind) = element["type"].as_str() {
        // Calls that the server makes have ids of their own.
        let call = element["callID"].as_str().filter(|call| call.len() < 20 && !call.starts_with('<'));
        return Some(format!("{kind} {}", call.unwrap_or_default()));
    }
    element["info"]["role"].as_str().map(str::to_owned)
}

fn leaves(value: &Value) -> usize {
    match value {
        Value::Object(fields) => fields.values().map(leaves).sum::<usize>().max(1),
        Value::Array(elements) => elements.iter().map(leaves).sum::<usize>().max(1),
        _ => 1,
    }
}
