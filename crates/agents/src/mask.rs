//! Masking what a client must not see of a configuration.

use crate::secret::{MASK, Secret};
use serde_json::{Map, Value};

/// Options of a provider with every secret masked: keys, tokens, and the values of headers.
pub(crate) fn masked_options(mut options: Map<String, Value>) -> Map<String, Value> {
    mask(&mut options, &mut Vec::new());
    options
}

fn mask(map: &mut Map<String, Value>, found: &mut Vec<Secret>) {
    for (key, value) in map {
        let name = key.to_lowercase().replace(['_', '-'], "");
        let secret = ["apikey", "token", "secret", "password", "authorization", "credential", "credentials"];
        match value {
            Value::Object(headers) if matches!(name.as_str(), "headers" | "environment") => {
                headers.values_mut().for_each(|value| hide(value, found));
            }
            Value::Object(inner) => mask(inner, found),
            // An absent key stays visible as one.
            Value::String(text) if secret.iter().any(|end| name.ends_with(end)) && !text.is_empty() => {
                hide(value, found)
            }
            _ => {}
        }
    }
}

fn hide(value: &mut Value, found: &mut Vec<Secret>) {
    found.extend(value.as_str().map(Secret::from));
    *value = MASK.into();
}

/// Masks the secrets of a whole configuration, those of providers and of MCP servers, and returns them.
pub(crate) fn mask_config(config: &mut Map<String, Value>) -> Vec<Secret> {
    let mut found = Vec::new();
    for key in ["provider", "mcp"] {
        if let Some(Value::Object(entries)) = config.get_mut(key) {
            mask(entries, &mut found);
        }
    }
    found
}
