//! What `docs/ARCHITECTURE.md` says of the crates, checked: who may depend on whom, and that what it names is there.

#![allow(clippy::unwrap_used, reason = "a test may panic in its helpers, too")]

use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The crates from the bottom to the top. A crate depends on crates of lower rows only.
const ROWS: [&[&str]; 7] = [
    &["wire"],
    &["run-protocol"],
    &["agents", "coordination", "models", "sandbox", "storage"],
    &["coordination-redis", "model", "tools"],
    &["engine"],
    &["server"],
    &["flotilla", "simulation"],
];

/// Crates that nothing but tests depends on, and that know no other crate but the test kit.
const FOR_TESTS: [&str; 3] = ["bench", "suite", "testkit"];

/// Who alone may depend on a package.
const ONLY: [(&str, &[&str]); 5] = [
    ("redis", &["coordination-redis"]),
    ("deadpool-redis", &["coordination-redis"]),
    ("axum", &["bench", "server", "simulation", "testkit"]),
    ("clap", &["bench", "flotilla"]),
    ("stateright", &["model"]),
];

/// Crates that never wait for anything, and packages that would let them.
const WITHOUT_RUNTIME: [&str; 2] = ["wire", "run-protocol"];
const RUNTIMES: [&str; 3] = ["tokio", "tokio-util", "futures-util"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map(Path::to_path_buf).unwrap_or_default()
}

fn metadata() -> anyhow::Result<Value> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .current_dir(root())
        .output()?;
    anyhow::ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(serde_json::from_slice(&output.stdout)?)
}

fn row(name: &str) -> Option<usize> {
    ROWS.iter().position(|row| row.contains(&name))
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_default()
}

fn list<'a>(value: &'a Value, field: &str) -> impl Iterator<Item = &'a Value> {
    value[field].as_array().into_iter().flatten()
}

/// Each rule that the workspace breaks, as a sentence.
fn broken_rules(metadata: &Value, root: &Path) -> Vec<String> {
    let mut broken = Vec::new();
    for package in list(metadata, "packages") {
        let name = text(package, "name");
        check_place(package, root, &mut broken);
        for dependency in list(package, "dependencies") {
            check_dependency(name, dependency, &mut broken);
        }
    }
    broken
}

fn check_place(package: &Value, root: &Path, broken: &mut Vec<String>) {
    let name = text(package, "name");
    if row(name).is_none() && !FOR_TESTS.contains(&name) {
        broken.push(format!("{name} has no row"));
    }
    if ["common", "util", "utils", "helpers"].iter().any(|vague| name.split('-').any(|word| word == *vague)) {
        broken.push(format!("{name} is named after nothing"));
    }
    let folder = if name == "suite" { root.join("tests") } else { root.join("crates").join(name) };
    if Path::new(text(package, "manifest_path")) != folder.join("Cargo.toml") {
        broken.push(format!("{name} does not lie in {}", folder.display()));
    }
}

fn check_dependency(name: &str, dependency: &Value, broken: &mut Vec<String>) {
    let on = text(dependency, "name");
    let is_dev = dependency["kind"] == "dev";
    if ONLY.iter().any(|(package, users)| *package == on && !users.contains(&name)) {
        broken.push(format!("{name} depends on {on}"));
    }
    if WITHOUT_RUNTIME.contains(&name) && RUNTIMES.contains(&on) {
        broken.push(format!("{name} depends on {on}"));
    }
    if dependency["path"].is_null() {
        return;
    }
    // A crate may switch on features of its own for its tests.
    let for_tests = (is_dev && (on == name || on == "testkit")) || (FOR_TESTS.contains(&name) && on == "testkit");
    let is_below = matches!((row(name), row(on)), (Some(own), Some(other)) if other < own);
    if !for_tests && !is_below {
        broken.push(format!("{name} depends on {on}"));
    }
}

/// What stands between backticks in a Markdown text, code blocks left out.
fn quoted(markdown: &str) -> Vec<&str> {
    let mut quoted = Vec::new();
    let mut is_block = false;
    for line in markdown.lines() {
        if line.trim_start().starts_with("```") {
            is_block = !is_block;
        } else if !is_block {
            quoted.extend(line.split('`').skip(1).step_by(2));
        }
    }
    quoted
}

/// The names in a document that lead nowhere: paths from the root (`crates/engine/src/run.rs`) and functions in a
/// crate's sources (`engine/settle.rs::settle`).
fn dead_names(markdown: &str, root: &Path) -> Vec<String> {
    let mut dead = Vec::new();
    for name in quoted(markdown) {
        let is_there = if let Some((file, function)) = name.split_once(".rs::") {
            has_function(root, file, function)
        } else if ["crates/", "tests/", "deploy/", "docs/", "scripts/"].iter().any(|top| name.starts_with(top)) {
            name.contains(['<', '*', ' ']) || root.join(name).exists()
        } else {
            true
        };
        if !is_there {
            dead.push(name.to_owned());
        }
    }
    dead
}

fn has_function(root: &Path, file: &str, function: &str) -> bool {
    let Some((name, rest)) = file.split_once('/') else { return false };
    let path = root.join("crates").join(name).join("src").join(format!("{rest}.rs"));
    let source = std::fs::read_to_string(path).unwrap_or_default();
    ["(", "<"].iter().any(|next| source.contains(&format!("fn {function}{next}")))
}

#[test]
fn the_crates_keep_their_places() {
    assert_eq!(broken_rules(&metadata().unwrap(), &root()), Vec::<String>::new());
}

#[test]
fn each_crate_has_a_row_and_each_row_its_crates() {
    let metadata = metadata().unwrap();
    let there: Vec<&str> = list(&metadata, "packages").map(|package| text(package, "name")).collect();
    for name in ROWS.iter().copied().flatten().chain(&FOR_TESTS) {
        assert!(there.contains(name), "{name} is missing");
    }
}

#[test]
fn what_the_documents_name_is_there() {
    let root = root();
    let documents = ["README.md", "docs/ARCHITECTURE.md", "docs/GLOSSARY.md", "docs/COMPATIBILITY.md"];
    let decisions = std::fs::read_dir(root.join("docs/decisions")).expect("the decisions are there");
    let decisions = decisions.map(|entry| entry.unwrap().path());
    for path in documents.iter().map(|name| root.join(name)).chain(decisions) {
        let markdown = std::fs::read_to_string(&path).expect("the document is there");
        assert_eq!(dead_names(&markdown, &root), Vec::<String>::new(), "{}", path.display());
    }
}

#[test]
fn the_code_map_knows_each_crate() {
    let map = std::fs::read_to_string(root().join("docs/ARCHITECTURE.md")).expect("the document is there");
    for name in ROWS.iter().copied().flatten().chain(&["testkit"]) {
        assert!(map.contains(&format!("### `crates/{name}`")), "{name} is not in the code map");
    }
}

/// The files of a folder and of those below it.
fn files_below(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    paths.flat_map(|path| if path.is_dir() { files_below(&path) } else { vec![path] }).collect()
}

/// A simulation decides by its seed what happens, so the engine and its routes may draw nothing by themselves. Nothing that has
/// a connection is in it.
#[test]
fn no_branch_of_the_engine_or_a_route_is_drawn_at_random() {
    let routes = files_below(&root().join("crates/server/src")).into_iter().filter(|path| !path.ends_with("serve.rs"));
    for path in files_below(&root().join("crates/engine/src")).into_iter().chain(routes) {
        let source = std::fs::read_to_string(&path).expect("a readable file");
        for after in source.split("select! {").skip(1) {
            assert!(after.trim_start().starts_with("biased;"), "{}: a select! is not biased", path.display());
        }
    }
}

#[test]
fn each_broken_rule_is_found() {
    let root = Path::new("/r");
    let package = |name: &str, folder: &str, dependencies: Value| json!({ "name": name, "manifest_path": format!("/r/{folder}/Cargo.toml"), "dependencies": dependencies });
    let on = |name: &str| json!([{ "name": name, "kind": null }]);
    let on_crate =
        |name: &str, kind: Value| json!([{ "name": name, "kind": kind, "path": format!("/r/crates/{name}") }]);
    let find = |package: Value| broken_rules(&json!({ "packages": [package] }), root);

    let fine = on_crate("storage", Value::Null);
    assert!(find(package("engine", "crates/engine", fine)).is_empty());
    assert!(find(package("engine", "crates/engine", on_crate("testkit", json!("dev")))).is_empty());
    assert!(find(package("suite", "tests", on_crate("testkit", json!("dev")))).is_empty());

    assert_eq!(find(package("engine", "crates/motor", json!([]))), ["engine does not lie in /r/crates/engine"]);
    assert_eq!(find(package("engine", "crates/engine", on("redis"))), ["engine depends on redis"]);
    assert_eq!(find(package("engine", "crates/engine", on("axum"))), ["engine depends on axum"]);
    assert_eq!(find(package("wire", "crates/wire", on("tokio"))), ["wire depends on tokio"]);
    for (name, upward) in [("engine", "server"), ("storage", "coordination"), ("engine", "testkit")] {
        let package = package(name, &format!("crates/{name}"), on_crate(upward, Value::Null));
        assert_eq!(find(package), [format!("{name} depends on {upward}")]);
    }
    let vague = find(package("http-utils", "crates/http-utils", json!([])));
    assert_eq!(vague, ["http-utils has no row", "http-utils is named after nothing"]);
}

#[test]
fn each_dead_name_is_found() {
    let text = "`crates/engine/src/run.rs` `crates/engine/src/gone.rs` `engine/settle.rs::settle` `engine/run.rs::gone`\n\
                ```\n`crates/never`\n```\n`crates/<crate>/src` `GET /session`";
    assert_eq!(dead_names(text, &root()), ["crates/engine/src/gone.rs", "engine/run.rs::gone"]);
}
