//! `write`: makes a file, or replaces the whole of it.

use crate::patch::Patch;
use crate::paths::Target;
use crate::{Ask, Call, Output, Tool, ToolError, Writes, arguments, replace};
use async_trait::async_trait;
use serde::Deserialize;
use serde_json::{Value, json};

/// The tool `write`.
pub(crate) struct Write;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Arguments {
    file_path: String,
    content: String,
}

#[async_trait]
impl Tool for Write {
    fn name(&self) -> &'static str {
        "write"
    }

    fn description(&self) -> String {
        "Creates a file with the given content. A file that is already there is replaced as a whole; folders that are \
         missing are made.\n\
         To change a part of a file use the edit tool. Read a file before replacing it, so that nothing in it gets lost \
         by mistake. Make new files only where the task needs them."
            .into()
    }

    fn parameters(&self) -> Value {
        json!({
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "type": "object",
            "properties": {
                "content": { "type": "string", "description": "The whole new text of the file" },
                "filePath": { "type": "string", "description": "The file, preferably as an absolute path" },
            },
            "required": ["content", "filePath"],
        })
    }

    fn writes(&self) -> Writes {
        Writes::Locked
    }

    async fn run(&self, input: Value, call: &Call) -> Result<Output, ToolError> {
        let Arguments { file_path, content } = arguments::parse(self.name(), input)?;
        let target = Target::locate(call, &file_path).await?;
        target.ask_if_external(call, false).await?;
        let old = replace::read_lossy(&target.real).await?;
        let patch = Patch::between(&target.shown, old.as_deref().unwrap_or_default(), &content);
        ask_to_edit(call, &target, &patch).await?;

        call.host.begin().await?;
        let lock = call.host.file_lock(&target.real).await?;
        let exists = tokio::fs::try_exists(&target.real).await.unwrap_or(false);
        replace::write_text(&target.real, content, call.host.new_output_id().as_str()).await?;
        drop(lock);
        replace::publish(call, &target.shown, exists).await;
        Ok(Output {
            title: target.relative(call),
            output: "Wrote file successfully.".into(),
            metadata: json!({ "diagnostics": {}, "filepath": target.shown, "exists": exists }),
            attachments: None,
        })
    }
}

/// Asks for `edit`, which `write` and `edit` share.
pub(super) async fn ask_to_edit(call: &Call, target: &Target, patch: &Patch) -> Result<(), ToolError> {
    let ask = Ask {
        permission: "edit".into(),
        patterns: target.patterns(call).await?,
        always: vec!["*".into()],
        metadata: json!({ "filepath": target.shown, "diff": patch.text }),
    };
    call.host.ask(ask).await
}
