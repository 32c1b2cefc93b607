//! `todowrite`: replaces the session's list of things to do.

use crate::{Ask, Call, Output, Tool, ToolError, Writes, arguments};
use async_trait::async_trait;
use serde::Deserialize;
use serde_json::{Value, json};
use wire::session::Todo;

/// The tool `todowrite`.
pub(crate) struct TodoWrite;

#[derive(Deserialize)]
struct Arguments {
    todos: Vec<Todo>,
}

#[async_trait]
impl Tool for TodoWrite {
    fn name(&self) -> &'static str {
        "todowrite"
    }

    fn description(&self) -> String {
        "Writes down the list of what is to be done in this session; the user sees it.\n\
         Each call gives the whole list: what is left out is gone. Use it for work of several steps: write the steps \
         down before the first of them, have one `in_progress` at a time, and mark each as `completed` as soon as it is \
         done, or as `cancelled` when it is no longer needed. A single small task needs no list."
            .into()
    }

    fn parameters(&self) -> Value {
        let text = |description: &str| json!({ "type": "string", "description": description });
        json!({
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "type": "object",
            "properties": {
                "todos": {
                    "type": "array",
                    "description": "The whole list",
                    "items": {
                        "type": "object",
                        "properties": {
                            "content": text("What is to be done, in a few words"),
                            "status": text("pending, in_progress, completed or cancelled"),
                            "priority": text("high, medium or low"),
                        },
                        "required": ["content", "status", "priority"],
                    },
                },
            },
            "required": ["todos"],
        })
    }

    fn writes(&self) -> Writes {
        Writes::Nothing
    }

    async fn run(&self, input: Value, call: &Call) -> Result<Output, ToolError> {
        let Arguments { todos } = arguments::parse(self.name(), input)?;
        let all = vec!["*".to_owned()];
        let ask = Ask { permission: self.name().into(), patterns: all.clone(), always: all, metadata: json!({}) };
        call.host.ask(ask).await?;
        // The call is not marked as begun: a new owner may write the same list again.
        call.host.put_todos(todos.clone()).await?;
        let open = todos.iter().filter(|todo| todo.status != "completed").count();
        let metadata = json!({ "todos": todos });
        Ok(Output {
            title: format!("{open} todos"),
            output: serde_json::to_string_pretty(&todos).unwrap_or_default(),
            metadata,
            attachments: None,
        })
    }
}
