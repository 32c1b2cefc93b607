use crate::world::{World, recorded, recorded_and};
use serde_json::{Value, json};

/// R01: a project with a command and an agent in Markdown.
#[test]
fn the_merged_configuration_has_the_recorded_shape() {
    let world = World::with(recorded());
    world.write(
        "ws/.opencode/agent/helper.md",
        "---\ndescription: A helper subagent\nmode: subagent\ntools:\n  bash: false\n---\nYou are a helper.\n",
    );
    world.write(
        "ws/.opencode/command/greet.md",
        "---\ndescription: Greet someone\nagent: build\n---\nSay hello to $1 and also $ARGUMENTS\n",
    );
    let mut expected: Value = serde_json::from_str(include_str!("fixtures/config.json")).unwrap();
    // Our deviation: keys are masked.
    expected["provider"]["fake"]["options"]["apiKey"] = agents::secret::MASK.into();
    let instance = world.load();
    assert_eq!(instance.config, expected);

    let commands = serde_json::to_value(&instance.commands).unwrap();
    let names: Vec<_> = instance.commands.iter().map(|command| command.name.as_str()).collect();
    assert_eq!(names, ["init", "review", "greet"]);
    assert_eq!(commands[0]["hints"], json!(["$ARGUMENTS"]));
    assert_eq!(commands[1]["subtask"], true);
    assert_eq!(
        commands[2],
        json!({"name": "greet", "description": "Greet someone", "agent": "build", "source": "command",
               "template": "Say hello to $1 and also $ARGUMENTS", "hints": ["$1", "$ARGUMENTS"]})
    );
}

/// R92: one directory each.
#[test]
fn good_and_bad_files_answer_as_recorded() {
    let mut world = World::with(recorded());
    world.set("WIRE_USER", "envuser");
    world.write(
        "ws/sub1/opencode.jsonc",
        "{ // comment\n \"username\": \"{env:WIRE_USER}\", \"model\": \"fake/m\", \"instructions\": [\"x.md\",], }",
    );
    world.write("ws/sub2/opencode.json", "{\"model\": 5}");
    world.write("ws/sub3/opencode.json", "{\"nonsense\": true, \"model\": \"fake/m\"}");
    world.write("ws/sub4/opencode.json", "{ broken");
    world.write("ws/sub5/opencode.json", "{\"username\": \"{file:./name.txt}\"}");
    world.write("ws/sub5/name.txt", "from-file\n");
    world.write("ws/sub6/opencode.json", "{\"username\": \"{file:./none.txt}\"}");
    world.write("ws/sub7/.opencode/agent/bad.md", "---\nmode: [\n---\nx");
    let config = |below: &str| world.try_load(below).unwrap().config;
    let error = |below: &str| world.try_load(below).unwrap_err().body();
    let path = |below: &str| world.ws.join(below);

    let sub1 = config("sub1");
    assert_eq!((&sub1["username"], &sub1["instructions"]), (&json!("envuser"), &json!(["x.md"])));
    assert_eq!(
        error("sub2"),
        json!({"name": "ConfigInvalidError", "data": {"path": path("sub2/opencode.json"), "issues":
            [{"path": ["model"], "message": "Expected string | undefined, got 5"}]}})
    );
    assert_eq!(config("sub3")["nonsense"], true);
    let broken = error("sub4");
    assert_eq!(broken["name"], "ConfigJsonError");
    assert_eq!(broken["data"]["path"], json!(path("sub4/opencode.json")));
    assert!(broken["data"]["message"].as_str().unwrap().contains("line 1, column 3"), "{broken}");
    assert_eq!(config("sub5")["username"], "from-file");
    assert_eq!(
        error("sub6"),
        json!({"name": "ConfigInvalidError", "data": {"path": path("sub6/opencode.json"), "message": format!(
            "bad file reference: \"{{file:./none.txt}}\" {} does not exist", path("sub6/none.txt").display())}})
    );
    assert_eq!(
        config("sub7")["agent"]["bad"],
        json!({"prompt": "---\nmode: [\n---\nx", "options": {}, "permission": {}, "name": "bad"})
    );
}

#[test]
fn later_layers_override_earlier_ones() {
    let mut world = World::with(json!({"username": "project", "instructions": ["b.md"], "plugin": ["p2"]}));
    let name = |world: &World, below: &str| world.try_load(below).unwrap().config["username"].clone();
    world.write("home/.config/opencode/config.json", "{\"username\": \"oldest\", \"share\": \"manual\"}");
    world.write("home/.config/opencode/opencode.jsonc", "{\"instructions\": [\"a.md\"], \"plugin\": [\"p1\"]}");
    assert_eq!(name(&world, ""), "project");
    let config = world.load().config;
    assert_eq!(config["instructions"], json!(["a.md", "b.md"]));
    assert_eq!(config["plugin"], json!(["p1", "p2"]));
    assert_eq!(config["share"], "manual");

    world.write("ws/deep/opencode.json", "{\"username\": \"deep json\"}");
    world.write("ws/deep/opencode.jsonc", "{\"username\": \"deep jsonc\", \"enabled_providers\": [\"x\"]}");
    assert_eq!(name(&world, "deep"), "deep jsonc");
    assert_eq!(name(&world, ""), "project");
    world.write("ws/.opencode/opencode.json", "{\"username\": \"folder\", \"enabled_providers\": [\"y\"]}");
    assert_eq!(name(&world, "deep"), "folder");
    assert_eq!(world.try_load("deep").unwrap().config["enabled_providers"], json!(["y"]));
    world.surroundings.opencode_config_content = Some("{\"username\": \"content\",}".into());
    assert_eq!(name(&world, ""), "content");
    world.write("etc/opencode.json", "{\"username\": \"managed\"}");
    assert_eq!(name(&world, ""), "managed");

    world.write("given.json", "{\"username\": \"given\", \"logLevel\": \"DEBUG\"}");
    world.surroundings.opencode_config = Some(world.ws.parent().unwrap().join("given.json"));
    assert_eq!(name(&world, ""), "managed");
    assert_eq!(world.load().config["logLevel"], "DEBUG");
}

/// R91.
#[test]
fn the_users_configuration_stands_by_itself() {
    let world = World::with(recorded());
    let global = || agents::global_config(&world.surroundings).unwrap();
    assert_eq!(global(), json!({"$schema": "https://opencode.ai/config.json"}));
    world.write("home/.config/opencode/opencode.jsonc", "{\"username\": \"glob\"}");
    assert_eq!(global(), json!({"username": "glob", "$schema": "https://opencode.ai/config.json"}));
    assert_eq!(world.load().config["username"], "glob");
}

#[test]
fn nothing_is_written() {
    let world = World::with(recorded());
    let before = crate::world::git(&world.ws, &["status", "--short", "--ignored"]);
    world.load();
    assert_eq!(crate::world::git(&world.ws, &["status", "--short", "--ignored"]), before);
    assert_eq!(std::fs::read_dir(&world.surroundings.home).unwrap().count(), 0);
}

#[test]
fn older_forms_become_the_new_ones() {
    let world = World::with(recorded_and(json!({
        "mode": { "scribe": { "prompt": "Write." } },
        "agent": { "build": { "maxSteps": 2, "reasoningEffort": "high", "tools": { "write": false } } },
        "tools": { "webfetch": false, "bash": true },
        "permission": { "bash": "ask" },
        "autoshare": true,
    })));
    world.write("ws/.opencode/modes/calm.md", "Slowly.");
    let config = world.load().config;
    assert_eq!(config["agent"]["scribe"]["mode"], "primary");
    assert_eq!(config["agent"]["calm"]["mode"], "primary");
    assert_eq!(config["agent"]["build"]["steps"], 2);
    assert_eq!(config["agent"]["build"]["options"], json!({"reasoningEffort": "high"}));
    assert_eq!(config["agent"]["build"]["permission"], json!({"edit": "deny"}));
    assert_eq!(config["permission"], json!({"webfetch": "deny", "bash": "ask"}));
    assert_eq!(config["share"], "auto");
}

#[test]
fn wrong_fields_are_named() {
    for (text, path, message) in [
        ("{\"permission\": {\"bash\": {\"*\": \"perhaps\"}}}", json!(["permission", "bash", "*"]), "got \"perhaps\""),
        ("{\"agent\": {\"a\": {\"mode\": \"boss\"}}}", json!(["agent", "a", "mode"]), "Expected \"subagent\" |"),
        ("{\"instructions\": [1]}", json!(["instructions", "0"]), "Expected string, got 1"),
        ("{\"command\": {\"x\": {}}}", json!(["command", "x", "template"]), "Missing key"),
        ("{\"provider\": []}", json!(["provider"]), "Expected object"),
        ("[]", json!([]), "Expected object, got an array"),
    ] {
        let world = World::new();
        world.write("ws/opencode.json", text);
        let body = world.try_load("").unwrap_err().body();
        let issue = &body["data"]["issues"][0];
        assert_eq!(issue["path"], path, "{body}");
        assert!(issue["message"].as_str().unwrap().contains(message), "{body}");
    }
    let world = World::new();
    world.write("ws/.opencode/agent/x.md", "---\ntemperature: hot\n---\nx");
    assert_eq!(world.try_load("").unwrap_err().name(), "ConfigInvalidError");
}

#[test]
fn hostile_files_end_in_an_error_or_are_cut() {
    let world = World::new();
    world.write("ws/opencode.json", &"[".repeat(100_000));
    assert_eq!(world.try_load("").unwrap_err().name(), "ConfigJsonError");
    world.write("ws/opencode.json", &" ".repeat(2_000_000));
    assert_eq!(world.try_load("").unwrap_err().name(), "ConfigInvalidError");
    world.write("ws/opencode.json", "");
    // Opening a pipe that nobody writes into would wait for ever.
    for pipe in ["AGENTS.md", "opencode.jsonc", ".git"] {
        assert!(std::process::Command::new("mkfifo").arg(world.ws.join(pipe)).status().unwrap().success());
    }
    world.write("ws/.opencode/agent/a.md", "An agent.");
    for link in ["b", "c", "d", "e"] {
        std::os::unix::fs::symlink(".", world.ws.join(".opencode/agent").join(link)).unwrap();
    }
    let instance = world.load();
    assert!(instance.agent("a").is_some() && instance.agents.len() < 1_100);
}

#[test]
fn an_instance_is_fresh_until_something_changes() {
    let world = World::with(recorded_and(json!({"instructions": ["docs/*.md"], "username": "{file:name.txt}"})));
    world.write("ws/name.txt", "a");
    world.write("ws/docs/one.md", "one");
    world.write("ws/src/main.rs", "");
    let changes: [(&str, &str); 8] = [
        ("ws/opencode.jsonc", "{}"),
        ("ws/name.txt", "b"),
        ("ws/docs/one.md", "two"),
        ("ws/docs/two.md", "new"),
        ("ws/AGENTS.md", "rules"),
        ("ws/.opencode/agent/x.md", "new"),
        ("home/.config/opencode/opencode.json", "{}"),
        ("ws/opencode.json", "{}"),
    ];
    for (path, text) in changes {
        let instance = world.load();
        assert!(instance.is_fresh());
        world.write("ws/src/main.rs", path);
        assert!(instance.is_fresh(), "a source file is no configuration");
        world.write(path, text);
        assert!(!instance.is_fresh(), "{path}");
    }
}
