//! Files of the directory, as people are shown them.

#![allow(clippy::unwrap_used, reason = "a test may panic in its helpers, too")]

use serde_json::{Value, json};
use std::os::unix::fs::symlink;
use testkit::{Reply, World, WorldSpec};

async fn world() -> World {
    let files = [
        (".gitignore", "target\n"),
        ("lines.txt", "one\ntwo hello\n"),
        ("src/lines.tsx", "hello\n"),
        ("src/components/Button.tsx", "three\n"),
        ("docs/outlines.md", "# Four\n"),
        (".hidden/lines.md", "five\n"),
        ("target/lines.txt", "hello from a build\n"),
    ];
    let files = files.map(|(path, text)| (path.to_owned(), text.to_owned())).to_vec();
    let world = World::start_with(WorldSpec { files, ..WorldSpec::default() }).await;
    symlink("/etc", world.file("outside")).unwrap();
    symlink("docs", world.file("inside")).unwrap();
    world
}

/// The query is told to be wrong so.
fn is_refused(reply: &Reply, message: &str) {
    let expected = json!({"name": "BadRequest", "data": {"message": message, "kind": "Query"}});
    assert_eq!((reply.status, reply.json()), (400, expected));
}

#[tokio::test]
async fn what_somebody_types_finds_files_and_folders_on_every_replica() {
    let world = world().await;
    let client = world.client();
    for number in 0..world.replicas().len() {
        let one = world.at(number);
        let find = async |query: &str| one.get(&format!("/find/file?query={query}")).await.ok();
        assert_eq!(find("lines.tx").await, json!(["lines.txt", "src/lines.tsx"]), "replica {number}");
        assert_eq!(find("LINES&limit=3").await, json!(["lines.txt", "src/lines.tsx", ".hidden/lines.md"]));
        assert_eq!(find("btn").await, json!(["src/components/Button.tsx"]));
        assert_eq!(
            find("src&dirs=true").await,
            json!(["src/", "src/lines.tsx", "src/components/", "src/components/Button.tsx"])
        );
        assert_eq!(find("src&dirs=false").await, json!(["src/lines.tsx", "src/components/Button.tsx"]));
        assert_eq!(find("comp&type=directory").await, json!(["src/components/"]));
        assert_eq!(find("").await[0], "src/");
        assert_eq!(find("target").await, json!([]), "it is ignored");
        assert_eq!(find("passwd").await, json!([]), "links are not followed");
    }
    // What is new is found at once, wherever it was made.
    std::fs::write(world.file("brand-new.rs"), "").unwrap();
    assert_eq!(client.get("/find/file?query=brandnew").await.ok(), json!(["brand-new.rs"]));
    let below = world.file("src").to_str().unwrap().to_owned();
    let found = client.get(&format!("/find/file?query=lines&directory={below}")).await.ok();
    assert_eq!(found, json!(["lines.tsx"]), "paths are of the directory that is asked for");
}

#[tokio::test]
async fn queries_that_make_no_sense_are_refused_as_recorded() {
    let world = world().await;
    let client = world.client();
    for (path, message) in [
        ("/find/file", "Missing key\n  at [\"query\"]"),
        ("/find/symbol", "Missing key\n  at [\"query\"]"),
        ("/find", "Missing key\n  at [\"pattern\"]"),
        ("/file", "Missing key\n  at [\"path\"]"),
        ("/file/content", "Missing key\n  at [\"path\"]"),
        ("/find/file?query=s&limit=0", "Expected a value greater than or equal to 1, got 0\n  at [\"limit\"]"),
        ("/find/file?query=s&limit=500", "Expected a value less than or equal to 200, got 500\n  at [\"limit\"]"),
        ("/find/file?query=s&dirs=maybe", "Expected \"true\" | \"false\", got \"maybe\"\n  at [\"dirs\"]"),
    ] {
        is_refused(&client.get(path).await, message);
    }
    let missing = world.file("none").to_str().unwrap().to_owned();
    let message = format!("Not a directory: {missing}\n  at [\"directory\"]");
    is_refused(&client.get(&format!("/find/file?query=a&directory={missing}")).await, &message);
}

#[tokio::test]
async fn what_only_other_programs_know_is_answered_as_empty() {
    let world = world().await;
    for path in ["/file/status", "/find/symbol?query=main"] {
        assert_eq!(world.client().get(path).await.ok(), Value::Array(Vec::new()), "{path}");
    }
}

#[tokio::test]
async fn the_second_api_finds_the_same_in_its_own_form() {
    let world = world().await;
    let client = world.client();
    let current = client.get("/project/current").await.ok();
    let location = |directory: String| json!({"directory": directory, "project": {"id": current["id"], "directory": world.directory_text()}});
    for number in 0..world.replicas().len() {
        // As the terminal writes it.
        let found = world.at(number).get("/api/fs/find?query=lines.tx&limit=20&&").await.ok();
        let data = json!([{"path": "lines.txt", "type": "file"}, {"path": "src/lines.tsx", "type": "file"}]);
        assert_eq!(found, json!({"location": location(world.directory_text()), "data": data}), "replica {number}");
    }
    let folders = client.get("/api/fs/find?query=src&type=directory&limit=1").await.ok();
    assert_eq!(folders["data"], json!([{"path": "src/", "type": "directory"}]));
    let below = world.file("src").to_str().unwrap().to_owned();
    let found = client.get(&format!("/api/fs/find?query=lines&location%5Bdirectory%5D={below}")).await.ok();
    let data = json!([{"path": "lines.tsx", "type": "file"}]);
    assert_eq!(found, json!({"location": location(below), "data": data}));
    for (query, message) in [
        ("", "Missing key\n  at [\"query\"]"),
        ("query=a&type=x", "Expected \"file\" | \"directory\", got \"x\"\n  at [\"type\"]"),
        ("query=a&limit=0", "Expected a value greater than 0, got 0\n  at [\"limit\"]"),
        ("query=a&limit=abc", "Expected an integer, got NaN\n  at [\"limit\"]"),
    ] {
        let reply = client.get(&format!("/api/fs/find?{query}")).await;
        let expected = json!({"_tag": "InvalidRequestError", "message": message, "kind": "Query"});
        assert_eq!((reply.status, reply.json()), (400, expected));
    }
}

#[tokio::test]
async fn folders_files_and_lines_are_shown_as_recorded_on_every_replica() {
    let world = world().await;
    std::fs::write(world.file("bin.dat"), [0, 1, 2]).unwrap();
    let absolute = |path: &str| world.file(path).to_str().unwrap().to_owned();
    for number in 0..world.replicas().len() {
        let one = world.at(number);
        let get = async |path: &str| one.get(path).await.ok();
        let src = json!([
            {"name": "components", "path": "src/components/", "absolute": absolute("src/components"), "type": "directory", "ignored": false},
            {"name": "lines.tsx", "path": "src/lines.tsx", "absolute": absolute("src/lines.tsx"), "type": "file", "ignored": false},
        ]);
        assert_eq!(get("/file?path=src").await, src, "replica {number}");
        assert_eq!(get(&format!("/file?path={}", absolute("src"))).await, src);
        let root = get("/file?path=").await;
        let shown =
            root.as_array().unwrap().iter().map(|node| (node["path"].as_str().unwrap(), node["ignored"] == true));
        let expected = [
            (".git/", false),
            (".hidden/", false),
            ("docs/", false),
            ("src/", false),
            ("target/", true),
            (".gitignore", false),
            ("bin.dat", false),
            ("lines.txt", false),
            ("opencode.json", false),
            ("README.md", false),
        ];
        assert_eq!(shown.collect::<Vec<_>>(), expected);
        assert_eq!(get("/file?path=.").await, root);
        assert_eq!(get("/file/content?path=lines.txt").await, json!({"type": "text", "content": "one\ntwo hello"}));
        assert_eq!(get("/file/content?path=inside/outlines.md").await["content"], "# Four");
        assert_eq!(get("/file/content?path=nope.txt").await, json!({"type": "text", "content": ""}));
        let binary =
            json!({"type": "binary", "content": "AAEC", "encoding": "base64", "mimeType": "application/octet-stream"});
        assert_eq!(get("/file/content?path=bin.dat").await, binary);
        let line = |path: &str, text: &str, number: u64, offset: u64, start: u64| {
            json!({"path": {"text": path}, "lines": {"text": text}, "line_number": number, "absolute_offset": offset,
                   "submatches": [{"match": {"text": "hello"}, "start": start, "end": start + 5}]})
        };
        let lines = json!([line("lines.txt", "two hello\n", 2, 4, 4), line("src/lines.tsx", "hello\n", 1, 0, 0)]);
        assert_eq!(get("/find?pattern=hel%2Blo").await, lines, "what is ignored is not searched");
        assert_eq!(get("/find?pattern=zzzz").await, json!([]));
    }
}

#[tokio::test]
async fn nothing_outside_of_the_directory_is_shown_wherever_a_path_or_a_link_leads() {
    let world = world().await;
    let client = world.client();
    for path in
        ["..", "../..", "/", "/etc", "outside", "src/../..", "outside/hostname", "outside/none", "/etc/hostname"]
    {
        let message = format!("Not in the directory: {path}\n  at [\"path\"]");
        is_refused(&client.get(&format!("/file?path={path}")).await, &message);
        is_refused(&client.get(&format!("/file/content?path={path}")).await, &message);
    }
    for path in [
        "/file?path=lines.txt",
        "/file?path=none",
        "/file/content?path=src",
        "/file/content?path=",
        "/find?pattern=(",
        "/find?pattern=",
    ] {
        let reply = client.get(path).await;
        assert_eq!((reply.status, &reply.json()["name"]), (400, &json!("BadRequest")), "{path}");
    }
    assert_eq!(client.get("/find?pattern=root:").await.ok(), json!([]), "links are not followed");
}
