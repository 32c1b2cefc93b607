//! `read` (recordings 10, 26, 27).

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that fails says where")]

mod support;

use serde_json::json;
use std::os::unix::fs::symlink;
use support::World;
use tools::{Instructions, ToolError};

#[tokio::test]
async fn a_file_comes_as_numbered_lines() {
    let world = World::new();
    world.put("README.md", "# Demo\n\nhello world\n");
    let path = world.path("README.md");
    let output = world.run("read", json!({ "filePath": "README.md" })).await.unwrap();
    assert_eq!(output.title, "README.md");
    assert_eq!(
        output.output,
        format!(
            "<path>{}</path>\n<type>file</type>\n<content>\n1: # Demo\n2: \n3: hello world\n\n\
             (End of file - total 3 lines)\n</content>",
            path.display()
        )
    );
    assert_eq!(
        output.metadata,
        json!({
            "preview": "# Demo\n\nhello world", "truncated": false, "loaded": [],
            "display": {
                "type": "file", "path": path, "text": "# Demo\n\nhello world",
                "lineStart": 1, "lineEnd": 3, "totalLines": 3, "truncated": false,
            },
        })
    );
    // Reading has no effect that a take-over would have to know of.
    assert_eq!(world.host.did().len(), 1);
    let ask = &world.host.asks()[0];
    assert_eq!(
        (ask.permission.as_str(), &ask.patterns[..], &ask.always[..]),
        ("read", &["README.md".into()][..], &["*".into()][..])
    );
    assert_eq!(ask.metadata, json!({}));
}

#[tokio::test]
async fn a_piece_says_where_to_go_on_and_brings_instructions_near_it() {
    let world = World::new();
    let text: String = (1..=30).map(|n| format!("line {n}\n")).collect();
    world.put("docs/notes.txt", text);
    let path = world.path("docs/AGENTS.md");
    *world.host.instructions.lock().unwrap() =
        vec![Instructions { path: path.clone(), text: "nested docs rule\n".into() }];
    let input = json!({ "filePath": "docs/notes.txt", "offset": 5, "limit": 3 });
    let output = world.run("read", input).await.unwrap();
    let expected = format!(
        "5: line 5\n6: line 6\n7: line 7\n\n(Showing lines 5-7 of 30. Use offset=8 to continue.)\n</content>\n\n\
         <system-reminder>\nInstructions from: {}\nnested docs rule\n\n</system-reminder>",
        path.display()
    );
    assert!(output.output.ends_with(&expected), "{}", output.output);
    assert_eq!(output.metadata["loaded"], json!([path]));
    assert_eq!(output.metadata["truncated"], true);
    assert_eq!(output.metadata["display"]["lineEnd"], 7);

    let beyond = world.failure("read", json!({ "filePath": "docs/notes.txt", "offset": 500 })).await;
    assert_eq!(beyond, "Offset 500 is out of range for this file (30 lines)");
}

#[tokio::test]
async fn long_files_and_long_lines_are_cut() {
    let world = World::new();
    let rows: String = (0..2500).map(|n| format!("row {n}\n")).collect();
    world.put("long.txt", format!("{}\n{rows}", "y".repeat(3000)));
    let output = world.run("read", json!({ "filePath": "long.txt" })).await.unwrap();
    let first = format!("\n1: {}... (line truncated to 2000 chars)\n2: row 0\n", "y".repeat(2000));
    assert!(output.output.contains(&first));
    let end = "\n2000: row 1998\n\n(Showing lines 1-2000 of 2501. Use offset=2001 to continue.)\n</content>";
    assert!(output.output.ends_with(end));

    world.put("wide.txt", format!("{}\n", "z".repeat(1000)).repeat(100));
    let output = world.run("read", json!({ "filePath": "wide.txt" })).await.unwrap();
    assert!(output.output.len() < 52_000);
    assert!(
        output.output.contains("Showing lines 1-51 of 100. Use offset=52 to continue.)"),
        "{}",
        &output.output[51_000..]
    );
}

#[tokio::test]
async fn an_empty_file_has_no_lines() {
    let world = World::new();
    world.put("empty.txt", "");
    let output = world.run("read", json!({ "filePath": "empty.txt" })).await.unwrap();
    assert!(output.output.ends_with("<content>\n\n\n(End of file - total 0 lines)\n</content>"));
    assert_eq!(output.metadata["display"]["lineStart"], 1);
    assert_eq!(output.metadata["display"]["lineEnd"], 0);
}

#[tokio::test]
async fn a_directory_is_listed() {
    let world = World::new();
    world.put("src/main.rs", "");
    world.put("src/lib.rs", "");
    let output = world.run("read", json!({ "filePath": "src" })).await.unwrap();
    let path = world.path("src");
    assert_eq!(
        output.output,
        format!(
            "<path>{}</path>\n<type>directory</type>\n<entries>\nlib.rs\nmain.rs\n\n(2 entries)\n</entries>",
            path.display()
        )
    );
    assert_eq!(
        output.metadata,
        json!({
            "preview": "lib.rs\nmain.rs", "truncated": false, "loaded": [],
            "display": {
                "type": "directory", "path": path, "entries": ["lib.rs", "main.rs"],
                "offset": 1, "totalEntries": 2, "truncated": false,
            },
        })
    );
    let output = world.run("read", json!({ "filePath": ".", "limit": 0 })).await.unwrap();
    assert_eq!(output.title, "");
    let output = world.run("read", json!({ "filePath": "src", "limit": 1 })).await.unwrap();
    assert!(output.output.contains("\nlib.rs\n\n(Showing 1 of 2 entries. Use offset=2 to continue.)"));
    let output = world.run("read", json!({ "filePath": world.path("") })).await.unwrap();
    assert!(output.output.contains("\nsrc/\n"));
}

#[tokio::test]
async fn images_are_attached_and_other_binaries_are_not() {
    let world = World::new();
    world.put("img.png", b"\x89PNG\r\n\x1a\nrest");
    world.put("bin.dat", "text");
    world.put("nul", "a\0b");
    let output = world.run("read", json!({ "filePath": "img.png" })).await.unwrap();
    assert_eq!(output.output, "Image read successfully");
    assert_eq!(output.metadata, json!({ "preview": "Image read successfully", "truncated": false, "loaded": [] }));
    let attachment = json!({ "type": "file", "mime": "image/png", "url": "data:image/png;base64,iVBORw0KGgpyZXN0" });
    assert_eq!(output.attachments, Some(vec![attachment]));
    for name in ["bin.dat", "nul"] {
        let error = world.failure("read", json!({ "filePath": name })).await;
        assert_eq!(error, format!("Cannot read binary file: {}", world.path(name).display()));
    }
}

#[tokio::test]
async fn what_is_missing_or_no_file_is_told() {
    let world = World::new();
    let path = world.path("nope.txt");
    let error = world.failure("read", json!({ "filePath": "nope.txt" })).await;
    assert_eq!(error, format!("File not found: {}", path.display()));
    world.put("NOPE.txt.bak", "");
    let error = world.failure("read", json!({ "filePath": "nope.txt" })).await;
    assert!(error.ends_with(&format!("\n{}.bak", world.path("NOPE.txt").display())), "{error}");
    let error = world.failure("read", json!({ "filePath": "/dev/zero" })).await;
    assert!(error.ends_with("not a regular file"), "{error}");
}

#[tokio::test]
async fn outside_of_the_work_tree_is_asked_for_first() {
    let world = World::new();
    std::fs::write(world.outside("secret"), "x").unwrap();
    let output = world.run("read", json!({ "filePath": "../secret" })).await.unwrap();
    assert_eq!(output.title, "../secret");
    let asks = world.host.asks();
    let root = world.outside("");
    let pattern = root.join("*").display().to_string();
    assert_eq!(asks[0].permission, "external_directory");
    assert_eq!((&asks[0].patterns, &asks[0].always), (&vec![pattern.clone()], &vec![pattern]));
    assert_eq!(
        asks[0].metadata,
        json!({ "filepath": world.outside("secret"), "parentDir": world.outside("secret").parent() })
    );
    assert_eq!((asks[1].permission.as_str(), asks[1].patterns[0].as_str()), ("read", "../secret"));

    *world.host.answer.lock().unwrap() = Some(("external_directory", ToolError::Rejected { feedback: None }));
    symlink(world.outside("secret"), world.path("innocent")).unwrap();
    let result = world.run("read", json!({ "filePath": "innocent" })).await;
    assert_eq!(result, Err(ToolError::Rejected { feedback: None }));
}

#[tokio::test]
async fn a_link_is_asked_for_by_both_names() {
    let world = World::new();
    world.put(".env", "SECRET=1");
    symlink(".env", world.path("notes.txt")).unwrap();
    world.run("read", json!({ "filePath": "notes.txt" })).await.unwrap();
    assert_eq!(world.host.asks()[0].patterns, ["notes.txt", ".env"]);
}
