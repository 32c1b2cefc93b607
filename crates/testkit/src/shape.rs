//! Comparing answers with shapes: what must be there, what may be there, and nothing else.
//!
//! A shape is JSON. Strings of the form `<...>` are patterns, everything else stands for itself:
//!
//! | pattern | matches |
//! |---|---|
//! | `<any>` | anything |
//! | `<string>`, `<number>`, `<bool>`, `<object>`, `<array>` | any value of that type |
//! | `<time>` | milliseconds since 1970, of this century |
//! | `<ses>`, `<msg>`, `<prt>`, `<per>`, `<que>`, `<evt>` | an id with that prefix |
//! | `<hex>` | 40 hexadecimal digits |
//! | `<slug>` | two words joined by a hyphen |
//! | `<iso>` within a text | a moment such as `2026-01-31T12:00:00.000Z` |
//! | `<NAME>` | the value that was given for NAME with [`Shape::with`] |
//!
//! A key that ends in `?` may be missing. `["<each>", shape]` matches a list of which each element has the shape.

use serde_json::Value;

/// A shape, with the values of its names.
#[derive(Debug, Clone)]
pub struct Shape {
    shape: Value,
    names: Vec<(String, Value)>,
}

impl Shape {
    /// Reads a shape.
    ///
    /// # Panics
    /// When the text is not JSON.
    pub fn new(text: &str) -> Self {
        Self { shape: serde_json::from_str(text).expect("a shape is JSON"), names: Vec::new() }
    }

    /// Gives a name of the shape a value.
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.names.push((format!("<{name}>"), value.into()));
        self
    }

    /// Every place where the value differs from the shape.
    pub fn differences(&self, value: &Value) -> Vec<String> {
        let mut found = Vec::new();
        self.compare(&self.shape, value, "$", &mut found);
        found
    }

    /// Checks that the value has the shape.
    ///
    /// # Panics
    /// When it has not; the message names each place that differs.
    pub fn check(&self, value: &Value) {
        let found = self.differences(value);
        assert!(found.is_empty(), "{}\nin {value:#}", found.join("\n"));
    }

    fn compare(&self, shape: &Value, value: &Value, at: &str, found: &mut Vec<String>) {
        match (shape, value) {
            (Value::String(pattern), _) => {
                if !self.matches(pattern, value) {
                    found.push(format!("{at}: {value} is not {pattern}"));
                }
            }
            (Value::Object(shape), Value::Object(value)) => {
                for (key, inner) in shape {
                    let (key, optional) = key.strip_suffix('?').map_or((key.as_str(), false), |key| (key, true));
                    match value.get(key) {
                        Some(value) => self.compare(inner, value, &format!("{at}.{key}"), found),
                        None if optional => {}
                        None => found.push(format!("{at}.{key} is missing")),
                    }
                }
                let known = |key: &String| shape.contains_key(key) || shape.contains_key(&format!("{key}?"));
                found.extend(value.keys().filter(|key| !known(key)).map(|key| format!("{at}.{key} should not be")));
            }
            (Value::Array(shape), Value::Array(value)) => {
                if let [Value::String(each), inner] = shape.as_slice()
                    && each == "<each>"
                {
                    for (n, value) in value.iter().enumerate() {
                        self.compare(inner, value, &format!("{at}[{n}]"), found);
                    }
                } else if shape.len() == value.len() {
                    for (n, (inner, value)) in shape.iter().zip(value).enumerate() {
                        self.compare(inner, value, &format!("{at}[{n}]"), found);
                    }
                } else {
                    found.push(format!("{at} has {} elements, not {}", value.len(), shape.len()));
                }
            }
            (Value::Number(expected), Value::Number(is)) => {
                let (expected, is) = (expected.as_f64().unwrap_or(f64::NAN), is.as_f64().unwrap_or(f64::NAN));
                if (expected - is).abs() > 1e-9 {
                    found.push(format!("{at}: {is} is not {expected}"));
                }
            }
            _ if shape == value => {}
            _ => found.push(format!("{at}: {value} is not {shape}")),
        }
    }

    fn matches(&self, pattern: &str, value: &Value) -> bool {
        if let Some((_, expected)) = self.names.iter().find(|(name, _)| name == pattern) {
            return expected == value;
        }
        let text = value.as_str();
        match pattern {
            "<any>" => true,
            "<string>" => text.is_some(),
            "<number>" => value.is_number(),
            "<bool>" => value.is_boolean(),
            "<object>" => value.is_object(),
            "<array>" => value.is_array(),
            "<time>" => value.as_u64().is_some_and(|ms| (946_684_800_000..4_102_444_800_000).contains(&ms)),
            "<ses>" | "<msg>" | "<prt>" | "<per>" | "<que>" | "<evt>" => text.is_some_and(|t| is_id(t, &pattern[1..4])),
            "<hex>" => text.is_some_and(|t| t.len() == 40 && t.bytes().all(|b| b.is_ascii_hexdigit())),
            "<slug>" => text.is_some_and(|t| {
                let words: Vec<&str> = t.split('-').collect();
                words.len() == 2 && words.iter().all(|w| !w.is_empty() && w.bytes().all(|b| b.is_ascii_lowercase()))
            }),
            _ => match (pattern.split_once("<iso>"), text) {
                (Some((before, after)), Some(text)) => {
                    text.strip_prefix(before).and_then(|t| t.strip_suffix(after)).is_some_and(is_iso)
                }
                _ => text == Some(pattern),
            },
        }
    }
}

/// Whether a text is an id with this prefix: 12 hexadecimal digits, then 14 letters or digits.
pub fn is_id(text: &str, prefix: &str) -> bool {
    text.strip_prefix(prefix).and_then(|t| t.strip_prefix('_')).is_some_and(|rest| {
        rest.len() == 26
            && rest.bytes().take(12).all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
            && rest.bytes().all(|b| b.is_ascii_alphanumeric())
    })
}

fn is_iso(text: &str) -> bool {
    let form = "0000-00-00T00:00:00.000Z";
    text.len() == form.len() && text.bytes().zip(form.bytes()).all(|(b, f)| b == f || (f == b'0' && b.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_value_of_the_shape_passes_and_each_difference_is_named() {
        let shape = Shape::new(
            r#"{"id": "<ses>", "title": "New - <iso>", "time": {"created": "<time>", "archived?": "<time>"},
                "list": ["<each>", {"n": "<number>"}], "directory": "<directory>"}"#,
        )
        .with("directory", "/d");
        let fine = json!({"id": "ses_dfc94bf59ffegP7EaP7TKT1o66", "title": "New - 2026-11-22T13:21:30.279Z",
            "time": {"created": 1_795_353_690_279_u64}, "list": [{"n": 1}, {"n": 2}], "directory": "/d"});
        assert_eq!(shape.differences(&fine), Vec::<String>::new());
        let wrong = json!({"id": "ses_1", "title": "Other", "time": {"created": 5, "more": 1}, "list": [{"n": "1"}]});
        let found = shape.differences(&wrong);
        for place in
            ["$.id:", "$.title:", "$.time.created:", "$.time.more should", "$.list[0].n:", "$.directory is missing"]
        {
            assert_eq!(found.iter().filter(|f| f.starts_with(place)).count(), 1, "{place} in {found:?}");
        }
        assert_eq!(found.len(), 6);
    }
}
