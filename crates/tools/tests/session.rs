//! `todowrite`, `question` and `skill` (recordings 15, 35, 19).

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that fails says where")]

mod support;

use agents::Skill;
use serde_json::json;
use support::{Did, World};
use tools::{Output, ToolError};

#[tokio::test]
async fn a_list_of_things_to_do_is_put_down() {
    let world = World::new();
    let todos = json!([
        { "content": "A", "status": "in_progress", "priority": "high" },
        { "content": "B", "status": "completed", "priority": "low" },
    ]);
    let output = world.run("todowrite", json!({ "todos": todos })).await.unwrap();
    let expected = Output {
        title: "1 todos".into(),
        output: serde_json::to_string_pretty(&todos).unwrap(),
        metadata: json!({ "todos": todos, "truncated": false }),
        attachments: None,
    };
    assert_eq!(output, expected);
    let did = world.host.did();
    let Did::Ask(ask) = &did[0] else { panic!("{did:?}") };
    assert_eq!((ask.permission.as_str(), &ask.patterns[..]), ("todowrite", &["*".into()][..]));
    assert_eq!(did[1..], [Did::Todos(serde_json::from_value(todos).unwrap())]);
}

#[tokio::test]
async fn questions_are_answered_or_dismissed() {
    let world = World::new();
    let option = |label: &str| json!({ "label": label, "description": "d" });
    let questions = json!([
        { "question": "Which one?", "header": "Pick", "options": [option("A"), option("B")] },
        { "question": "Many?", "header": "Multi", "options": [option("X")], "multiple": true },
        { "question": "None?", "header": "None", "options": [] },
    ]);
    let input = json!({ "questions": questions });
    assert_eq!(world.run("question", input.clone()).await, Err(ToolError::Dismissed));
    let answers = vec![vec!["A".to_owned()], vec!["X".into(), "custom text".into()], vec![]];
    *world.host.answers.lock().unwrap() = Some(answers.clone());
    let output = world.run("question", input).await.unwrap();
    assert_eq!(output.title, "Asked 3 questions");
    let pairs = r#""Which one?"="A", "Many?"="X, custom text", "None?"="Unanswered""#;
    assert!(output.output.contains(pairs), "{}", output.output);
    assert_eq!(output.metadata, json!({ "answers": answers, "truncated": false }));
    let asked = Did::Questions(questions.as_array().unwrap().clone());
    assert_eq!(*world.host.did(), [asked.clone(), asked]);
}

#[tokio::test]
async fn a_skill_is_loaded_with_the_names_of_its_files() {
    let mut world = World::new();
    let folder = world.path(".opencode/skill/demo");
    world.put(".opencode/skill/demo/SKILL.md", "...");
    world.put(".opencode/skill/demo/extra.txt", "extra\n");
    world.put(".opencode/skill/demo/scripts/.run", "x");
    let skill = Skill {
        name: "demo".into(),
        description: None,
        location: folder.join("SKILL.md"),
        content: "Demo skill body.\n".into(),
    };
    world.call.skills = [skill].into();
    let output = world.run("skill", json!({ "name": "demo" })).await.unwrap();
    assert_eq!(output.title, "Loaded skill: demo");
    assert_eq!(output.metadata, json!({ "name": "demo", "dir": folder, "truncated": false }));
    let shown = folder.display();
    let begin = format!(
        "<skill_content name=\"demo\">\n# Skill: demo\n\nDemo skill body.\n\nBase directory for this skill: {shown}\n"
    );
    let end = format!(
        "\n<skill_files>\n<file>{shown}/extra.txt</file>\n<file>{shown}/scripts/.run</file>\n</skill_files>\n</skill_content>"
    );
    assert!(output.output.starts_with(&begin) && output.output.ends_with(&end), "{}", output.output);
    let ask = &world.host.asks()[0];
    assert_eq!(
        (ask.permission.as_str(), &ask.patterns[..], &ask.always[..]),
        ("skill", &["demo".into()][..], &["demo".into()][..])
    );
    let failure = world.failure("skill", json!({ "name": "nope" })).await;
    assert_eq!(failure, "Skill \"nope\" not found. Available skills: demo");
}
