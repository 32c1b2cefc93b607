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

/// In summaries a file is shown whole, unless it has more lines.
const WHOLE: usize = 2000;

/// Unchanged lines around a change, as git shows them.
const GIT_CONTEXT: usize = 3;

/// What changed in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Patch {
    /// The patch, with its heading.
    pub text: String,
    /// Lines that come.
    pub additions: usize,
    /// Lines that go.
    pub deletions: usize,
}

/// One side of a patch in git's form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GitSide {
    /// The content's name, in git's hex digits.
    pub id: String,
    /// The mode, such as `100644`.
    pub mode: &'static str,
    /// The text; none if it is no text.
    pub text: Option<String>,
}

impl Patch {
    /// The difference between two texts of the file `path`.
    pub(crate) fn between(path: &Path, old: &str, new: &str) -> Self {
        let path = path.display();
        let heading = format!("Index: {path}\n{}\n--- {path}\n+++ {path}\n", "=".repeat(67));
        Self::under(heading, old, new, CONTEXT, false)
    }

    /// The same, as the summary of a turn shows it: with all lines of the file, unless it is long.
    pub fn summary(path: &Path, old: &str, new: &str) -> Self {
        let path = path.display();
        let heading = format!("Index: {path}\n{}\n--- {path}\t\n+++ {path}\t\n", "=".repeat(67));
        let is_long = [old, new].iter().any(|text| text.lines().nth(WHOLE).is_some());
        Self::under(heading, old, new, if is_long { CONTEXT } else { WHOLE }, false)
    }

    /// The same, as `git diff` prints it; `None` stands for no file.
    pub fn git(path: &Path, old: Option<&GitSide>, new: Option<&GitSide>) -> String {
        let path = path.display();
        let mut heading = format!("diff --git a/{path} b/{path}\n");
        let short =
            |side: Option<&GitSide>| side.map_or_else(|| "0".repeat(7), |side| side.id.chars().take(7).collect());
        let mut mode = String::new();
        match (old, new) {
            (None, Some(new)) => heading.push_str(&format!("new file mode {}\n", new.mode)),
            (Some(old), None) => heading.push_str(&format!("deleted file mode {}\n", old.mode)),
            (Some(old), Some(new)) if old.mode != new.mode => {
                heading.push_str(&format!("old mode {}\nnew mode {}\n", old.mode, new.mode));
            }
            (Some(old), _) => mode = format!(" {}", old.mode),
            (None, None) => {}
        }
        if old.map(|old| &old.id) == new.map(|new| &new.id) {
            return heading;
        }
        heading.push_str(&format!("index {}..{}{mode}\n", short(old), short(new)));
        let name = |side: Option<&GitSide>, prefix: &str| match side {
            Some(_) => format!("{prefix}/{path}"),
            None => "/dev/null".to_owned(),
        };
        let (before, after) = (name(old, "a"), name(new, "b"));
        let text = |side: Option<&GitSide>| side.map_or_else(|| Some(String::new()), |side| side.text.clone());
        let (Some(old), Some(new)) = (text(old), text(new)) else {
            return format!("{heading}Binary files {before} and {after} differ\n");
        };
        if !(old.is_empty() && new.is_empty()) {
            heading.push_str(&format!("--- {before}\n+++ {after}\n"));
        }
        Self::under(heading, &old, &new, GIT_CONTEXT, true).text
    }

    /// The changed pieces under a heading. `brief`: the length of a piece of one line is left out, as git does.
    fn under(mut text: String, old: &str, new: &str, context: usize, brief: bool) -> Self {
        let diff = TextDiff::configure().algorithm(Algorithm::Myers).timeout(PATIENCE).diff_lines(old, new);
        let (mut additions, mut deletions) = (0, 0);
        for group in diff.grouped_ops(context) {
            let (Some(first), Some(last)) = (group.first(), group.last()) else { continue };
            let old = first.old_range().start..last.old_range().end;
            let new = first.new_range().start..last.new_range().end;
            let place = |range: &std::ops::Range<usize>| {
                // An empty range is named by the line before it.
                let start = range.start + usize::from(!range.is_empty());
                if brief && range.len() == 1 { format!("{start}") } else { format!("{start},{}", range.len()) }
            };
            let _ = writeln!(text, "@@ -{} +{} @@", place(&old), place(&new));
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

    #[test]
    fn summaries_show_the_whole_file() {
        let old: String = (1..=30).map(|line| format!("{line}\n")).collect();
        let patch = Patch::summary(Path::new("f"), &old, &old.replace("15\n", "x\n"));
        assert!(
            patch.text.starts_with(&format!("Index: f\n{}\n--- f\t\n+++ f\t\n@@ -1,30 +1,30 @@\n 1\n", "=".repeat(67)))
        );
        assert_eq!((patch.additions, patch.deletions), (1, 1));
        let long: String = (0..=WHOLE).map(|line| format!("{line}\n")).collect();
        let patch = Patch::summary(Path::new("f"), &long, &long.replace("\n15\n", "\nx\n"));
        assert!(patch.text.contains("@@ -12,9 +12,9 @@"), "{}", &patch.text[..200]);
    }

    #[test]
    fn git_s_form_is_git_s() {
        let side = |id: &str, text: &str| GitSide { id: id.repeat(40), mode: "100644", text: Some(text.into()) };
        let (a, b) = (side("a", "two\n"), side("b", "one\n"));
        let path = Path::new("f");
        let changed = "diff --git a/f b/f\nindex aaaaaaa..bbbbbbb 100644\n--- a/f\n+++ b/f\n@@ -1 +1 @@\n-two\n+one\n";
        assert_eq!(Patch::git(path, Some(&a), Some(&b)), changed);
        let made = "diff --git a/f b/f\nnew file mode 100644\nindex 0000000..aaaaaaa\n--- /dev/null\n+++ b/f\n@@ -0,0 +1 @@\n+two\n";
        assert_eq!(Patch::git(path, None, Some(&a)), made);
        let gone = "diff --git a/f b/f\ndeleted file mode 100644\nindex aaaaaaa..0000000\n--- a/f\n+++ /dev/null\n@@ -1 +0,0 @@\n-two\n";
        assert_eq!(Patch::git(path, Some(&a), None), gone);
        let executable = GitSide { mode: "100755", ..a.clone() };
        assert_eq!(
            Patch::git(path, Some(&a), Some(&executable)),
            "diff --git a/f b/f\nold mode 100644\nnew mode 100755\n"
        );
        let binary = GitSide { text: None, ..b };
        assert!(Patch::git(path, Some(&a), Some(&binary)).ends_with("Binary files a/f and b/f differ\n"));
    }
}
