//! Reading files, and remembering what they were.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// No file that is read here may be longer, in bytes.
const LARGEST: u64 = 1024 * 1024;
/// No folder is listed beyond this many entries.
const MOST_ENTRIES: usize = 10_000;

/// What a path was when it was looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stamp {
    Absent,
    /// There, whatever is in it: for what changes often without meaning anything here.
    There,
    Present {
        inode: u64,
        size: u64,
        modified: (i64, i64),
        changed: (i64, i64),
    },
}

impl Stamp {
    fn of(path: &Path) -> Self {
        match std::fs::metadata(path) {
            Ok(meta) => Self::Present {
                inode: meta.ino(),
                size: meta.len(),
                modified: (meta.mtime(), meta.mtime_nsec()),
                changed: (meta.ctime(), meta.ctime_nsec()),
            },
            Err(_) => Self::Absent,
        }
    }

    fn existence(path: &Path) -> Self {
        if path.exists() { Self::There } else { Self::Absent }
    }
}

/// Every path that a configuration was read from or looked for at, and what was there.
#[derive(Clone, Debug, Default)]
pub struct Fingerprint(BTreeMap<PathBuf, Stamp>);

impl Fingerprint {
    /// True while every path is what it was: one `stat` each, no content is read.
    pub fn is_fresh(&self) -> bool {
        self.0.iter().all(|(path, stamp)| match stamp {
            Stamp::There => path.exists(),
            Stamp::Absent => !path.exists(),
            present => Stamp::of(path) == *present,
        })
    }

    /// The paths, there or not.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        self.0.keys().map(PathBuf::as_path)
    }
}

/// Reads files and remembers what they were. A path is stamped before it is read, so that a change in between is seen
/// as one.
#[derive(Debug, Default)]
pub(crate) struct Files {
    seen: BTreeMap<PathBuf, Stamp>,
}

impl Files {
    /// The text of a file; `None` if there is none. A folder of that name counts as no file.
    pub fn read(&mut self, path: &Path) -> io::Result<Option<String>> {
        let stamp = Stamp::of(path);
        self.seen.entry(path.to_owned()).or_insert(stamp);
        if stamp == Stamp::Absent || !path.is_file() {
            return Ok(None);
        }
        let mut bytes = Vec::new();
        std::fs::File::open(path)?.take(LARGEST + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > LARGEST {
            return Err(io::Error::other(format!("longer than {LARGEST} bytes")));
        }
        Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
    }

    /// The entries of a folder, sorted by name; nothing if there is no such folder.
    pub fn list(&mut self, folder: &Path) -> Vec<PathBuf> {
        self.seen.entry(folder.to_owned()).or_insert_with(|| Stamp::of(folder));
        let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
        let mut paths: Vec<_> = entries.take(MOST_ENTRIES).flatten().map(|entry| entry.path()).collect();
        paths.sort();
        paths
    }

    /// Whether a path is there. Only a change of that is a change.
    pub fn exists(&mut self, path: &Path) -> bool {
        let stamp = Stamp::existence(path);
        self.seen.entry(path.to_owned()).or_insert(stamp);
        stamp == Stamp::There
    }

    /// Remembers what a path is, without reading it.
    pub fn watch(&mut self, path: &Path) {
        self.seen.entry(path.to_owned()).or_insert_with(|| Stamp::of(path));
    }

    /// What was seen.
    pub fn fingerprint(self) -> Fingerprint {
        Fingerprint(self.seen)
    }
}

/// The directory and its parents up to `top`, innermost first. If `top` is no parent, up to the root.
pub(crate) fn upwards<'a>(directory: &'a Path, top: &'a Path) -> impl Iterator<Item = &'a Path> {
    let mut done = false;
    directory.ancestors().take_while(move |at| !std::mem::replace(&mut done, *at == top))
}
