//! The directory of a running fleet: what its programs write besides sessions.

use super::caretaker;
use anyhow::{Context, bail};
use std::fs::{self, DirBuilder, File, TryLockError};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::process::{Child, ChildStdin, Command};
use tokio::time::{Instant, sleep, timeout};

/// How long the caretaker of a fleet that just ended may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// Between two looks at whether it is done.
const PAUSE: Duration = Duration::from_millis(50);

/// The directory, locked. It is empty in the beginning, and removed when this process ends, however it ends.
pub struct RunDir {
    path: PathBuf,
    /// The open directory with the lock on it; the caretaker has it, too.
    _lock: File,
    /// Closing it makes the caretaker remove the directory.
    lifeline: ChildStdin,
    caretaker: Child,
}

impl RunDir {
    /// Makes the directory below `data_dir` and locks it. Another fleet on the same data directory is an error.
    pub async fn claim(data_dir: &Path) -> anyhow::Result<Self> {
        let path = data_dir.join("flotilla/up");
        let locked = lock(&path).await.with_context(|| format!("can't use {}", path.display()))?;
        let Some(locked) = locked else { bail!("another `flotilla up` runs on {}", data_dir.display()) };
        let mut caretaker = Command::new(std::env::current_exe()?)
            .arg(caretaker::WORD)
            .arg(&path)
            .stdin(Stdio::piped())
            .stdout(OwnedFd::from(locked.try_clone()?))
            .process_group(0)
            .spawn()?;
        let lifeline = caretaker.stdin.take().context("the caretaker has no stdin")?;
        empty(&path).with_context(|| format!("can't empty {}", path.display()))?;
        Ok(Self { path, _lock: locked, lifeline, caretaker })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Removes it.
    pub async fn remove(mut self) -> anyhow::Result<()> {
        drop(self.lifeline);
        let ended = timeout(PATIENCE * 2, self.caretaker.wait()).await;
        if !ended.is_ok_and(|ended| ended.is_ok_and(|status| status.success())) {
            // Somebody killed the caretaker.
            fs::remove_dir_all(&self.path).with_context(|| format!("can't remove {}", self.path.display()))?;
        }
        Ok(())
    }
}

/// The directory, open and locked, or nothing while somebody else holds it.
async fn lock(path: &Path) -> anyhow::Result<Option<File>> {
    let start = Instant::now();
    while start.elapsed() < PATIENCE {
        DirBuilder::new().recursive(true).mode(0o700).create(path)?;
        let directory = File::open(path)?;
        match directory.try_lock() {
            // The one who held it removed it; the lock on what is removed keeps nobody away.
            Ok(()) if !is_at(&directory, path)? => {}
            Ok(()) => return Ok(Some(directory)),
            Err(TryLockError::WouldBlock) => sleep(PAUSE).await,
            Err(TryLockError::Error(error)) => return Err(error.into()),
        }
    }
    Ok(None)
}

fn is_at(file: &File, path: &Path) -> anyhow::Result<bool> {
    let Ok(there) = fs::metadata(path) else { return Ok(false) };
    let here = file.metadata()?;
    Ok((here.dev(), here.ino()) == (there.dev(), there.ino()))
}

/// Removes what a fleet left whose caretaker was killed, too.
fn empty(path: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() { fs::remove_dir_all(entry.path())? } else { fs::remove_file(entry.path())? }
    }
    Ok(())
}
