//! `StructuredOutput`: takes the answer to a prompt that wants one in a form of its own.

use crate::{Call, Output, Tool, ToolError, Writes};
use async_trait::async_trait;
use serde_json::{Value, json};

/// The tool `StructuredOutput`.
pub(crate) struct StructuredOutput;

/// Its name.
pub const STRUCTURED_OUTPUT: &str = "StructuredOutput";

#[async_trait]
impl Tool for StructuredOutput {
    fn name(&self) -> &'static str {
        STRUCTURED_OUTPUT
    }

    fn description(&self) -> String {
        "Gives your answer. Its arguments are the answer, in the form that is wanted here. Call it once, when all the \
         work is done and you know the whole answer: nothing comes after it."
            .into()
    }

    /// Any; what a prompt wants is put in its place.
    fn parameters(&self) -> Value {
        json!({ "type": "object" })
    }

    fn writes(&self) -> Writes {
        Writes::Nothing
    }

    async fn run(&self, _input: Value, _call: &Call) -> Result<Output, ToolError> {
        Ok(Output {
            title: "Structured Output".into(),
            output: "Structured output captured successfully.".into(),
            metadata: json!({ "valid": true }),
            attachments: None,
        })
    }
}
