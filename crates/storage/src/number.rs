//! A guard's number: the name of the one directory in the guard's directory. It only grows.

use crate::disk::Disk;
use crate::error::{At, Result, StoreError, if_there};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// How often a listing that shows no number or two (a rename went on beside it) is read again.
const LISTINGS: usize = 1_000;

/// The guard's number. `NotFound` if there is no such guard.
pub(crate) fn current(disk: &dyn Disk, guard: &Path) -> Result<u64> {
    for _ in 0..LISTINGS {
        let names = if_there(disk.list(guard), guard)?.ok_or(StoreError::NotFound)?;
        let mut numbers = names.iter().filter_map(|name| name.parse().ok());
        if let (Some(number), None) = (numbers.next(), numbers.next()) {
            return Ok(number);
        }
        std::thread::yield_now();
    }
    Err(StoreError::corrupt(guard, "it shows no number, or two"))
}

/// The directory of a number.
pub(crate) fn directory(guard: &Path, number: u64) -> PathBuf {
    guard.join(number.to_string())
}

/// Takes the guard: a compare-and-set from `number` to the next one. Returns the new number, or `Fenced`.
///
/// The directory is emptied before anything is read: a file that a former holder wrote there can't be moved into its
/// place any more.
pub(crate) fn take(disk: &dyn Disk, guard: &Path, number: u64) -> Result<u64> {
    let (from, to) = (directory(guard, number), directory(guard, number + 1));
    match disk.rename(&from, &to) {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::NotFound => return Err(StoreError::Fenced),
        Err(error) => return Err(StoreError::file(&from, error)),
    }
    for name in if_there(disk.list(&to), &to)?.ok_or(StoreError::Fenced)? {
        let left = to.join(name);
        if_there(disk.unlink(&left), &left)?;
    }
    Ok(number + 1)
}

/// True while the number stands.
pub(crate) fn is_held(disk: &dyn Disk, held: &Path) -> Result<bool> {
    Ok(if_there(disk.stamp(held), held)?.is_some())
}

/// True while no commit is under way.
pub(crate) fn is_empty(disk: &dyn Disk, held: &Path) -> Result<bool> {
    match disk.list(held) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(true),
        names => Ok(names.at(held)?.is_empty()),
    }
}
