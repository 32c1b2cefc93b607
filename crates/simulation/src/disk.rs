//! The shared disk as one replica sees it: gone for it when it dies, and watched for who writes what.

use crate::mortal::Mortal;
use crate::trace::Trace;
use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use storage::disk::{Disk, Stamp};
use storage::forgetful::Forgetful;

/// Who holds the run guard of each session, as the renames of the guards' directories tell.
#[derive(Default)]
pub(crate) struct Holders {
    runs: Mutex<BTreeMap<String, (u64, String)>>,
    broken: Mutex<Vec<String>>,
}

/// A path in a guard: of which session, and what stands behind `run`.
fn in_run_guard(path: &Path) -> Option<(&str, &str)> {
    let inside = path.to_str()?.strip_prefix("/data/flotilla/guard/")?;
    let (session, rest) = inside.split_once('/')?;
    Some((session, rest.strip_prefix("run/")?))
}

impl Holders {
    /// What was done by somebody who held no guard for it.
    pub(crate) fn broken(&self) -> Vec<String> {
        self.broken.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn breaks(&self, what: String) {
        self.broken.lock().unwrap_or_else(PoisonError::into_inner).push(what);
    }

    /// The machine lost its power: what was taken since the last fsync may have to be taken again.
    pub(crate) fn forget(&self) {
        self.runs.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// A rename that was done.
    fn renamed(&self, by: &str, from: &Path, to: &Path) {
        let mut runs = self.runs.lock().unwrap_or_else(PoisonError::into_inner);
        match (in_run_guard(from), in_run_guard(to)) {
            // A guard is taken.
            (Some((session, _)), Some((_, number))) if !number.contains('/') => {
                let Ok(number) = number.parse() else { return };
                let former = runs.insert(session.to_owned(), (number, by.to_owned()));
                if let Some((before, _)) = former.filter(|(before, _)| *before >= number) {
                    self.breaks(format!("{by} took the run guard of {session} from {before} to {number}"));
                }
            }
            // A file is moved out of it into its place, or from its place into it.
            (Some((session, _)), None) | (None, Some((session, _))) => {
                if let Some((number, holder)) = runs.get(session).filter(|(_, holder)| holder != by) {
                    let what = if in_run_guard(to).is_none() { to } else { from }.display();
                    self.breaks(format!("{by} wrote {what} while {holder} held the run guard {number} of {session}"));
                }
            }
            _ => {}
        }
    }
}

/// The disk of one replica, from its start to its death.
pub(crate) struct MortalDisk {
    pub inner: Arc<Forgetful>,
    pub who: Arc<Mortal>,
    pub trace: Arc<Trace>,
    pub holders: Arc<Holders>,
}

impl MortalDisk {
    fn write<T>(&self, what: &str, path: &Path, write: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        if !self.who.may_write() {
            return Err(io::Error::other("this replica is dead"));
        }
        let result = write();
        let outcome = if result.is_ok() { "" } else { " fails" };
        self.trace.note(format_args!("{} {what} {}{outcome}", self.who.name, path.display()));
        result
    }

    fn read<T>(&self, read: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        if self.who.is_over() {
            return Err(io::Error::other("this replica is dead"));
        }
        read()
    }
}

impl Disk for MortalDisk {
    fn create(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        self.write("creates", path, || self.inner.create(path, bytes))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.write("moves to", to, || self.inner.rename(from, to))?;
        self.holders.renamed(&self.who.name, from, to);
        Ok(())
    }

    fn rename_new(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.write("moves anew to", to, || self.inner.rename_new(from, to))?;
        self.holders.renamed(&self.who.name, from, to);
        Ok(())
    }

    fn mkdir(&self, path: &Path) -> io::Result<()> {
        self.write("makes", path, || self.inner.mkdir(path))
    }

    fn rmdir(&self, path: &Path) -> io::Result<()> {
        self.write("removes", path, || self.inner.rmdir(path))
    }

    fn unlink(&self, path: &Path) -> io::Result<()> {
        self.write("unlinks", path, || self.inner.unlink(path))
    }

    fn read(&self, path: &Path) -> io::Result<(Vec<u8>, Stamp)> {
        self.read(|| self.inner.read(path))
    }

    fn read_piece(&self, path: &Path, from: u64, most: usize) -> io::Result<Vec<u8>> {
        self.read(|| self.inner.read_piece(path, from, most))
    }

    fn stamp(&self, path: &Path) -> io::Result<Stamp> {
        self.read(|| self.inner.stamp(path))
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        self.read(|| self.inner.list(path))
    }

    fn list_stamped(&self, path: &Path) -> io::Result<Vec<(String, Stamp)>> {
        self.read(|| self.inner.list_stamped(path))
    }

    fn fsync_file(&self, path: &Path) -> io::Result<()> {
        self.write("syncs", path, || self.inner.fsync_file(path))
    }

    fn fsync_dir(&self, path: &Path) -> io::Result<()> {
        self.write("syncs", path, || self.inner.fsync_dir(path))
    }
}
