//! `apply_patch` (recording 17).

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that fails says where")]

mod support;

use serde_json::{Value, json};
use std::path::Path;
use support::{Did, World};
use tools::ToolError;

fn patch(path: &Path, hunks: &str) -> String {
    let path = path.display();
    format!("Index: {path}\n{}\n--- {path}\n+++ {path}\n{hunks}", "=".repeat(67))
}

fn input(body: &str) -> Value {
    json!({ "patchText": format!("*** Begin Patch\n{body}\n*** End Patch") })
}

fn recorded() -> World {
    let world = World::new();
    world.put("src/main.rs", "fn main() {\n    println!(\"hello\");\n}\n");
    world.put("src/lib.rs", "pub fn add(a: i32, b: i32) -> i32 {\n    a + b\n}\n");
    world.put("docs/notes.txt", "line 1\nline 2\n");
    world
}

#[tokio::test]
async fn files_are_added_changed_and_removed_by_one_patch() {
    let world = recorded();
    let body = "*** Add File: added.txt\n+one\n+two\n*** Update File: src/main.rs\n@@\n-    println!(\"hello\");\n\
                +    println!(\"patched\");\n*** Delete File: docs/notes.txt";
    let output = world.run("apply_patch", input(body)).await.unwrap();
    let text = "Success. Updated the following files:\nA added.txt\nM src/main.rs\nD docs/notes.txt";
    assert_eq!((output.title.as_str(), output.output.as_str()), (text, text));
    let (added, main, notes) = (world.path("added.txt"), world.path("src/main.rs"), world.path("docs/notes.txt"));
    let patches = [
        patch(&added, "@@ -0,0 +1,2 @@\n+one\n+two\n"),
        patch(&main, "@@ -1,3 +1,3 @@\n fn main() {\n-    println!(\"hello\");\n+    println!(\"patched\");\n }\n"),
        patch(&notes, "@@ -1,2 +0,0 @@\n-line 1\n-line 2\n"),
    ];
    let file = |path: &Path, name: &str, kind: &str, patch: &str, additions: u32, deletions: u32| {
        json!({
            "filePath": path, "relativePath": name, "type": kind, "patch": patch,
            "additions": additions, "deletions": deletions,
        })
    };
    let files = json!([
        file(&added, "added.txt", "add", &patches[0], 2, 0),
        file(&main, "src/main.rs", "update", &patches[1], 1, 1),
        file(&notes, "docs/notes.txt", "delete", &patches[2], 0, 2),
    ]);
    let diff: String = patches.iter().map(|patch| format!("{patch}\n")).collect();
    assert_eq!(output.metadata, json!({ "diff": diff, "files": files, "diagnostics": {}, "truncated": false }));
    assert_eq!(world.get("added.txt"), "one\ntwo\n");
    assert!(world.get("src/main.rs").contains("patched") && !notes.exists());

    let did = world.host.did();
    let Did::Ask(ask) = &did[0] else { panic!("{did:?}") };
    assert_eq!((ask.permission.as_str(), &ask.always[..]), ("edit", &["*".into()][..]));
    assert_eq!(ask.patterns, ["added.txt", "src/main.rs", "docs/notes.txt"]);
    let names = "added.txt, src/main.rs, docs/notes.txt";
    assert_eq!(ask.metadata, json!({ "filepath": names, "diff": diff, "files": files }));
    let watched =
        |path: &Path, event: &str| Did::Publish("file.watcher.updated", json!({ "file": path, "event": event }));
    assert_eq!(
        did[1..],
        [
            Did::Begin,
            // In the order of their paths, whatever the patch's order is.
            Did::Lock(added.clone()),
            Did::Lock(notes.clone()),
            Did::Lock(main.clone()),
            Did::Unlock,
            Did::Unlock,
            Did::Unlock,
            Did::Publish("file.edited", json!({ "file": added })),
            Did::Publish("file.edited", json!({ "file": main })),
            watched(&added, "add"),
            watched(&main, "change"),
            watched(&notes, "unlink"),
        ]
    );
}

#[tokio::test]
async fn a_file_is_moved() {
    let world = recorded();
    let body = "*** Update File: src/lib.rs\n*** Move to: new/moved.rs\n@@\n-    a + b\n+    b + a";
    let output = world.run("apply_patch", input(body)).await.unwrap();
    assert_eq!(output.output, "Success. Updated the following files:\nM new/moved.rs");
    let file = &output.metadata["files"][0];
    assert_eq!((&file["type"], &file["relativePath"]), (&json!("move"), &json!("new/moved.rs")));
    assert_eq!(
        (&file["filePath"], &file["movePath"]),
        (&json!(world.path("src/lib.rs")), &json!(world.path("new/moved.rs")))
    );
    assert_eq!(world.get("new/moved.rs"), "pub fn add(a: i32, b: i32) -> i32 {\n    b + a\n}\n");
    assert!(!world.path("src/lib.rs").exists());
    assert_eq!(world.host.asks()[0].patterns, ["src/lib.rs", "new/moved.rs"]);
    let watched: Vec<_> = world
        .host
        .did()
        .iter()
        .filter_map(|did| match did {
            Did::Publish("file.watcher.updated", properties) => Some(properties["event"].clone()),
            _ => None,
        })
        .collect();
    assert_eq!(watched, ["unlink", "add"]);
}

#[tokio::test]
async fn a_patch_that_does_not_fit_changes_nothing() {
    let world = recorded();
    let first = "*** Add File: a.txt\n+x\n";
    for (body, told) in [
        (format!("{first}*** Update File: src/lib.rs\n@@\n-zzz\n+y"), "lib.rs:\nzzz"),
        (format!("{first}*** Update File: missing.rs\n@@\n-zzz\n+y"), "missing.rs is not there"),
        (format!("{first}*** Delete File: missing.rs"), "missing.rs is not there"),
        (format!("{first}*** Delete File: src"), "directory"),
        ("garbage".into(), "names no file"),
    ] {
        let body = if body == "garbage" { "\n".into() } else { body };
        let failure = world.failure("apply_patch", input(&body)).await;
        assert!(failure.starts_with("apply_patch verification failed: ") && failure.contains(told), "{failure}");
    }
    assert!(world.failure("apply_patch", json!({ "patchText": "garbage" })).await.contains("*** Begin Patch"));
    assert!(!world.path("a.txt").exists());
    assert!(world.host.asks().is_empty());

    // Nor one that no longer fits once it is allowed.
    let path = world.path("src/lib.rs");
    *world.host.meanwhile.lock().unwrap() = Some(Box::new(move || std::fs::write(path, "other\n").unwrap()));
    let body = format!("{first}*** Update File: src/lib.rs\n@@\n-    a + b\n+    b + a");
    let failure = world.failure("apply_patch", input(&body)).await;
    assert!(failure.contains("a + b"), "{failure}");
    assert!(!world.path("a.txt").exists());
}

#[tokio::test]
async fn one_file_may_be_changed_twice() {
    let world = recorded();
    let body = "*** Update File: docs/notes.txt\n@@\n-line 1\n+first\n*** Update File: docs/notes.txt\n@@\n first\n-line 2\n+second";
    world.run("apply_patch", input(body)).await.unwrap();
    assert_eq!(world.get("docs/notes.txt"), "first\nsecond\n");
}

#[tokio::test]
async fn every_file_of_a_patch_must_be_allowed() {
    let world = recorded();
    let rejected = ToolError::Rejected { feedback: None };
    *world.host.answer.lock().unwrap() = Some(("external_directory", rejected.clone()));
    let body = "*** Add File: a.txt\n+x\n*** Update File: src/lib.rs\n*** Move to: ../out.rs\n@@\n-    a + b\n+    b";
    assert_eq!(world.run("apply_patch", input(body)).await, Err(rejected));
    assert_eq!(world.host.asks()[0].metadata["filepath"], json!(world.outside("out.rs")));
    assert!(!world.path("a.txt").exists() && !world.outside("out.rs").exists());
}
