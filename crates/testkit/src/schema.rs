//! Checking JSON against the schemas of an OpenAPI 3.1 document: as much of JSON Schema as OpenCode's document uses.

use regex::Regex;
use serde_json::{Map, Value};

/// What tells the alternatives of an `anyOf` apart.
const MARKS: [&str; 5] = ["type", "role", "name", "status", "_tag"];

/// A document with named schemas.
#[derive(Debug)]
pub struct Document(Value);

impl Document {
    /// Reads a document.
    ///
    /// # Panics
    /// When the text is not JSON.
    pub fn new(text: &str) -> Self {
        Self(serde_json::from_str(text).expect("a document is JSON"))
    }

    /// The whole of it.
    pub fn json(&self) -> &Value {
        &self.0
    }

    /// The document with another value at this place (a JSON pointer): one that was there, a new key, or `-`, one more
    /// element.
    ///
    /// # Panics
    /// When there is no such place, or the text is not JSON.
    pub fn amended(mut self, place: &str, text: &str) -> Self {
        let value = serde_json::from_str(text).expect("a schema is JSON");
        let (parent, key) = place.rsplit_once('/').expect("a pointer begins with a slash");
        match self.0.pointer_mut(parent) {
            Some(Value::Object(fields)) => drop(fields.insert(key.to_owned(), value)),
            Some(Value::Array(elements)) if key == "-" => elements.push(value),
            _ => panic!("there is no {place}"),
        }
        self
    }

    /// Every place where the value is not as the schema says, each with what is wrong there.
    pub fn violations(&self, schema: &Value, value: &Value) -> Vec<String> {
        let mut found = Vec::new();
        self.check(schema, value, "$", &mut found);
        found
    }

    /// The schema that a reference names, or the schema itself.
    fn resolved<'a>(&'a self, schema: &'a Value) -> &'a Value {
        match schema["$ref"].as_str() {
            Some(name) => {
                let named = name.strip_prefix('#').and_then(|pointer| self.0.pointer(pointer));
                self.resolved(named.unwrap_or_else(|| panic!("there is no {name}")))
            }
            None => schema,
        }
    }

    fn check(&self, schema: &Value, value: &Value, at: &str, found: &mut Vec<String>) {
        let schema = self.resolved(schema);
        for (keyword, rule) in schema.as_object().into_iter().flatten() {
            match (keyword.as_str(), rule, value) {
                ("type", ..) if !is_of(rule, value) => {
                    found.push(format!("{at}: {} is no {rule}", short(value)));
                }
                ("enum", Value::Array(known), _) if !known.contains(value) => {
                    found.push(format!("{at}: {} is none of {rule}", short(value)));
                }
                ("pattern", Value::String(pattern), Value::String(text)) if !is_like(text, pattern) => {
                    found.push(format!("{at}: {} is not like {pattern}", short(value)));
                }
                ("minimum" | "maximum" | "exclusiveMinimum", Value::Number(bound), Value::Number(number)) => {
                    let (bound, number) = (bound.as_f64(), number.as_f64());
                    let fine = match keyword.as_str() {
                        "minimum" => number >= bound,
                        "maximum" => number <= bound,
                        _ => number > bound,
                    };
                    if !fine {
                        found.push(format!("{at}: {value} is beyond the {keyword} {rule}"));
                    }
                }
                ("anyOf" | "oneOf", Value::Array(alternatives), _) => {
                    self.check_alternatives(alternatives, value, at, found);
                }
                ("required", Value::Array(names), Value::Object(fields)) => {
                    let missing = names.iter().filter_map(Value::as_str).filter(|name| !fields.contains_key(*name));
                    found.extend(missing.map(|name| format!("{at}.{name} is missing")));
                }
                ("items", _, Value::Array(elements)) => {
                    let before = schema["prefixItems"].as_array().map_or(0, Vec::len);
                    for (number, element) in elements.iter().enumerate().skip(before) {
                        self.check(rule, element, &format!("{at}[{number}]"), found);
                    }
                }
                ("prefixItems", Value::Array(rules), Value::Array(elements)) => {
                    for (number, (rule, element)) in rules.iter().zip(elements).enumerate() {
                        self.check(rule, element, &format!("{at}[{number}]"), found);
                    }
                }
                ("minItems", _, Value::Array(elements)) if rule.as_u64() > Some(elements.len() as u64) => {
                    found.push(format!("{at} has less than {rule} elements"));
                }
                ("maxItems", _, Value::Array(elements)) if rule.as_u64() < Some(elements.len() as u64) => {
                    found.push(format!("{at} has more than {rule} elements"));
                }
                _ => {}
            }
        }
        if let (Some(schema), Value::Object(fields)) = (schema.as_object(), value) {
            self.check_fields(schema, fields, at, found);
        }
    }

    fn check_fields(
        &self,
        schema: &Map<String, Value>,
        fields: &Map<String, Value>,
        at: &str,
        found: &mut Vec<String>,
    ) {
        for (name, value) in fields {
            let at = format!("{at}.{name}");
            match (schema.get("properties").and_then(|known| known.get(name)), schema.get("additionalProperties")) {
                (Some(rule), _) => self.check(rule, value, &at, found),
                (None, Some(Value::Bool(false))) => found.push(format!("{at} should not be")),
                (None, Some(rule @ Value::Object(_))) => self.check(rule, value, &at, found),
                (None, _) => {}
            }
        }
    }

    /// One of them must hold. Where none does, what is told is what the one that comes nearest misses.
    fn check_alternatives(&self, alternatives: &[Value], value: &Value, at: &str, found: &mut Vec<String>) {
        let mut nearest: Option<Vec<String>> = None;
        for alternative in alternatives.iter().filter(|schema| !self.is_of_another_kind(schema, value)) {
            let mut misses = Vec::new();
            self.check(alternative, value, at, &mut misses);
            if misses.is_empty() {
                return;
            }
            if nearest.as_ref().is_none_or(|before| misses.len() < before.len()) {
                nearest = Some(misses);
            }
        }
        found.extend(nearest.unwrap_or_else(|| vec![format!("{at}: {} is of no known kind", short(value))]));
    }

    fn is_of_another_kind(&self, schema: &Value, value: &Value) -> bool {
        let properties = &self.resolved(schema)["properties"];
        MARKS.iter().any(|mark| match (properties[*mark]["enum"].as_array(), value.get(*mark)) {
            (Some(known), Some(kind @ Value::String(_))) => !known.contains(kind),
            _ => false,
        })
    }
}

/// Whether a text matches a pattern. Most patterns are the beginning of an id.
fn is_like(text: &str, pattern: &str) -> bool {
    match pattern.strip_prefix('^') {
        Some(prefix) if prefix.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') => text.starts_with(prefix),
        _ => Regex::new(pattern).expect("a pattern of the document").is_match(text),
    }
}

fn is_of(rule: &Value, value: &Value) -> bool {
    match rule {
        Value::Array(kinds) => kinds.iter().any(|kind| is_of(kind, value)),
        _ => match rule.as_str().unwrap_or_default() {
            "object" => value.is_object(),
            "array" => value.is_array(),
            "string" => value.is_string(),
            "boolean" => value.is_boolean(),
            "null" => value.is_null(),
            "number" => value.is_number(),
            "integer" => value.as_f64().is_some_and(|number| number.fract() == 0.0),
            other => panic!("no JSON type: {other}"),
        },
    }
}

fn short(value: &Value) -> String {
    value.to_string().chars().take(100).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn each_keyword_reports_what_breaks_it_and_nothing_else() {
        let document = Document::new(r##"{"named": {"type": "string", "pattern": "^ses"}}"##);
        let cases = [
            (json!({"type": "integer"}), json!(3), json!(3.5)),
            (json!({"type": ["string", "null"]}), json!(null), json!(1)),
            (json!({"enum": ["a", "b"]}), json!("a"), json!("c")),
            (json!({"$ref": "#/named"}), json!("ses_1"), json!("msg_1")),
            (json!({"pattern": "^#[0-9a-f]{2}$"}), json!("#0f"), json!("#0g")),
            (json!({"minimum": 0}), json!(0), json!(-1)),
            (json!({"maximum": 9}), json!(9), json!(10)),
            (json!({"exclusiveMinimum": 0}), json!(1), json!(0)),
            (json!({"required": ["id"]}), json!({"id": 1}), json!({})),
            (json!({"properties": {"id": {"type": "string"}}}), json!({"id": "a", "b": 1}), json!({"id": 1})),
            (json!({"properties": {"id": {}}, "additionalProperties": false}), json!({"id": 1}), json!({"more": 1})),
            (json!({"additionalProperties": {"type": "string"}}), json!({"a": "b"}), json!({"a": 1})),
            (json!({"items": {"type": "string"}}), json!(["a"]), json!(["a", 1])),
            (json!({"prefixItems": [{"type": "string"}], "items": {"type": "null"}}), json!(["a", null]), json!([1])),
            (json!({"minItems": 2, "maxItems": 2}), json!([1, 2]), json!([1])),
            (json!({"minItems": 2, "maxItems": 2}), json!([1, 2]), json!([1, 2, 3])),
            (json!({"anyOf": [{"type": "string"}, {"type": "null"}]}), json!("a"), json!(1)),
        ];
        for (schema, fine, wrong) in cases {
            assert_eq!(document.violations(&schema, &fine), Vec::<String>::new(), "{schema} {fine}");
            assert_eq!(document.violations(&schema, &wrong).len(), 1, "{schema} {wrong}");
        }
    }

    #[test]
    fn of_alternatives_the_one_of_the_same_kind_tells_what_is_wrong() {
        let document = Document::new("{}");
        let of = |kind: &str, field: &str| json!({"properties": {"type": {"enum": [kind]}}, "required": ["type", field], "additionalProperties": true});
        let schema = json!({"anyOf": [of("text", "text"), of("file", "url")]});
        assert_eq!(document.violations(&schema, &json!({"type": "file"})), ["$.url is missing"]);
        assert_eq!(
            document.violations(&schema, &json!({"type": "other"})),
            [r#"$: {"type":"other"} is of no known kind"#]
        );
    }
}
