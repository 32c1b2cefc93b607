//! Files and folders whose names resemble what somebody types.

use super::{BrowseError, MAX_ENTRIES};
use crate::search;
use std::path::Path;
use tokio_util::sync::CancellationToken;

/// Which files and folders are looked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names {
    /// Words between white space. Each must be in the path, at least letter by letter in this order; without any word
    /// everything fits.
    pub query: String,
    /// Whether files are looked for.
    pub files: bool,
    /// Whether folders are looked for.
    pub folders: bool,
    /// The best so many are found.
    pub limit: usize,
}

/// The paths that fit, relative to `directory`, those of folders with a slash at the end; the best first, of equal ones the
/// shorter.
///
/// What `.gitignore` and its kin exclude is not found; links are neither found nor followed. `stop` may be cancelled when it
/// takes too long: what was found until then is returned.
///
/// # Errors
/// [`BrowseError::Refused`] where there is no such directory.
pub fn names(directory: &Path, wanted: &Names, stop: &CancellationToken) -> Result<Vec<String>, BrowseError> {
    let root = super::root(directory)?;
    let words: Vec<String> = wanted.query.split_whitespace().map(str::to_lowercase).collect();
    let mut found: Vec<(Rank, usize, String)> = Vec::new();
    for entry in search::walk(&root, true).build().take(MAX_ENTRIES) {
        if stop.is_cancelled() {
            break;
        }
        let Ok(entry) = entry else { continue };
        let Some(kind) = entry.file_type() else { continue };
        if !(wanted.files && kind.is_file() || wanted.folders && kind.is_dir()) {
            continue;
        }
        let path = entry.path().strip_prefix(&root).ok().and_then(Path::to_str);
        // A name that is not UTF-8 could not be asked for; the directory itself has none.
        let Some(path) = path.filter(|path| !path.is_empty()) else { continue };
        let path = if kind.is_dir() { format!("{path}/") } else { path.to_owned() };
        if let Some(rank) = rank(&words, &path.to_lowercase()) {
            found.push((rank, path.chars().count(), path));
        }
    }
    found.sort_unstable();
    found.truncate(wanted.limit);
    Ok(found.into_iter().map(|(_, _, path)| path).collect())
}

/// How well something fits: the smaller the better.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    /// How: see [`Rank::of`].
    class: usize,
    /// How far apart the letters are.
    spread: usize,
}

impl Rank {
    /// The rank of a path for one word; none where it does not fit.
    fn of(word: &str, path: &str) -> Option<Self> {
        let name = path.trim_end_matches('/').rsplit('/').next().unwrap_or(path);
        let whole =
            [name == word, name.starts_with(word), path.starts_with(word), name.contains(word), path.contains(word)];
        if let Some(class) = whole.iter().position(|&fits| fits) {
            return Some(Self { class, spread: 0 });
        }
        let scattered = [name, path].into_iter().enumerate();
        scattered.filter_map(|(at, text)| Some(Self { class: whole.len() + at, spread: spread(word, text)? })).next()
    }
}

/// The rank of a path for all words together.
fn rank(words: &[String], path: &str) -> Option<Rank> {
    words.iter().try_fold(Rank::default(), |sum, word| {
        let Rank { class, spread } = Rank::of(word, path)?;
        Some(Rank { class: sum.class + class, spread: sum.spread + spread })
    })
}

/// How many characters of the text lie between the first and the last letter of a word that is in it letter by letter. Of
/// several ways the one that ends first counts.
fn spread(word: &str, text: &str) -> Option<usize> {
    let text: Vec<char> = text.chars().collect();
    let mut at = 0;
    for letter in word.chars() {
        at += text[at..].iter().position(|&other| other == letter)? + 1;
    }
    // Back from the end: the latest beginning that leads there.
    let end = at;
    for letter in word.chars().rev() {
        at = text[..at].iter().rposition(|&other| other == letter)?;
    }
    Some(end - at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    fn best<'a>(query: &str, mut paths: Vec<&'a str>) -> Vec<&'a str> {
        let words: Vec<String> = query.split_whitespace().map(str::to_lowercase).collect();
        paths.retain(|path| rank(&words, &path.to_lowercase()).is_some());
        paths.sort_by_key(|path| (rank(&words, &path.to_lowercase()), path.chars().count(), *path));
        paths
    }

    #[test]
    fn the_name_counts_more_than_the_way_and_a_piece_more_than_letters() {
        let paths =
            vec!["a/lxixnxexs", "lines/a", "a/b/lines", "a/lines.txt", "x/outlines", "l/i/n/e/s", "x/lines/a", "b"];
        let expected = ["a/b/lines", "a/lines.txt", "lines/a", "x/outlines", "x/lines/a", "a/lxixnxexs", "l/i/n/e/s"];
        assert_eq!(best("LINES", paths), expected);
        assert_eq!(best("src/l", vec!["src/main.rs", "src/lib.rs", "a/src/lib.rs"]), ["src/lib.rs", "a/src/lib.rs"]);
        assert_eq!(best("src/", vec!["src/a", "src/"]), ["src/", "src/a"]);
    }

    #[test]
    fn every_word_must_fit_and_the_shorter_path_comes_first() {
        let paths = vec!["src/components/Button.tsx", "src/Button.tsx", "with space.txt"];
        assert_eq!(best("but com", paths.clone()), ["src/components/Button.tsx"]);
        assert_eq!(best("with space", paths.clone()), ["with space.txt"]);
        assert_eq!(best("btn", paths.clone()), ["src/Button.tsx", "src/components/Button.tsx"]);
        assert_eq!(best(" ", paths), ["src/Button.tsx", "with space.txt", "src/components/Button.tsx"]);
        assert_eq!(best("abc", vec!["axxbxxc", "axbxxxxabc", "a-b-c"]), ["axbxxxxabc", "a-b-c", "axxbxxc"]);
    }

    #[test]
    fn what_is_ignored_and_what_links_lead_to_is_not_found() {
        let dir = tempfile::tempdir().unwrap();
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("secret.txt"), "").unwrap();
        for folder in [".git", "src", "target"] {
            fs::create_dir(dir.path().join(folder)).unwrap();
        }
        for (path, text) in
            [(".gitignore", "target\n"), ("src/a.txt", ""), ("target/b.txt", ""), (".git/c.txt", ""), (".env", "")]
        {
            fs::write(dir.path().join(path), text).unwrap();
        }
        symlink(outside.path(), dir.path().join("out")).unwrap();
        symlink("src/a.txt", dir.path().join("in.txt")).unwrap();
        let stop = CancellationToken::new();
        let all = Names { query: String::new(), files: true, folders: true, limit: 200 };
        let found = names(dir.path(), &all, &stop).unwrap();
        assert_eq!(found, [".env", "src/", "src/a.txt", ".gitignore"]);
        assert_eq!(names(dir.path(), &Names { files: false, ..all.clone() }, &stop).unwrap(), ["src/"]);
        assert_eq!(names(dir.path(), &Names { limit: 1, folders: false, ..all.clone() }, &stop).unwrap(), [".env"]);
        assert!(names(&dir.path().join("none"), &all, &stop).is_err());
        // Whoever has waited long enough is given what there is.
        stop.cancel();
        assert_eq!(names(dir.path(), &all, &stop).unwrap(), Vec::<String>::new());
    }
}
