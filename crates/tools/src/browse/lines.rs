//! Lines that fit a regular expression.

use super::{BrowseError, MAX_ENTRIES};
use crate::builtin::grep::{MAX_LINE_BYTES, Stoppable, explain};
use crate::{folder, search};
use grep_matcher::Matcher;
use grep_regex::RegexMatcher;
use grep_searcher::{BinaryDetection, Searcher, SearcherBuilder, Sink, SinkMatch};
use serde::Serialize;
use std::io;
use std::path::Path;
use tokio_util::sync::CancellationToken;

/// So many lines are found.
const MAX_LINES: usize = 10;

/// So many bytes of a line are shown, and what fits within them.
const MAX_SHOWN: usize = 8 * 1024;

/// So many places of a line are shown.
const MAX_PLACES: usize = 100;

/// A text as OpenCode writes it here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Text {
    /// The text.
    pub text: String,
}

/// A line that fits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LineMatch {
    /// The path of the file, relative to the directory.
    pub path: Text,
    /// The line with its end.
    pub lines: Text,
    /// Its number, counted from 1.
    pub line_number: u64,
    /// The bytes in front of it.
    pub absolute_offset: u64,
    /// Where in the line.
    pub submatches: Vec<Submatch>,
}

/// A place in a line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Submatch {
    /// What stands there.
    #[serde(rename = "match")]
    pub text: Text,
    /// The bytes of the line in front of it.
    pub start: usize,
    /// The bytes of the line up to its end.
    pub end: usize,
}

/// The first lines of the directory that fit, in the order of the paths.
///
/// What `.gitignore` and its kin exclude and binary files are not searched, links are not followed. `stop` may be cancelled
/// when it takes too long: what was found until then is returned.
///
/// # Errors
/// [`BrowseError::Refused`] where there is no such directory, or the pattern is empty or no regular expression.
pub fn lines(directory: &Path, pattern: &str, stop: &CancellationToken) -> Result<Vec<LineMatch>, BrowseError> {
    if pattern.is_empty() {
        return Err(BrowseError::Refused("The pattern is empty: every line would fit.".into()));
    }
    let matcher = RegexMatcher::new_line_matcher(pattern)
        .map_err(|error| BrowseError::Refused(explain(pattern, &error).to_string()))?;
    let root = super::root(directory)?;
    let mut found = Vec::new();
    let mut searcher: Searcher =
        SearcherBuilder::new().binary_detection(BinaryDetection::quit(0)).heap_limit(Some(MAX_LINE_BYTES)).build();
    for entry in search::walk(&root, true).sort_by_file_name(Ord::cmp).build().take(MAX_ENTRIES) {
        if stop.is_cancelled() || found.len() == MAX_LINES {
            break;
        }
        let Ok(entry) = entry else { continue };
        if !entry.file_type().is_some_and(|kind| kind.is_file()) {
            continue;
        }
        let Some(path) = entry.path().strip_prefix(&root).ok().and_then(Path::to_str) else { continue };
        let Ok(file) = folder::open_regular(entry.path()) else { continue };
        let sink = Lines { matcher: &matcher, path, found: &mut found };
        // What cannot be read to its end has what was found until there.
        let _ = searcher.search_reader(&matcher, Stoppable { file, stop }, sink);
    }
    Ok(found)
}

/// Takes the lines of one file that fit.
struct Lines<'a> {
    matcher: &'a RegexMatcher,
    path: &'a str,
    found: &'a mut Vec<LineMatch>,
}

impl Sink for Lines<'_> {
    type Error = io::Error;

    fn matched(&mut self, _: &Searcher, found: &SinkMatch<'_>) -> Result<bool, io::Error> {
        let mut line = String::from_utf8_lossy(found.bytes()).into_owned();
        line.truncate(line.floor_char_boundary(MAX_SHOWN));
        let mut submatches = Vec::new();
        self.matcher
            .find_iter(line.as_bytes(), |place| {
                let text = line.get(place.start()..place.end()).unwrap_or_default().to_owned();
                submatches.push(Submatch { text: Text { text }, start: place.start(), end: place.end() });
                submatches.len() < MAX_PLACES
            })
            .map_err(io::Error::other)?;
        self.found.push(LineMatch {
            path: Text { text: self.path.to_owned() },
            lines: Text { text: line },
            line_number: found.line_number().unwrap_or_default(),
            absolute_offset: found.absolute_byte_offset(),
            submatches,
        });
        Ok(self.found.len() < MAX_LINES)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    #[test]
    fn lines_are_found_in_the_order_of_paths_and_told_where() {
        let dir = tempfile::tempdir().unwrap();
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("hello.txt"), "hello").unwrap();
        symlink(outside.path(), dir.path().join("a-link")).unwrap();
        fs::create_dir_all(dir.path().join("src")).unwrap();
        fs::write(dir.path().join("src/b"), "one\nhello hello\n").unwrap();
        fs::write(dir.path().join("a"), b"caf\xe9 hello\nHello\n").unwrap();
        fs::write(dir.path().join("binary"), b"hello\0").unwrap();
        fs::write(dir.path().join("z"), format!("hello{}hello\n", "é".repeat(MAX_SHOWN)).repeat(20)).unwrap();
        let stop = CancellationToken::new();
        let found = lines(dir.path(), "hell.", &stop).unwrap();
        let places = |at: usize| -> Vec<_> {
            found[at].submatches.iter().map(|place| (place.text.text.as_str(), place.start, place.end)).collect()
        };
        assert_eq!((found[0].path.text.as_str(), found[0].lines.text.as_str()), ("a", "caf\u{fffd} hello\n"));
        assert_eq!(places(0), [("hello", 7, 12)]);
        let second = &found[1];
        assert_eq!((second.path.text.as_str(), second.line_number, second.absolute_offset), ("src/b", 2, 4));
        assert_eq!(places(1), [("hello", 0, 5), ("hello", 6, 11)]);
        assert_eq!(found.len(), MAX_LINES);
        assert!(found[2].lines.text.len() <= MAX_SHOWN && found[2].submatches.len() == 1);

        assert!(lines(dir.path(), "(", &stop).is_err() && lines(dir.path(), "", &stop).is_err());
        stop.cancel();
        assert_eq!(lines(dir.path(), "hello", &stop).unwrap(), []);
    }
}
