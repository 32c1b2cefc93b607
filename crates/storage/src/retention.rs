//! What is kept for a while only, and removed afterwards: names of requests, settled tickets, tombstones, large events,
//! snapshots, leftovers.
//!
//! Ages are told by the file system's own clock alone: against a file that it has just stamped.

use crate::disk::Stamp;
use crate::error::{At, Result, if_there};
use crate::snapshots::{ContentId, Snapshot};
use crate::store::TenantStore;
use run_protocol::{HeadState, Ticket};
use serde::Deserialize;
use std::collections::HashSet;
use std::ffi::OsStr;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use wire::ids::SessionId;

const HOUR: i128 = 3_600_000_000_000;
/// For so long a request that is sent again is known.
const NAMES: i128 = 24 * HOUR;
/// For so long a deleted session is known to be deleted.
const TOMBSTONES: i128 = 7 * 24 * HOUR;
/// For so long outputs that were too long for a model can be read.
const OUTPUTS: i128 = 7 * 24 * HOUR;
/// For so long the bodies of large events can be read: longer than a log keeps what names them, unless nothing follows it.
const EVENTS: i128 = HOUR;
/// For so long the snapshots of a session that lives are kept.
const SNAPSHOTS: i128 = 7 * 24 * HOUR;
/// For so long what nobody refers to any more is kept: somebody may be about to.
const UNREFERRED: i128 = 24 * HOUR;
/// For so long notes of writes are kept: longer than any command runs.
const NOTES: i128 = 48 * HOUR;
/// A guard is built within moments; what is older was left by a crash.
const LEFTOVERS: i128 = 24 * HOUR;

/// What a name's record says that matters here.
#[derive(Deserialize)]
struct Named {
    session: SessionId,
}

impl TenantStore {
    /// Removes what has been kept for long enough. Returns how many files and tombstones that were. May be done by several
    /// replicas at once, and broken off anywhere.
    pub fn remove_old(&self) -> Result<usize> {
        let now = self.file_system_time()?;
        let names = self.remove_names(now)? + self.remove_tickets(now)?;
        let outputs = self.remove_files(&self.directory("tool-output"), now - OUTPUTS)?;
        let events = self.remove_events(now - EVENTS)?;
        let snapshots = self.remove_snapshots(now)?;
        Ok(names + outputs + events + snapshots + self.remove_tombstones(now)? + self.remove_leftovers(now)?)
    }

    /// The file system's clock, in nanoseconds.
    pub(crate) fn file_system_time(&self) -> Result<i128> {
        let path = self.directory("flotilla/probe").join(self.inner.random_name());
        self.inner.disk.create(&path, b"").at(&path)?;
        let stamp = self.inner.disk.stamp(&path).at(&path);
        self.inner.disk.unlink(&path).at(&path)?;
        Ok(stamp?.modified)
    }

    pub(crate) fn entries(&self, directory: &Path) -> Result<Vec<(PathBuf, Stamp)>> {
        let entries = if_there(self.inner.disk.list_stamped(directory), directory)?.unwrap_or_default();
        Ok(entries.into_iter().map(|(name, stamp)| (directory.join(name), stamp)).collect())
    }

    fn remove_files(&self, directory: &Path, before: i128) -> Result<usize> {
        let mut removed = 0;
        for (path, stamp) in self.entries(directory)? {
            removed += usize::from(stamp.modified < before && self.remove_old_file(&path)?);
        }
        Ok(removed)
    }

    /// True if it was there, and a file.
    pub(crate) fn remove_old_file(&self, path: &Path) -> Result<bool> {
        match self.inner.disk.unlink(path) {
            Err(error) if matches!(error.kind(), ErrorKind::IsADirectory | ErrorKind::PermissionDenied) => Ok(false),
            result => Ok(if_there(result, path)?.is_some()),
        }
    }

    /// A request's name is kept for as long as its session works, too: its caller may still wait.
    fn remove_names(&self, now: i128) -> Result<usize> {
        let mut removed = 0;
        for (directory, _) in self.entries(&self.directory("flotilla/key"))? {
            for (path, stamp) in self.entries(&directory)? {
                if stamp.modified < now - NAMES && !self.is_at_work_for(&path)? {
                    removed += usize::from(self.remove_old_file(&path)?);
                }
            }
        }
        Ok(removed)
    }

    fn is_at_work_for(&self, name: &Path) -> Result<bool> {
        let Some((bytes, _)) = if_there(self.inner.disk.read(name), name)? else { return Ok(false) };
        let named: Option<Named> = serde_json::from_slice(&bytes).ok();
        Ok(named.is_some_and(|named| self.is_at_work(&named.session)))
    }

    pub(crate) fn is_at_work(&self, session: &SessionId) -> bool {
        self.head(session).is_ok_and(|head| head.is_open())
    }

    fn remove_tickets(&self, now: i128) -> Result<usize> {
        let mut removed = 0;
        for (directory, _) in self.entries(&self.directory("flotilla/ticket"))? {
            let session = directory.file_name().and_then(|name| SessionId::parse(name.to_str()?).ok());
            let Some(head) = session.and_then(|session| self.head(&session).ok()) else { continue };
            for (path, stamp) in self.entries(&directory)? {
                if stamp.modified >= now - NAMES {
                    continue;
                }
                let Some((bytes, _)) = if_there(self.inner.disk.read(&path), &path)? else { continue };
                let is_settled = serde_json::from_slice(&bytes).is_ok_and(|ticket: Ticket| ticket.k <= head.settled);
                removed += usize::from(is_settled && self.remove_old_file(&path)?);
            }
        }
        Ok(removed)
    }

    fn remove_tombstones(&self, now: i128) -> Result<usize> {
        let mut removed = 0;
        for (guard, _) in self.entries(&self.directory("flotilla/guard"))? {
            let head = guard.join("head.json");
            let Some(stamp) = if_there(self.inner.disk.stamp(&head), &head)? else { continue };
            let session = guard.file_name().and_then(|name| SessionId::parse(name.to_str()?).ok());
            let Some(session) = session.filter(|_| stamp.modified < now - TOMBSTONES) else { continue };
            if self.head(&session).is_ok_and(|head| head.state == HeadState::Removed) {
                // Moved away as a whole: nobody sees half a guard.
                let aside = self.directory("flotilla/new").join(self.inner.random_name());
                if if_there(self.inner.disk.rename(&guard, &aside), &guard)?.is_some() {
                    self.remove_tree(&aside)?;
                    removed += 1;
                }
            }
        }
        Ok(removed)
    }

    /// Removes the snapshots that no session refers to, and the contents that are in none.
    fn remove_snapshots(&self, now: i128) -> Result<usize> {
        let mut removed = 0;
        let mut referred = HashSet::new();
        for (session, _) in self.entries(&self.directory("flotilla/snapshot-of"))? {
            removed += self.remove_files(&session, now - SNAPSHOTS)?;
            referred.extend(self.entries(&session)?.iter().filter_map(|(path, _)| Some(path.file_name()?.to_owned())));
        }
        for (tree, _) in self.entries(&self.directory("flotilla/snapshot"))? {
            let Some(name) = tree.file_name().and_then(|name| name.to_str()) else { continue };
            let mut contents = HashSet::new();
            for (path, stamp) in self.entries(&tree.join("taken"))? {
                let id = path.file_name().and_then(|id| id.to_str()).unwrap_or_default();
                let is_referred = referred.contains(OsStr::new(&format!("{name}.{id}")));
                if !is_referred && stamp.modified < now - UNREFERRED {
                    removed += usize::from(self.remove_old_file(&path)?);
                } else if let Some((bytes, _)) = if_there(self.inner.disk.read(&path), &path)? {
                    // A damaged one brings nothing back, whatever is kept for it.
                    let snapshot = Snapshot::parse(&bytes, &path).unwrap_or_default();
                    contents.extend(snapshot.0.values().map(|entry| entry.content));
                }
            }
            removed += self.remove_files(&tree.join("note"), now - NOTES)?;
            for (directory, _) in self.entries(&tree.join("content"))? {
                for (path, stamp) in self.entries(&directory)? {
                    let id = path.file_name().and_then(|id| ContentId::parse(id.to_str()?));
                    if id.is_some_and(|id| !contents.contains(&id)) && stamp.modified < now - UNREFERRED {
                        removed += usize::from(self.remove_old_file(&path)?);
                    }
                }
            }
        }
        Ok(removed)
    }

    fn remove_leftovers(&self, now: i128) -> Result<usize> {
        let mut removed = 0;
        for (path, stamp) in self.entries(&self.directory("flotilla/new"))? {
            if stamp.modified < now - LEFTOVERS {
                self.remove_tree(&path)?;
                removed += 1;
            }
        }
        Ok(removed)
    }

    fn remove_tree(&self, path: &Path) -> Result<()> {
        match self.inner.disk.list(path) {
            Err(error) if error.kind() == ErrorKind::NotADirectory => {
                return if_there(self.inner.disk.unlink(path), path).map(drop);
            }
            names => {
                for name in if_there(names, path)?.unwrap_or_default() {
                    self.remove_tree(&path.join(name))?;
                }
            }
        }
        if_there(self.inner.disk.rmdir(path), path).map(drop)
    }
}
