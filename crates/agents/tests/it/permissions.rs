use crate::world::{World, recorded_and};
use agents::permission::{disabled_tools, evaluate, from_config, from_tools, relevant};
use serde_json::json;
use wire::permission::{Action, Rule};

fn rule(permission: &str, pattern: &str, action: Action) -> Rule {
    Rule::new(permission, pattern, action)
}

#[test]
fn the_last_rule_that_matches_decides() {
    use Action::{Allow, Ask, Deny};
    let agent = [rule("*", "*", Allow), rule("bash", "*", Ask), rule("bash", "git *", Allow)];
    let session = [rule("bash", "git push*", Deny)];
    let action = |permission, pattern| evaluate(permission, pattern, &[&agent, &session]).action;
    assert_eq!(action("bash", "rm x"), Ask);
    assert_eq!(action("bash", "git"), Allow);
    assert_eq!(action("bash", "git push origin"), Deny);
    assert_eq!(action("edit", "src/main.rs"), Allow);
    assert_eq!(evaluate("edit", "x", &[]), rule("edit", "*", Ask));
    let approved = [rule("bash", "rm *", Allow)];
    assert_eq!(evaluate("bash", "rm x", &[&agent, &session, &approved]).action, Allow);
}

#[test]
fn secrets_are_asked_for() {
    let world = World::new();
    let instance = world.load();
    let rules = &instance.agent("build").unwrap().permission;
    let read = |path: &str| evaluate("read", path, &[rules]).action;
    assert_eq!(read("src/main.rs"), Action::Allow);
    assert_eq!(read(".env"), Action::Ask);
    assert_eq!(read("deploy/.env.production"), Action::Ask);
    assert_eq!(read(".env.example"), Action::Allow);
    let outside = |path: &str| evaluate("external_directory", path, &[rules]).action;
    assert_eq!(outside("/etc/*"), Action::Ask);
    assert_eq!(outside("/tmp/opencode/*"), Action::Allow);
    let plan = &instance.agent("plan").unwrap().permission;
    assert_eq!(evaluate("edit", "src/main.rs", &[plan]).action, Action::Deny);
    assert_eq!(evaluate("edit", ".opencode/plans/a.md", &[plan]).action, Action::Allow);
}

/// R34: webfetch is not offered, bash is; the refusal names the rules for bash.
#[test]
fn a_tool_that_is_denied_altogether_is_not_offered() {
    let permission = json!({"bash": {"*": "deny", "git *": "allow", "git push*": "deny"}, "webfetch": "deny"});
    let world = World::with(recorded_and(json!({ "permission": permission })));
    let instance = world.load();
    let rules = &instance.agent("build").unwrap().permission;
    let disabled = disabled_tools(["bash", "webfetch", "write", "read"], &[rules]);
    assert_eq!(disabled.into_iter().collect::<Vec<_>>(), ["webfetch"]);
    let shown: Vec<_> = relevant("bash", &[rules]).into_iter().map(|rule| rule.pattern).collect();
    assert_eq!(shown, ["*", "*", "git *", "git push*"]);
    let no_edit = from_tools([("edit", false), ("bash", true)]);
    let disabled = disabled_tools(["write", "edit", "apply_patch", "bash"], &[rules, &no_edit]);
    assert_eq!(disabled.into_iter().collect::<Vec<_>>(), ["apply_patch", "edit", "write"]);
}

#[test]
fn a_map_becomes_rules_in_its_own_order() {
    let mut world = World::new();
    world.surroundings.home = "/h".into();
    let rules = from_config(
        &json!({"bash": {"z": "ask", "a": "deny"}, "read": {"~/x": "allow", "$HOME/y": "allow", "~": "ask", "~z": "ask"}, "*": "deny"}),
        &world.surroundings,
    );
    let shown: Vec<_> = rules.iter().map(|rule| format!("{} {}", rule.permission, rule.pattern)).collect();
    assert_eq!(shown, ["bash z", "bash a", "read /h/x", "read /h/y", "read /h", "read ~z", "* *"]);
    assert_eq!(from_config(&json!("deny"), &world.surroundings), [rule("*", "*", Action::Deny)]);
}

#[test]
fn the_variable_for_permissions_comes_last() {
    let mut world = World::with(recorded_and(json!({ "permission": { "bash": "allow" } })));
    world.surroundings.opencode_permission = Some("{\"bash\": \"deny\"}".into());
    let instance = world.load();
    assert_eq!(evaluate("bash", "ls", &[&instance.agent("build").unwrap().permission]).action, Action::Deny);
    world.surroundings.opencode_permission = Some("\"never\"".into());
    assert_eq!(world.try_load("").unwrap_err().name(), "ConfigInvalidError");
}
