//! What the scripted model says in a recording.
//!
//! An answer is `{"ops": [..]}`, or `{"status", "headers", "body"}` for one that is no stream. With `match` it is for a
//! request whose last prompt holds this text. Operations: `{"text" | "reasoning", "chunks", "delay"}`,
//! `{"tool", "id", "index", "arguments", "split"}`, `{"finish", "usage"}`, `{"error"}`, `{"raw"}`, `{"cut"}`, `{"hang"}`, and
//! `{"hold": {KIND: COUNT}}` or `{"hold": STEP}`, which waits until so many events of these kinds were told, or the step
//! is over. `<told>` in arguments is the session that the request speaks of.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use testkit::{Answer, Gate, transcript};

/// What an answer waits for.
#[derive(Debug, Clone)]
pub enum Until {
    /// So many events of these kinds.
    Told(BTreeMap<String, usize>),
    /// The step is over.
    Step(usize),
}

/// The gates that answers wait at.
#[derive(Debug, Clone, Default)]
pub struct Gates(Arc<Mutex<Vec<(Until, Gate)>>>);

impl Gates {
    /// Opens the gates that need not be waited at any longer.
    pub fn open(&self, over: impl Fn(&Until) -> bool) {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        held.retain(|(until, gate)| {
            let open = over(until);
            if open {
                gate.release();
            }
            !open
        });
    }

    fn hold(&self, until: &Value) -> Gate {
        let until = match until.as_u64() {
            Some(step) => Until::Step(usize::try_from(step).unwrap_or(usize::MAX)),
            None => Until::Told(serde_json::from_value(until.clone()).unwrap_or_default()),
        };
        let gate = Gate::new();
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push((until, gate.clone()));
        gate
    }
}

/// Answers requests in the order of a script: each with the first answer that is for it, `otherwise` where none is.
pub fn responder(
    script: Vec<Value>,
    gates: &Gates,
    otherwise: &'static str,
) -> impl Fn(&Value) -> Answer + Send + 'static {
    let left = Mutex::new(VecDeque::from(script));
    let gates = gates.clone();
    move |body| {
        let mut left = left.lock().unwrap_or_else(PoisonError::into_inner);
        let asked = transcript::last_user_text(body);
        let fits = |turn: &Value| turn["match"].as_str().is_none_or(|text| asked.contains(text));
        let turn = left.iter().position(fits).and_then(|at| left.remove(at));
        turn.map_or_else(|| Answer::say(otherwise), |turn| answer(&turn, body, &gates))
    }
}

fn answer(turn: &Value, body: &Value, gates: &Gates) -> Answer {
    let mut said = match (turn["status"].as_u64(), &turn["body"]) {
        (Some(status), Value::String(page)) => Answer::page(u16::try_from(status).unwrap_or(500), page),
        (Some(status), page) => Answer::status(u16::try_from(status).unwrap_or(500), page),
        (None, _) => Answer::new(),
    };
    for (name, value) in turn["headers"].as_object().into_iter().flatten() {
        said = said.header(name, value.as_str().unwrap_or_default());
    }
    turn["ops"].as_array().into_iter().flatten().fold(said, |said, op| happen(said, op, body, gates))
}

fn happen(mut said: Answer, op: &Value, body: &Value, gates: &Gates) -> Answer {
    let pause = Duration::from_secs_f64(op["delay"].as_f64().unwrap_or(0.0));
    if let Some(text) = op["text"].as_str().or(op["reasoning"].as_str()) {
        let field = if op["text"].is_string() { "content" } else { "reasoning_content" };
        for piece in pieces(text, op["chunks"].as_u64()) {
            said = said.chunk(delta(json!({"role": "assistant", field: piece}))).pause(pause);
        }
        return said;
    }
    if let Some(name) = op["tool"].as_str() {
        let told = body["messages"].to_string();
        let session = told.find("ses_").map_or("", |at| &told[at..(at + 30).min(told.len())]);
        let arguments = op["arguments"].as_str().unwrap_or_default().replace("<told>", session);
        let call = json!({"index": op["index"], "id": op["id"], "type": "function", "function": {"name": name, "arguments": ""}});
        said = said.chunk(delta(json!({"role": "assistant", "tool_calls": [call]})));
        for piece in pieces(&arguments, op["split"].as_u64()) {
            let call = json!({"index": op["index"], "function": {"arguments": piece}});
            said = said.chunk(delta(json!({"tool_calls": [call]})));
        }
        return said;
    }
    if let Some(reason) = op["finish"].as_str() {
        let choice = json!({"index": 0, "delta": {}, "finish_reason": reason});
        return said.chunk(json!({"choices": [choice], "usage": op["usage"]}));
    }
    if op.get("error").is_some() {
        return said.error_chunk(op["error"].clone());
    }
    if let Some(text) = op["raw"].as_str() {
        return said.malformed(text.trim_start_matches("data: ").trim_end());
    }
    if op.get("hold").is_some() {
        return said.wait(&gates.hold(&op["hold"]));
    }
    if op.get("cut").is_some() { said.cut() } else { said.hang() }
}

fn delta(delta: Value) -> Value {
    json!({"choices": [{"index": 0, "delta": delta, "finish_reason": null}]})
}

fn pieces(text: &str, count: Option<u64>) -> Vec<String> {
    let letters: Vec<char> = text.chars().collect();
    let count = usize::try_from(count.unwrap_or(1)).unwrap_or(1).max(1);
    letters.chunks(letters.len().div_ceil(count).max(1)).map(|piece| piece.iter().collect()).collect()
}
