//! Skills: instructions for certain tasks, which a model loads when it has such a task.

use crate::agent::Agent;
use crate::files::{DEEPEST, Files, upwards};
use crate::front_matter;
use crate::layers;
use crate::permission::{disabled_tools, evaluate};
use crate::surroundings::Surroundings;
use serde::Serialize;
use serde_json::{Map, Value};
use std::path::{Path, PathBuf};
use wire::permission::Action;

/// The file that makes a folder a skill.
const FILE: &str = "SKILL.md";

/// The tool that loads skills, and its permission.
const TOOL: &str = "skill";

/// A skill, in the shape of `GET /skill`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Skill {
    /// Its name.
    pub name: String,
    /// When it is of use; models are told of those that say it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// The file.
    pub location: PathBuf,
    /// What it says.
    pub content: String,
}

impl Skill {
    /// The folder that its paths are relative to.
    pub fn folder(&self) -> &Path {
        self.location.parent().unwrap_or(Path::new("/"))
    }
}

/// All skills, by name. Of those with the same name the last one counts: those of other programs (`.claude`, `.agents`) in
/// the home, then from the directory up to the work tree's root, those of the configuration's folders, then those of
/// `skills.paths`. `OPENCODE_DISABLE_EXTERNAL_SKILLS` leaves those of other programs out,
/// `OPENCODE_DISABLE_CLAUDE_CODE_SKILLS` those of Claude Code.
pub(crate) fn all(
    config: &Map<String, Value>,
    directory: &Path,
    worktree: &Path,
    surroundings: &Surroundings,
    files: &mut Files,
) -> Vec<Skill> {
    let mut roots = Vec::new();
    for program in programs(surroundings) {
        roots.push(surroundings.home.join(program).join("skills"));
    }
    for at in upwards(directory, worktree) {
        roots.extend(programs(surroundings).map(|program| at.join(program).join("skills")));
    }
    for folder in layers::folders(directory, worktree, surroundings) {
        roots.extend(["skill", "skills"].map(|name| folder.join(name)));
    }
    let paths = config.get("skills").and_then(|skills| skills.get("paths")).and_then(Value::as_array);
    for path in paths.into_iter().flatten().filter_map(Value::as_str) {
        roots.push(directory.join(surroundings.expand_home(path)));
    }
    let mut skills: Vec<Skill> = Vec::new();
    for root in roots {
        for path in files.find(&root, DEEPEST, |path| path.file_name().is_some_and(|name| name == FILE)) {
            let Some(skill) = read(&path, files) else { continue };
            match skills.iter_mut().find(|known| known.name == skill.name) {
                Some(known) if known.location == skill.location => {}
                Some(known) => {
                    tracing::warn!(name = skill.name, used = %path.display(), unused = %known.location.display(), "two skills of one name");
                    *known = skill;
                }
                None => skills.push(skill),
            }
        }
    }
    skills.sort_by(|a, b| a.name.cmp(&b.name));
    skills
}

fn programs(surroundings: &Surroundings) -> impl Iterator<Item = &'static str> {
    let set = |name: &str| surroundings.env.get(name).is_some_and(|value| matches!(value.as_str(), "1" | "true"));
    let all = !set("OPENCODE_DISABLE_EXTERNAL_SKILLS");
    let claude = !set("OPENCODE_DISABLE_CLAUDE_CODE") && !set("OPENCODE_DISABLE_CLAUDE_CODE_SKILLS");
    [(".claude", all && claude), (".agents", all)].into_iter().filter_map(|(program, on)| on.then_some(program))
}

/// A file that names no skill is none, and does not keep the others from being found.
fn read(path: &Path, files: &mut Files) -> Option<Skill> {
    let unusable = |why: &str| tracing::warn!(path = %path.display(), why, "a skill cannot be used");
    let text = files.read(path).map_err(|error| unusable(&error.to_string())).ok()??;
    let Some((fields, content)) = front_matter::split_fields(&text) else {
        unusable("it does not begin with its fields");
        return None;
    };
    let text = |key: &str| fields.get(key).and_then(Value::as_str).map(str::to_owned);
    let Some(name) = text("name").filter(|name| !name.is_empty()) else {
        unusable("it has no name");
        return None;
    };
    Some(Skill { name, description: text("description"), location: path.to_owned(), content: content.to_owned() })
}

/// Those that an agent may load.
pub(crate) fn allowed<'a>(skills: &'a [Skill], agent: &Agent) -> Vec<&'a Skill> {
    let rules: [&[_]; 1] = [&agent.permission];
    if !disabled_tools([TOOL], &rules).is_empty() {
        return Vec::new();
    }
    skills.iter().filter(|skill| evaluate(TOOL, &skill.name, &rules).action != Action::Deny).collect()
}
