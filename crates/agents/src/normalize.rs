//! Bringing the older and shorter ways of saying a thing into one form.

use crate::merge;
use crate::permission::tool_permission;
use serde_json::{Map, Value, json};

/// What a configuration says of its own form where its file says nothing.
pub(crate) const SCHEMA: &str = "https://opencode.ai/config.json";

/// The fields of an agent that are no options for its model.
const AGENT_FIELDS: [&str; 16] = [
    "name",
    "model",
    "variant",
    "prompt",
    "description",
    "temperature",
    "top_p",
    "mode",
    "hidden",
    "color",
    "steps",
    "maxSteps",
    "options",
    "permission",
    "disable",
    "tools",
];

/// One layer: agents, modes and rules in their full form, so that layers merge.
pub(crate) fn layer(config: &mut Map<String, Value>) {
    if let Some(permission) = config.get_mut("permission") {
        permission_map(permission);
    }
    for key in ["agent", "mode"] {
        if let Some(Value::Object(agents)) = config.get_mut(key) {
            agents.values_mut().filter_map(Value::as_object_mut).for_each(agent);
        }
    }
}

/// An agent: unknown fields are options for its model, `tools` are rules, `maxSteps` is `steps`.
pub(crate) fn agent(agent: &mut Map<String, Value>) {
    let unknown: Vec<String> = agent.keys().filter(|key| !AGENT_FIELDS.contains(&key.as_str())).cloned().collect();
    let mut options = Map::new();
    for key in unknown {
        if let Some(value) = agent.shift_remove(&key) {
            options.insert(key, value);
        }
    }
    if let Some(Value::Object(given)) = agent.shift_remove("options") {
        options.extend(given);
    }
    agent.insert("options".into(), options.into());

    let mut permission = agent.get("tools").map(tools_as_permission).unwrap_or_default();
    if let Some(mut given) = agent.shift_remove("permission") {
        permission_map(&mut given);
        if let Value::Object(given) = given {
            permission.extend(given);
        }
    }
    agent.insert("permission".into(), permission.into());

    if !agent.contains_key("steps")
        && let Some(steps) = agent.get("maxSteps").cloned()
    {
        agent.insert("steps".into(), steps);
    }
}

/// The whole, after the last layer: what is always there, `mode` as agents, `tools` as rules.
pub(crate) fn whole(config: &mut Map<String, Value>, username: &str) {
    let modes = config.get("mode").cloned().unwrap_or_else(|| json!({}));
    for (key, empty) in [
        ("$schema", json!(SCHEMA)),
        ("command", json!({})),
        ("plugin", json!([])),
        ("username", json!(username)),
        ("mode", json!({})),
        ("agent", json!({})),
    ] {
        config.entry(key).or_insert(empty);
    }
    if let (Some(agents), Value::Object(modes)) = (config.get_mut("agent"), modes) {
        for (name, mut mode) in modes {
            if let Some(mode) = mode.as_object_mut() {
                mode.insert("mode".into(), "primary".into());
            }
            merge::deep(agents, json!({ name: mode }));
        }
    }
    if let Some(tools) = config.get("tools") {
        let mut permission = Value::Object(tools_as_permission(tools));
        if let Some(given) = config.shift_remove("permission") {
            merge::deep(&mut permission, given);
        }
        config.insert("permission".into(), permission);
    }
    if config.get("autoshare") == Some(&Value::Bool(true)) {
        config.entry("share").or_insert_with(|| "auto".into());
    }
}

/// `"ask"` means `{"*": "ask"}`.
pub(crate) fn permission_map(permission: &mut Value) {
    if permission.is_string() {
        *permission = json!({ "*": permission.take() });
    }
}

fn tools_as_permission(tools: &Value) -> Map<String, Value> {
    let entry = |(tool, on): (&String, &Value)| {
        let action = if on.as_bool().unwrap_or(true) { "allow" } else { "deny" };
        (tool_permission(tool).to_owned(), Value::from(action))
    };
    tools.as_object().into_iter().flatten().map(entry).collect()
}
