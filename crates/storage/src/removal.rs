//! Removing what is left of a deleted session.

use crate::error::{Result, StoreError, if_there};
use crate::record::{Record, stem};
use crate::store::TenantStore;
use crate::sync::lock;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use wire::ids::{MessageId, SessionId};

impl TenantStore {
    /// Removes all records of a session whose head says that it was deleted; `Live` if it does not.
    ///
    /// The guard stays, so that nobody makes the session again: the caller's head commit then sets `Removed`. Comes after
    /// the run guard was taken once more, so that nobody writes beside it. May be done again after a crash.
    pub fn remove_session(&self, session: &SessionId) -> Result<()> {
        let head = self.head(session)?;
        if head.is_live() {
            return Err(StoreError::Live);
        }
        lock(&self.inner.views).remove(&(self.tenant.clone(), session.clone()));
        let record = self.path(&Record::Session { project: head.project, id: session.clone() })?;
        self.remove_file(&record)?;
        let messages = self.directory("storage/message").join(session.as_str());
        // The parts first, and for good: their directories are found by the messages' names.
        let parts = self.directory("storage/part");
        for name in self.names(&messages)? {
            if let Some(id) = stem(&name).and_then(|stem| MessageId::parse(stem).ok()) {
                self.remove_directory(&parts.join(id.as_str()))?;
            }
        }
        self.inner.sync_directories([&*parts])?;
        self.remove_directory(&messages)?;
        for directory in ["flotilla/ticket", "flotilla/ask", "flotilla/snapshot-of"] {
            self.remove_directory(&self.directory(directory).join(session.as_str()))?;
        }
        let session = || session.clone();
        let single = [
            Record::Todo { session: session() },
            Record::Diff { session: session() },
            Record::Revert { session: session() },
        ];
        for record in &single {
            self.remove_file(&self.path(record)?)?;
        }
        let changed = ["storage/message", "storage/todo", "storage/session_diff", "flotilla/ticket", "flotilla/ask"]
            .map(|name| self.directory(name));
        self.inner.sync_directories(changed.iter().map(PathBuf::as_path).chain(record.parent()))
    }

    fn names(&self, directory: &Path) -> Result<Vec<String>> {
        Ok(if_there(self.inner.disk.list(directory), directory)?.unwrap_or_default())
    }

    fn remove_file(&self, path: &Path) -> Result<()> {
        if_there(self.inner.disk.unlink(path), path).map(|_| ())
    }

    /// Removes a directory and the files in it.
    fn remove_directory(&self, path: &Path) -> Result<()> {
        for name in self.names(path)? {
            self.remove_file(&path.join(name))?;
        }
        match self.inner.disk.rmdir(path) {
            // Something that is none of our records lies in it: that is not ours to remove.
            Err(error) if error.kind() == ErrorKind::DirectoryNotEmpty => {}
            result => drop(if_there(result, path)?),
        }
        if let Some(sync) = &self.inner.sync {
            sync.forget(path);
        }
        Ok(())
    }
}
