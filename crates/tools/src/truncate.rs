//! Shortening outputs that are too long for a model.

use crate::ToolSettings;
use std::io;
use std::path::PathBuf;
use tokio::io::AsyncWriteExt;
use wire::ids::ToolOutputId;

/// An output as a model gets it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Kept {
    /// The text, with a hint where the rest is.
    pub(crate) text: String,
    /// Where the whole of it is; `None` when `text` is the whole.
    pub(crate) path: Option<PathBuf>,
}

/// Keeps the head of an output that is too long, and the whole of it in a file named by `id`.
///
/// # Errors
/// The file could not be written.
pub(crate) async fn truncate(text: String, settings: &ToolSettings, id: &ToolOutputId) -> io::Result<Kept> {
    let head = head(&text, settings.max_lines, settings.max_bytes);
    if head.len() == text.len() {
        return Ok(Kept { text, path: None });
    }
    let path = settings.output_dir.join(id.as_str());
    tokio::fs::create_dir_all(&settings.output_dir).await?;
    let kept = floor_boundary(&text, usize::try_from(settings.max_kept_bytes).unwrap_or(usize::MAX));
    let mut file = tokio::fs::File::create(&path).await?;
    file.write_all(&text.as_bytes()[..kept]).await?;
    file.flush().await?;
    let rest = &text[head.len()..];
    let lines = rest.trim_end_matches('\n').matches('\n').count();
    let missing = if lines > 0 { format!("{lines} lines") } else { format!("{} bytes", rest.len()) };
    let text = format!(
        "{head}\n\n...{missing} truncated...\n\nThe whole output is in {}. Search it, or read a part of it with an offset.",
        path.display()
    );
    Ok(Kept { text, path: Some(path) })
}

/// The first `lines` lines, as far as they fit into `bytes`; whole lines, unless the first one is too long itself.
pub(crate) fn head(text: &str, lines: usize, bytes: usize) -> &str {
    let by_lines = text.match_indices('\n').nth(lines.saturating_sub(1)).map_or(text.len(), |(at, _)| at);
    // A line break at the very end begins no further line.
    let by_lines = if by_lines + 1 == text.len() { text.len() } else { by_lines };
    if by_lines <= bytes {
        return &text[..by_lines];
    }
    let cut = &text[..floor_boundary(text, bytes)];
    cut.rfind('\n').map_or(cut, |at| &cut[..at])
}

/// The last `lines` lines, as far as they fit into `bytes`; whole lines, unless the last one is too long itself.
pub(crate) fn tail(text: &str, lines: usize, bytes: usize) -> &str {
    let by_lines = text.rmatch_indices('\n').nth(lines.saturating_sub(1)).map_or(0, |(at, _)| at + 1);
    if text.len() - by_lines <= bytes {
        return &text[by_lines..];
    }
    let start = ceil_boundary(text, text.len() - bytes);
    let cut = &text[start..];
    if text[..start].ends_with('\n') {
        return cut;
    }
    match cut.find('\n') {
        Some(at) if at + 1 < cut.len() => &cut[at + 1..],
        _ => cut,
    }
}

/// The last `count` characters or a few less, behind `...` when something was left out.
pub(crate) fn preview(text: &str, count: usize) -> String {
    if text.len() <= count {
        return text.into();
    }
    format!("...\n\n{}", &text[ceil_boundary(text, text.len() - count)..])
}

fn floor_boundary(text: &str, at: usize) -> usize {
    (0..=at.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0)
}

fn ceil_boundary(text: &str, at: usize) -> usize {
    (at..=text.len()).find(|at| text.is_char_boundary(*at)).unwrap_or(text.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use sandbox::ChildEnv;

    #[test]
    fn heads_and_tails_are_whole_lines() {
        assert_eq!(head("a\nb\nc\n", 2, 100), "a\nb");
        assert_eq!(head("a\nb\n", 2, 100), "a\nb\n");
        assert_eq!(head("aaaa\nbbbb\ncccc", 10, 7), "aaaa");
        assert_eq!(head("éééé", 10, 5), "éé");
        assert_eq!(tail("a\nb\nc\n", 2, 100), "c\n");
        assert_eq!(tail("a\nb\nc", 2, 100), "b\nc");
        assert_eq!(tail("aaaa\nbbbb\ncccc", 10, 7), "cccc");
        assert_eq!(tail("aaaa\nbbbb\ncccc", 10, 4), "cccc");
        assert_eq!(tail("éééé", 10, 5), "éé");
        assert_eq!(tail("short", 10, 100), "short");
    }

    #[tokio::test]
    async fn what_a_model_does_not_get_is_kept_in_a_file() {
        let dir = tempfile::tempdir().unwrap();
        let mut settings = ToolSettings::new("/nowhere".into(), dir.path().join("outputs"), ChildEnv::default());
        settings.max_lines = 2;
        let id = ToolOutputId::parse("tool_x").unwrap();
        let kept = truncate("1\n2\n3\n4\n".into(), &settings, &id).await.unwrap();
        assert!(kept.text.starts_with("1\n2\n\n...2 lines truncated..."), "{}", kept.text);
        assert_eq!(std::fs::read_to_string(kept.path.unwrap()).unwrap(), "1\n2\n3\n4\n");
        let whole = truncate("1\n2\n".into(), &settings, &id).await.unwrap();
        assert_eq!(whole, Kept { text: "1\n2\n".into(), path: None });
    }
}
