//! Deaths, stops and full disks at chosen moments of a replica: see `crates/flotilla/src/failpoints.rs`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::json;

use crate::polling::eventually;

/// An operation of the store on its disk, and what happens there. Unarmed until a replica is given it.
#[derive(Debug, Clone)]
pub struct Failpoint {
    operation: &'static str,
    path: String,
    after: bool,
    skip: u64,
}

/// A failpoint that is armed.
#[derive(Debug)]
pub struct Armed(PathBuf);

impl Failpoint {
    /// Before `create`, `rename`, `mkdir`, `rmdir`, `unlink` or `fsync` of a path that contains `path` (of a rename: either).
    pub fn before(operation: &'static str, path: impl Into<String>) -> Self {
        Self { operation, path: path.into(), after: false, skip: 0 }
    }

    /// After that operation.
    pub fn after(operation: &'static str, path: impl Into<String>) -> Self {
        Self { after: true, ..Self::before(operation, path) }
    }

    /// Lets so many hits pass first.
    pub fn skip(self, hits: u64) -> Self {
        Self { skip: hits, ..self }
    }

    /// Arms it in a directory that a process is told of by `FAILPOINTS`.
    pub fn arm(&self, directory: &Path, action: &str) -> Armed {
        let Self { operation, path, after, skip } = self;
        let text = json!({"operation": operation, "path": path, "after": after, "skip": skip, "action": action});
        // Renamed into place: a replica never reads half of it.
        let number = std::fs::read_dir(directory).expect("failpoints can be listed").count();
        let (beside, place) = (directory.join(".new"), directory.join(format!("{number}-{operation}")));
        std::fs::write(&beside, text.to_string()).expect("a failpoint can be written");
        std::fs::rename(&beside, &place).expect("a failpoint can be armed");
        Armed(place)
    }
}

impl Armed {
    /// Waits until the replica came there and was killed or stopped.
    ///
    /// # Panics
    /// When `bound` has passed.
    pub async fn reached(&self, bound: Duration) {
        eventually(bound, "the failpoint to be reached", || async { (!self.0.exists()).then_some(()) }).await;
    }

    /// Disarms it: a full disk has space again.
    pub fn disarm(self) {
        let _reached_before = std::fs::remove_file(self.0);
    }
}
