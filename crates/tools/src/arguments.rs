//! The arguments of a call, checked.

use crate::ToolError;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// Parses a tool's arguments; what does not fit is told to the model, with its place.
pub(crate) fn parse<T: DeserializeOwned>(tool: &str, input: Value) -> Result<T, ToolError> {
    serde_path_to_error::deserialize(input.clone()).map_err(|error| {
        let mut path: Vec<String> = error.path().iter().map(ToString::to_string).collect();
        path.retain(|segment| segment != "?");
        let text = error.inner().to_string();
        let missing = text.strip_prefix("missing field `").and_then(|rest| rest.strip_suffix('`'));
        let problem = match missing {
            Some(key) => {
                path.push(key.into());
                "Missing key".into()
            }
            None => match expected(&text) {
                Some(expected) => format!("Expected {expected}, got {}", shown(at(&input, &path))),
                None => text,
            },
        };
        let place: String = path.iter().map(|segment| format!("[{segment:?}]")).collect();
        let place = if place.is_empty() { place } else { format!("\n  at {place}") };
        ToolError::Failed(format!(
            "The {tool} tool was called with invalid arguments: SchemaError({problem}{place}).\n\
             Correct the arguments to fit the tool's schema and call it again."
        ))
    })
}

/// What serde says that it wanted, in the words of JSON schemas.
fn expected(text: &str) -> Option<&str> {
    let (_, expected) = text.rsplit_once(", expected ")?;
    Some(match expected {
        "a string" => "string",
        "a boolean" => "boolean",
        other if other.starts_with("struct ") => "object",
        "u64" | "u32" | "usize" => "a non-negative integer",
        "a nonzero u64" => "a positive integer",
        other => other,
    })
}

fn at<'a>(input: &'a Value, path: &[String]) -> &'a Value {
    path.iter().fold(input, |value, key| match value {
        Value::Array(values) => key.parse::<usize>().ok().and_then(|index| values.get(index)).unwrap_or(&Value::Null),
        other => other.get(key).unwrap_or(&Value::Null),
    })
}

/// The value, or its beginning: a model knows what it wrote.
fn shown(value: &Value) -> String {
    const ENOUGH: usize = 200;
    let text = value.to_string();
    match text.char_indices().nth(ENOUGH) {
        Some((cut, _)) => format!("{}...", &text[..cut]),
        None => text,
    }
}
