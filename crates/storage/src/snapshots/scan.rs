//! Going through a work tree for a snapshot. What was looked at before and has not changed since is not read again.

use super::content::{ContentId, Entry, Kind};
use crate::error::{At, Result, StoreError};
use ignore::{DirEntry, WalkBuilder};
use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The content of a larger file is not taken, in bytes.
const LARGEST: u64 = 2 * 1024 * 1024;
/// A work tree with more files has no snapshots.
const MOST_FILES: usize = 200_000;
/// A snapshot that is not taken after so long is not taken at all.
const PATIENCE: Duration = Duration::from_secs(60);
/// A file that changed so shortly before it was read may have changed once more under the same time stamp.
const YOUNG: Duration = Duration::from_secs(2);

/// What tells one content of a file from the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
    mode: u32,
}

/// A file as it was seen.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen {
    stamp: Stamp,
    pub(crate) entry: Entry,
    /// The stamp was old enough when the file was read: as long as it is the same, the content is.
    settled: bool,
}

/// The files of a work tree as they were seen last.
#[derive(Debug, Default)]
pub(crate) struct Seeing {
    pub(crate) files: HashMap<PathBuf, Seen>,
    /// When they were, by the clock of this machine.
    pub(crate) at: Option<Instant>,
}

impl Seeing {
    /// What it weighs in memory, in bytes.
    pub(crate) fn weight(&self) -> usize {
        self.files.keys().map(|path| path.as_os_str().len() + 160).sum()
    }
}

/// Goes through the files below `root`, except what its `.gitignore` files exclude and other repositories. `keep` is given
/// each content that is not known from `before`. None: there are too many files, or it took too long.
pub(crate) fn scan(
    root: &Path,
    before: &Seeing,
    mut keep: impl FnMut(&ContentId, &[u8]) -> Result<()>,
) -> Result<Option<Seeing>> {
    let (began, now) = (Instant::now(), SystemTime::now());
    let mut files = HashMap::with_capacity(before.files.len());
    for entry in walk(root) {
        if files.len() == MOST_FILES || began.elapsed() > PATIENCE {
            return Ok(None);
        }
        // What is gone again, or may not be looked at, is not there.
        let Ok(entry) = entry else { continue };
        let (Ok(metadata), Ok(path)) = (entry.metadata(), entry.path().strip_prefix(root)) else { continue };
        if !(metadata.is_file() || metadata.is_symlink()) {
            continue;
        }
        let stamp = stamp_of(&metadata);
        let seen = match before.files.get(path) {
            Some(seen) if seen.settled && seen.stamp == stamp => *seen,
            _ => match look(entry.path(), &metadata, &mut keep)? {
                Some(entry) => Seen { stamp, entry, settled: is_settled(&stamp, now) },
                None => continue,
            },
        };
        files.insert(path.to_owned(), seen);
    }
    Ok(Some(Seeing { files, at: Some(began) }))
}

fn walk(root: &Path) -> ignore::Walk {
    let is_own = |entry: &DirEntry| {
        entry.file_name() != OsStr::new(".git")
            && (entry.depth() == 0
                || !entry.file_type().is_some_and(|kind| kind.is_dir())
                || !entry.path().join(".git").exists())
    };
    WalkBuilder::new(root)
        .hidden(false)
        .ignore(false)
        .parents(false)
        // Whose rules that would be depends on the server's environment.
        .git_global(false)
        .filter_entry(is_own)
        .build()
}

/// Reads what is at a path. None if it is gone.
fn look(
    path: &Path,
    metadata: &Metadata,
    keep: &mut impl FnMut(&ContentId, &[u8]) -> Result<()>,
) -> Result<Option<Entry>> {
    let untold = Entry { kind: Kind::Untold, content: ContentId::NONE };
    let (kind, bytes) = if metadata.is_symlink() {
        (Kind::Link, std::fs::read_link(path).map(|target| Some(target.as_os_str().as_bytes().to_vec())))
    } else {
        let is_executable = metadata.permissions().mode() & 0o100 != 0;
        (if is_executable { Kind::Executable } else { Kind::File }, read(path))
    };
    match bytes {
        Ok(Some(bytes)) => {
            let content = ContentId::of(&bytes);
            keep(&content, &bytes)?;
            Ok(Some(Entry { kind, content }))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Ok(None) | Err(_) => Ok(Some(untold)),
    }
}

/// A file's content; none if it is too large.
fn read(path: &Path) -> io::Result<Option<Vec<u8>>> {
    // Whatever has come in its place since it was looked at: no link is followed, no pipe waited for.
    let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
    let file = File::options().read(true).custom_flags(flags.bits().cast_signed()).open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() || metadata.len() > LARGEST {
        return Ok(None);
    }
    let mut bytes = Vec::with_capacity(usize::try_from(metadata.len()).unwrap_or_default());
    file.take(LARGEST + 1).read_to_end(&mut bytes)?;
    Ok(Some(bytes).filter(|bytes| bytes.len() as u64 <= LARGEST))
}

fn stamp_of(metadata: &Metadata) -> Stamp {
    Stamp {
        inode: metadata.ino(),
        size: metadata.size(),
        modified: (metadata.mtime(), metadata.mtime_nsec()),
        changed: (metadata.ctime(), metadata.ctime_nsec()),
        mode: metadata.mode(),
    }
}

fn is_settled(stamp: &Stamp, now: SystemTime) -> bool {
    let (seconds, nanos) = stamp.changed.max(stamp.modified);
    let (Ok(seconds), Ok(nanos)) = (u64::try_from(seconds), u32::try_from(nanos)) else { return true };
    now.duration_since(UNIX_EPOCH + Duration::new(seconds, nanos)).is_ok_and(|age| age > YOUNG)
}

/// Where a work tree really is.
pub(crate) fn real(worktree: &Path) -> Result<PathBuf, StoreError> {
    worktree.canonicalize().at(worktree)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use std::fs;

    fn names(root: &Path, before: &Seeing) -> (Seeing, BTreeMap<String, Kind>, usize) {
        let mut read = 0;
        let seeing = scan(root, before, |_, _| {
            read += 1;
            Ok(())
        });
        let seeing = seeing.unwrap().unwrap();
        let kinds = seeing.files.iter().map(|(path, seen)| (path.display().to_string(), seen.entry.kind)).collect();
        (seeing, kinds, read)
    }

    #[test]
    fn what_git_would_not_add_is_not_seen_and_links_are_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("tree");
        for folder in [".git", "src", "built", "other/.git", "deep/er"] {
            fs::create_dir_all(root.join(folder)).unwrap();
        }
        let secret = dir.path().join("outside");
        fs::create_dir(&secret).unwrap();
        fs::write(secret.join("secret"), "s").unwrap();
        for (path, text) in [
            (".git/config", ""),
            (".gitignore", "built\n*.log\n"),
            (".hidden", "h"),
            (".ignore", "src\n"),
            ("src/main.rs", "m"),
            ("built/out", "o"),
            ("deep/er/x.log", "l"),
            ("deep/er/.gitignore", "y\n"),
            ("deep/er/y", "y"),
            ("deep/er/z", "z"),
            ("other/file", "f"),
        ] {
            fs::write(root.join(path), text).unwrap();
        }
        std::os::unix::fs::symlink(&secret, root.join("link")).unwrap();
        fs::write(root.join("run.sh"), "r").unwrap();
        fs::set_permissions(root.join("run.sh"), fs::Permissions::from_mode(0o755)).unwrap();
        File::create(root.join("large")).unwrap().set_len(LARGEST + 1).unwrap();
        let (_, kinds, _) = names(&root, &Seeing::default());
        let expected = [
            (".gitignore", Kind::File),
            (".hidden", Kind::File),
            (".ignore", Kind::File),
            ("deep/er/.gitignore", Kind::File),
            ("deep/er/z", Kind::File),
            ("large", Kind::Untold),
            ("link", Kind::Link),
            ("run.sh", Kind::Executable),
            ("src/main.rs", Kind::File),
        ];
        assert_eq!(kinds, expected.map(|(name, kind)| (name.to_owned(), kind)).into());
    }

    #[test]
    fn a_file_is_read_again_only_if_it_may_have_changed() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["old", "new", "other"] {
            fs::write(dir.path().join(name), name).unwrap();
        }
        let (mut first, _, read) = names(dir.path(), &Seeing::default());
        assert_eq!(read, 3);
        assert!(first.files.values().all(|seen| !seen.settled), "they were written this moment");
        first.files.values_mut().for_each(|seen| seen.settled = true);
        let (again, _, read) = names(dir.path(), &first);
        assert_eq!((read, again.files.len()), (0, 3));
        fs::write(dir.path().join("new"), "wen").unwrap();
        fs::remove_file(dir.path().join("other")).unwrap();
        let (changed, _, read) = names(dir.path(), &first);
        assert_eq!((read, changed.files.len()), (1, 2));
        assert_ne!(changed.files[Path::new("new")].entry, first.files[Path::new("new")].entry);
        assert_eq!(changed.files[Path::new("old")].entry, first.files[Path::new("old")].entry);
    }
}
