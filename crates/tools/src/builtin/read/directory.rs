//! Listing a directory.

use super::Range;
use std::fs;
use std::io;
use std::path::Path;

/// A directory with more entries than this is not listed.
const MAX_ENTRIES: usize = 100_000;

/// A piece of a directory's sorted list.
pub(super) struct Listing {
    /// Names, folders with a `/` at the end.
    pub(super) entries: Vec<String>,
    /// The number of the first entry, counted from 1.
    pub(super) offset: usize,
    /// How many there are in all.
    pub(super) total: usize,
    /// There are more behind these.
    pub(super) truncated: bool,
}

/// Lists a directory.
pub(super) fn list(path: &Path, range: Range) -> io::Result<Listing> {
    let mut names = Vec::new();
    for entry in fs::read_dir(path)?.take(MAX_ENTRIES + 1) {
        let entry = entry?;
        let mut name = entry.file_name().to_string_lossy().into_owned();
        // Asked of what a link leads to, if it leads anywhere.
        if fs::metadata(entry.path()).is_ok_and(|metadata| metadata.is_dir()) {
            name.push('/');
        }
        names.push(name);
    }
    if names.len() > MAX_ENTRIES {
        return Err(io::Error::other(format!("more than {MAX_ENTRIES} entries")));
    }
    names.sort_unstable();
    let total = names.len();
    let entries: Vec<String> = names.into_iter().skip(range.offset - 1).take(range.limit).collect();
    let truncated = range.offset.saturating_add(entries.len()) <= total;
    Ok(Listing { entries, offset: range.offset, total, truncated })
}

/// Up to `count` names beside a missing file that hold its name, or that its name holds.
pub(super) fn similar(missing: &Path, count: usize) -> Vec<String> {
    let (Some(folder), Some(name)) = (missing.parent(), missing.file_name()) else { return Vec::new() };
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let wanted = name.to_string_lossy().to_lowercase();
    let names = entries.take(MAX_ENTRIES).flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    let mut names: Vec<String> = names
        .filter(|name| {
            let name = name.to_lowercase();
            name.contains(&wanted) || wanted.contains(&name)
        })
        .collect();
    names.sort_unstable();
    names.truncate(count);
    names
}
