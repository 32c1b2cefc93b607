use crate::world::{World, recorded, recorded_and};
use agents::{Instance, system_prompt};
use serde_json::json;

fn skill(name: &str, description: &str, body: &str) -> String {
    format!("---\nname: {name}\ndescription: {description}\n---\n{body}\n")
}

fn found(instance: &Instance) -> Vec<(&str, &str)> {
    instance.skills.iter().map(|skill| (skill.name.as_str(), skill.content.trim())).collect()
}

/// R01: the shapes of `GET /skill` and of the command, and the rule for the skill's folder.
#[test]
fn a_skill_is_listed_offered_as_a_command_and_its_folder_may_be_read() {
    let world = World::with(recorded());
    world.write("ws/.opencode/skill/demo/SKILL.md", &skill("demo", "A demo skill", "Demo skill body."));
    let instance = world.load();
    let folder = world.ws.join(".opencode/skill/demo");
    let listed = json!([{
        "name": "demo", "description": "A demo skill", "location": folder.join("SKILL.md"), "content": "Demo skill body.\n",
    }]);
    assert_eq!(json!(&*instance.skills), listed);
    let command = serde_json::to_value(instance.command("demo").unwrap()).unwrap();
    assert_eq!((&command["source"], &command["hints"]), (&json!("skill"), &json!([])));
    assert_eq!(command["description"], "A demo skill");
    let template = command["template"].as_str().unwrap();
    assert!(
        template.starts_with("Demo skill body.\n") && template.contains(&folder.display().to_string()),
        "{template}"
    );
    for name in ["build", "explore"] {
        let rules = &instance.agent(name).unwrap().permission;
        let path = folder.join("extra.txt").display().to_string();
        let decides = agents::permission::evaluate("external_directory", &path, &[rules]);
        assert_eq!(decides.action, wire::permission::Action::Allow, "{name}");
    }
}

#[test]
fn skills_are_found_in_all_their_places_and_the_last_of_a_name_counts() {
    let mut world = World::with(recorded_and(json!({ "skills": { "paths": ["more", "~/own"] } })));
    world.write("home/.claude/skills/a/SKILL.md", &skill("a", "d", "claude's"));
    world.write("home/.agents/skills/b/SKILL.md", &skill("b", "d", "agents'"));
    world.write("ws/.claude/skills/deep/er/SKILL.md", &skill("c", "d", "project's"));
    world.write("ws/src/.agents/skills/b/SKILL.md", &skill("b", "d", "nearer"));
    world.write("home/.config/opencode/skills/e/SKILL.md", &skill("e", "d", "user's"));
    world.write("ws/.opencode/skill/e/SKILL.md", &skill("e", "d", "nearer"));
    world.write("ws/src/more/f/SKILL.md", &skill("f", "d", "by path"));
    world.write("home/own/g/SKILL.md", &skill("g", "d", "own"));
    let all = [("a", "claude's"), ("b", "nearer"), ("c", "project's"), ("e", "nearer"), ("f", "by path"), ("g", "own")];
    assert_eq!(found(&world.try_load("src").unwrap()), all);
    world.set("OPENCODE_DISABLE_CLAUDE_CODE_SKILLS", "1");
    assert_eq!(found(&world.try_load("src").unwrap()), [all[1], all[3], all[4], all[5]]);
    world.set("OPENCODE_DISABLE_EXTERNAL_SKILLS", "true");
    assert_eq!(found(&world.try_load("src").unwrap()), all[3..]);
}

#[test]
fn a_file_that_is_no_skill_hides_no_other_and_a_change_is_seen() {
    let world = World::with(recorded());
    world.write("ws/.opencode/skill/good/SKILL.md", &skill("good", "d", "body"));
    world.write("ws/.opencode/skill/nameless/SKILL.md", "---\ndescription: d\n---\nbody\n");
    world.write("ws/.opencode/skill/broken/SKILL.md", "---\nname: [\n---\nbody\n");
    world.write("ws/.opencode/skill/bare/SKILL.md", "body\n");
    world.write("ws/.opencode/skill/node_modules/x/SKILL.md", &skill("x", "d", "somebody's"));
    let instance = world.load();
    assert_eq!(found(&instance), [("good", "body")]);
    assert!(instance.is_fresh());
    world.write("ws/.opencode/skill/new/SKILL.md", &skill("new", "d", "body"));
    assert!(!instance.is_fresh());
    assert_eq!(found(&world.load()).len(), 2);
}

#[test]
fn a_model_is_told_of_the_skills_that_its_agent_may_load() {
    let agents = json!({
        "agent": { "none": { "permission": { "skill": "deny" } }, "some": { "permission": { "skill": { "b*": "deny" } } } },
    });
    let world = World::with(recorded_and(agents));
    world.write("ws/.opencode/skill/a/SKILL.md", &skill("a-skill", "For <a> & b", "A"));
    world.write("ws/.opencode/skill/b/SKILL.md", &skill("b-skill", "d", "B"));
    world.write("ws/.opencode/skill/c/SKILL.md", "---\nname: c-skill\n---\nundescribed\n");
    let instance = world.load();
    let model = instance.model("fake", "m").unwrap();
    let told = |agent: &str| system_prompt(&instance, instance.agent(agent).unwrap(), &model, "today", Some("EXTRA"));
    let text = told("build");
    assert!(text.contains("<name>a-skill</name>") && text.contains("<name>b-skill</name>"), "{text}");
    assert!(text.contains("For &lt;a&gt; &amp; b") && !text.contains("c-skill"), "{text}");
    assert!(text.find("<available_skills>") < text.find("EXTRA"), "{text}");
    assert!(told("some").contains("a-skill") && !told("some").contains("b-skill"));
    assert!(!told("none").contains("available_skills"));
}
