//! A commit under a guard: written beside, inside the guard's directory, then moved into place.

use crate::error::{Result, StoreError};
use crate::number;
use crate::store::Inner;
use crate::sync::Syncer;
use std::borrow::Cow;
use std::collections::BTreeSet;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

/// How often the directory of a record is made again when a removal of its session takes it away beside us.
const MAKES: usize = 8;

/// The name of a session's record while it waits in the directory of number 0, which its creator holds.
pub(crate) const FIRST: &str = "session";

/// One file of a commit.
pub(crate) struct Step<'a> {
    /// Where it ends up.
    pub(crate) target: PathBuf,
    /// What is done.
    pub(crate) action: Action<'a>,
}

impl Step<'_> {
    /// True if it leaves a file at its target.
    pub(crate) fn is_put(&self) -> bool {
        !matches!(self.action, Action::Remove)
    }
}

/// What a step does.
pub(crate) enum Action<'a> {
    Put(Cow<'a, [u8]>),
    /// As the former, once all steps before are on the disk.
    Reveal(Cow<'a, [u8]>),
    PutNew(Cow<'a, [u8]>),
    Remove,
}

/// Commits the steps in their order under the guard whose numbered directory is `held`.
///
/// The last step is the one that makes the others visible: with durability `disk` all the others are on the disk before
/// it is made, and it is before this returns. `Fenced` if the guard was taken meanwhile: a beginning of the steps may
/// have been made, all of them before the taker emptied the directory.
pub(crate) fn commit(store: &Inner, held: &Path, steps: &[Step<'_>]) -> Result<()> {
    commit_with(store, store.sync.as_ref(), held, steps)
}

/// As [`commit`], without waiting for the disk.
pub(crate) fn commit_lightly(store: &Inner, held: &Path, steps: &[Step<'_>]) -> Result<()> {
    commit_with(store, None, held, steps)
}

fn commit_with(store: &Inner, sync: Option<&Syncer>, held: &Path, steps: &[Step<'_>]) -> Result<()> {
    let mut beside = Vec::with_capacity(steps.len());
    let result =
        write_beside(store, sync, held, steps, &mut beside).and_then(|()| place_all(store, sync, held, steps, &beside));
    // What is left is a failed commit's, or what was removed. Should this process end first, the next holder does it.
    let done = if result.is_ok() { steps.len() } else { 0 };
    for (i, path) in beside.iter().enumerate() {
        if i >= done || matches!(steps[i].action, Action::Remove) {
            let _ = store.disk.unlink(path);
        }
    }
    result
}

/// Moves the file that a guard was made with into its place, which must be free. Number 0 is held by the guard's maker.
pub(crate) fn finish_first(store: &Inner, held: &Path, target: &Path) -> Result<()> {
    let step = Step { target: target.into(), action: Action::PutNew(Cow::Borrowed(&[])) };
    place(store, held, &step, &held.join(FIRST))?;
    store.sync_directories(target.parent())
}

fn write_beside(
    store: &Inner,
    sync: Option<&Syncer>,
    held: &Path,
    steps: &[Step<'_>],
    beside: &mut Vec<PathBuf>,
) -> Result<()> {
    let mut written = Vec::new();
    for step in steps {
        let path = held.join(store.random_name());
        match &step.action {
            Action::Put(bytes) | Action::Reveal(bytes) | Action::PutNew(bytes) => {
                written.push(path.clone());
                beside.push(path.clone());
                fenced_if_gone(store, held, store.disk.create(&path, bytes)).map_err(|error| error.or_at(&path))?;
            }
            Action::Remove => beside.push(path),
        }
    }
    match sync {
        Some(sync) => sync.files(&written).map_err(|error| match error {
            StoreError::Io(file) => fenced_or(store, held, file.source).or_at(&file.path),
            other => other,
        }),
        None => Ok(()),
    }
}

fn place_all(store: &Inner, sync: Option<&Syncer>, held: &Path, steps: &[Step<'_>], beside: &[PathBuf]) -> Result<()> {
    let Some(last) = steps.len().checked_sub(1) else {
        return if number::is_held(&*store.disk, held)? { Ok(()) } else { Err(StoreError::Fenced) };
    };
    let directories = |steps: &[Step<'_>]| {
        let Some(sync) = sync else { return Ok(()) };
        let parents = |puts: bool| {
            let steps = steps.iter().filter(move |step| step.is_put() == puts);
            steps.filter_map(|step| step.target.parent()).collect::<BTreeSet<_>>()
        };
        let written = parents(true);
        sync.directories(written.iter().copied())?;
        // What was to be removed may lie nowhere.
        sync.names_if_there(parents(false).difference(&written).copied())
    };
    let mut durable = 0;
    for (at, (step, path)) in steps.iter().zip(beside).enumerate() {
        if at == last || matches!(step.action, Action::Reveal(_)) {
            directories(&steps[durable..at])?;
            durable = at;
        }
        place(store, held, step, path)?;
    }
    directories(&steps[durable..])
}

fn place(store: &Inner, held: &Path, step: &Step<'_>, beside: &Path) -> Result<()> {
    for _ in 0..MAKES {
        let result = match step.action {
            Action::Put(_) | Action::Reveal(_) => store.disk.rename(beside, &step.target),
            Action::PutNew(_) => store.disk.rename_new(beside, &step.target),
            Action::Remove => store.disk.rename(&step.target, beside),
        };
        match result {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => return Err(StoreError::Exists),
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(StoreError::file(&step.target, error)),
            Err(_) => {}
        }
        if !number::is_held(&*store.disk, held)? {
            return Err(StoreError::Fenced);
        }
        if matches!(step.action, Action::Remove) {
            return Ok(());
        }
        if let Some(directory) = step.target.parent() {
            store.make_directory(directory)?;
        }
    }
    Err(StoreError::file(&step.target, ErrorKind::NotFound.into()))
}

/// Why an operation in the guard's directory failed.
enum Failure {
    Fenced,
    Store(StoreError),
    Io(io::Error),
}

impl Failure {
    fn or_at(self, path: &Path) -> StoreError {
        match self {
            Self::Fenced => StoreError::Fenced,
            Self::Store(error) => error,
            Self::Io(error) => StoreError::file(path, error),
        }
    }
}

fn fenced_if_gone(store: &Inner, held: &Path, result: io::Result<()>) -> Result<(), Failure> {
    result.map_err(|error| fenced_or(store, held, error))
}

fn fenced_or(store: &Inner, held: &Path, error: io::Error) -> Failure {
    if error.kind() != ErrorKind::NotFound {
        return Failure::Io(error);
    }
    match number::is_held(&*store.disk, held) {
        Ok(false) => Failure::Fenced,
        Ok(true) => Failure::Io(error),
        Err(error) => Failure::Store(error),
    }
}
