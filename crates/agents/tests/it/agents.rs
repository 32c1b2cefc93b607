use crate::world::{World, recorded, recorded_and};
use agents::{Agent, AgentMode};
use serde_json::{Value, json};

fn shape(agent: &Agent, data: &str, relative_data: &str) -> Value {
    let mut value = serde_json::to_value(agent).unwrap();
    let rule = |rule: &wire::permission::Rule| {
        let action = serde_json::to_value(rule.action).unwrap();
        let pattern = rule.pattern.replace(relative_data, "{relative-data}").replace(data, "{data}");
        format!("{} {} {pattern}", rule.permission, action.as_str().unwrap())
    };
    value["permission"] = agent.permission.iter().map(rule).collect::<Vec<_>>().into();
    value
}

/// R01, without the texts, which are our own.
#[test]
fn the_built_in_agents_are_the_recorded_ones() {
    let world = World::with(recorded());
    let instance = world.load();
    let expected: Vec<Value> = serde_json::from_str(include_str!("fixtures/agents.json")).unwrap();
    let data = world.surroundings.data_dir.to_string_lossy().into_owned();
    assert_eq!(instance.agents.len(), expected.len());
    for (agent, expected) in instance.agents.iter().zip(expected) {
        let mut shape = shape(agent, &data, "../home/.local/share/opencode");
        let fields = shape.as_object_mut().unwrap();
        fields.retain(|key, _| {
            expected.get(key).is_some() || !["description", "prompt", "options"].contains(&key.as_str())
        });
        assert_eq!(shape, expected);
    }
    let has_prompt: Vec<_> = instance.agents.iter().filter(|agent| agent.prompt.is_some()).map(|a| &a.name).collect();
    assert_eq!(has_prompt, ["compaction", "explore", "summary", "title"]);
    assert_eq!(instance.default_agent, "build");
}

/// R34: the user's rules come after an agent's own.
#[test]
fn the_users_rules_come_after_the_agents() {
    let permission = json!({"bash": {"*": "deny", "git *": "allow", "git push*": "deny"}, "webfetch": "deny"});
    let world = World::with(recorded_and(json!({ "permission": permission })));
    let instance = world.load();
    let data = world.surroundings.data_dir.to_string_lossy().into_owned();
    for name in ["build", "explore", "plan", "title"] {
        let shape = shape(instance.agent(name).unwrap(), &data, "../none");
        let rules = shape["permission"].as_array().unwrap();
        assert_eq!(
            rules[rules.len() - 5..],
            [
                "bash deny *",
                "bash allow git *",
                "bash deny git push*",
                "webfetch deny *",
                "external_directory allow {data}/tool-output/*"
            ],
            "{name}"
        );
    }
}

#[test]
fn own_agents_have_all_fields() {
    let world = World::with(recorded_and(json!({
        "default_agent": "writer",
        "agent": {
            "writer": { "mode": "primary", "prompt": "You are a writer.", "temperature": 0.3, "top_p": 0.9,
                "description": "w", "options": { "reasoningEffort": "high" }, "model": "fake/a/b", "steps": 7,
                "color": "#ff0000", "variant": "fast", "permission": { "edit": { "~/x/*": "allow" } } },
            "build": { "steps": 2 },
            "explore": { "disable": true },
        },
    })));
    world.write("ws/.opencode/agents/team/lead.md", "---\nhidden: true\n---\nYou lead.\n");
    let instance = world.load();
    let writer = serde_json::to_value(instance.agent("writer").unwrap()).unwrap();
    assert_eq!(writer["model"], json!({"providerID": "fake", "modelID": "a/b"}));
    assert_eq!(writer["topP"], 0.9);
    assert_eq!((&writer["native"], &writer["steps"]), (&json!(false), &json!(7)));
    let rules = &instance.agent("writer").unwrap().permission;
    let home = world.surroundings.home.to_string_lossy();
    assert_eq!(rules[rules.len() - 2].pattern, format!("{home}/x/*"));
    assert_eq!(instance.agent("build").unwrap().steps, Some(2));
    assert!(instance.agent("explore").is_none());
    let lead = instance.agent("team/lead").unwrap();
    assert_eq!((lead.mode, lead.hidden, lead.prompt.as_deref()), (AgentMode::All, true, Some("You lead.")));
    let names: Vec<_> = instance.agents.iter().map(|agent| agent.name.as_str()).collect();
    assert_eq!(names, ["writer", "build", "compaction", "general", "plan", "summary", "team/lead", "title"]);
}

#[test]
fn a_default_agent_that_cannot_be_used_is_refused() {
    for name in ["nobody", "general", "title"] {
        let world = World::with(json!({ "default_agent": name }));
        let body = world.try_load("").unwrap_err().body();
        assert_eq!(body["name"], "ConfigInvalidError");
        assert!(body["data"]["message"].as_str().unwrap().contains(name), "{body}");
    }
}
