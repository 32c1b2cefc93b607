//! Laying one configuration over another.

use serde_json::{Map, Value};

/// The lists that grow with each layer. Any other list replaces the one below it.
const CONCATENATED: [&str; 2] = ["plugin", "instructions"];

/// Lays `over` over `base`: objects field by field, everything else replaced, except [`CONCATENATED`] at the top.
pub(crate) fn layer(base: &mut Map<String, Value>, over: Map<String, Value>) {
    for (key, value) in over {
        match (base.get_mut(&key), value) {
            (Some(Value::Array(old)), Value::Array(new)) if CONCATENATED.contains(&key.as_str()) => {
                for entry in new {
                    if !old.contains(&entry) {
                        old.push(entry);
                    }
                }
            }
            (Some(old), new) => deep(old, new),
            (None, new) => drop(base.insert(key, new)),
        }
    }
}

/// Merges objects field by field; anything else is replaced.
pub(crate) fn deep(base: &mut Value, over: Value) {
    match (base, over) {
        (Value::Object(base), Value::Object(over)) => {
            for (key, value) in over {
                match base.get_mut(&key) {
                    Some(old) => deep(old, value),
                    None => drop(base.insert(key, value)),
                }
            }
        }
        (base, over) => *base = over,
    }
}
