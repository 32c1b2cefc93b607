//! `bash` (recordings 13, 26, 30, 42).

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that fails says where")]

mod support;

use serde_json::{Value, json};
use std::time::Duration;
use support::{Did, World};
use tools::{Registry, ToolError};

fn updates(world: &World) -> Vec<String> {
    let did = world.host.did();
    let updates = did.iter().filter_map(|did| match did {
        Did::Progress(metadata) => metadata["output"].as_str().map(str::to_owned),
        _ => None,
    });
    updates.collect()
}

#[tokio::test]
async fn a_command_completes_with_its_output_and_exit_code() {
    let world = World::new();
    for (command, text, exit) in
        [("echo hi", "hi\n", 0), ("echo err >&2; exit 3", "err\n", 3), ("true", "(no output)", 0)]
    {
        let output = world.run("bash", json!({ "command": command, "description": "x" })).await.unwrap();
        assert_eq!((output.title.as_str(), output.output.as_str()), (command, text));
        assert_eq!(output.metadata, json!({ "output": text, "exit": exit, "truncated": false }));
    }
    let did = world.host.did();
    assert!(matches!(&did[0], Did::Ask(ask) if ask.permission == "bash" && ask.patterns == ["echo hi"]));
    assert_eq!(did[1..3], [Did::Begin, Did::Progress(json!({ "output": "" }))]);
}

#[tokio::test]
async fn the_directory_may_be_chosen() {
    let world = World::new();
    world.put("src/x", "");
    let output = world.run("bash", json!({ "command": "pwd", "workdir": "src" })).await.unwrap();
    assert_eq!(output.output, format!("{}\n", world.path("src").display()));
    let failure = world.failure("bash", json!({ "command": "pwd", "workdir": "nowhere" })).await;
    assert!(failure.contains("nowhere"), "{failure}");
    assert_eq!(world.host.asks().len(), 2);
}

#[tokio::test]
async fn running_output_is_shown() {
    let world = World::new();
    let output = world.run("bash", json!({ "command": "echo one; sleep 0.5; echo two" })).await.unwrap();
    assert_eq!(output.output, "one\ntwo\n");
    let updates = updates(&world);
    assert_eq!(updates[..2], ["", "one\n"]);
}

#[tokio::test]
async fn a_timeout_stops_the_command_and_says_so() {
    let world = World::new();
    let input = json!({ "command": "echo start; sleep 600", "timeout": 300 });
    let output = world.run("bash", input).await.unwrap();
    assert!(output.output.starts_with("start\n"), "{}", output.output);
    assert!(output.output.contains("\n\n<shell_metadata>\n") && output.output.ends_with("\n</shell_metadata>"));
    assert!(output.output.contains("300 ms"));
    assert_eq!(output.metadata["exit"], Value::Null);
    assert!(!output.metadata["output"].as_str().unwrap().contains("shell_metadata"));
}

#[tokio::test]
async fn an_abort_stops_the_command_and_keeps_what_it_printed() {
    let world = World::new();
    let bash = Registry::builtin().get("bash").unwrap();
    let run = bash.run(json!({ "command": "echo before; sleep 600; echo after" }), &world.call);
    let abort = async {
        while !updates(&world).iter().any(|update| update == "before\n") {
            world.host.progressed.notified().await;
        }
        world.call.cancel.cancel();
    };
    let both = async { tokio::join!(run, abort).0 };
    let output = tokio::time::timeout(Duration::from_secs(10), both).await.unwrap().unwrap();
    assert!(output.output.starts_with("before\n"), "{}", output.output);
    assert!(output.output.ends_with("\n\n<shell_metadata>\nUser aborted the command\n</shell_metadata>"));
    assert!(!output.output.contains("after"));
    assert_eq!(output.metadata["exit"], Value::Null);
    assert_eq!(world.run("bash", json!({ "command": "echo x" })).await, Err(ToolError::Aborted));
}

#[tokio::test]
async fn of_a_long_output_the_end_is_returned_and_the_whole_kept() {
    let world = World::new();
    let output = world.run("bash", json!({ "command": "seq 1 5000" })).await.unwrap();
    let path = world.outside("outputs/tool_0123");
    let tail: String = (3002..=5000).map(|n| format!("{n}\n")).collect();
    assert_eq!(output.output, format!("...output truncated...\n\nFull output saved to: {}\n\n{tail}", path.display()));
    let whole: String = (1..=5000).map(|n| format!("{n}\n")).collect();
    assert_eq!(std::fs::read_to_string(&path).unwrap(), whole);
    assert_eq!(output.metadata, json!({ "output": whole, "exit": 0, "truncated": true, "outputPath": path }));
}

#[tokio::test]
async fn an_endless_output_is_bounded_everywhere() {
    let world = World::with(|settings| settings.max_kept_bytes = 3_000_000);
    let output =
        world.run("bash", json!({ "command": "yes 0123456789 | head -c 20000000; echo; echo end" })).await.unwrap();
    assert!(output.output.len() < 52_000 && output.output.ends_with("\nend\n"));
    assert!(output.metadata["output"].as_str().unwrap().len() < 30_100);
    assert_eq!(std::fs::metadata(world.outside("outputs/tool_0123")).unwrap().len(), 3_000_000);
}

#[tokio::test]
async fn each_simple_command_is_asked_for() {
    let world = World::new();
    let command = "cd . && git status -b && echo x && echo y";
    *world.host.answer.lock().unwrap() = Some(("bash", ToolError::Denied("no".into())));
    assert_eq!(world.run("bash", json!({ "command": command })).await, Err(ToolError::Denied("no".into())));
    let ask = &world.host.asks()[0];
    assert_eq!(ask.patterns, ["git status -b", "echo x", "echo y"]);
    assert_eq!(ask.always, ["git status *", "echo *"]);
    assert_eq!(ask.metadata, json!({ "command": command }));
    assert!(!world.host.did().contains(&Did::Begin));
}

#[tokio::test]
async fn directories_of_file_commands_are_asked_for() {
    let world = World::new();
    let asked = async |command: &str, workdir: &str| {
        world.host.did().clear();
        *world.host.answer.lock().unwrap() = Some(("bash", ToolError::Denied("no".into())));
        let _ = world.run("bash", json!({ "command": command, "workdir": workdir })).await;
        let asks = world.host.asks();
        asks.into_iter().find(|ask| ask.permission == "external_directory").map(|ask| ask.metadata)
    };
    let command = "cat /etc/hostname inside ~/x";
    let home = world.outside("home");
    let patterns = ["/etc/*".to_owned(), home.join("*").display().to_string()];
    assert_eq!(
        asked(command, ".").await,
        Some(json!({ "command": command, "directories": ["/etc", home], "patterns": patterns }))
    );
    assert_eq!(asked("pwd", "/etc").await.unwrap()["directories"], json!(["/etc"]));
    assert_eq!(asked("cd /usr", ".").await.unwrap()["directories"], json!(["/usr"]));
    assert_eq!(asked("ls /etc; mkdir inside", ".").await, None);
}
