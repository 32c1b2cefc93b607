//! `glob` and `grep` (recording 14).

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that fails says where")]

mod support;

use serde_json::json;
use std::os::unix::fs::symlink;
use std::time::{Duration, SystemTime};
use support::World;
use tools::{Output, ToolError};

/// The recorded work tree; each file is older than the one before it.
fn recorded() -> World {
    let world = World::new();
    world.put("README.md", "# Demo\n\nhello world\n");
    world.put("src/main.rs", "fn main() {\n    println!(\"hello\");\n}\n");
    world.put("src/lib.rs", "pub fn add(a: i32, b: i32) -> i32 {\n    a + b\n}\n");
    world.put(".gitignore", "target\n");
    world.put("docs/notes.txt", "line 1\nline 2\n");
    world.put(".git/config", "hello = 1\n");
    world.put("target/hello.rs", "hello\n");
    for (age, name) in ["README.md", "src/main.rs", "src/lib.rs", ".gitignore", "docs/notes.txt"].iter().enumerate() {
        set_age(&world, name, age as u64 * 60);
    }
    world
}

fn set_age(world: &World, name: &str, seconds: u64) {
    let file = std::fs::File::options().write(true).open(world.path(name)).unwrap();
    file.set_modified(SystemTime::now() - Duration::from_secs(seconds)).unwrap();
}

#[tokio::test]
async fn names_are_found_by_a_glob_the_newest_first() {
    let world = recorded();
    let output = world.run("glob", json!({ "pattern": "**/*.rs" })).await.unwrap();
    let found = format!("{}\n{}", world.path("src/main.rs").display(), world.path("src/lib.rs").display());
    let metadata = json!({ "count": 2, "truncated": false });
    assert_eq!(output, Output { title: String::new(), output: found, metadata, attachments: None });
    let ask = &world.host.asks()[0];
    assert_eq!((ask.permission.as_str(), &ask.patterns[..]), ("glob", &["**/*.rs".into()][..]));
    assert_eq!((&ask.always[..], &ask.metadata), (&["*".into()][..], &json!({ "pattern": "**/*.rs" })));
    assert_eq!(world.host.did().len(), 1, "finding has no effect");

    set_age(&world, "src/main.rs", 600);
    let output = world.run("glob", json!({ "pattern": "*.{rs,txt}" })).await.unwrap();
    let names = ["src/lib.rs", "docs/notes.txt", "src/main.rs"].map(|name| world.path(name).display().to_string());
    assert_eq!(output.output, names.join("\n"));

    let output = world.run("glob", json!({ "pattern": "*.zzz" })).await.unwrap();
    assert_eq!((output.output.as_str(), &output.metadata["count"]), ("No files found", &json!(0)));
    let output = world.run("glob", json!({ "pattern": "main.*", "path": "src" })).await.unwrap();
    assert_eq!((output.title, output.output), ("src".into(), world.path("src/main.rs").display().to_string()));
    for path in ["nope", "README.md"] {
        let failure = world.failure("glob", json!({ "pattern": "*", "path": path })).await;
        assert_eq!(failure, format!("Not a directory: {}", world.path(path).display()));
    }
    assert!(world.failure("glob", json!({ "pattern": "{a" })).await.contains("{a"));
}

#[tokio::test]
async fn a_glob_shows_a_hundred_names() {
    let world = World::new();
    for n in 0..101 {
        world.put(&format!("many/{n:03}.txt"), "x");
        set_age(&world, &format!("many/{n:03}.txt"), n);
    }
    let output = world.run("glob", json!({ "pattern": "*.txt" })).await.unwrap();
    assert_eq!(output.metadata, json!({ "count": 100, "truncated": true }));
    let lines: Vec<&str> = output.output.lines().collect();
    assert!(lines[0].ends_with("many/000.txt") && lines[99].ends_with("many/099.txt"), "{lines:?}");
    assert!(lines[100].is_empty() && lines[101].contains("100") && lines.len() == 102, "{lines:?}");
    std::fs::remove_file(world.path("many/050.txt")).unwrap();
    let output = world.run("glob", json!({ "pattern": "*.txt" })).await.unwrap();
    assert_eq!(output.metadata, json!({ "count": 100, "truncated": false }));
}

#[tokio::test]
async fn lines_are_found_by_an_expression() {
    let world = recorded();
    let output = world.run("grep", json!({ "pattern": "hello" })).await.unwrap();
    let found = format!(
        "Found 2 matches\n{}:\n  Line 3: hello world\n\n\n{}:\n  Line 2:     println!(\"hello\");\n",
        world.path("README.md").display(),
        world.path("src/main.rs").display()
    );
    let metadata = json!({ "matches": 2, "truncated": false });
    assert_eq!(output, Output { title: "hello".into(), output: found, metadata, attachments: None });
    let ask = &world.host.asks()[0];
    assert_eq!((ask.permission.as_str(), &ask.patterns[..]), ("grep", &["hello".into()][..]));
    assert_eq!(ask.metadata, json!({ "pattern": "hello" }));

    let input = json!({ "pattern": "fn", "include": "*.rs", "path": "src" });
    let output = world.run("grep", input.clone()).await.unwrap();
    assert_eq!(output.metadata["matches"], 2);
    assert_eq!(world.host.asks()[1].metadata, input);
    let output = world.run("grep", json!({ "pattern": "zzzzz" })).await.unwrap();
    assert_eq!((output.output.as_str(), &output.metadata["matches"]), ("No files found", &json!(0)));
    // Hidden files are searched, a single file too.
    let output = world.run("grep", json!({ "pattern": "^target$" })).await.unwrap();
    assert!(output.output.contains(".gitignore:\n  Line 1: target\n"), "{}", output.output);
    let output = world.run("grep", json!({ "pattern": "add", "path": "src/lib.rs" })).await.unwrap();
    assert!(output.output.starts_with(&format!("Found 1 matches\n{}:\n", world.path("src/lib.rs").display())));

    let failure = world.failure("grep", json!({ "pattern": "(" })).await;
    assert_eq!(failure, "regex parse error:\n    (\n    ^\nerror: unclosed group");
    assert!(world.failure("grep", json!({ "pattern": "" })).await.contains("empty"));
    assert!(world.failure("grep", json!({ "pattern": "x", "path": "nope" })).await.contains("nope"));
}

#[tokio::test]
async fn a_search_ends_at_a_hundred_lines_and_cuts_long_ones() {
    let world = World::new();
    world.put("long.txt", format!("x{}\n", "y".repeat(3000)));
    world.put("many.txt", "x\n".repeat(200));
    world.put("binary", b"x\0x\n");
    set_age(&world, "many.txt", 60);
    let output = world.run("grep", json!({ "pattern": "x" })).await.unwrap();
    assert_eq!(output.metadata, json!({ "matches": 100, "truncated": true }));
    assert!(output.output.starts_with("Found 100 matches (more matches available)\n"), "{}", output.output);
    assert!(output.output.contains(&format!("Line 1: x{}...\n", "y".repeat(1999))));
    assert!(!output.output.contains("binary"));
}

#[tokio::test]
async fn a_search_follows_no_link_and_asks_before_it_goes_outside() {
    let world = World::new();
    std::fs::create_dir_all(world.outside("other")).unwrap();
    std::fs::write(world.outside("other/secret.txt"), "hello\n").unwrap();
    symlink(world.outside("other"), world.path("folder")).unwrap();
    symlink(world.outside("other/secret.txt"), world.path("file.txt")).unwrap();
    for (tool, pattern) in [("glob", "*.txt"), ("grep", "hello")] {
        let output = world.run(tool, json!({ "pattern": pattern })).await.unwrap();
        assert_eq!(output.output, "No files found", "{tool}");
        // Named, a link is followed once that is allowed.
        *world.host.answer.lock().unwrap() = Some(("external_directory", ToolError::Rejected { feedback: None }));
        let rejected = world.run(tool, json!({ "pattern": pattern, "path": "folder" })).await;
        assert_eq!(rejected, Err(ToolError::Rejected { feedback: None }), "{tool}");
        let ask = world.host.asks().pop().unwrap();
        assert_eq!(ask.patterns, [format!("{}/*", world.outside("other").display())], "{tool}");
        *world.host.answer.lock().unwrap() = None;
        let output = world.run(tool, json!({ "pattern": pattern, "path": "folder" })).await.unwrap();
        assert!(output.output.contains("folder/secret.txt"), "{}", output.output);
    }
}
