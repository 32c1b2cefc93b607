//! Which tools there are, and which one a model means.

use crate::{Tool, builtin};
use serde_json::{Map, Value};
use std::sync::Arc;

/// The deepest arguments that are taken: they are stored within records, which have a limit of their own.
const DEEPEST: usize = 64;

/// How deep a value is nested; what the parser takes at most bounds it.
fn depth(value: &Value) -> usize {
    match value {
        Value::Array(values) => 1 + values.iter().map(depth).max().unwrap_or(0),
        Value::Object(fields) => 1 + fields.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

/// The tool that stands in for calls that cannot be made.
const INVALID: &str = "invalid";

/// Whether a model of this id is offered a tool: some were trained to write patches and get them in the place of edits.
fn suits(tool: &str, model: &str) -> bool {
    let patches = model.contains("gpt-") && !model.contains("oss") && !model.contains("gpt-4");
    match tool {
        // Offered where a prompt wants it.
        INVALID | crate::STRUCTURED_OUTPUT => false,
        "apply_patch" => patches,
        "edit" | "write" => !patches,
        _ => true,
    }
}

/// The tools of a server, in the order in which they are listed.
#[derive(Clone)]
pub struct Registry {
    tools: Vec<Arc<dyn Tool>>,
    /// What models are told of them, by name.
    specs: Vec<Spec>,
}

/// A tool as a model is told of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Spec {
    /// Its name.
    pub name: &'static str,
    /// What it does.
    pub description: Arc<str>,
    /// The JSON schema of its arguments.
    pub parameters: Arc<Value>,
}

impl Spec {
    fn of(tool: &dyn Tool) -> Self {
        Self { name: tool.name(), description: tool.description().into(), parameters: tool.parameters().into() }
    }
}

/// What a model meant.
#[derive(Clone)]
pub enum Resolved {
    /// A tool, and its arguments as JSON. The tool itself checks them against its schema.
    Known(Arc<dyn Tool>, Value),
    /// Nothing that can be run: the call becomes one of the tool `invalid` with this as its input.
    Invalid {
        /// The name that the model used.
        tool: String,
        /// What is wrong.
        error: String,
    },
}

impl Registry {
    /// The built-in tools.
    pub fn builtin() -> Self {
        Self::of(vec![
            Arc::new(builtin::invalid::Invalid),
            Arc::new(builtin::question::Question),
            Arc::new(builtin::bash::Bash),
            Arc::new(builtin::read::Read),
            Arc::new(builtin::glob::Glob),
            Arc::new(builtin::grep::Grep),
            Arc::new(builtin::edit::Edit),
            Arc::new(builtin::write::Write),
            Arc::new(builtin::task::TaskTool),
            Arc::new(builtin::webfetch::WebFetch::default()),
            Arc::new(builtin::todowrite::TodoWrite),
            Arc::new(builtin::skill::LoadSkill),
            Arc::new(builtin::apply_patch::ApplyPatch),
            Arc::new(builtin::structured_output::StructuredOutput),
        ])
    }

    fn of(tools: Vec<Arc<dyn Tool>>) -> Self {
        let mut specs: Vec<Spec> = tools.iter().map(|tool| Spec::of(&**tool)).collect();
        specs.sort_by_key(|spec| spec.name);
        Self { tools, specs }
    }

    /// Adds a tool behind the others, or puts it in the place of the one with its name.
    pub fn with(mut self, tool: Arc<dyn Tool>) -> Self {
        match self.tools.iter_mut().find(|known| known.name() == tool.name()) {
            Some(known) => *known = tool,
            None => self.tools.push(tool),
        }
        Self::of(self.tools)
    }

    /// The tool of this very name.
    pub fn get(&self, name: &str) -> Option<Arc<dyn Tool>> {
        self.tools.iter().find(|tool| tool.name() == name).cloned()
    }

    /// All names, in the registry's order, `invalid` among them.
    pub fn names(&self) -> Vec<&'static str> {
        self.tools.iter().map(|tool| tool.name()).collect()
    }

    /// What a model is told, by name; `invalid` is never offered.
    pub fn specs(&self, model: &str) -> Vec<Spec> {
        self.specs.iter().filter(|spec| suits(spec.name, model)).cloned().collect()
    }

    /// The tool that a model means by `name`: one of those that it was `offered`, in whatever case the name is written.
    pub fn meant(&self, name: &str, offered: &[&str]) -> Option<Arc<dyn Tool>> {
        let lower = name.to_lowercase();
        [name, &lower].into_iter().find(|name| offered.contains(name)).and_then(|name| self.get(name))
    }

    /// Which tool a model means by `name`, with the text of its arguments. An empty text is `{}`.
    pub fn resolve(&self, name: &str, arguments: &str, offered: &[&str]) -> Resolved {
        let Some(tool) = self.meant(name, offered) else {
            let mut names: Vec<&str> = offered.iter().copied().chain([INVALID]).collect();
            names.sort_unstable();
            let error =
                format!("Model tried to call unavailable tool '{name}'. Available tools: {}.", names.join(", "));
            return Resolved::Invalid { tool: name.into(), error };
        };
        if arguments.trim().is_empty() {
            return Resolved::Known(tool, Value::Object(Map::new()));
        }
        match serde_json::from_str(arguments) {
            Ok(input) if depth(&input) > DEEPEST => {
                let error = format!("Invalid input for tool {name}: it is nested more than {DEEPEST} levels deep.");
                Resolved::Invalid { tool: name.into(), error }
            }
            Ok(input) => Resolved::Known(tool, input),
            Err(cause) => {
                let error = format!(
                    "Invalid input for tool {name}: JSON parsing failed: Text: {arguments}.\nError message: {cause}"
                );
                Resolved::Invalid { tool: name.into(), error }
            }
        }
    }

    /// The tool that a call becomes when it is [`Resolved::Invalid`].
    pub fn invalid(&self) -> Arc<dyn Tool> {
        Arc::new(builtin::invalid::Invalid)
    }
}
