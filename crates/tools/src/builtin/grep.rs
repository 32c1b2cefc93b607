//! `grep`: finds lines by a regular expression.

use crate::blocking::blocking;
use crate::folder;
use crate::paths::Target;
use crate::search::{self, Found, MAX_RESULTS, Wanted};
use crate::{Ask, Call, Output, Tool, ToolError, Writes, arguments};
use async_trait::async_trait;
use grep_regex::RegexMatcher;
use grep_searcher::sinks::Lossy;
use grep_searcher::{BinaryDetection, Searcher, SearcherBuilder};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use tokio_util::sync::CancellationToken;

/// Characters of a line that are shown.
const MAX_LINE_CHARS: usize = 2000;

/// A longer line is not searched: the file counts as one that could not be looked at.
pub(crate) const MAX_LINE_BYTES: usize = 16 * 1024 * 1024;

/// The tool `grep`.
pub(crate) struct Grep;

#[derive(Deserialize)]
struct Arguments {
    pattern: String,
    path: Option<String>,
    include: Option<String>,
}

/// A line that fits.
struct Match {
    file: PathBuf,
    line: u64,
    text: String,
}

#[async_trait]
impl Tool for Grep {
    fn name(&self) -> &'static str {
        "grep"
    }

    fn description(&self) -> String {
        "Finds lines in files by a regular expression, such as `fn \\w+_test` or `TODO|FIXME`.\n\
         The answer names each file and its lines with their numbers, the files that were changed last first, 100 lines \
         at most. What .gitignore excludes and binary files are not searched. `include` limits the search to names that \
         fit a glob.\n\
         To count matches or to search with other options, run `rg` or `grep` with the bash tool."
            .into()
    }

    fn parameters(&self) -> Value {
        json!({
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "type": "object",
            "properties": {
                "pattern": { "type": "string", "description": "The regular expression that a line has to fit" },
                "path": { "type": "string", "description": "The directory or file to search (default: the working directory)" },
                "include": { "type": "string", "description": "A glob for names, such as *.rs or *.{ts,tsx}" },
            },
            "required": ["pattern"],
        })
    }

    fn writes(&self) -> Writes {
        Writes::Nothing
    }

    async fn run(&self, input: Value, call: &Call) -> Result<Output, ToolError> {
        let Arguments { pattern, path, include } = arguments::parse(self.name(), input)?;
        if pattern.is_empty() {
            return Err(ToolError::Failed("The pattern is empty: every line would fit.".into()));
        }
        let named = [("pattern", Some(&pattern)), ("path", path.as_ref()), ("include", include.as_ref())];
        let metadata: Map<String, Value> =
            named.into_iter().filter_map(|(key, value)| Some((key.to_owned(), json!(value?)))).collect();
        let (permission, always) = (self.name().into(), vec!["*".into()]);
        call.host.ask(Ask { permission, patterns: vec![pattern.clone()], always, metadata: metadata.into() }).await?;
        let target = Target::locate(call, path.as_deref().unwrap_or(".")).await?;
        let is_directory = tokio::fs::metadata(&target.real).await.is_ok_and(|metadata| metadata.is_dir());
        target.ask_if_external(call, is_directory).await?;

        let matcher = RegexMatcher::new_line_matcher(&pattern).map_err(|error| explain(&pattern, &error))?;
        let (real, shown) = (target.real.clone(), target.shown.clone());
        let (mut matches, is_partial) = blocking(call, move |stop| {
            if is_directory {
                let found = search::files(&real, &Wanted { glob: include, hidden: true }, stop)?;
                return in_files(&matcher, &real, &found, stop);
            }
            let file = folder::open_regular(&real);
            let file = file.map_err(|error| ToolError::Failed(format!("{}: {error}", shown.display())))?;
            let mut matches = Vec::new();
            let is_whole = in_file(&matcher, Path::new(""), file, &mut matches, stop)?;
            Ok((matches, !is_whole))
        })
        .await?;
        let truncated = matches.len() > MAX_RESULTS;
        matches.truncate(MAX_RESULTS);
        Ok(Output {
            title: pattern,
            metadata: json!({ "matches": matches.len(), "truncated": truncated }),
            output: show(&target.shown, &matches, truncated, is_partial),
            attachments: None,
        })
    }
}

/// What is wrong with a pattern, told of the pattern as it was given: the matcher's own error shows what it made of it.
pub(crate) fn explain(pattern: &str, error: &grep_regex::Error) -> ToolError {
    let own = regex_syntax::parse(pattern).err().map(|error| error.to_string());
    ToolError::Failed(own.unwrap_or_else(|| error.to_string()))
}

/// Searches one file after the other until there is more than can be shown.
fn in_files(
    matcher: &RegexMatcher,
    root: &Path,
    found: &Found,
    stop: &CancellationToken,
) -> Result<(Vec<Match>, bool), ToolError> {
    let (mut matches, mut is_partial) = (Vec::new(), found.is_partial);
    for path in &found.files {
        let is_whole = match folder::open_regular(&root.join(path)) {
            Ok(file) => in_file(matcher, path, file, &mut matches, stop)?,
            Err(_) => false,
        };
        is_partial |= !is_whole;
        if matches.len() > MAX_RESULTS {
            break;
        }
    }
    Ok((matches, is_partial))
}

/// Adds the lines of a file that fit. False if it could not be read to its end.
fn in_file(
    matcher: &RegexMatcher,
    path: &Path,
    file: File,
    matches: &mut Vec<Match>,
    stop: &CancellationToken,
) -> Result<bool, ToolError> {
    let mut searcher: Searcher =
        SearcherBuilder::new().binary_detection(BinaryDetection::quit(0)).heap_limit(Some(MAX_LINE_BYTES)).build();
    let sink = Lossy(|line, text| {
        matches.push(Match { file: path.to_owned(), line, text: shortened(text) });
        Ok(matches.len() <= MAX_RESULTS)
    });
    let searched = searcher.search_reader(matcher, Stoppable { file, stop }, sink);
    if stop.is_cancelled() { Err(ToolError::Aborted) } else { Ok(searched.is_ok()) }
}

fn shortened(line: &str) -> String {
    match line.char_indices().nth(MAX_LINE_CHARS) {
        Some((cut, _)) if line.trim_end().len() > cut => format!("{}...", &line[..cut]),
        _ => line.into(),
    }
}

fn show(root: &Path, matches: &[Match], truncated: bool, is_partial: bool) -> String {
    if matches.is_empty() {
        return match is_partial {
            false => "No files found".into(),
            true => "No files found. Not everything could be searched.".into(),
        };
    }
    let more = if truncated { " (more matches available)" } else { "" };
    let mut lines = vec![format!("Found {} matches{more}", matches.len())];
    let mut current = None;
    for found in matches {
        if current != Some(&found.file) {
            if current.is_some() {
                lines.push(String::new());
            }
            current = Some(&found.file);
            // A single file has no way below itself.
            let path = if found.file.as_os_str().is_empty() { root.to_owned() } else { root.join(&found.file) };
            lines.push(format!("{}:", path.display()));
        }
        lines.push(format!("  Line {}: {}", found.line, found.text));
    }
    if truncated {
        lines.push(String::new());
        lines.push("(These are not all. Narrow the pattern or the path to see the others.)".into());
    } else if is_partial {
        lines.push(String::new());
        lines.push("(Not everything could be searched.)".into());
    }
    lines.join("\n")
}

/// A file whose reads fail once nobody waits for them.
pub(crate) struct Stoppable<'a> {
    pub(crate) file: File,
    pub(crate) stop: &'a CancellationToken,
}

impl Read for Stoppable<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.stop.is_cancelled() { Err(io::Error::other("stopped")) } else { self.file.read(buffer) }
    }
}
