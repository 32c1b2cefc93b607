//! What models call, and what is made of it (recording 20).

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that fails says where")]

mod support;

use serde_json::{Value, json};
use support::World;
use tools::{Registry, Resolved};

fn resolve(name: &str, arguments: &str) -> Result<(&'static str, Value), (String, String)> {
    let registry = Registry::builtin();
    match registry.resolve(name, arguments, &["bash", "edit", "read", "write"]) {
        Resolved::Known(tool, input) => Ok((tool.name(), input)),
        Resolved::Invalid { tool, error } => Err((tool, error)),
    }
}

#[test]
fn names_are_mended_and_the_rest_is_invalid() {
    assert_eq!(resolve("Read", r#"{"filePath":"x"}"#), Ok(("read", json!({ "filePath": "x" }))));
    assert_eq!(resolve("bash", ""), Ok(("bash", json!({}))));
    let (tool, error) = resolve("nosuchtool", "{}").unwrap_err();
    assert_eq!(tool, "nosuchtool");
    assert_eq!(
        error,
        "Model tried to call unavailable tool 'nosuchtool'. Available tools: bash, edit, invalid, read, write."
    );
    // What was not offered cannot be called, whatever its case.
    for name in ["Glob", "glob", "invalid"] {
        assert_eq!(resolve(name, "{}").unwrap_err().0, name);
    }
    let (tool, error) = resolve("read", r#"{"filePath": "#).unwrap_err();
    assert_eq!(tool, "read");
    assert!(
        error.starts_with("Invalid input for tool read: JSON parsing failed: Text: {\"filePath\": .\nError message: "),
        "{error}"
    );
}

const ALL: [&str; 14] = [
    "invalid",
    "question",
    "bash",
    "read",
    "glob",
    "grep",
    "edit",
    "write",
    "task",
    "webfetch",
    "todowrite",
    "skill",
    "apply_patch",
    "StructuredOutput",
];

#[test]
fn all_are_listed_but_some_never_offered() {
    let registry = Registry::builtin();
    assert_eq!(registry.names(), ALL);
}

#[test]
fn some_models_get_patches_in_the_place_of_edits() {
    let offered = |model: &str| -> Vec<_> { Registry::builtin().specs(model).iter().map(|spec| spec.name).collect() };
    let others = ["bash", "glob", "grep", "question", "read", "skill", "task", "todowrite", "webfetch"];
    let with = |own: &[&'static str]| {
        let mut names = [&others[..], own].concat();
        names.sort_unstable();
        names
    };
    for model in ["gpt-5", "openai/gpt-5.1-codex"] {
        assert_eq!(offered(model), with(&["apply_patch"]), "{model}");
    }
    for model in ["m", "gpt-4o", "gpt-4.1", "gpt-oss-120b", "claude"] {
        assert_eq!(offered(model), with(&["edit", "write"]), "{model}");
    }
}

#[tokio::test]
async fn an_invalid_call_completes() {
    let world = World::new();
    let output = world.run("invalid", json!({ "tool": "x", "error": "no." })).await.unwrap();
    assert_eq!(output.title, "Invalid Tool");
    assert_eq!(output.output, "The arguments provided to the tool are invalid: no.");
    assert_eq!(output.metadata, json!({ "truncated": false }));
}

#[tokio::test]
async fn arguments_that_do_not_fit_are_told_with_their_place() {
    let world = World::new();
    for (tool, input, told) in [
        ("read", json!({ "path": "README.md" }), "SchemaError(Missing key\n  at [\"filePath\"])."),
        ("bash", json!({}), "SchemaError(Missing key\n  at [\"command\"])."),
        ("bash", json!({ "command": 5 }), "SchemaError(Expected string, got 5\n  at [\"command\"])."),
        ("bash", json!({ "command": "x", "timeout": 0 }), "at [\"timeout\"])."),
        ("read", json!({ "filePath": "x", "offset": -1 }), "at [\"offset\"])."),
        ("edit", json!({ "filePath": "x", "oldString": "a", "newString": [1] }), "at [\"newString\"])."),
        ("write", json!("text"), "SchemaError("),
    ] {
        let text = world.failure(tool, input).await;
        let head = format!("The {tool} tool was called with invalid arguments: ");
        assert!(text.starts_with(&head) && text.contains(told), "{text}");
    }
    assert!(world.host.did().is_empty());
}
