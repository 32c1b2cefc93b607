//! `glob`: finds files by their names.

use crate::blocking::blocking;
use crate::paths::Target;
use crate::search::{self, MAX_RESULTS, Wanted};
use crate::{Ask, Call, Output, Tool, ToolError, Writes, arguments};
use async_trait::async_trait;
use serde::Deserialize;
use serde_json::{Value, json};

/// The tool `glob`.
pub(crate) struct Glob;

#[derive(Deserialize)]
struct Arguments {
    pattern: String,
    path: Option<String>,
}

#[async_trait]
impl Tool for Glob {
    fn name(&self) -> &'static str {
        "glob"
    }

    fn description(&self) -> String {
        "Finds files by name.\n\
         The pattern is a glob such as `*.rs` (at any depth), `src/**/*.ts` or `*.{js,jsx}`. The answer is one absolute \
         path per line, what was changed last first, 100 at most. Hidden files and what .gitignore excludes are not \
         found.\n\
         To look for what is in files use the grep tool."
            .into()
    }

    fn parameters(&self) -> Value {
        json!({
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "type": "object",
            "properties": {
                "pattern": { "type": "string", "description": "The glob that names have to fit" },
                "path": { "type": "string", "description": "The directory to look in (default: the working directory)" },
            },
            "required": ["pattern"],
        })
    }

    fn writes(&self) -> Writes {
        Writes::Nothing
    }

    async fn run(&self, input: Value, call: &Call) -> Result<Output, ToolError> {
        let Arguments { pattern, path } = arguments::parse(self.name(), input)?;
        let mut metadata = json!({ "pattern": pattern });
        if let Some(path) = &path {
            metadata["path"] = json!(path);
        }
        let (permission, always) = (self.name().into(), vec!["*".into()]);
        call.host.ask(Ask { permission, patterns: vec![pattern.clone()], always, metadata }).await?;
        let target = Target::locate(call, path.as_deref().unwrap_or(".")).await?;
        target.ask_if_external(call, true).await?;

        let (root, shown) = (target.real.clone(), target.shown.clone());
        let found = blocking(call, move |stop| {
            if !root.is_dir() {
                return Err(ToolError::Failed(format!("Not a directory: {}", shown.display())));
            }
            search::files(&root, &Wanted { glob: Some(pattern), hidden: false }, stop)
        })
        .await?;
        let truncated = found.files.len() > MAX_RESULTS;
        let files = &found.files[..found.files.len().min(MAX_RESULTS)];
        let mut lines: Vec<String> = files.iter().map(|file| target.shown.join(file).display().to_string()).collect();
        if files.is_empty() {
            lines.push("No files found".into());
        }
        if truncated || found.is_partial {
            lines.push(String::new());
            lines.push(format!(
                "(There are more than these {}. Narrow the pattern or the path to see them.)",
                files.len()
            ));
        }
        Ok(Output {
            title: target.relative(call),
            output: lines.join("\n"),
            metadata: json!({ "count": files.len(), "truncated": truncated }),
            attachments: None,
        })
    }
}
