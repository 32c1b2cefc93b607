//! `invalid`: answers calls that cannot be made. Never offered to a model.

use crate::{Call, Output, Tool, ToolError, Writes, arguments};
use async_trait::async_trait;
use serde::Deserialize;
use serde_json::{Value, json};

/// The tool `invalid`.
pub(crate) struct Invalid;

#[derive(Deserialize)]
struct Arguments {
    error: String,
}

#[async_trait]
impl Tool for Invalid {
    fn name(&self) -> &'static str {
        "invalid"
    }

    fn description(&self) -> String {
        "Not for use".into()
    }

    fn parameters(&self) -> Value {
        json!({
            "type": "object",
            "properties": { "tool": { "type": "string" }, "error": { "type": "string" } },
            "required": ["tool", "error"],
            "additionalProperties": false,
        })
    }

    fn writes(&self) -> Writes {
        Writes::Nothing
    }

    async fn run(&self, input: Value, _call: &Call) -> Result<Output, ToolError> {
        let Arguments { error } = arguments::parse(self.name(), input)?;
        Ok(Output {
            title: "Invalid Tool".into(),
            output: format!("The arguments provided to the tool are invalid: {error}"),
            metadata: json!({}),
            attachments: None,
        })
    }
}
