//! What can go wrong, said so that the caller knows what to do.

use std::io;
use std::path::{Path, PathBuf};

/// The result of a store operation.
pub type Result<T, E = StoreError> = std::result::Result<T, E>;

/// Why the store did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// There is no such session, message or record.
    #[error("not found")]
    NotFound,
    /// It must be new, and it is there already.
    #[error("it exists already")]
    Exists,
    /// The guard was taken by somebody else: nothing more can be written under this number, so never try it again.
    /// Whatever the commit had already put in its place was there before the taker read.
    #[error("the guard was taken")]
    Fenced,
    /// Somebody else won the race for the guard. Try again after a wait.
    #[error("the guard is contended at {number}")]
    Contended {
        /// The guard's number now.
        number: u64,
        /// False while its holder has a commit under way.
        empty: bool,
    },
    /// The session was deleted.
    #[error("the session was deleted")]
    Deleted,
    /// The session was not deleted, so its records stay.
    #[error("the session was not deleted")]
    Live,
    /// Another process serves this directory.
    #[error("another process uses {}", .0.display())]
    Locked(PathBuf),
    /// A record can't be understood.
    #[error("{} is damaged: {reason}", path.display())]
    Corrupt {
        /// The record.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A later version wrote it.
    #[error("{} has format {found}, this version knows {known}", path.display())]
    NewerFormat {
        /// The record, or the directory's format file.
        path: PathBuf,
        /// Its format.
        found: u32,
        /// The newest format that this version knows.
        known: u32,
    },
    /// No space is left, or a quota is used up.
    #[error("the store is full: {0}")]
    Full(#[source] FileError),
    /// The disk failed.
    #[error("{0}")]
    Io(#[source] FileError),
    /// An fsync failed earlier: what this process acknowledged since may not be on the disk.
    #[error("an earlier write may not have reached the disk")]
    SyncFailed,
}

/// A failed operation on a file.
#[derive(Debug, thiserror::Error)]
#[error("{}: {source}", path.display())]
pub struct FileError {
    /// The file or directory.
    pub path: PathBuf,
    /// What the system said.
    pub source: io::Error,
}

impl StoreError {
    pub(crate) fn file(path: &Path, source: io::Error) -> Self {
        let full = matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
        let error = FileError { path: path.into(), source };
        if full { Self::Full(error) } else { Self::Io(error) }
    }

    pub(crate) fn corrupt(path: &Path, reason: impl ToString) -> Self {
        Self::Corrupt { path: path.into(), reason: reason.to_string() }
    }
}

/// Names the file that an operation failed on.
pub(crate) trait At<T> {
    fn at(self, path: &Path) -> Result<T>;
}

impl<T> At<T> for io::Result<T> {
    fn at(self, path: &Path) -> Result<T> {
        self.map_err(|source| StoreError::file(path, source))
    }
}

/// Turns "there is none" into a value, and names the file of any other failure.
pub(crate) fn if_there<T>(result: io::Result<T>, path: &Path) -> Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(StoreError::file(path, error)),
    }
}
