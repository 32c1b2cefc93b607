//! `read`: shows a file, a directory, an image or a PDF.

mod content;
mod directory;

use crate::folder;
use crate::paths::Target;
use crate::{Ask, Call, Instructions, Output, Tool, ToolError, Writes, arguments};
use async_trait::async_trait;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
pub(crate) use content::attachable;
use content::{Content, Lines};
use directory::Listing;
use serde::Deserialize;
use serde_json::{Value, json};
use std::io;
use std::path::Path;
use tokio_util::sync::CancellationToken;

/// So many lines are shown where the call names no limit.
const DEFAULT_LIMIT: usize = 2000;

/// So many of the lines are shown to people.
const PREVIEW_LINES: usize = 20;

/// So many names are offered in the place of a missing one.
const MAX_SIMILAR: usize = 3;

/// The tool `read`.
pub(crate) struct Read;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Arguments {
    file_path: String,
    offset: Option<u64>,
    limit: Option<u64>,
}

/// What a path led to.
enum Found {
    Directory(Listing),
    File(Content),
    Missing { similar: Vec<String> },
}

#[async_trait]
impl Tool for Read {
    fn name(&self) -> &'static str {
        "read"
    }

    fn description(&self) -> String {
        "Shows a file or a directory.\n\
         Text comes as numbered lines (`12: text`), 2000 of them or 50 KB at most, beginning with line `offset`; longer \
         lines are cut after 2000 characters. The last line says whether there is more, and where to go on. A directory \
         is listed by name, its folders with a `/` at the end. Images (png, jpeg, gif, webp) and PDF files are attached \
         as they are; other binary files cannot be read.\n\
         Read larger pieces rather than many small ones, and several files at once where that helps."
            .into()
    }

    fn parameters(&self) -> Value {
        let number = |description: &str| json!({ "minimum": 0, "type": "integer", "maximum": 9_007_199_254_740_991_u64, "description": description });
        json!({
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "type": "object",
            "properties": {
                "filePath": { "type": "string", "description": "The file or directory, preferably as an absolute path" },
                "offset": number("The line or entry to begin with; the first one is 1"),
                "limit": number("How many lines or entries at most (default: 2000)"),
            },
            "required": ["filePath"],
        })
    }

    fn writes(&self) -> Writes {
        Writes::Nothing
    }

    async fn run(&self, input: Value, call: &Call) -> Result<Output, ToolError> {
        let Arguments { file_path, offset, limit } = arguments::parse(self.name(), input)?;
        let target = Target::locate(call, &file_path).await?;
        let is_directory = tokio::fs::metadata(&target.real).await.is_ok_and(|metadata| metadata.is_dir());
        target.ask_if_external(call, is_directory).await?;
        call.host
            .ask(Ask {
                permission: self.name().into(),
                patterns: target.patterns(call).await?,
                always: vec!["*".into()],
                metadata: json!({}),
            })
            .await?;

        let range = Range {
            offset: to_usize(offset.unwrap_or(1)).max(1),
            limit: limit.map_or(DEFAULT_LIMIT, to_usize),
            max_bytes: call.settings.max_bytes,
        };
        let title = target.relative(call);
        let shown = &target.shown;
        match find(&target, range, &call.cancel).await? {
            Found::Missing { similar } => Err(ToolError::Failed(missing(shown, &similar))),
            Found::Directory(listing) => Ok(show_directory(title, shown, &listing)),
            Found::File(Content::Binary) => {
                Err(ToolError::Failed(format!("Cannot read binary file: {}", shown.display())))
            }
            Found::File(Content::Attachment { mime, bytes }) => Ok(attach(title, mime, &bytes)),
            Found::File(Content::Text(lines)) if range.offset > lines.total.max(1) => Err(ToolError::Failed(format!(
                "Offset {} is out of range for this file ({} lines)",
                range.offset, lines.total
            ))),
            Found::File(Content::Text(lines)) => {
                let instructions = call.host.instructions_near(shown).await;
                Ok(show_text(title, shown, &lines, &instructions))
            }
        }
    }
}

/// Which piece of a file or directory is wanted.
#[derive(Clone, Copy)]
struct Range {
    /// The first line or entry, counted from 1.
    offset: usize,
    /// How many.
    limit: usize,
    /// How many bytes of text.
    max_bytes: usize,
}

fn to_usize(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

async fn find(target: &Target, range: Range, cancel: &CancellationToken) -> Result<Found, ToolError> {
    let (real, cancel) = (target.real.clone(), cancel.clone());
    let look = move || -> io::Result<Found> {
        let file = match folder::open(&real) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(Found::Missing { similar: directory::similar(&real, MAX_SIMILAR) });
            }
            Err(error) => return Err(error),
        };
        match file.metadata()? {
            metadata if metadata.is_dir() => directory::list(&file, range).map(Found::Directory),
            metadata if metadata.is_file() => {
                content::read(&real, file, range, &|| cancel.is_cancelled()).map(Found::File)
            }
            _ => Err(io::Error::other("not a regular file")),
        }
    };
    match tokio::task::spawn_blocking(look).await {
        Ok(Ok(found)) => Ok(found),
        Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => Err(ToolError::Aborted),
        Ok(Err(error)) => Err(ToolError::Failed(format!("{}: {error}", target.shown.display()))),
        Err(_) => Err(ToolError::Aborted),
    }
}

fn missing(path: &Path, similar: &[String]) -> String {
    let mut text = format!("File not found: {}", path.display());
    if let (false, Some(folder)) = (similar.is_empty(), path.parent()) {
        text.push_str("\n\nThese have similar names:");
        for name in similar {
            text.push_str(&format!("\n{}", folder.join(name).display()));
        }
    }
    text
}

fn attach(title: String, mime: &str, bytes: &[u8]) -> Output {
    let what = if mime == "application/pdf" { "PDF" } else { "Image" };
    let output = format!("{what} read successfully");
    let url = format!("data:{mime};base64,{}", BASE64_STANDARD.encode(bytes));
    Output {
        title,
        metadata: json!({ "preview": output, "truncated": false, "loaded": [] }),
        output,
        attachments: Some(vec![json!({ "type": "file", "mime": mime, "url": url })]),
    }
}

fn show_directory(title: String, path: &Path, listing: &Listing) -> Output {
    let Listing { entries, offset, total, truncated } = listing;
    let footer = match truncated {
        false => format!("({total} entries)"),
        true => format!(
            "(Showing {} of {total} entries. Use offset={} to continue.)",
            entries.len(),
            offset + entries.len()
        ),
    };
    let output = format!(
        "<path>{}</path>\n<type>directory</type>\n<entries>\n{}\n\n{footer}\n</entries>",
        path.display(),
        entries.join("\n")
    );
    let metadata = json!({
        "preview": first(entries),
        "truncated": truncated,
        "loaded": [],
        "display": {
            "type": "directory",
            "path": path,
            "entries": entries,
            "offset": offset,
            "totalEntries": total,
            "truncated": truncated,
        },
    });
    Output { title, output, metadata, attachments: None }
}

fn show_text(title: String, path: &Path, lines: &Lines, instructions: &[Instructions]) -> Output {
    let Lines { lines: texts, first: start, total, full } = lines;
    let end = start + texts.len() - 1;
    let truncated = end < *total;
    let footer = match (truncated, full) {
        (false, _) => format!("(End of file - total {total} lines)"),
        (true, false) => format!("(Showing lines {start}-{end} of {total}. Use offset={} to continue.)", end + 1),
        (true, true) => {
            format!("(Output is full. Showing lines {start}-{end} of {total}. Use offset={} to continue.)", end + 1)
        }
    };
    let numbered: Vec<String> = texts.iter().zip(*start..).map(|(text, number)| format!("{number}: {text}")).collect();
    let mut output = format!(
        "<path>{}</path>\n<type>file</type>\n<content>\n{}\n\n{footer}\n</content>",
        path.display(),
        numbered.join("\n")
    );
    if !instructions.is_empty() {
        let texts = instructions.iter().map(|one| format!("Instructions from: {}\n{}", one.path.display(), one.text));
        let texts: Vec<String> = texts.collect();
        output.push_str(&format!("\n\n<system-reminder>\n{}\n</system-reminder>", texts.join("\n\n")));
    }
    let metadata = json!({
        "preview": first(texts),
        "truncated": truncated,
        "loaded": instructions.iter().map(|one| &one.path).collect::<Vec<_>>(),
        "display": {
            "type": "file",
            "path": path,
            "text": texts.join("\n"),
            "lineStart": start,
            "lineEnd": end,
            "totalLines": total,
            "truncated": truncated,
        },
    });
    Output { title, output, metadata, attachments: None }
}

fn first(lines: &[String]) -> String {
    lines[..lines.len().min(PREVIEW_LINES)].join("\n")
}
