//! Reading files, and remembering what they were.

use std::collections::{BTreeMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// No file that is read here may be longer, in bytes.
const LARGEST: u64 = 1024 * 1024;
/// No folder is listed beyond this many entries.
const MOST_ENTRIES: usize = 10_000;

/// Folders are searched at most this deep.
pub(crate) const DEEPEST: usize = 16;
/// Of one folder at most this many folders below it are searched,
const MOST_FOLDERS: usize = 1_000;
/// and this many files are taken.
const MOST_FILES: usize = 1_000;
/// Folders that hold nothing of a user's own, and much of it.
const UNSEARCHED: [&str; 2] = [".git", "node_modules"];

/// A file system may give two changes the same time if they are closer than this: a tick of the kernel, with room.
const TICK: Duration = Duration::from_millis(50);

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

    /// True if another change could still bear the same time.
    fn is_young(&self) -> bool {
        let Self::Present { changed: (seconds, nanos), .. } = *self else { return false };
        let (Ok(seconds), Ok(nanos)) = (u64::try_from(seconds), u32::try_from(nanos)) else { return true };
        let changed = SystemTime::UNIX_EPOCH + Duration::new(seconds, nanos);
        SystemTime::now().duration_since(changed).is_ok_and(|age| age < TICK)
    }
}

/// What was seen at a path. Of what had just changed the content counts, too.
#[derive(Clone, Copy, Debug)]
struct Sight {
    stamp: Stamp,
    digest: Option<u64>,
}

/// Every path that a configuration was read from or looked for at, and what was there.
#[derive(Clone, Debug, Default)]
pub struct Fingerprint(BTreeMap<PathBuf, Sight>);

impl Fingerprint {
    /// True while every path is what it was. That costs one `stat` each; content is only read of what had changed less
    /// than 50 ms before it was read first.
    pub fn is_fresh(&self) -> bool {
        self.0.iter().all(|(path, sight)| match sight.stamp {
            Stamp::There => path.exists(),
            Stamp::Absent => !path.exists(),
            present => Stamp::of(path) == present && (sight.digest.is_none() || sight.digest == digest(path)),
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
    seen: BTreeMap<PathBuf, Sight>,
}

impl Files {
    /// The text of a file; `None` if there is none. A folder of that name counts as no file.
    pub fn read(&mut self, path: &Path) -> io::Result<Option<String>> {
        self.watch(path);
        if !path.is_file() {
            return Ok(None);
        }
        let bytes = content(path)?;
        if bytes.len() as u64 > LARGEST {
            return Err(io::Error::other(format!("longer than {LARGEST} bytes")));
        }
        Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
    }

    /// The entries of a folder, sorted by name; nothing if there is no such folder.
    pub fn list(&mut self, folder: &Path) -> Vec<PathBuf> {
        self.watch(folder);
        entries(folder)
    }

    /// The files below a folder that are wanted, searched no deeper than `depth`. Links are followed; the limits hold where
    /// they go in circles.
    pub fn find(&mut self, root: &Path, depth: usize, wanted: impl Fn(&Path) -> bool) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let mut folders = VecDeque::from([(root.to_owned(), depth)]);
        let mut visited = 0;
        while let Some((folder, depth)) = folders.pop_front() {
            for path in self.list(&folder) {
                if path.is_dir() {
                    if depth > 1 && !path.file_name().is_some_and(|name| UNSEARCHED.iter().any(|known| name == *known))
                    {
                        folders.push_back((path, depth - 1));
                    }
                } else if wanted(&path) {
                    found.push(path);
                }
            }
            visited += 1;
            if visited == MOST_FOLDERS || found.len() > MOST_FILES {
                tracing::warn!(folder = %root.display(), "too many files; the rest is left out");
                break;
            }
        }
        found.truncate(MOST_FILES);
        found
    }

    /// Whether a path is there. Only a change of that is a change.
    pub fn exists(&mut self, path: &Path) -> bool {
        let stamp = Stamp::existence(path);
        self.seen.entry(path.to_owned()).or_insert(Sight { stamp, digest: None });
        stamp == Stamp::There
    }

    /// Remembers what a path is, without giving its content.
    pub fn watch(&mut self, path: &Path) {
        self.seen.entry(path.to_owned()).or_insert_with(|| {
            let stamp = Stamp::of(path);
            Sight { stamp, digest: stamp.is_young().then(|| digest(path)).flatten() }
        });
    }

    /// What was seen.
    pub fn fingerprint(self) -> Fingerprint {
        Fingerprint(self.seen)
    }
}

/// The bytes of a file, of a long one somewhat more than may be used.
fn content(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(LARGEST + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut paths: Vec<_> = entries.take(MOST_ENTRIES).flatten().map(|entry| entry.path()).collect();
    paths.sort();
    paths
}

/// The text of a small file; `None` if there is none. Nothing is remembered.
pub(crate) fn text(path: &Path) -> Option<String> {
    // Opening a pipe would wait for whoever writes into it.
    path.is_file().then(|| content(path).ok())?.map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
}

/// A digest of a file's content, or of the names in a folder. It is compared within this process only.
fn digest(path: &Path) -> Option<u64> {
    if !path.is_dir() && !path.is_file() {
        return None;
    }
    let mut hasher = DefaultHasher::new();
    if path.is_dir() {
        entries(path).hash(&mut hasher)
    } else {
        content(path).ok()?.hash(&mut hasher)
    }
    Some(hasher.finish())
}

/// The directory and its parents up to `top`, innermost first. If `top` is no parent, up to the root.
pub(crate) fn upwards<'a>(directory: &'a Path, top: &'a Path) -> impl Iterator<Item = &'a Path> {
    let mut done = false;
    directory.ancestors().take_while(move |at| !std::mem::replace(&mut done, *at == top))
}
