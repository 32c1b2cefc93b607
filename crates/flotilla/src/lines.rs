//! How a log line is put together.
//!
//! A line is its message and its fields, then what the spans around it add: each name once, where the innermost wins,
//! and nothing that is empty. So a line stands for itself without repeating itself, in both forms.

use crate::logging::Format;
use opentelemetry::Context as TraceContext;
use opentelemetry::trace::TraceContextExt;
use serde_json::{Map, Value};
use std::error::Error;
use std::fmt::{self, Write as _};
use std::io::{Write as _, stderr};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

/// The layer that writes lines to stderr.
pub struct Lines {
    format: Format,
    colour: bool,
}

impl Lines {
    /// Lines of this form; `colour` only matters to people.
    pub fn new(format: Format, colour: bool) -> Self {
        Self { format, colour }
    }
}

impl<S: Subscriber + for<'span> LookupSpan<'span>> Layer<S> for Lines {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        span.extensions_mut().insert(fields);
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        if let Some(fields) = span.extensions_mut().get_mut::<Fields>() {
            values.record(fields);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        for span in context.event_scope(event).into_iter().flatten() {
            if let Some(outer) = span.extensions().get::<Fields>() {
                fields.add_missing(outer);
            }
        }
        let (level, target) = (event.metadata().level(), event.metadata().target());
        let mut line = match self.format {
            Format::Human => human(level, target, fields, self.colour),
            Format::Json => json(level, target, fields, trace_id()),
        };
        line.push('\n');
        // Where nobody reads, nothing is left to be said.
        let _ = stderr().lock().write_all(line.as_bytes());
    }
}

/// The trace that the line belongs to, if any.
fn trace_id() -> Option<String> {
    let context = TraceContext::current();
    let span = context.span();
    let span = span.span_context();
    span.is_valid().then(|| span.trace_id().to_string())
}

fn now() -> String {
    let mut text = String::new();
    let _ = SystemTime.format_time(&mut Writer::new(&mut text));
    text
}

/// `TIME LEVEL crate: message name=value ...`
fn human(level: &Level, target: &str, mut fields: Fields, colour: bool) -> String {
    let (on, off) = if colour { (colour_of(level), "\x1b[0m") } else { ("", "") };
    let origin = target.split("::").next().unwrap_or_default();
    let mut line = format!("{} {on}{level:>5}{off} {origin}:", now());
    if let Some(Value::String(message)) = fields.take("message") {
        line.push(' ');
        // One event is one line, whatever a message quotes.
        for c in message.chars() {
            if c.is_control() { line.extend(c.escape_default()) } else { line.push(c) }
        }
    }
    for (name, value) in fields.0 {
        let _ = match value {
            Value::String(text) if is_plain(&text) => write!(line, " {name}={text}"),
            value => write!(line, " {name}={value}"),
        };
    }
    line
}

fn colour_of(level: &Level) -> &'static str {
    match *level {
        Level::ERROR => "\x1b[31m",
        Level::WARN => "\x1b[33m",
        Level::INFO => "\x1b[32m",
        _ => "\x1b[2m",
    }
}

/// True for a text that needs no quotes.
fn is_plain(text: &str) -> bool {
    !text.chars().any(|c| c.is_whitespace() || c.is_control() || c == '"')
}

/// One flat object.
fn json(level: &Level, target: &str, mut fields: Fields, trace_id: Option<String>) -> String {
    let mut object = Map::new();
    object.insert("timestamp".to_owned(), now().into());
    object.insert("level".to_owned(), level.as_str().into());
    object.insert("target".to_owned(), target.into());
    if let Some(message) = fields.take("message") {
        object.insert("message".to_owned(), message);
    }
    for (name, value) in fields.0 {
        object.entry(name).or_insert(value);
    }
    if let Some(trace_id) = trace_id {
        object.insert("trace_id".to_owned(), trace_id.into());
    }
    Value::Object(object).to_string()
}

/// Named values in the order in which they came.
#[derive(Default)]
struct Fields(Vec<(&'static str, Value)>);

impl Fields {
    fn set(&mut self, field: &Field, value: Value) {
        let name = field.name();
        // What is named so is meant for the export alone.
        let is_export = name.starts_with("otel.");
        if is_export || value.is_null() || value == "" {
            return;
        }
        match self.0.iter_mut().find(|(known, _)| *known == name) {
            Some((_, known)) => *known = value,
            None => self.0.push((name, value)),
        }
    }

    fn add_missing(&mut self, outer: &Self) {
        for (name, value) in &outer.0 {
            if !self.0.iter().any(|(known, _)| known == name) {
                self.0.push((name, value.clone()));
            }
        }
    }

    fn take(&mut self, name: &str) -> Option<Value> {
        let at = self.0.iter().position(|(known, _)| *known == name)?;
        Some(self.0.remove(at).1)
    }
}

impl Visit for Fields {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.set(field, value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.set(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.set(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.set(field, value.into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.set(field, value.into());
    }

    fn record_error(&mut self, field: &Field, value: &(dyn Error + 'static)) {
        self.set(field, value.to_string().into());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.set(field, format!("{value:?}").into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(pairs: &[(&'static str, &str)]) -> Fields {
        Fields(pairs.iter().map(|(name, value)| (*name, Value::from(*value))).collect())
    }

    #[test]
    fn what_is_quoted_stays_on_its_line() {
        let hostile = fields(&[("message", "no\nERROR"), ("path", "a\nb"), ("name", "a b"), ("plain", "ses_1")]);
        let line = human(&Level::WARN, "server::log", hostile, false);
        assert!(line.ends_with(r#" WARN server: no\nERROR path="a\nb" name="a b" plain=ses_1"#), "{line}");
    }

    #[test]
    fn the_innermost_wins_and_nothing_is_said_twice() {
        let mut line = fields(&[("message", "done"), ("session", "inner")]);
        line.add_missing(&fields(&[("session", "outer"), ("run", "r")]));
        let object: Value = serde_json::from_str(&json(&Level::INFO, "engine::run", line, None)).unwrap();
        assert_eq!((&object["session"], &object["run"]), (&Value::from("inner"), &Value::from("r")));
        assert_eq!(object["target"], "engine::run");
        assert_eq!(object.get("trace_id"), None);
    }
}
