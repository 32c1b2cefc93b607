//! What goes with a prompt: files become texts that a model can read, agents a hint to call them.

use crate::api::EngineError;
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

/// The type of a directory.
const DIRECTORY: &str = "application/x-directory";
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
            leading_number(pairs.into_iter().find(|(key, _)| *key == name)?.1)
        };
        Some(Self { path: PathBuf::from(path.as_ref()), start: number("start"), end: number("end") })
    }

    /// What the tool `read` is given.
    fn input(&self) -> Value {
        let mut input = json!({ "filePath": self.path });
        if let Some(start) = self.start {
            input["offset"] = json!(start.max(1));
            if let Some(end) = self.end.filter(|&end| end > 0) {
                input["limit"] = json!(end.saturating_sub(start.max(1)) + 1);
            }
        }
        input
    }
}

/// The number that a text begins with, as JavaScript reads it; nothing below zero is meant.
fn leading_number(text: &str) -> Option<u64> {
    let (sign, text) = text.strip_prefix('-').map_or((1, text), |rest| (0, rest));
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    text[..digits].parse::<u64>().ok().map(|number| sign * number)
}

/// The parts that a prompt is stored with, and what could not be attached.
///
/// Errors: `BadRequest` where a file has no address, or is called an image and is none.
pub(crate) async fn expand(by: &ByUser<'_>, parts: Vec<Given>) -> Result<(Vec<Given>, Vec<MessageError>), EngineError> {
    let (mut expanded, mut errors) = (Vec::with_capacity(parts.len()), Vec::new());
    for file in parts.iter().filter_map(|(_, kind)| file_of(kind)) {
        if !has_scheme(&file.url) {
            return Err(EngineError::BadRequest(
                "A file must have an address with a scheme, such as file: or data:".into(),
            ));
        }
    }
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
    for file in expanded.iter().filter_map(|(_, kind)| file_of(kind)) {
        if file.mime.starts_with("image/") && !crate::images::is_image(&file.url) {
            let why = "An image must have a data: address in base64, and be PNG, JPEG, GIF or WebP";
            return Err(EngineError::BadRequest(why.into()));
        }
    }
    Ok((expanded, errors))
}

fn file_of(kind: &PartKind) -> Option<&FilePart> {
    match kind {
        PartKind::File(file) => Some(file),
        _ => None,
    }
}

fn has_scheme(url: &str) -> bool {
    let is_of_scheme = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.');
    let scheme = url.split_once(':').map_or("", |(scheme, _)| scheme);
    scheme.starts_with(|c: char| c.is_ascii_alphabetic()) && scheme.chars().all(is_of_scheme)
}

/// Attaches a file. Returns what went wrong.
async fn attach(by: &ByUser<'_>, id: Option<PartId>, mut file: FilePart, parts: &mut Vec<Given>) -> Option<String> {
    let is_text = file.mime == "text/plain";
    let Some(url) = FileUrl::parse(&file.url) else {
        if is_text && file.url.starts_with("data:") {
            let named = file.filename.as_ref().map(|name| json!({ "filePath": name }));
            parts.push(read_with(&named.unwrap_or_else(|| json!({}))));
            parts.push(synthetic(data_text(&file.url).unwrap_or_default()));
        }
        parts.push((id, PartKind::File(file)));
        return None;
    };
    let input = url.input();
    parts.push(read_with(&input));
    if is_text || file.mime == DIRECTORY {
        return match by.run("read", input).await {
            Ok(output) => {
                parts.push(synthetic(output.output));
                if tokio::fs::metadata(&url.path).await.is_ok_and(|found| found.is_dir()) {
                    file.mime = DIRECTORY.into();
                }
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
        for (query, input) in [
            ("start=-1&end=2", json!({ "filePath": "/x", "offset": 1, "limit": 2 })),
            ("start=3px", json!({ "filePath": "/x", "offset": 3 })),
            ("start=1&end=0", json!({ "filePath": "/x", "offset": 1 })),
            ("start=abc&end=2", json!({ "filePath": "/x" })),
        ] {
            assert_eq!(FileUrl::parse(&format!("file:///x?{query}")).unwrap().input(), input, "{query}");
        }
    }

    #[test]
    fn an_address_has_a_scheme() {
        assert!(["data:,x", "file:///x", "https://x", "a+b-c.d:"].iter().all(|url| has_scheme(url)));
        assert!(["", "a.txt", "/a:b", ":x", "1a:x", "ä:x"].iter().all(|url| !has_scheme(url)));
    }
}
