//! The system message of a model request.

use crate::agent::{Agent, BUILD, PLAN};
use crate::instance::Instance;
use crate::model::Model;
use crate::prompts;
use crate::skills::{self, Skill};

/// The layers, joined by newlines: the agent's prompt (or the base prompt), what surrounds the agent, the files with
/// rules, each headed by its path, the skills that the agent may load, and what the prompt itself adds (`extra`).
///
/// `now_date` is today's date for the model to read, in any form.
pub fn system_prompt(instance: &Instance, agent: &Agent, model: &Model, now_date: &str, extra: Option<&str>) -> String {
    let mut layers = vec![agent.prompt.as_deref().unwrap_or(prompts::BASE).to_owned()];
    layers.push(environment(instance, model, now_date));
    for instruction in &instance.instructions {
        layers.push(format!("Rules from {}:\n{}", instruction.path.display(), instruction.text.trim_end()));
    }
    layers.extend(skills(&instance.skills, agent));
    layers.extend(extra.filter(|text| !text.is_empty()).map(str::to_owned));
    layers.join("\n\n")
}

/// What a model is reminded of beside a prompt to this agent; `former` is the agent of the prompt before.
pub fn reminder(agent: &str, former: Option<&str>) -> Option<&'static str> {
    match (agent, former) {
        (PLAN, _) => Some(prompts::PLANNING),
        (BUILD, Some(PLAN)) => Some(prompts::PLANNED),
        _ => None,
    }
}

/// The skills that say when they are of use.
fn skills(skills: &[Skill], agent: &Agent) -> Option<String> {
    let allowed = skills::allowed(skills, agent);
    let described = allowed.into_iter().filter_map(|skill| {
        let description = escaped(skill.description.as_deref()?);
        let (name, location) = (escaped(&skill.name), escaped(&skill.location.to_string_lossy()));
        Some(format!(
            "  <skill>\n    <name>{name}</name>\n    <description>{description}</description>\n    \
             <location>{location}</location>\n  </skill>"
        ))
    });
    let described: Vec<String> = described.collect();
    (!described.is_empty()).then(|| {
        format!(
            "There are instructions for some kinds of tasks. Where one of them fits what you are about to do, load it \
             with the skill tool first:\n<available_skills>\n{}\n</available_skills>",
            described.join("\n")
        )
    })
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

fn environment(instance: &Instance, model: &Model, now_date: &str) -> String {
    let repository = if instance.project.vcs.is_some() { "yes" } else { "no" };
    format!(
        "You are run by the model {}/{}. Where you are:\n<environment>\n  working directory: {}\n  root of the work tree: {}\n  \
         git repository: {repository}\n  platform: {}\n  date: {now_date}\n</environment>",
        model.provider_id,
        model.api_id,
        instance.directory.display(),
        instance.worktree.display(),
        std::env::consts::OS,
    )
}
