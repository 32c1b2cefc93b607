//! Agents: the built-in ones, and those of the config.

use crate::merge;
use crate::model::ModelRef;
use crate::permission::{from_config, rule};
use crate::prompts;
use crate::skills::Skill;
use crate::surroundings::Surroundings;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::path::{Component, Path, PathBuf};
use wire::permission::{Action, Rule};

/// The agent that works unless another one is asked for.
pub const BUILD: &str = "build";
/// The agent that names sessions.
pub const TITLE: &str = "title";
/// The agent that shortens a conversation.
pub const COMPACTION: &str = "compaction";
/// The agent that may change nothing but its plan.
pub const PLAN: &str = "plan";

/// Who may call an agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AgentMode {
    /// Another agent.
    Subagent,
    /// A person.
    Primary,
    /// Both.
    All,
}

/// An agent, in the shape of `GET /agent`. A field without a value is left out, where OpenCode shows `null` for
/// configured agents.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Agent {
    /// Its name.
    pub name: String,
    /// What it is good for; subagents are chosen by it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Who may call it.
    pub mode: AgentMode,
    /// It is built in.
    pub native: bool,
    /// It isn't offered to people.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub hidden: bool,
    /// Sampling, if it is set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top_p: Option<f64>,
    /// Sampling, if it is set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f64>,
    /// How clients paint it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub color: Option<String>,
    /// Its rules; the last that matches decides.
    pub permission: Vec<Rule>,
    /// Its own model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<ModelRef>,
    /// The variant of its model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
    /// Its system prompt; the base prompt if it has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompt: Option<String>,
    /// More fields for the model's request.
    pub options: Map<String, Value>,
    /// From this step of a run on the model is told to come to an end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub steps: Option<u32>,
}

impl Agent {
    fn new(name: &str, mode: AgentMode, native: bool, permission: Vec<Rule>) -> Self {
        Self {
            name: name.to_owned(),
            description: None,
            mode,
            native,
            hidden: false,
            top_p: None,
            temperature: None,
            color: None,
            permission,
            model: None,
            variant: None,
            prompt: None,
            options: Map::new(),
            steps: None,
        }
    }

    /// True if a person may prompt it and sees it offered.
    pub fn is_selectable(&self) -> bool {
        self.mode != AgentMode::Subagent && !self.hidden
    }
}

/// All agents of a merged configuration, by name.
pub(crate) fn all(
    config: &Map<String, Value>,
    worktree: &Path,
    skills: &[Skill],
    surroundings: &Surroundings,
) -> Vec<Agent> {
    let rules = Rules::new(config, worktree, skills, surroundings);
    let mut agents = native(&rules);
    for (name, value) in config.get("agent").and_then(Value::as_object).into_iter().flatten() {
        let Value::Object(fields) = value else { continue };
        let at = agents.iter().position(|agent| agent.name == *name);
        if fields.get("disable").and_then(Value::as_bool) == Some(true) {
            at.map(|at| agents.remove(at));
            continue;
        }
        let agent = match at {
            Some(at) => &mut agents[at],
            None => {
                agents.push(Agent::new(name, AgentMode::All, false, rules.with(&[])));
                let last = agents.len() - 1;
                &mut agents[last]
            }
        };
        configure(agent, fields, surroundings);
    }
    for agent in &mut agents {
        allow_tool_output(agent, &rules.tool_output);
    }
    agents.sort_by(|a, b| a.name.cmp(&b.name));
    agents
}

/// Lays what the config says over an agent.
fn configure(agent: &mut Agent, fields: &Map<String, Value>, surroundings: &Surroundings) {
    let text = |key: &str| fields.get(key).and_then(Value::as_str).map(str::to_owned);
    let number = |key: &str| fields.get(key).and_then(Value::as_f64);
    let take = |own: &mut Option<String>, key: &str| *own = text(key).or(own.take());
    take(&mut agent.description, "description");
    take(&mut agent.color, "color");
    take(&mut agent.variant, "variant");
    take(&mut agent.prompt, "prompt");
    if let Some(mode) = fields.get("mode").and_then(|mode| AgentMode::deserialize(mode).ok()) {
        agent.mode = mode;
    }
    agent.model = text("model").map(|model| ModelRef::parse(&model)).or(agent.model.take());
    agent.hidden = fields.get("hidden").and_then(Value::as_bool).unwrap_or(agent.hidden);
    agent.temperature = number("temperature").or(agent.temperature);
    agent.top_p = number("top_p").or(agent.top_p);
    agent.steps = fields.get("steps").and_then(Value::as_u64).and_then(|steps| steps.try_into().ok()).or(agent.steps);
    if let Some(options) = fields.get("options") {
        let mut merged = Value::Object(std::mem::take(&mut agent.options));
        merge::deep(&mut merged, options.clone());
        if let Value::Object(merged) = merged {
            agent.options = merged;
        }
    }
    if let Some(permission) = fields.get("permission") {
        agent.permission.extend(from_config(permission, surroundings));
    }
}

/// Whatever else is said, an agent may read what tools have put aside for it, unless just that is denied.
fn allow_tool_output(agent: &mut Agent, folder: &str) {
    let denies =
        |rule: &Rule| rule.permission == "external_directory" && rule.action == Action::Deny && rule.pattern == folder;
    if !agent.permission.iter().any(denies) {
        agent.permission.push(rule("external_directory", folder, Action::Allow));
    }
}

/// The parts that agents' rules are put together from.
struct Rules {
    defaults: Vec<Rule>,
    user: Vec<Rule>,
    tool_output: String,
    /// What lies outside of a project and may be used without asking.
    outside: Vec<Rule>,
    plans: PathBuf,
    plans_from_worktree: String,
}

impl Rules {
    fn new(config: &Map<String, Value>, worktree: &Path, skills: &[Skill], surroundings: &Surroundings) -> Self {
        let below = |path: PathBuf| path.join("*").to_string_lossy().into_owned();
        let tool_output = below(surroundings.data_dir.join("tool-output"));
        let temporary = below(surroundings.temporary_dir());
        let plans = surroundings.data_dir.join("plans");
        let skills = skills.iter().map(|skill| below(skill.folder().to_owned()));
        let outside = [tool_output.clone(), temporary].into_iter().chain(skills);
        let outside: Vec<Rule> = std::iter::once(rule("external_directory", "*", Action::Ask))
            .chain(outside.map(|folder| rule("external_directory", &folder, Action::Allow)))
            .collect();
        let mut defaults = vec![rule("*", "*", Action::Allow), rule("doom_loop", "*", Action::Ask)];
        defaults.extend_from_slice(&outside);
        defaults.extend([
            rule("question", "*", Action::Deny),
            rule("plan_enter", "*", Action::Deny),
            rule("plan_exit", "*", Action::Deny),
            rule("read", "*", Action::Allow),
            rule("read", "*.env", Action::Ask),
            rule("read", "*.env.*", Action::Ask),
            rule("read", "*.env.example", Action::Allow),
        ]);
        let user = config.get("permission").map(|permission| from_config(permission, surroundings));
        let plans_from_worktree = relative(&plans, worktree).join("*.md").to_string_lossy().into_owned();
        Self { defaults, user: user.unwrap_or_default(), tool_output, outside, plans, plans_from_worktree }
    }

    /// The defaults, an agent's own rules, the user's.
    fn with(&self, own: &[Rule]) -> Vec<Rule> {
        [&self.defaults, own, &self.user].concat()
    }
}

fn native(rules: &Rules) -> Vec<Agent> {
    use Action::{Allow, Deny};
    let agent = |name: &str, mode, description: Option<&str>, prompt: Option<&str>, own: &[Rule]| {
        let mut agent = Agent::new(name, mode, true, rules.with(own));
        agent.description = description.map(str::to_owned);
        agent.prompt = prompt.map(str::to_owned);
        agent
    };
    let hidden = |name: &str, prompt: &str| {
        let mut agent = agent(name, AgentMode::Primary, None, Some(prompt), &[rule("*", "*", Deny)]);
        agent.hidden = true;
        agent
    };
    let plans = rules.plans.join("*").to_string_lossy().into_owned();
    let build = [rule("question", "*", Allow), rule("plan_enter", "*", Allow)];
    let plan = [
        rule("question", "*", Allow),
        rule("plan_exit", "*", Allow),
        rule("task", "general", Deny),
        rule("external_directory", &plans, Allow),
        rule("edit", "*", Deny),
        rule("edit", ".opencode/plans/*.md", Allow),
        rule("edit", &rules.plans_from_worktree, Allow),
    ];
    let explore = [
        rule("*", "*", Deny),
        rule("grep", "*", Allow),
        rule("glob", "*", Allow),
        rule("list", "*", Allow),
        rule("bash", "*", Allow),
        rule("webfetch", "*", Allow),
        rule("websearch", "*", Allow),
        rule("read", "*", Allow),
    ];
    let explore = [&explore[..], &rules.outside].concat();
    let mut title = hidden(TITLE, prompts::TITLE);
    title.temperature = Some(0.5);
    vec![
        agent(BUILD, AgentMode::Primary, Some(prompts::BUILD_USE), None, &build),
        agent(PLAN, AgentMode::Primary, Some(prompts::PLAN_USE), None, &plan),
        agent("general", AgentMode::Subagent, Some(prompts::GENERAL_USE), None, &[rule("todowrite", "*", Deny)]),
        agent("explore", AgentMode::Subagent, Some(prompts::EXPLORE_USE), Some(prompts::EXPLORE), &explore),
        hidden(COMPACTION, prompts::COMPACTION),
        title,
        hidden("summary", prompts::SUMMARY),
    ]
}

/// The path as seen from a folder, with `..` where it lies elsewhere.
fn relative(path: &Path, from: &Path) -> PathBuf {
    let names = |path: &Path| -> Vec<_> {
        path.components()
            .filter(|part| matches!(part, Component::Normal(_)))
            .map(|part| part.as_os_str().to_owned())
            .collect()
    };
    let (path, from) = (names(path), names(from));
    let shared = path.iter().zip(&from).take_while(|(a, b)| a == b).count();
    let up = std::iter::repeat_n("..".into(), from.len() - shared);
    up.chain(path[shared..].iter().cloned()).collect()
}
