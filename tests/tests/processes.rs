//! The processes of tools: what they see of the server, and what they may use.

use serde_json::{Value, json};
use testkit::client::parts_of;
use testkit::{Answer, World, WorldSpec};

const PASSWORD: &str = "the-password-of-the-server";
const KEY: &str = "the-key-of-the-provider";
const HEADER: &str = "the-token-of-a-header";

/// Doubles, and ends by itself after some generations, should nobody kill it.
const BOMB: &str =
    "bomb() { [ $1 -gt 7 ] && exec sleep 20; sleep 0.02; bomb $(($1 + 1)) & bomb $(($1 + 1)) & wait; }; bomb 0";

/// Runs a command and returns the state of its call.
async fn run(world: &World, command: &str) -> Value {
    world
        .model
        .script([Answer::call("call_1", "bash", json!({"command": command, "description": "d"})), Answer::say("done")]);
    let id = world.session().await;
    world.prompt(&id, "go").await;
    let state = world.client().tool_parts(&id).await.remove(0)["state"].clone();
    assert_eq!(state["status"], "completed", "{state}");
    state
}

fn text<'a>(state: &'a Value, key: &str) -> &'a str {
    state[key].as_str().unwrap_or_default()
}

#[tokio::test]
async fn a_command_sees_no_secret_of_the_server_under_any_name_and_no_input() {
    let options = json!({"apiKey": "{env:HUB}", "headers": {"authorization": "Bearer {env:HUB_TOKEN}"}});
    let variables = [
        ("HUB", KEY),
        ("HUB_TOKEN", HEADER),
        ("SOME_PASSWORD", PASSWORD),
        ("SOME_URL", "https://me:the-password-of-the-server@host/"),
        ("OPENAI_API_KEY", "the-key-of-openai"),
        ("OPENCODE_CONFIG_CONTENT", "{\"username\": \"the-text-of-a-config\"}"),
        ("FLOTILLA_LOG_LEVEL", "info"),
        ("SHOWN", "what-may-be-seen"),
    ];
    let world = World::start_with(WorldSpec {
        config: json!({"provider": {"fake": {"options": options}}}),
        env: variables.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec(),
        password: Some(PASSWORD.into()),
        ..WorldSpec::default()
    })
    .await;
    let command =
        "env; cat /proc/$PPID/environ | tr '\\0' '\\n'; cat /proc/$PPID/cmdline | tr '\\0' ' '; cat; echo; echo ended";
    let state = run(&world, command).await;
    assert_eq!(world.model.main_requests()[0].headers["authorization"], format!("Bearer {HEADER}"));
    let shell = json!({"agent": "build", "command": command.replace("cat;", "")});
    let shell = world.client().post(&format!("/session/{}/shell", world.session().await), &shell).await.ok();
    let shell = &parts_of(&shell)[0]["state"];
    assert!(text(shell, "output").contains("SHOWN=") && !text(shell, "output").contains(HEADER), "{shell}");
    let output = text(&state, "output");
    assert!(output.contains("SHOWN=what-may-be-seen") && output.ends_with("ended\n"), "{output}");
    for secret in [PASSWORD, KEY, HEADER, "the-key-of-openai", "the-text-of-a-config", "FLOTILLA_", "HUB"] {
        assert!(!output.contains(secret), "{secret} in {output}");
    }
}

#[tokio::test]
async fn what_exceeds_a_limit_ends_and_the_model_is_told_why() {
    let args = [
        ["--command-processes", "60"],
        ["--command-memory", "192MiB"],
        ["--command-file-size", "1MiB"],
        ["--command-open-files", "32"],
    ];
    let args = args.concat().into_iter().map(str::to_owned).collect();
    let world = World::start_with(WorldSpec { args, ..WorldSpec::default() }).await;

    let bomb = run(&world, BOMB).await;
    assert!(text(&bomb, "output").contains("more than 60 processes at the same time"), "{bomb}");
    assert_eq!(bomb["metadata"]["exit"], Value::Null);
    assert!(world.tool_processes().is_empty(), "nothing of it is left");

    let hungry = run(&world, "head -c 400M /dev/zero | tail | sleep 600").await;
    assert!(text(&hungry, "output").contains("more than 192 MiB of memory"), "{hungry}");

    let large = run(&world, "head -c 5M /dev/zero > big; stat -c %s big").await;
    assert!(text(&large, "output").ends_with("1048576\n"), "{large}");
    let open = run(&world, "ulimit -n; for n in $(seq 3 100); do eval \"exec $n</dev/null\"; done").await;
    assert!(
        text(&open, "output").starts_with("32\n") && text(&open, "output").contains("Too many open files"),
        "{open}"
    );

    let fine = run(&world, "seq 3 | xargs -P 3 -n 1 echo | sort; echo fine").await;
    assert_eq!((text(&fine, "output"), &fine["metadata"]["exit"]), ("1\n2\n3\nfine\n", &json!(0)));
}
