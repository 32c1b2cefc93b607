//! The arguments of a call, checked.

use crate::ToolError;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// Parses a tool's arguments; what does not fit is told to the model.
pub(crate) fn parse<T: DeserializeOwned>(tool: &str, input: Value) -> Result<T, ToolError> {
    serde_path_to_error::deserialize(input).map_err(|error| {
        let path: Vec<String> = error
            .path()
            .iter()
            .filter_map(|segment| match segment {
                serde_path_to_error::Segment::Seq { index } => Some(index.to_string()),
                serde_path_to_error::Segment::Map { key } => Some(format!("{key:?}")),
                _ => None,
            })
            .collect();
        let place = if path.is_empty() { String::new() } else { format!("\n  at [{}]", path.join("][")) };
        ToolError::Failed(format!(
            "The {tool} tool was called with invalid arguments: SchemaError({}{place}).\n\
             Correct the arguments to fit the tool's schema and call it again.",
            error.inner()
        ))
    })
}
