//! `edit`: replaces a piece of text in a file.

use super::write::ask_to_edit;
use crate::patch::Patch;
use crate::paths::Target;
use crate::{Call, Output, Tool, ToolError, Writes, arguments, replace};
use async_trait::async_trait;
use serde::Deserialize;
use serde_json::{Value, json};

/// The tool `edit`.
pub(crate) struct Edit;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Arguments {
    file_path: String,
    old_string: String,
    new_string: String,
    #[serde(default)]
    replace_all: Option<bool>,
}

#[async_trait]
impl Tool for Edit {
    fn name(&self) -> &'static str {
        "edit"
    }

    fn description(&self) -> String {
        "Replaces a piece of text in a file by another one.\n\
         oldString must stand in the file exactly as given, with its indentation and line breaks, and only once; give \
         enough of the lines around it, or set replaceAll to change every place. The line numbers that the read tool \
         puts before each line are no part of the text.\n\
         An empty oldString makes a new file with newString as its content."
            .into()
    }

    fn parameters(&self) -> Value {
        json!({
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "type": "object",
            "properties": {
                "filePath": { "type": "string", "description": "The file, preferably as an absolute path" },
                "oldString": { "type": "string", "description": "The text to be replaced" },
                "newString": { "type": "string", "description": "The text to put there; not the same as oldString" },
                "replaceAll": { "type": "boolean", "description": "Replace oldString everywhere (default: false)" },
            },
            "required": ["filePath", "oldString", "newString"],
        })
    }

    fn writes(&self) -> Writes {
        Writes::Locked
    }

    async fn run(&self, input: Value, call: &Call) -> Result<Output, ToolError> {
        let arguments: Arguments = arguments::parse(self.name(), input)?;
        if arguments.old_string == arguments.new_string {
            return Err(ToolError::Failed("No changes to apply: oldString and newString are identical.".into()));
        }
        let target = Target::locate(call, &arguments.file_path).await?;
        target.ask_if_external(call, false).await?;
        let (_, _, planned) = arguments.apply(&target).await?;
        ask_to_edit(call, &target, &planned).await?;

        call.host.begin().await?;
        // The user may have taken hours to answer, and other calls edit the same file: what is compared is what is
        // there now, and nobody else edits it until it is replaced.
        let lock = call.host.file_lock(&target.real).await?;
        let (old, new, patch) = arguments.apply(&target).await?;
        replace::write_text(&target.real, new, call.host.new_output_id().as_str()).await?;
        drop(lock);
        replace::publish(call, &target.shown, old.is_some()).await;
        let metadata = patch.metadata(&target.shown);
        call.host.progress(None, metadata.clone()).await;
        Ok(Output {
            title: target.relative(call),
            output: "Edit applied successfully.".into(),
            metadata,
            attachments: None,
        })
    }
}

impl Arguments {
    /// The file's text, its text after the edit, and the difference.
    async fn apply(&self, target: &Target) -> Result<(Option<String>, String, Patch), ToolError> {
        let old = replace::read_text(&target.real).await?;
        let new = match &old {
            None if self.old_string.is_empty() => self.new_string.clone(),
            None => return Err(ToolError::Failed(format!("File {} not found", target.shown.display()))),
            Some(text) => self.edited(text)?,
        };
        let patch = Patch::between(&target.shown, old.as_deref().unwrap_or_default(), &new);
        Ok((old, new, patch))
    }

    fn edited(&self, text: &str) -> Result<String, ToolError> {
        if text.is_empty() && self.old_string.is_empty() {
            return Ok(self.new_string.clone());
        }
        if self.old_string.is_empty() {
            let error = "The file has content already: name the oldString to replace, or use the write tool.";
            return Err(ToolError::Failed(error.into()));
        }
        let (old, new) = (line_ends_as_in(text, &self.old_string), line_ends_as_in(text, &self.new_string));
        match text.matches(&old).count() {
            0 => Err(ToolError::Failed(
                "Could not find oldString in the file. It has to stand there exactly so, with the same spaces, \
                 indentation and line endings."
                    .into(),
            )),
            2.. if self.replace_all != Some(true) => Err(ToolError::Failed(
                "Found multiple matches for oldString. Add lines around it until it fits one place only, or set \
                 replaceAll."
                    .into(),
            )),
            _ => Ok(text.replace(&old, &new)),
        }
    }
}

/// Models write `\n`; in a file with `\r\n` that is meant.
fn line_ends_as_in(text: &str, piece: &str) -> String {
    if text.contains("\r\n") && !piece.contains('\r') { piece.replace('\n', "\r\n") } else { piece.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edited(text: &str, old: &str, new: &str) -> Result<String, ToolError> {
        let (old_string, new_string) = (old.into(), new.into());
        Arguments { file_path: String::new(), old_string, new_string, replace_all: None }.edited(text)
    }

    #[test]
    fn line_ends_of_the_file_are_kept() {
        assert_eq!(edited("a\r\nb\r\nc\r\n", "a\nb", "x\ny").unwrap(), "x\r\ny\r\nc\r\n");
        assert_eq!(edited("a\nb\n", "a\nb", "x").unwrap(), "x\n");
    }
}
