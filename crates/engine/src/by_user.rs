//! Tools that a person runs, not a model: attached files are read, templates run commands.

use crate::engine::Engine;
use agents::Instance;
use coordination::SessionKey;
use serde_json::Value;
use std::path::Path;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;
use tools::{Ask, Call, Host, Output, ToolError};
use wire::event::Happened;
use wire::permission::{Action, Rule};
use wire::session::Session;

/// What stands in the place of an attempt where a command runs for a request, not for a run.
const REQUEST: &str = "request";

/// For whom a tool is run.
pub(crate) struct ByUser<'a> {
    pub engine: &'a Engine,
    pub key: &'a SessionKey,
    pub session: &'a Session,
    pub instance: &'a Instance,
    /// What is checked: a person is not asked for what that very person wants, but rules that deny it hold, and what lies
    /// outside of the work tree must be allowed. None: everything is allowed.
    pub rules: Option<Vec<Rule>>,
}

impl ByUser<'_> {
    /// Runs a tool to its end.
    pub(crate) async fn run(&self, tool: &str, input: Value) -> Result<Output, ToolError> {
        let engine = self.engine;
        let tool = engine.0.tools.get(tool).unwrap_or_else(|| engine.0.tools.invalid());
        let call = Call {
            directory: self.session.directory.clone().into(),
            worktree: self.instance.worktree.clone(),
            session: self.key.session.clone(),
            message: engine.0.ids.message(),
            call_id: REQUEST.into(),
            identity: sandbox::Identity {
                session: self.key.session.to_string(),
                attempt: REQUEST.into(),
                ..sandbox::Identity::default()
            },
            lifeline: engine.0.replica.lifeline(),
            cancel: CancellationToken::new(),
            host: Arc::new(UserHost { engine: engine.clone(), rules: self.rules.clone() }),
            skills: Arc::default(),
            settings: crate::call::tool_settings(engine, self.instance),
        };
        tool.run(input, &call).await
    }
}

struct UserHost {
    engine: Engine,
    rules: Option<Vec<Rule>>,
}

#[async_trait::async_trait]
impl Host for UserHost {
    async fn ask(&self, ask: Ask) -> Result<(), ToolError> {
        let Some(rules) = &self.rules else { return Ok(()) };
        for pattern in &ask.patterns {
            let action = agents::permission::evaluate(&ask.permission, pattern, &[rules]).action;
            if action == Action::Deny || (action == Action::Ask && ask.permission == "external_directory") {
                return Err(ToolError::Denied(format!("The rules do not allow this: {} {pattern}", ask.permission)));
            }
        }
        Ok(())
    }

    async fn begin(&self) -> Result<(), ToolError> {
        Ok(())
    }

    async fn progress(&self, _title: Option<String>, _metadata: Value) {}

    async fn publish(&self, _happened: Happened) {}

    async fn file_lock(&self, path: &Path) -> Result<Box<dyn Send>, ToolError> {
        Err(ToolError::Failed(format!("Nobody may change {} here", path.display())))
    }

    fn new_output_id(&self) -> wire::ids::ToolOutputId {
        self.engine.0.ids.tool_output()
    }
}
