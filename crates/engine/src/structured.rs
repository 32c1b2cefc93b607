//! Answers in a form of their own: a prompt brings a JSON schema, the model gives its answer as the arguments of a tool.

use models::ToolSpec;
use serde_json::{Value, json};
use tools::{Registry, STRUCTURED_OUTPUT};
use wire::message::{MessageError, UserMessage};
use wire::part::{Part, ToolState};

/// What the model is told of it beside its other rules.
pub(crate) const WANTED: &str = "The user wants the answer in a form that a program can read. Give it by a call of the \
                                 tool StructuredOutput, and in no other way: text is not read.";

/// The schema that a prompt's answer must have.
pub(crate) fn schema(user: &UserMessage) -> Option<&Value> {
    let format = user.format.as_ref().filter(|format| format["type"] == "json_schema")?;
    format.get("schema")
}

/// The tool that takes the answer, where the prompt wants one.
pub(crate) fn tool(registry: &Registry, user: &UserMessage) -> Option<ToolSpec> {
    let mut parameters = schema(user)?.clone();
    if let Some(fields) = parameters.as_object_mut() {
        // Which dialect it is; some providers refuse to be told.
        fields.remove("$schema");
    }
    let description = registry.get(STRUCTURED_OUTPUT)?.description();
    Some(ToolSpec { name: STRUCTURED_OUTPUT.into(), description: description.into(), parameters: parameters.into() })
}

/// The answer that stands in a part.
pub(crate) fn given(part: &Part) -> Option<&Value> {
    match &part.tool().filter(|call| call.tool == STRUCTURED_OUTPUT)?.state {
        ToolState::Completed { input, .. } => Some(input),
        _ => None,
    }
}

/// The model ended its turn without giving the answer.
pub(crate) fn missing() -> MessageError {
    let data = json!({ "message": "Model did not produce structured output", "retries": 0 });
    MessageError { name: "StructuredOutputError".into(), data }
}
