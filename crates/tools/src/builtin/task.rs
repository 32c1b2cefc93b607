//! `task`: gives a piece of work to another agent, in a session of its own.

use crate::{Ask, Call, Output, Task, Tool, ToolError, arguments};
use async_trait::async_trait;
use serde::Deserialize;
use serde_json::{Value, json};

/// The tool `task`. The run that calls it adds to its description which agents there are.
pub(crate) struct TaskTool;

#[derive(Deserialize)]
struct Arguments {
    description: String,
    prompt: String,
    subagent_type: String,
    task_id: Option<String>,
}

#[async_trait]
impl Tool for TaskTool {
    fn name(&self) -> &'static str {
        "task"
    }

    fn description(&self) -> String {
        "Gives a piece of work to another agent, which does it in a session of its own and reports once, at its end.\n\
         It knows nothing of this conversation: say in `prompt` all that it needs, what shall be done, and what it shall \
         report. What it reports is for you; tell people yourself what they should know of it. Several tasks can be given \
         at the same time. With the `task_id` of an earlier result that session is gone on with. What you can do with one \
         or two calls of other tools needs no task."
            .into()
    }

    fn parameters(&self) -> Value {
        let text = |description: &str| json!({ "type": "string", "description": description });
        json!({
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "type": "object",
            "properties": {
                "description": text("The work in three to five words"),
                "prompt": text("What the agent is told"),
                "subagent_type": text("The agent"),
                "task_id": text("The earlier task to go on with"),
                "command": text("The command that asked for it, if one did"),
            },
            "required": ["description", "prompt", "subagent_type"],
        })
    }

    async fn run(&self, input: Value, call: &Call) -> Result<Output, ToolError> {
        let Arguments { description, prompt, subagent_type, task_id } = arguments::parse(self.name(), input)?;
        call.host
            .ask(Ask {
                permission: self.name().into(),
                patterns: vec![subagent_type.clone()],
                always: vec!["*".into()],
                metadata: json!({ "description": description, "subagent_type": subagent_type }),
            })
            .await?;
        call.host.task(Task { description, prompt, agent: subagent_type, resumes: task_id }).await
    }
}
