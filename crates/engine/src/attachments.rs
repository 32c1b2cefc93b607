//! What goes with a prompt: files become texts that a model can read, agents a hint to call them.

use crate::by_user::ByUser;
use crate::request::data_text;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use tokio::io::AsyncReadExt;
use wire::ids::PartId;
use wire::message::MessageError;
use wire::part::{FilePart, PartKind, TextPart};

/// A part of a prompt, with the id that its client gave it.
type Given = (Option<PartId>, PartKind);

/// The largest file that is attached as it is.
const LARGEST: u64 = 20 * 1024 * 1024;

/// The address of a file, and which of its lines are meant.
struct FileUrl {
    path: PathBuf,
    start: Option<u64>,
    end: Option<u64>,
}

impl FileUrl {
    fn parse(url: &str) -> Option<Self> {
        let rest = url.strip_prefix("file://")?;
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        let path = percent_encoding::percent_decode_str(path).decode_utf8().ok()?;
        let number = |name: &str| {
            let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
            pairs.filter(|(key, _)| *key == name).find_map(|(_, value)| value.parse().ok())
        };
        Some(Self { path: PathBuf::from(path.as_ref()), start: number("start"), end: number("end") })
    }

    /// What the tool `read` is given.
    fn input(&self) -> Value {
        let mut input = json!({ "filePath": self.path });
        if let Some(start) = self.start {
            input["offset"] = json!(start.max(1));
            if let Some(end) = self.end {
                input["limit"] = json!(end.saturating_sub(start.max(1)) + 1);
            }
        }
        input
    }
}

/// The parts that a prompt is stored with, and what could not be attached.
pub(crate) async fn expand(by: &ByUser<'_>, parts: Vec<Given>) -> (Vec<Given>, Vec<MessageError>) {
    let (mut expanded, mut errors) = (Vec::with_capacity(parts.len()), Vec::new());
    for (id, kind) in parts {
        match kind {
            PartKind::File(file) => {
                if let Some(error) = attach(by, id, file, &mut expanded).await {
                    errors.push(MessageError::unknown(error));
                }
            }
            PartKind::Other(fields) if fields.get("type").and_then(Value::as_str) == Some("agent") => {
                let name = fields.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
                expanded.push((id, PartKind::Other(fields)));
                expanded.push(synthetic(format!(
                    "The user mentions the agent \"{name}\": call the tool `task` with it, and give it what is asked above."
                )));
            }
            other => expanded.push((id, other)),
        }
    }
    (expanded, errors)
}

/// Attaches a file. Returns what went wrong.
async fn attach(by: &ByUser<'_>, id: Option<PartId>, file: FilePart, parts: &mut Vec<Given>) -> Option<String> {
    let is_text = file.mime == "text/plain";
    let Some(url) = FileUrl::parse(&file.url) else {
        if let Some(text) = data_text(&file.url).filter(|_| is_text) {
            parts.push(read_with(&json!({ "filePath": file.filename })));
            parts.push(synthetic(text));
        }
        parts.push((id, PartKind::File(file)));
        return None;
    };
    let input = url.input();
    parts.push(read_with(&input));
    if is_text || file.mime == "application/x-directory" {
        return match by.run("read", input).await {
            Ok(output) => {
                parts.push(synthetic(output.output));
                parts.push((id, PartKind::File(file)));
                None
            }
            Err(error) => Some(unreadable(parts, &url.path, error.to_string())),
        };
    }
    // The tool answers for the rules; what the file's type is, the client knows.
    let bytes = match by.run("read", json!({ "filePath": url.path, "limit": 1 })).await {
        Err(error @ tools::ToolError::Denied(_)) => Err(error.to_string()),
        _ => read_whole(&url.path).await,
    };
    match bytes {
        Ok(bytes) => {
            let url = format!("data:{};base64,{}", file.mime, BASE64_STANDARD.encode(bytes));
            parts.push((id, PartKind::File(FilePart { url, ..file })));
            None
        }
        Err(error) => Some(unreadable(parts, &url.path, error)),
    }
}

fn unreadable(parts: &mut Vec<Given>, path: &Path, error: String) -> String {
    parts.push(synthetic(format!("{} could not be read: {error}", path.display())));
    error
}

async fn read_whole(path: &Path) -> Result<Vec<u8>, String> {
    let failed = |error: std::io::Error| format!("{}: {error}", path.display());
    let metadata = tokio::fs::metadata(path).await.map_err(failed)?;
    if !metadata.is_file() || metadata.len() > LARGEST {
        return Err(format!("{} is no file of at most {LARGEST} bytes", path.display()));
    }
    let mut bytes = Vec::new();
    // It may grow while it is read.
    let file = tokio::fs::File::open(path).await.map_err(failed)?;
    file.take(LARGEST).read_to_end(&mut bytes).await.map_err(failed)?;
    Ok(bytes)
}

fn read_with(input: &Value) -> Given {
    synthetic(format!("The tool `read` was called with this input: {input}"))
}

fn synthetic(text: String) -> Given {
    (None, PartKind::Text(TextPart { text, synthetic: Some(true), ..TextPart::default() }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_names_lines() {
        let url = FileUrl::parse("file:///srv/a%20b/notes.txt?start=3&end=5").unwrap();
        assert_eq!(url.input(), json!({ "filePath": "/srv/a b/notes.txt", "offset": 3, "limit": 3 }));
        let url = FileUrl::parse("file:///srv/x?start=3").unwrap();
        assert_eq!(url.input(), json!({ "filePath": "/srv/x", "offset": 3 }));
        assert_eq!(FileUrl::parse("file:///srv/x?start=9&end=1").unwrap().input()["limit"], 1);
        assert!(FileUrl::parse("data:,x").is_none());
    }
}
