//! What people are shown of the files of a directory.
//!
//! No tool looks, so nobody is asked. Whoever may ask for it sees what is in the directory, hidden files, too, and nothing
//! that links lead to outside of it.

mod contents;
mod lines;
mod names;

pub use contents::{FileContent, FileNode, content, list};
pub use lines::{LineMatch, Submatch, Text, lines};
pub use names::{Names, names};

use crate::paths;
use std::path::{Path, PathBuf};

/// So many files and folders are looked at; what lies beyond is not found.
const MAX_ENTRIES: usize = 200_000;

/// What is not shown.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BrowseError {
    /// It is not there, not of the kind that was asked for, or not in the directory: ask for something else.
    #[error("{0}")]
    Refused(String),
}

/// Where a directory is once links are followed.
fn root(directory: &Path) -> Result<PathBuf, BrowseError> {
    let real = directory.canonicalize().ok().filter(|real| real.is_dir());
    real.ok_or_else(|| BrowseError::Refused(format!("Not a directory: {}", directory.display())))
}

/// Where a path leads that somebody asks for.
struct Place {
    /// The directory once links are followed.
    root: PathBuf,
    /// The path without dots, absolute.
    shown: PathBuf,
    /// The same, relative to the directory.
    relative: PathBuf,
    /// Where it is once links are followed: in the directory. Nothing need be there.
    real: PathBuf,
}

impl Place {
    fn locate(directory: &Path, path: &str) -> Result<Self, BrowseError> {
        let root = root(directory)?;
        let outside = || BrowseError::Refused(format!("Not in the directory: {path}"));
        let shown = paths::normalized(&directory.join(path));
        let relative = shown.strip_prefix(paths::normalized(directory)).map_err(|_| outside())?.to_owned();
        // What cannot be found out is not told apart from what is elsewhere.
        let real = paths::resolve(root.join(&relative)).map_err(|_| outside())?;
        if real.starts_with(&root) { Ok(Self { root, shown, relative, real }) } else { Err(outside()) }
    }
}
