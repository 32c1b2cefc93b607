//! The configuration of one directory.

use crate::agent::{self, Agent};
use crate::commands::{self, Command};
use crate::error::ConfigError;
use crate::files::{Files, Fingerprint};
use crate::instructions::{self, Instruction};
use crate::layers;
use crate::mask::mask_config;
use crate::model::{Model, ModelNotFound, ModelRef};
use crate::project::{self, Place, Project};
use crate::providers::Providers;
use crate::secret::Secret;
use crate::skills::{self, Skill};
use crate::surroundings::Surroundings;
use serde_json::{Map, Value};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// All that a directory's configuration says. It doesn't change; when files change, a new one is loaded.
#[derive(Clone, Debug)]
pub struct Instance {
    /// The directory.
    pub directory: PathBuf,
    /// The project it belongs to.
    pub project: Project,
    /// The work tree that holds it; `/` without a repository.
    pub worktree: PathBuf,
    /// The merged configuration, as `GET /config` answers it: secrets of providers and MCP servers are masked.
    pub config: Value,
    /// The agents, as `GET /agent` lists them: the default first, then by name.
    pub agents: Vec<Agent>,
    /// The providers; their bodies are [`Providers::config_body`] and [`Providers::body`].
    pub providers: Providers,
    /// The commands, as `GET /command` lists them.
    pub commands: Vec<Command>,
    /// The skills, as `GET /skill` lists them.
    pub skills: Arc<[Skill]>,
    /// The files with rules for agents.
    pub instructions: Vec<Instruction>,
    /// The agent of a prompt that names none.
    pub default_agent: String,
    /// The model where neither prompt, agent nor session name one: the config's, else the one that was used last, else
    /// the best of the first provider. Nothing if no provider can be called. The config's own is not checked here.
    pub default_model: Option<ModelRef>,
    /// The config's model for small tasks; see [`Instance::small_model_for`].
    pub small_model: Option<ModelRef>,
    /// What clients and commands must not see: what is masked in the configuration, and the keys of providers.
    pub secrets: Vec<Secret>,
    fingerprint: Fingerprint,
}

/// Builds the instance of a directory, which need not exist.
///
/// Blocks on files and runs `git` once (see [`project::locate`]).
pub fn load(directory: &Path, surroundings: &Surroundings) -> Result<Instance, ConfigError> {
    load_at(directory, project::locate(directory, surroundings), surroundings)
}

/// The same where the caller remembers the place of the directory: no process is run.
pub fn load_at(directory: &Path, place: Place, surroundings: &Surroundings) -> Result<Instance, ConfigError> {
    let mut files = Files::default();
    project::watch(directory, &place, &mut files);
    let Place { project, worktree } = place;
    let mut config = layers::read(directory, &worktree, surroundings, &mut files)?;
    let skills = skills::all(&config, directory, &worktree, surroundings, &mut files);
    let mut agents = agent::all(&config, &worktree, &skills, surroundings);
    let default_agent = default_agent(&config, &agents, directory)?;
    agents.sort_by_key(|agent| agent.name != default_agent);
    let instructions = instructions::read(&config, directory, &worktree, surroundings, &mut files);
    let providers = Providers::new(&config, surroundings);
    let named = |key: &str| config.get(key).and_then(Value::as_str).map(ModelRef::parse);
    let (small_model, default_model) = (named("small_model"), named("model"));
    let default_model =
        default_model.or_else(|| last_used(&providers, surroundings, &mut files)).or_else(|| providers.first_model());
    let commands = commands::all(&config, &skills);
    let mut secrets = mask_config(&mut config);
    secrets.extend(providers.keys().cloned());
    Ok(Instance {
        directory: directory.to_owned(),
        project,
        worktree,
        config: Value::Object(config),
        agents,
        providers,
        commands,
        skills: skills.into(),
        instructions,
        default_agent,
        default_model,
        small_model,
        secrets,
        fingerprint: files.fingerprint(),
    })
}

/// The config's default agent, else `build`, else the first that people may prompt. A config that names one that
/// cannot be used is refused: another agent might be allowed more than was meant.
fn default_agent(config: &Map<String, Value>, agents: &[Agent], directory: &Path) -> Result<String, ConfigError> {
    let usable = |name: &str| agents.iter().any(|agent| agent.name == name && agent.is_selectable());
    match config.get("default_agent").and_then(Value::as_str) {
        Some(name) if usable(name) => Ok(name.to_owned()),
        Some(name) => {
            Err(ConfigError::whole(directory, format!("default agent \"{name}\" is unknown, hidden or a subagent")))
        }
        None if usable(agent::BUILD) => Ok(agent::BUILD.to_owned()),
        None => match agents.iter().find(|agent| agent.is_selectable()) {
            Some(agent) => Ok(agent.name.clone()),
            None => Err(ConfigError::whole(directory, "no agent is left that a person may prompt")),
        },
    }
}

/// The newest of the models that the user's client has used and that can be called.
fn last_used(providers: &Providers, surroundings: &Surroundings, files: &mut Files) -> Option<ModelRef> {
    let text = files.read(&surroundings.state_dir.join("model.json")).ok()??;
    let state: Value = serde_json::from_str(&text).ok()?;
    let recent = state.get("recent")?.as_array()?;
    recent.iter().filter_map(|entry| serde_json::from_value(entry.clone()).ok()).find(|model| providers.has(model))
}

impl Instance {
    /// An agent by name.
    pub fn agent(&self, name: &str) -> Option<&Agent> {
        self.agents.iter().find(|agent| agent.name == name)
    }

    /// A command by name.
    pub fn command(&self, name: &str) -> Option<&Command> {
        self.commands.iter().find(|command| command.name == name)
    }

    /// A model, ready to be called.
    pub fn model(&self, provider_id: &str, model_id: &str) -> Result<Model, ModelNotFound> {
        self.providers.model(&ModelRef { provider_id: provider_id.to_owned(), model_id: model_id.to_owned() })
    }

    /// The model for small tasks such as titles: the config's, else a small one of the session's provider, else the
    /// session's own.
    pub fn small_model_for(&self, session_model: &ModelRef) -> ModelRef {
        let own = || self.providers.small_model(&session_model.provider_id);
        self.small_model.clone().or_else(own).unwrap_or_else(|| session_model.clone())
    }

    /// What was read or looked for.
    pub fn fingerprint(&self) -> &Fingerprint {
        &self.fingerprint
    }

    /// True while nothing has changed that this was built from; costs a `stat` for each path of the fingerprint.
    pub fn is_fresh(&self) -> bool {
        self.fingerprint.is_fresh()
    }
}
