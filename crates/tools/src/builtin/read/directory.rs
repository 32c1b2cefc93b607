//! Listing a directory.

use super::Range;
use crate::folder::{self, Entry};
use std::fs::File;
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

/// Lists an opened directory.
pub(super) fn list(directory: &File, range: Range) -> io::Result<Listing> {
    let named = |entry: Entry| {
        let name = entry.name.to_string_lossy().into_owned();
        if entry.is_directory { name + "/" } else { name }
    };
    let mut names: Vec<String> = folder::entries(directory, MAX_ENTRIES)?.into_iter().map(named).collect();
    names.sort_unstable();
    let total = names.len();
    let entries: Vec<String> = names.into_iter().skip(range.offset - 1).take(range.limit).collect();
    let truncated = range.offset.saturating_add(entries.len()) <= total;
    Ok(Listing { entries, offset: range.offset, total, truncated })
}

/// Up to `count` names beside a missing file that hold its name, or that its name holds.
pub(super) fn similar(missing: &Path, count: usize) -> Vec<String> {
    let (Some(parent), Some(name)) = (missing.parent(), missing.file_name()) else { return Vec::new() };
    let entries = folder::open(parent).and_then(|folder| folder::entries(&folder, MAX_ENTRIES)).unwrap_or_default();
    let wanted = name.to_string_lossy().to_lowercase();
    let names = entries.into_iter().map(|entry| entry.name.to_string_lossy().into_owned());
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
