//! What people are shown of the files of a directory.
//!
//! No tool looks, so nobody is asked. Whoever may ask for it sees what is in the directory, hidden files, too, and nothing
//! that links lead to outside of it.

mod names;

pub use names::{Names, names};

use std::path::{Path, PathBuf};

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
