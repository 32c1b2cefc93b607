use crate::world::{World, recorded_and};
use agents::{near, reminder, system_prompt};
use serde_json::json;

fn rules(world: &World, below: &str) -> Vec<String> {
    let instance = world.try_load(below).unwrap();
    instance.instructions.iter().map(|rule| rule.text.trim().to_owned()).collect()
}

#[test]
fn instructions_are_found_in_order() {
    let world = World::with(recorded_and(
        json!({"instructions": ["extra.md", "docs/**/*.md", "~/own.md", "https://example.org/x.md"]}),
    ));
    world.write("ws/CLAUDE.md", "claude");
    world.write("ws/src/CONTEXT.md", "context");
    world.write("ws/extra.md", "extra");
    world.write("ws/docs/a/b.md", "b");
    world.write("ws/docs/a.md", "a");
    world.write("ws/docs/a.txt", "no");
    world.write("home/own.md", "own");
    assert_eq!(rules(&world, "src"), ["claude", "extra", "a", "b", "own"]);
    world.write("ws/AGENTS.md", "root");
    world.write("ws/src/AGENTS.md", "src");
    world.write("home/.claude/CLAUDE.md", "mine");
    assert_eq!(rules(&world, "src"), ["mine", "src", "root", "extra", "a", "b", "own"]);
    assert_eq!(rules(&world, ""), ["mine", "root", "extra", "a", "b", "own"]);
    world.write("home/.config/opencode/AGENTS.md", "global");
    assert_eq!(rules(&world, "")[..2], ["global", "root"]);
}

/// R90: the layers and their order.
#[test]
fn the_system_prompt_has_its_layers_in_order() {
    let world = World::with(recorded_and(json!({"agent": {"writer": {"prompt": "You are a writer."}}})));
    world.write("ws/AGENTS.md", "ROOT RULES\n");
    let instance = world.load();
    let model = instance.model("fake", "m").unwrap();
    let prompt =
        |agent: &str, extra| system_prompt(&instance, instance.agent(agent).unwrap(), &model, "Sun Nov 22 2026", extra);
    let text = prompt("writer", Some("EXTRA"));
    let order: Vec<_> = ["You are a writer.", "fake/m", "Sun Nov 22 2026", "AGENTS.md", "ROOT RULES", "EXTRA"]
        .iter()
        .map(|part| text.find(part).unwrap_or_else(|| panic!("{part} is missing in {text}")))
        .collect();
    assert!(order.is_sorted(), "{text}");
    assert!(text.contains(&format!("Rules from {}", world.ws.join("AGENTS.md").display())));
    assert!(
        text.contains(&format!("working directory: {}", world.ws.display())) && text.contains("git repository: yes")
    );
    assert!(!prompt("build", None).contains("You are a writer."));
    assert!(prompt("build", None).len() > 500);
}

/// R28.
#[test]
fn a_planner_is_reminded_and_so_is_who_builds_after_it() {
    assert!(reminder("plan", None).unwrap().contains("nothing may be changed"));
    assert_eq!(reminder("plan", Some("plan")), reminder("plan", Some("build")));
    assert!(reminder("build", Some("plan")).unwrap().contains("Planning is over"));
    for (agent, former) in [("build", None), ("build", Some("build")), ("general", Some("plan"))] {
        assert_eq!(reminder(agent, former), None);
    }
}

/// R10.
#[test]
fn rules_between_the_directory_and_a_file_are_near_it() {
    let world = World::with(recorded_and(json!({})));
    world.write("ws/AGENTS.md", "root");
    world.write("ws/a/AGENTS.md", "a");
    world.write("ws/a/CLAUDE.md", "not this one, too");
    world.write("ws/a/b/c/CONTEXT.md", "c");
    world.write("ws/a/b/c/d.txt", "text");
    world.write("ws/x/d.txt", "text");
    world.write("elsewhere.md", "not from here");
    std::os::unix::fs::symlink(world.ws.join("../elsewhere.md"), world.ws.join("x/AGENTS.md")).unwrap();
    let texts =
        |file: &str| -> Vec<String> { near(&world.ws, &world.ws.join(file)).into_iter().map(|r| r.text).collect() };
    assert_eq!(texts("a/b/c/d.txt"), ["a", "c"]);
    assert_eq!(texts("a/b/c/CONTEXT.md"), ["a"], "what is read itself is no news");
    assert_eq!(texts("x/d.txt"), [""; 0], "a link that leads out");
    assert_eq!(texts("d.txt"), [""; 0]);
    assert_eq!(near(&world.ws.join("a"), &world.ws.join("x/d.txt")), []);
}
