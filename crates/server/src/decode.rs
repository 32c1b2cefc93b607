//! Reads JSON values as the routes expect them, and says what is wrong in the words that clients know.

use crate::errors::{Error, Kind};
use serde_json::{Map, Value, json};
use std::str::FromStr;
use wire::ids::InvalidId;

/// Characters of a wrong value that are shown.
const SHOWN: usize = 200;

/// A value in a body, and where it stands.
#[derive(Clone, Copy)]
pub(crate) struct Node<'a> {
    value: Option<&'a Value>,
    place: Place<'a>,
}

#[derive(Clone, Copy)]
enum Place<'a> {
    Root,
    Field(&'a Node<'a>, &'a str),
    Element(&'a Node<'a>, usize),
}

type Result<T> = std::result::Result<T, Error>;

impl<'a> Node<'a> {
    /// A whole body; absent if there is none.
    pub(crate) fn root(value: Option<&'a Value>) -> Self {
        Self { value, place: Place::Root }
    }

    /// A field of an object; absent if the object has none of that name.
    pub(crate) fn field<'b>(&'b self, name: &'b str) -> Node<'b> {
        Node { value: self.value.and_then(|value| value.get(name)), place: Place::Field(self, name) }
    }

    /// An element of an array; absent if the array has none there.
    pub(crate) fn element(&self, index: usize) -> Node<'_> {
        Node { value: self.value.and_then(|value| value.get(index)), place: Place::Element(self, index) }
    }

    /// The value as it stands.
    pub(crate) fn raw(&self) -> Option<&'a Value> {
        self.value
    }

    /// True if there is something, and not null.
    pub(crate) fn is_some(&self) -> bool {
        self.value.is_some_and(|value| !value.is_null())
    }

    /// An error where one of these fields is null: most routes take that for absent.
    pub(crate) fn without_null(&self, fields: &[&str]) -> Result<()> {
        let is_null = |name: &&str| self.field(name).value.is_some_and(Value::is_null);
        if fields.iter().any(is_null) { Err(Error::Bad) } else { Ok(()) }
    }

    /// An error at this place.
    pub(crate) fn error(&self, message: impl Into<String>) -> Error {
        let mut message = message.into();
        let place = self.path();
        if !place.is_empty() {
            message.push_str("\n  at ");
            message.push_str(&place);
        }
        Error::Invalid { kind: Kind::Payload, message }
    }

    /// Something else than expected.
    pub(crate) fn wrong(&self, expected: &str) -> Error {
        match (self.value, self.place) {
            (None, Place::Root) => self.error(format!("Expected {expected}, got undefined")),
            (None, _) => self.error("Missing key"),
            (Some(value), _) => self.error(format!("Expected {expected}, got {}", shown(value))),
        }
    }

    fn path(&self) -> String {
        match self.place {
            Place::Root => String::new(),
            Place::Field(parent, name) => format!("{}[{}]", parent.path(), json!(name)),
            Place::Element(parent, index) => format!("{}[{index}]", parent.path()),
        }
    }

    fn is<T>(&self, expected: &str, read: impl FnOnce(&'a Value) -> Option<T>) -> Result<T> {
        self.value.and_then(read).ok_or_else(|| self.wrong(expected))
    }

    fn maybe<T>(&self, expected: &str, read: impl FnOnce(&'a Value) -> Option<T>) -> Result<Option<T>> {
        if self.is_some() { self.is(&format!("{expected} | null"), read).map(Some) } else { Ok(None) }
    }

    /// An object.
    pub(crate) fn object(&self) -> Result<&'a Map<String, Value>> {
        self.is("object", Value::as_object)
    }

    /// An object, if anything.
    pub(crate) fn maybe_object(&self) -> Result<Option<&'a Map<String, Value>>> {
        self.maybe("object", Value::as_object)
    }

    /// The elements of an array.
    pub(crate) fn elements(&self) -> Result<impl Iterator<Item = Node<'_>>> {
        let array = self.is("array", Value::as_array)?;
        Ok(array
            .iter()
            .enumerate()
            .map(|(index, value)| Node { value: Some(value), place: Place::Element(self, index) }))
    }

    /// A string.
    pub(crate) fn text(&self) -> Result<&'a str> {
        self.is("string", Value::as_str)
    }

    /// A string, if anything.
    pub(crate) fn maybe_text(&self) -> Result<Option<&'a str>> {
        self.maybe("string", Value::as_str)
    }

    /// A copy of a string, if anything.
    pub(crate) fn maybe_string(&self) -> Result<Option<String>> {
        Ok(self.maybe_text()?.map(str::to_owned))
    }

    /// A boolean, if anything.
    pub(crate) fn maybe_bool(&self) -> Result<Option<bool>> {
        self.maybe("boolean", Value::as_bool)
    }

    /// A number, if anything.
    pub(crate) fn maybe_number(&self) -> Result<Option<&'a serde_json::Number>> {
        self.maybe("number", Value::as_number)
    }

    /// One of some words.
    pub(crate) fn word<T: Copy>(&self, words: &[(&str, T)]) -> Result<T> {
        let found = self.value.and_then(Value::as_str).and_then(|text| words.iter().find(|(word, _)| *word == text));
        found.map(|(_, meaning)| *meaning).ok_or_else(|| {
            let expected: Vec<String> = words.iter().map(|(word, _)| format!("\"{word}\"")).collect();
            self.wrong(&expected.join(" | "))
        })
    }

    /// An identifier, if anything.
    pub(crate) fn maybe_id<T: FromStr<Err = InvalidId>>(&self) -> Result<Option<T>> {
        let Some(text) = self.maybe_text()? else { return Ok(None) };
        text.parse().map(Some).map_err(|error: InvalidId| self.error(error.to_string()))
    }

    /// An identifier.
    pub(crate) fn id<T: FromStr<Err = InvalidId>>(&self) -> Result<T> {
        self.text()?.parse().map_err(|error: InvalidId| self.error(error.to_string()))
    }
}

fn shown(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(error: Error) -> String {
        match error {
            Error::Invalid { message, .. } => message,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn wrong_values_are_named_as_recorded() {
        let body = json!({ "title": 7, "model": "fake/m", "answers": "x", "reply": "bogus", "parts": [{ "text": 5 }] });
        let root = Node::root(Some(&body));
        assert_eq!(
            message(root.field("title").maybe_text().unwrap_err()),
            "Expected string | null, got 7\n  at [\"title\"]"
        );
        assert_eq!(
            message(root.field("model").maybe_object().unwrap_err()),
            "Expected object | null, got \"fake/m\"\n  at [\"model\"]"
        );
        assert_eq!(
            message(root.field("answers").elements().map(|_| ()).unwrap_err()),
            "Expected array, got \"x\"\n  at [\"answers\"]"
        );
        assert_eq!(
            message(root.field("reply").word(&[("once", 1), ("always", 2), ("reject", 3)]).unwrap_err()),
            "Expected \"once\" | \"always\" | \"reject\", got \"bogus\"\n  at [\"reply\"]"
        );
        let parts = root.field("parts");
        let part = parts.elements().unwrap().next().unwrap();
        assert_eq!(
            message(part.field("text").text().unwrap_err()),
            "Expected string, got 5\n  at [\"parts\"][0][\"text\"]"
        );
        assert_eq!(message(part.field("mime").text().unwrap_err()), "Missing key\n  at [\"parts\"][0][\"mime\"]");
        assert_eq!(message(Node::root(None).object().unwrap_err()), "Expected object, got undefined");
    }

    #[test]
    fn null_is_nothing_where_nothing_is_allowed() {
        let body = json!({ "title": null });
        let root = Node::root(Some(&body));
        assert_eq!(root.field("title").maybe_text().unwrap(), None);
        assert_eq!(root.field("other").maybe_bool().unwrap(), None);
    }

    #[test]
    fn a_long_value_is_not_thrown_back_whole() {
        let body = json!({ "title": ["é".repeat(100_000)] });
        let error = Node::root(Some(&body)).field("title").maybe_text().unwrap_err();
        assert!(message(error).len() < 1000);
    }
}
