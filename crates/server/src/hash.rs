//! What a request asks, as one number: equal for bodies that ask for the same.

use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use std::fmt::Write;

/// Says what was asked, whatever order the fields came in. The message's id stands for it and is no part of it.
pub(crate) fn hash(body: &Value) -> String {
    let mut hash = Sha256::new();
    match body {
        Value::Object(fields) => hash_fields(&mut hash, fields, Some("messageID")),
        other => hash_value(&mut hash, other),
    }
    hash.finalize().iter().fold(String::with_capacity(64), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn hash_value(hash: &mut Sha256, value: &Value) {
    match value {
        Value::Object(fields) => hash_fields(hash, fields, None),
        Value::Array(values) => {
            hash.update("[");
            for value in values {
                hash_value(hash, value);
                hash.update(",");
            }
            hash.update("]");
        }
        // Hashing cannot fail.
        scalar => drop(serde_json::to_writer(&mut *hash, scalar)),
    }
}

fn hash_fields(hash: &mut Sha256, fields: &Map<String, Value>, without: Option<&str>) {
    let mut names: Vec<&String> = fields.keys().filter(|name| Some(name.as_str()) != without).collect();
    names.sort();
    hash.update("{");
    for name in names {
        hash.update(json!(name).to_string());
        hash.update(":");
        hash_value(hash, &fields[name]);
        hash.update(",");
    }
    hash.update("}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_of_what_was_asked() {
        let one = json!({ "messageID": "msg_a", "parts": [{ "type": "text", "text": "x" }], "agent": "a" });
        let same = json!({ "agent": "a", "parts": [{ "text": "x", "type": "text" }], "messageID": "msg_b" });
        let other = json!({ "messageID": "msg_a", "parts": [{ "type": "text", "text": "y" }], "agent": "a" });
        assert_eq!(hash(&one), hash(&same));
        assert_ne!(hash(&one), hash(&other));
        assert_eq!(hash(&one).len(), 64);
        assert_ne!(hash(&json!([["a"], "b"])), hash(&json!(["a", ["b"]])));
    }
}
