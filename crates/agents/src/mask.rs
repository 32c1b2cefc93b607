//! Masking what a client must not see of a configuration.

use crate::secret::MASK;
use serde_json::{Map, Value};

/// Options of a provider with every secret masked: keys, tokens, and the values of headers.
pub(crate) fn masked_options(mut options: Map<String, Value>) -> Map<String, Value> {
    mask(&mut options);
    options
}

fn mask(map: &mut Map<String, Value>) {
    for (key, value) in map {
        let name = key.to_lowercase().replace(['_', '-'], "");
        let secret = ["apikey", "token", "secret", "password", "authorization", "credential", "credentials"];
        match value {
            Value::Object(headers) if matches!(name.as_str(), "headers" | "environment") => {
                headers.values_mut().for_each(|value| *value = MASK.into());
            }
            Value::Object(inner) => mask(inner),
            // An absent key stays visible as one.
            Value::String(text) if secret.iter().any(|end| name.ends_with(end)) && !text.is_empty() => {
                *value = MASK.into();
            }
            _ => {}
        }
    }
}

/// Masks the secrets of a whole configuration: those of providers and of MCP servers.
pub(crate) fn mask_config(config: &mut Map<String, Value>) {
    for key in ["provider", "mcp"] {
        if let Some(Value::Object(entries)) = config.get_mut(key) {
            mask(entries);
        }
    }
}
