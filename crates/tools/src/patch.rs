//! Differences between two texts, as patches.

use serde_json::{Value, json};
use similar::{Algorithm, ChangeTag, TextDiff};
use std::fmt::Write;
use std::path::Path;
use std::time::Duration;

/// Unchanged lines around a change.
const CONTEXT: usize = 4;

/// After this long a coarser patch is good enough.
const PATIENCE: Duration = Duration::from_secs(1);

/// What changed in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Patch {
    /// The patch, with its heading.
    pub(crate) text: String,
    /// Lines that come.
    pub(crate) additions: usize,
    /// Lines that go.
    pub(crate) deletions: usize,
}

impl Patch {
    /// The difference between two texts of the file `path`.
    pub(crate) fn between(path: &Path, old: &str, new: &str) -> Self {
        let path = path.display();
        let mut text = format!("Index: {path}\n{}\n--- {path}\n+++ {path}\n", "=".repeat(67));
        let diff = TextDiff::configure().algorithm(Algorithm::Myers).timeout(PATIENCE).diff_lines(old, new);
        let (mut additions, mut deletions) = (0, 0);
        for group in diff.grouped_ops(CONTEXT) {
            let (Some(first), Some(last)) = (group.first(), group.last()) else { continue };
            let old = first.old_range().start..last.old_range().end;
            let new = first.new_range().start..last.new_range().end;
            // An empty range is named by the line before it.
            let start = |range: &std::ops::Range<usize>| range.start + usize::from(!range.is_empty());
            let _ = writeln!(text, "@@ -{},{} +{},{} @@", start(&old), old.len(), start(&new), new.len());
            for change in group.iter().flat_map(|op| diff.iter_changes(op)) {
                let sign = match change.tag() {
                    ChangeTag::Equal => ' ',
                    ChangeTag::Delete => '-',
                    ChangeTag::Insert => '+',
                };
                additions += usize::from(change.tag() == ChangeTag::Insert);
                deletions += usize::from(change.tag() == ChangeTag::Delete);
                text.push(sign);
                text.push_str(change.value());
                if change.missing_newline() {
                    text.push_str("\n\\ No newline at end of file\n");
                }
            }
        }
        Self { text, additions, deletions }
    }

    /// The metadata of a call that changed `path` so.
    pub(crate) fn metadata(&self, path: &Path) -> Value {
        json!({
            "diagnostics": {},
            "diff": self.text,
            "filediff": {
                "file": path,
                "patch": self.text,
                "additions": self.additions,
                "deletions": self.deletions,
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hunks(old: &str, new: &str) -> String {
        let text = Patch::between(Path::new("/w/f"), old, new).text;
        let heading = format!("Index: /w/f\n{}\n--- /w/f\n+++ /w/f\n", "=".repeat(67));
        text.strip_prefix(&heading).unwrap().to_owned()
    }

    #[test]
    fn patches_have_the_recorded_form() {
        assert_eq!(hunks("", "made\n"), "@@ -0,0 +1,1 @@\n+made\n");
        assert_eq!(hunks("one\n", "two\n"), "@@ -1,1 +1,1 @@\n-one\n+two\n");
        assert_eq!(hunks("a\nb\n", ""), "@@ -1,2 +0,0 @@\n-a\n-b\n");
        assert_eq!(
            hunks("a", "b"),
            "@@ -1,1 +1,1 @@\n-a\n\\ No newline at end of file\n+b\n\\ No newline at end of file\n"
        );
        assert_eq!(hunks("same\n", "same\n"), "");
    }
}
