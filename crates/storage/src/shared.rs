//! Records outside any session: each has a guard of its own, taken for one short read-modify-write.

use crate::commit::{self, Action, Step};
use crate::error::{At, Result, StoreError, if_there};
use crate::number;
use crate::record::Record;
use crate::store::TenantStore;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// The right to write one record, until somebody else takes it.
pub struct SharedGuard {
    store: TenantStore,
    held: PathBuf,
    target: PathBuf,
}

impl TenantStore {
    /// Takes the guard of a record outside any session from whoever holds it: one attempt, `Contended` if another was
    /// faster, `Corrupt` for a record that a session's guards cover.
    ///
    /// Around it stands a lock, which keeps contenders apart.
    pub fn take_shared(&self, record: &Record) -> Result<SharedGuard> {
        let target = self.path(record)?;
        let name = record.shared_name().ok_or_else(|| StoreError::corrupt(&target, "a session's guards cover it"))?;
        let guard = self.directory("flotilla/shared").join(name);
        let disk = &*self.inner.disk;
        let number = match number::current(disk, &guard) {
            Err(StoreError::NotFound) => {
                self.make_shared_guard(&guard)?;
                number::current(disk, &guard)?
            }
            number => number?,
        };
        match number::take(disk, &guard, number) {
            Ok(taken) => Ok(SharedGuard { store: self.clone(), held: number::directory(&guard, taken), target }),
            Err(StoreError::Fenced) => {
                let number = number::current(disk, &guard)?;
                let empty = number::is_empty(disk, &number::directory(&guard, number))?;
                Err(StoreError::Contended { number, empty })
            }
            Err(error) => Err(error),
        }
    }

    /// Builds a guard aside and moves it into place whole. One that is there is fine.
    fn make_shared_guard(&self, guard: &Path) -> Result<()> {
        self.make_directories()?;
        let disk = &*self.inner.disk;
        let aside = self.directory("flotilla/new").join(self.inner.random_name());
        let first = number::directory(&aside, 0);
        disk.mkdir(&aside).at(&aside)?;
        disk.mkdir(&first).at(&first)?;
        self.inner.sync_directories([&*aside])?;
        match disk.rename(&aside, guard) {
            Ok(()) => self.inner.sync_directories(guard.parent()),
            Err(error) => {
                let _ = disk.rmdir(&first);
                let _ = disk.rmdir(&aside);
                match error.kind() {
                    ErrorKind::AlreadyExists | ErrorKind::DirectoryNotEmpty => Ok(()),
                    _ => Err(StoreError::file(guard, error)),
                }
            }
        }
    }
}

impl SharedGuard {
    /// The record as it stands.
    pub fn read(&self) -> Result<Option<Vec<u8>>> {
        Ok(if_there(self.store.inner.disk.read(&self.target), &self.target)?.map(|(bytes, _)| bytes))
    }

    /// Writes the record. `Fenced` if the guard was taken meanwhile: the caller begins again with taking and reading.
    pub fn commit(self, bytes: Vec<u8>) -> Result<()> {
        let step = Step { target: self.target, action: Action::Put(bytes.into()) };
        commit::commit(&self.store.inner, &self.held, &[step])
    }
}
