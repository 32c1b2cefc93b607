//! Which fields a configuration may have, and of what kind. Fields that are not named here are kept as they are.

use crate::error::Issue;
use serde_json::{Map, Value};

/// The kind of a value.
enum Shape {
    Text,
    Flag,
    Number,
    Object,
    Array,
    Texts,
    OneOf(&'static [&'static str]),
    /// An object whose values are all of one kind.
    MapOf(&'static Shape),
    /// An object with these optional fields, and any others.
    Fields(&'static [(&'static str, Shape)]),
    /// A number above 0 of milliseconds, or `false`.
    Timeout,
    /// The first shape if the value is text, else the second.
    TextOr(&'static Shape, &'static Shape),
}

use Shape::{Array, Fields, Flag, MapOf, Number, Object, OneOf, Text, TextOr, Texts, Timeout};

const ACTION: Shape = OneOf(&["ask", "allow", "deny"]);
const PERMISSION: Shape = TextOr(&ACTION, &MapOf(&TextOr(&ACTION, &MapOf(&ACTION))));

const AGENT: Shape = Fields(&[
    ("model", Text),
    ("variant", Text),
    ("temperature", Number),
    ("top_p", Number),
    ("prompt", Text),
    ("tools", MapOf(&Flag)),
    ("disable", Flag),
    ("description", Text),
    ("mode", OneOf(&["subagent", "primary", "all"])),
    ("hidden", Flag),
    ("options", Object),
    ("color", Text),
    ("steps", Number),
    ("maxSteps", Number),
    ("permission", PERMISSION),
]);

const MODEL: Shape = Fields(&[
    ("id", Text),
    ("name", Text),
    ("family", Text),
    ("release_date", Text),
    ("attachment", Flag),
    ("reasoning", Flag),
    ("temperature", Flag),
    ("tool_call", Flag),
    ("cost", Fields(&[("input", Number), ("output", Number), ("cache_read", Number), ("cache_write", Number)])),
    ("limit", Fields(&[("context", Number), ("input", Number), ("output", Number)])),
    ("modalities", Fields(&[("input", Texts), ("output", Texts)])),
    ("status", OneOf(&["alpha", "beta", "deprecated", "active"])),
    ("provider", Fields(&[("npm", Text), ("api", Text)])),
    ("options", Object),
    ("headers", MapOf(&Text)),
    ("variants", MapOf(&Object)),
]);

const PROVIDER: Shape = Fields(&[
    ("api", Text),
    ("name", Text),
    ("env", Texts),
    ("id", Text),
    ("npm", Text),
    ("whitelist", Texts),
    ("blacklist", Texts),
    (
        "options",
        Fields(&[
            ("apiKey", Text),
            ("baseURL", Text),
            ("headers", MapOf(&Text)),
            ("timeout", Timeout),
            ("headerTimeout", Timeout),
            ("chunkTimeout", Timeout),
        ]),
    ),
    ("models", MapOf(&MODEL)),
]);

const COMMAND: Shape = Fields(&[
    ("template", Text),
    ("description", Text),
    ("agent", Text),
    ("model", Text),
    ("variant", Text),
    ("subtask", Flag),
]);

const CONFIG: Shape = Fields(&[
    ("$schema", Text),
    ("shell", Text),
    ("username", Text),
    ("model", Text),
    ("small_model", Text),
    ("default_agent", Text),
    ("share", OneOf(&["manual", "auto", "disabled"])),
    ("autoshare", Flag),
    ("snapshot", Flag),
    ("plugin", Array),
    ("instructions", Texts),
    ("skills", Fields(&[("paths", Texts), ("urls", Texts)])),
    ("enabled_providers", Texts),
    ("disabled_providers", Texts),
    ("subagent_depth", Number),
    ("command", MapOf(&COMMAND)),
    ("mode", MapOf(&AGENT)),
    ("agent", MapOf(&AGENT)),
    ("provider", MapOf(&PROVIDER)),
    ("mcp", MapOf(&Object)),
    ("permission", PERMISSION),
    ("tools", MapOf(&Flag)),
    ("tool_output", Fields(&[("max_lines", Number), ("max_bytes", Number)])),
    (
        "compaction",
        Fields(&[
            ("auto", Flag),
            ("prune", Flag),
            ("tail_turns", Number),
            ("preserve_recent_tokens", Number),
            ("reserved", Number),
        ]),
    ),
    ("experimental", Fields(&[("primary_tools", Texts), ("continue_loop_on_deny", Flag), ("mcp_timeout", Number)])),
]);

/// What is wrong with a configuration file; nothing if it may be used.
pub(crate) fn check_config(config: &Value) -> Vec<Issue> {
    let mut issues = check(&CONFIG, config, true);
    let commands = config.get("command").and_then(Value::as_object);
    for (name, _) in commands.into_iter().flatten().filter(|(_, command)| command.get("template").is_none()) {
        let path = ["command", name, "template"].map(str::to_owned).to_vec();
        issues.push(Issue { path, message: "Missing key".into() });
    }
    issues
}

/// What is wrong with the fields of an agent's Markdown file.
pub(crate) fn check_agent(agent: &Map<String, Value>) -> Vec<Issue> {
    check(&AGENT, &Value::Object(agent.clone()), true)
}

/// What is wrong with the fields of a command's Markdown file.
pub(crate) fn check_command(command: &Map<String, Value>) -> Vec<Issue> {
    check(&COMMAND, &Value::Object(command.clone()), true)
}

/// What is wrong with permission rules.
pub(crate) fn check_permission(permission: &Value) -> Vec<Issue> {
    check(&PERMISSION, permission, true)
}

fn check(shape: &Shape, value: &Value, required: bool) -> Vec<Issue> {
    let mut issues = Vec::new();
    walk(shape, value, required, &mut Vec::new(), &mut issues);
    issues
}

fn walk(shape: &Shape, value: &Value, required: bool, path: &mut Vec<String>, issues: &mut Vec<Issue>) {
    let mut wrong = |expected: &str| {
        let optional = if required { "" } else { " | undefined" };
        let message = format!("Expected {expected}{optional}, got {}", shown(value));
        issues.push(Issue { path: path.clone(), message });
    };
    match (shape, value) {
        (Text, Value::String(_)) | (Flag, Value::Bool(_)) | (Number, Value::Number(_)) => {}
        (Object, Value::Object(_)) | (Array, Value::Array(_)) => {}
        (Timeout, Value::Bool(false)) => {}
        (Timeout, Value::Number(number)) if number.as_u64().is_some_and(|ms| ms > 0) => {}
        (OneOf(words), Value::String(word)) if words.contains(&word.as_str()) => {}
        (TextOr(text, _), Value::String(_)) => walk(text, value, required, path, issues),
        (TextOr(_, other), _) => walk(other, value, required, path, issues),
        (Texts, Value::Array(entries)) => {
            for (index, entry) in entries.iter().enumerate() {
                at(path, &index.to_string(), |path| walk(&Text, entry, true, path, issues));
            }
        }
        (MapOf(shape), Value::Object(map)) => {
            for (key, value) in map {
                at(path, key, |path| walk(shape, value, true, path, issues));
            }
        }
        (Fields(fields), Value::Object(map)) => {
            for (key, shape) in *fields {
                if let Some(value) = map.get(*key) {
                    at(path, key, |path| walk(shape, value, false, path, issues));
                }
            }
        }
        (Text, _) => wrong("string"),
        (Flag, _) => wrong("boolean"),
        (Number, _) => wrong("number"),
        (Timeout, _) => wrong("a whole number above 0, or false"),
        (Texts | Array, _) => wrong("array"),
        (OneOf(words), _) => wrong(&words.iter().map(|word| format!("\"{word}\"")).collect::<Vec<_>>().join(" | ")),
        (Object | MapOf(_) | Fields(_), _) => wrong("object"),
    }
}

fn at(path: &mut Vec<String>, key: &str, then: impl FnOnce(&mut Vec<String>)) {
    path.push(key.to_owned());
    then(path);
    path.pop();
}

/// The value as the message names it; long ones by their kind, since a secret may stand anywhere in them.
fn shown(value: &Value) -> String {
    match value {
        Value::Object(_) => "an object".into(),
        Value::Array(_) => "an array".into(),
        Value::String(text) if text.len() > 30 => "a string".into(),
        other => other.to_string(),
    }
}
