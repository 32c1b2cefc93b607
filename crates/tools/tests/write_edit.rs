//! `write` and `edit` (recordings 11, 12, 26, 31).

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that fails says where")]

mod support;

use serde_json::json;
use std::os::unix::fs::symlink;
use support::{Did, World};
use tools::{Output, ToolError};

fn patch(path: &std::path::Path, hunks: &str) -> String {
    let path = path.display();
    format!("Index: {path}\n{}\n--- {path}\n+++ {path}\n{hunks}", "=".repeat(67))
}

#[tokio::test]
async fn a_new_file_is_asked_for_begun_locked_written_and_told() {
    let world = World::new();
    let path = world.path("out/new.txt");
    let output = world.run("write", json!({ "filePath": "out/new.txt", "content": "alpha\n" })).await.unwrap();
    assert_eq!(
        output,
        Output {
            title: "out/new.txt".into(),
            output: "Wrote file successfully.".into(),
            metadata: json!({ "diagnostics": {}, "filepath": path, "exists": false, "truncated": false }),
            attachments: None,
        }
    );
    assert_eq!(world.get("out/new.txt"), "alpha\n");
    let did = world.host.did();
    let Did::Ask(ask) = &did[0] else { panic!("{did:?}") };
    assert_eq!(
        (ask.permission.as_str(), &ask.patterns[..], &ask.always[..]),
        ("edit", &["out/new.txt".into()][..], &["*".into()][..])
    );
    assert_eq!(ask.metadata, json!({ "filepath": path, "diff": patch(&path, "@@ -0,0 +1,1 @@\n+alpha\n") }));
    assert_eq!(
        did[1..],
        [
            Did::Begin,
            Did::Lock(path.clone()),
            Did::Unlock,
            Did::Publish("file.edited", json!({ "file": path })),
            Did::Publish("file.watcher.updated", json!({ "file": path, "event": "add" })),
        ]
    );
}

#[tokio::test]
async fn a_file_that_is_there_is_replaced() {
    let world = World::new();
    world.put("README.md", "# Demo\n");
    let output = world.run("write", json!({ "filePath": "README.md", "content": "# New\n" })).await.unwrap();
    assert_eq!(output.metadata["exists"], true);
    assert_eq!(world.get("README.md"), "# New\n");
    let last = Did::Publish("file.watcher.updated", json!({ "file": world.path("README.md"), "event": "change" }));
    assert_eq!(world.host.did().last(), Some(&last));
}

#[tokio::test]
async fn nothing_is_touched_without_permission() {
    let world = World::new();
    world.put("a.txt", "old");
    for error in [ToolError::Rejected { feedback: None }, ToolError::Denied("a rule".into()), ToolError::Lost] {
        *world.host.answer.lock().unwrap() = Some(("edit", error.clone()));
        let result = world.run("write", json!({ "filePath": "a.txt", "content": "new" })).await;
        assert_eq!(result, Err(error.clone()));
        let input = json!({ "filePath": "a.txt", "oldString": "old", "newString": "new" });
        assert_eq!(world.run("edit", input).await, Err(error));
    }
    assert_eq!(world.get("a.txt"), "old");
    assert!(!world.host.did().contains(&Did::Begin));
}

#[tokio::test]
async fn a_link_out_of_the_work_tree_is_asked_for_and_written_through() {
    let world = World::new();
    std::fs::write(world.outside("target"), "old").unwrap();
    symlink(world.outside("target"), world.path("link")).unwrap();
    world.run("write", json!({ "filePath": "link", "content": "new" })).await.unwrap();
    let asks = world.host.asks();
    assert_eq!(asks[0].permission, "external_directory");
    assert_eq!(asks[0].metadata["filepath"], json!(world.outside("target")));
    assert_eq!(asks[1].patterns, ["link", "../target"]);
    assert!(world.path("link").is_symlink());
    assert_eq!(std::fs::read_to_string(world.outside("target")).unwrap(), "new");
}

#[tokio::test]
async fn an_edit_shows_its_patch() {
    let world = World::new();
    world.put("src/main.rs", "fn main() {\n    println!(\"hello\");\n}\n");
    let path = world.path("src/main.rs");
    let input = json!({ "filePath": "src/main.rs", "oldString": "hello", "newString": "bye" });
    let output = world.run("edit", input).await.unwrap();
    let text = patch(&path, "@@ -1,3 +1,3 @@\n fn main() {\n-    println!(\"hello\");\n+    println!(\"bye\");\n }\n");
    let mut metadata = json!({
        "diagnostics": {},
        "diff": text,
        "filediff": { "file": path, "patch": text, "additions": 1, "deletions": 1 },
    });
    assert_eq!(world.host.did().last(), Some(&Did::Progress(metadata.clone())));
    metadata["truncated"] = json!(false);
    assert_eq!((output.title.as_str(), output.output.as_str()), ("src/main.rs", "Edit applied successfully."));
    assert_eq!(output.metadata, metadata);
    assert_eq!(world.get("src/main.rs"), "fn main() {\n    println!(\"bye\");\n}\n");
    assert_eq!(world.host.asks()[0].metadata["diff"], json!(text));
}

#[tokio::test]
async fn edits_need_one_place_or_all_places() {
    let world = World::new();
    world.put("notes.txt", "line 1\nline 2\n");
    let edit = |old: &str, new: &str, all: bool| json!({ "filePath": "notes.txt", "oldString": old, "newString": new, "replaceAll": all });
    let failure = world.failure("edit", edit("line", "x", false)).await;
    assert!(failure.starts_with("Found multiple matches for oldString."), "{failure}");
    let failure = world.failure("edit", edit("zzz", "x", true)).await;
    assert!(failure.starts_with("Could not find oldString in the file."), "{failure}");
    let failure = world.failure("edit", edit("a", "a", false)).await;
    assert_eq!(failure, "No changes to apply: oldString and newString are identical.");
    let failure = world.failure("edit", edit("", "x", false)).await;
    assert!(failure.contains("has content already"), "{failure}");
    assert!(world.host.asks().is_empty());
    let output = world.run("edit", edit("line", "LINE", true)).await.unwrap();
    assert_eq!(output.metadata["filediff"]["additions"], 2);
    assert_eq!(world.get("notes.txt"), "LINE 1\nLINE 2\n");
}

#[tokio::test]
async fn an_edit_of_nothing_makes_a_file() {
    let world = World::new();
    let input = json!({ "filePath": "created.txt", "oldString": "", "newString": "made\n" });
    let output = world.run("edit", input).await.unwrap();
    assert_eq!(output.metadata["diff"], json!(patch(&world.path("created.txt"), "@@ -0,0 +1,1 @@\n+made\n")));
    assert_eq!(world.get("created.txt"), "made\n");
    let input = json!({ "filePath": "missing.txt", "oldString": "a", "newString": "b" });
    let failure = world.failure("edit", input).await;
    assert_eq!(failure, format!("File {} not found", world.path("missing.txt").display()));
    let failure = world.failure("edit", json!({ "filePath": ".", "oldString": "a", "newString": "b" })).await;
    assert!(failure.starts_with("Path is a directory, not a file"), "{failure}");
}

#[tokio::test]
async fn what_changed_while_the_user_thought_is_not_lost() {
    let world = World::new();
    world.put("a.txt", "one\ntwo\n");
    let path = world.path("a.txt");
    let change = move || std::fs::write(path, "ONE\ntwo\n").unwrap();
    *world.host.meanwhile.lock().unwrap() = Some(Box::new(change));
    world.run("edit", json!({ "filePath": "a.txt", "oldString": "two", "newString": "TWO" })).await.unwrap();
    assert_eq!(world.get("a.txt"), "ONE\nTWO\n");
}

#[tokio::test]
async fn a_file_that_is_no_text_is_not_edited() {
    let world = World::new();
    world.put("latin1.txt", b"caf\xe9 x");
    let failure = world.failure("edit", json!({ "filePath": "latin1.txt", "oldString": "x", "newString": "y" })).await;
    assert!(failure.ends_with("not UTF-8 text"), "{failure}");
}

#[tokio::test]
async fn a_folder_that_becomes_a_link_while_the_user_thinks_is_not_gone_through() {
    let read = json!({ "filePath": "dir/a.txt" });
    let write = json!({ "filePath": "dir/a.txt", "content": "new" });
    let edit = json!({ "filePath": "dir/a.txt", "oldString": "old", "newString": "new" });
    let patch = json!({ "patchText": "*** Begin Patch\n*** Update File: dir/a.txt\n@@\n-old\n+new\n*** End Patch" });
    let add = json!({ "patchText": "*** Begin Patch\n*** Add File: dir/sub/b.txt\n+new\n*** End Patch" });
    for (tool, input) in
        [("read", read), ("write", write), ("edit", edit), ("apply_patch", patch), ("apply_patch", add)]
    {
        let world = World::new();
        world.put("dir/a.txt", "old\n");
        let theirs = world.outside("theirs");
        std::fs::create_dir(&theirs).unwrap();
        std::fs::write(theirs.join("a.txt"), "old secret\n").unwrap();
        let (dir, aside) = (world.path("dir"), world.path("aside"));
        let change = move || {
            std::fs::rename(&dir, aside).unwrap();
            symlink(theirs, dir).unwrap();
        };
        *world.host.meanwhile.lock().unwrap() = Some(Box::new(change));
        let result = world.run(tool, input).await;
        assert!(matches!(result, Err(ToolError::Failed(_))), "{tool}: {result:?}");
        assert_eq!(std::fs::read_dir(world.outside("theirs")).unwrap().count(), 1, "{tool}");
        assert_eq!(std::fs::read_to_string(world.outside("theirs/a.txt")).unwrap(), "old secret\n", "{tool}");
    }
}
