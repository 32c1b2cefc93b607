//! Permission rules: where they come from, and which one decides.

use crate::surroundings::Surroundings;
use crate::wildcard::matches;
use serde_json::Value;
use std::collections::BTreeSet;
use wire::permission::{Action, Rule};

/// A rule.
pub(crate) fn rule(permission: &str, pattern: &str, action: Action) -> Rule {
    Rule::new(permission, pattern, action)
}

/// The rule that decides: the last one that matches in the lists taken one after the other. None matches: ask.
///
/// The order is the agent's list, the session's, then what was approved by `always`.
pub fn evaluate(permission: &str, pattern: &str, rulesets: &[&[Rule]]) -> Rule {
    let fits = |rule: &&Rule| matches(&rule.permission, permission) && matches(&rule.pattern, pattern);
    let found = rulesets.iter().rev().flat_map(|rules| rules.iter().rev()).find(fits);
    found.cloned().unwrap_or_else(|| rule(permission, "*", Action::Ask))
}

/// The rules that speak of a permission, in order: what a model is told when one of them refuses.
pub fn relevant(permission: &str, rulesets: &[&[Rule]]) -> Vec<Rule> {
    let all = rulesets.iter().flat_map(|rules| rules.iter());
    all.filter(|rule| matches(&rule.permission, permission)).cloned().collect()
}

/// The permission that a tool asks for: every tool that changes files asks for `edit`, any other for its own name.
pub fn tool_permission(tool: &str) -> &str {
    match tool {
        "write" | "edit" | "patch" | "multiedit" | "apply_patch" => "edit",
        other => other,
    }
}

/// Those of the tools that a model must not even be offered: the last rule for their permission denies `*`.
pub fn disabled_tools<'a>(tools: impl IntoIterator<Item = &'a str>, rulesets: &[&[Rule]]) -> BTreeSet<String> {
    let denied = |tool: &&str| {
        let permission = tool_permission(tool);
        let all = rulesets.iter().rev().flat_map(|rules| rules.iter().rev());
        let last = all.into_iter().find(|rule| matches(&rule.permission, permission));
        last.is_some_and(|rule| rule.pattern == "*" && rule.action == Action::Deny)
    };
    tools.into_iter().filter(denied).map(str::to_owned).collect()
}

/// The rules of a prompt's `tools` map: one for each tool, on everything.
pub fn from_tools<'a>(tools: impl IntoIterator<Item = (&'a str, bool)>) -> Vec<Rule> {
    let action = |on| if on { Action::Allow } else { Action::Deny };
    tools.into_iter().map(|(tool, on)| rule(tool, "*", action(on))).collect()
}

/// The rules of a config's `permission` value, in the order of the file. What is no action is left out: the file was
/// validated before.
pub fn from_config(permission: &Value, surroundings: &Surroundings) -> Vec<Rule> {
    let mut rules = Vec::new();
    match permission {
        Value::Object(map) => {
            for (name, value) in map {
                match value {
                    Value::Object(patterns) => {
                        for (pattern, value) in patterns {
                            let pattern = surroundings.expand_home(pattern);
                            rules.extend(action(value).map(|action| rule(name, &pattern, action)));
                        }
                    }
                    value => rules.extend(action(value).map(|action| rule(name, "*", action))),
                }
            }
        }
        value => rules.extend(action(value).map(|action| rule("*", "*", action))),
    }
    rules
}

fn action(value: &Value) -> Option<Action> {
    match value.as_str()? {
        "allow" => Some(Action::Allow),
        "ask" => Some(Action::Ask),
        "deny" => Some(Action::Deny),
        _ => None,
    }
}
