//! `skill`: loads instructions for a kind of task.

use crate::blocking::blocking;
use crate::search::{self, Wanted};
use crate::{Ask, Call, Output, Tool, ToolError, Writes, arguments, paths};
use agents::Skill;
use async_trait::async_trait;
use serde::Deserialize;
use serde_json::{Value, json};
use std::path::PathBuf;

/// So many of a skill's files are named.
const MAX_FILES: usize = 10;

/// The tool `skill`.
pub(crate) struct LoadSkill;

#[derive(Deserialize)]
struct Arguments {
    name: String,
}

#[async_trait]
impl Tool for LoadSkill {
    fn name(&self) -> &'static str {
        "skill"
    }

    fn description(&self) -> String {
        "Loads one of the skills that the system prompt lists: instructions for a kind of task, and files that belong to \
         them. Use it before you begin a task that a skill's description fits."
            .into()
    }

    fn parameters(&self) -> Value {
        json!({
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "type": "object",
            "properties": { "name": { "type": "string", "description": "The name of a skill that is listed" } },
            "required": ["name"],
        })
    }

    fn writes(&self) -> Writes {
        Writes::Nothing
    }

    async fn run(&self, input: Value, call: &Call) -> Result<Output, ToolError> {
        let Arguments { name } = arguments::parse(self.name(), input)?;
        let Some(skill) = call.skills.iter().find(|skill| skill.name == name) else {
            let names: Vec<&str> = call.skills.iter().map(|skill| skill.name.as_str()).collect();
            let names = if names.is_empty() { "none".into() } else { names.join(", ") };
            return Err(ToolError::Failed(format!("Skill \"{name}\" not found. Available skills: {names}")));
        };
        let (permission, patterns) = (self.name().into(), vec![name.clone()]);
        call.host.ask(Ask { permission, always: patterns.clone(), patterns, metadata: json!({}) }).await?;
        let files = files(call, skill).await?;
        let folder = skill.folder().display();
        let output = format!(
            "<skill_content name=\"{name}\">\n# Skill: {name}\n\n{}\n\nBase directory for this skill: {folder}\nRelative \
             paths in it start there. Some of its files:\n\n<skill_files>\n{}\n</skill_files>\n</skill_content>",
            skill.content.trim(),
            files.join("\n"),
        );
        Ok(Output {
            title: format!("Loaded skill: {name}"),
            output,
            metadata: json!({ "name": name, "dir": skill.folder() }),
            attachments: None,
        })
    }
}

/// What else lies in the skill's folder.
async fn files(call: &Call, skill: &Skill) -> Result<Vec<String>, ToolError> {
    let folder = skill.folder().to_owned();
    let root = paths::real(folder.clone()).await?;
    let mut files: Vec<PathBuf> = blocking(call, move |stop| {
        let wanted = Wanted { glob: Some("!**/SKILL.md".into()), hidden: true };
        Ok(search::files(&root, &wanted, stop)?.files)
    })
    .await?;
    files.sort();
    Ok(files.iter().take(MAX_FILES).map(|file| format!("<file>{}</file>", folder.join(file).display())).collect())
}
