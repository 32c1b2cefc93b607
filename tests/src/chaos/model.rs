//! How the model answers: each prompt in its own words, some of them after a command.

use std::time::Duration;

use serde_json::{Value, json};
use testkit::model::Usage;
use testkit::{Answer, World, transcript};

/// How long the model thinks before each word.
const PAUSE: Duration = Duration::from_millis(80);

/// The answer to a prompt.
pub fn answer_to(prompt: &str) -> String {
    format!("this is the whole answer to {prompt}")
}

/// What a message says. What the model had said when its connection broke stands before what it said when it was asked again.
pub fn said(message: &Value) -> String {
    let parts = message["parts"].as_array().into_iter().flatten();
    let texts = parts.filter(|part| part["type"] == "text").filter_map(|part| part["text"].as_str());
    let texts: Vec<&str> = texts.filter(|text| !text.is_empty()).collect();
    let is_said_anew = |at: usize| texts.get(at + 1).is_some_and(|next| next.starts_with(texts[at]));
    (0..texts.len()).filter(|at| !is_said_anew(*at)).map(|at| texts[at]).collect()
}

/// Whether the model answers a prompt only after a command.
fn wants_command(prompt: &str) -> bool {
    prompt.ends_with("with a command")
}

/// Makes the model of a world answer.
pub fn answer(world: &World) {
    world.model.respond_with(|body| {
        // After a take-over a conversation may end otherwise than with the prompt.
        let prompts = transcript::user_texts(body);
        let prompt = prompts.iter().rev().find(|text| text.starts_with("prompt ")).cloned().unwrap_or_default();
        let was_run = body["messages"]
            .as_array()
            .and_then(|messages| messages.last())
            .is_some_and(|last: &Value| last["role"] == "tool");
        if wants_command(&prompt) && !was_run {
            let call = json!({"command": "sleep 0.3; echo done", "description": "Works for a moment"});
            let call = Answer::new().text_chunks(["I shall ", "see. "], PAUSE).tool_call("c1", "bash", call);
            return call.finish("tool_calls", Usage::default());
        }
        Answer::new().text_chunks(answer_to(&prompt).split_inclusive(' '), PAUSE).stop()
    });
}
