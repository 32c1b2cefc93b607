//! Deaths, stops and full disks at chosen moments, for tests: in debug builds only, and only where `FAILPOINTS` names a
//! directory.
//!
//! A failpoint is an operation of the store on its disk. A file in that directory arms one, as JSON:
//!
//! ```json
//! {"operation": "rename", "path": "storage/part/", "after": false, "skip": 0, "action": "stop"}
//! ```
//!
//! `path` is a part of the path (either path of a rename), `skip` passes so many hits first. `kill` and `stop` disarm it and
//! send that signal to this very process; `full` makes the operation fail for want of space for as long as the file is there;
//! `hog` disarms it and holds all threads of the runtime for a while.

use rustix::process::{Signal, getpid, kill_process};
use serde::Deserialize;
use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use storage::disk::{Disk, LocalDisk, Stamp};

/// For so long `hog` holds the runtime.
const HOGGED: Duration = Duration::from_secs(5);
/// Far more than a signal takes.
const TAKES_EFFECT: Duration = Duration::from_millis(50);

#[derive(Deserialize)]
struct Armed {
    operation: String,
    path: String,
    #[serde(default)]
    after: bool,
    #[serde(default)]
    skip: u64,
    action: Action,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Action {
    Kill,
    Stop,
    Full,
    Hog,
}

/// The local disk with the failpoints of a directory.
pub(crate) struct FailingDisk {
    directory: PathBuf,
    /// How often each armed file was hit.
    hits: Mutex<HashMap<String, u64>>,
}

impl FailingDisk {
    pub(crate) fn new(directory: PathBuf) -> Self {
        Self { directory, hits: Mutex::default() }
    }

    fn around<T>(&self, operation: &str, paths: &[&Path], perform: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        self.reach(operation, paths, false)?;
        let result = perform();
        self.reach(operation, paths, true)?;
        result
    }

    fn reach(&self, operation: &str, paths: &[&Path], after: bool) -> io::Result<()> {
        for name in LocalDisk.list(&self.directory)? {
            let file = self.directory.join(&name);
            // Another thread may have disarmed it just now.
            let Some(armed) = std::fs::read(&file).ok().and_then(|text| serde_json::from_slice::<Armed>(&text).ok())
            else {
                continue;
            };
            let is_there = paths.iter().any(|path| path.to_string_lossy().contains(&armed.path));
            if armed.operation != operation || armed.after != after || !is_there {
                continue;
            }
            let mut hits = self.hits.lock().unwrap_or_else(PoisonError::into_inner);
            let count = hits.entry(name).or_default();
            *count += 1;
            if *count <= armed.skip {
                continue;
            }
            let signal = match armed.action {
                Action::Hog => {
                    if std::fs::remove_file(&file).is_ok() {
                        hog();
                    }
                    return Ok(());
                }
                Action::Full => return Err(rustix::io::Errno::NOSPC.into()),
                Action::Kill => Signal::KILL,
                Action::Stop => Signal::STOP,
            };
            if std::fs::remove_file(&file).is_ok() {
                drop(hits);
                kill_process(getpid(), signal)?;
                // Another thread may have been given the signal: this one must not go on before it takes effect.
                std::thread::sleep(TAKES_EFFECT);
            }
        }
        Ok(())
    }
}

/// Gives each thread of the runtime something to do that takes long and gives way to nothing.
fn hog() {
    let threads = std::thread::available_parallelism().map_or(2, |count| count.get());
    for _ in 0..2 * threads {
        tokio::spawn(async { std::thread::sleep(HOGGED / 2) });
    }
}

impl Disk for FailingDisk {
    fn create(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        self.around("create", &[path], || LocalDisk.create(path, bytes))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.around("rename", &[from, to], || LocalDisk.rename(from, to))
    }

    fn rename_new(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.around("rename", &[from, to], || LocalDisk.rename_new(from, to))
    }

    fn mkdir(&self, path: &Path) -> io::Result<()> {
        self.around("mkdir", &[path], || LocalDisk.mkdir(path))
    }

    fn rmdir(&self, path: &Path) -> io::Result<()> {
        self.around("rmdir", &[path], || LocalDisk.rmdir(path))
    }

    fn unlink(&self, path: &Path) -> io::Result<()> {
        self.around("unlink", &[path], || LocalDisk.unlink(path))
    }

    fn read(&self, path: &Path) -> io::Result<(Vec<u8>, Stamp)> {
        LocalDisk.read(path)
    }

    fn read_piece(&self, path: &Path, from: u64, most: usize) -> io::Result<Vec<u8>> {
        LocalDisk.read_piece(path, from, most)
    }

    fn stamp(&self, path: &Path) -> io::Result<Stamp> {
        LocalDisk.stamp(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        LocalDisk.list(path)
    }

    fn list_stamped(&self, path: &Path) -> io::Result<Vec<(String, Stamp)>> {
        LocalDisk.list_stamped(path)
    }

    fn fsync_file(&self, path: &Path) -> io::Result<()> {
        self.around("fsync", &[path], || LocalDisk.fsync_file(path))
    }

    fn fsync_dir(&self, path: &Path) -> io::Result<()> {
        self.around("fsync", &[path], || LocalDisk.fsync_dir(path))
    }
}
