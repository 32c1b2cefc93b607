use crate::world::{World, recorded_and};
use agents::system_prompt;
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
