//! Opening files by paths of which no part is a symbolic link.
//!
//! Where a path leads is found out before a permission is asked for it (see [`crate::paths::Target`]). What was asked
//! for is what is opened: whatever has become a link since then is not followed, so nobody can put one there in time.

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, mkdirat, openat, renameat, statat, symlinkat, unlinkat};
use rustix::io::Errno;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::path::{Component, Path};

/// How a folder on the way is opened: only to go on from.
const STEP: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// How a file is read: a pipe without a writer is not waited for.
const READ: OFlags = OFlags::RDONLY.union(OFlags::NONBLOCK).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// How many empty folders in one folder are removed with it.
const MOST_EMPTY: usize = 10_000;

/// A folder that was reached without following a link. It stays the same folder, whatever its path becomes.
pub(crate) struct Folder(OwnedFd);

impl Folder {
    /// Opens a folder by its absolute path.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        Self::walk(path, false)
    }

    /// The same; the folders that are missing are made.
    pub(crate) fn make(path: &Path) -> io::Result<Self> {
        Self::walk(path, true)
    }

    /// The folder that holds the file `path`, and the file's name.
    pub(crate) fn of(path: &Path) -> io::Result<(Self, &OsStr)> {
        let (folder, name) = split(path)?;
        Ok((Self::open(folder)?, name))
    }

    fn walk(path: &Path, make: bool) -> io::Result<Self> {
        if !path.is_absolute() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let step = |at: &OwnedFd, name: &OsStr| openat(at, name, STEP, Mode::empty());
        let mut at = openat(CWD, "/", STEP, Mode::empty())?;
        for component in path.components() {
            let name = match component {
                Component::RootDir => continue,
                Component::Normal(name) => name,
                _ => return Err(io::ErrorKind::InvalidInput.into()),
            };
            at = match step(&at, name) {
                Err(Errno::NOENT) if make => match mkdirat(&at, name, Mode::from_raw_mode(0o777)) {
                    Ok(()) | Err(Errno::EXIST) => step(&at, name)?,
                    Err(error) => return Err(error.into()),
                },
                stepped => stepped?,
            };
        }
        Ok(Self(at))
    }

    /// Makes a file that must not be there, to be written.
    pub(crate) fn create(&self, name: &OsStr) -> io::Result<File> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(openat(&self.0, name, flags, Mode::from_raw_mode(0o666))?.into())
    }

    /// Puts the file `from` in the place of whatever is at `to`.
    pub(crate) fn rename(&self, from: &OsStr, to: &OsStr) -> io::Result<()> {
        Ok(renameat(&self.0, from, &self.0, to)?)
    }

    /// Makes a symbolic link where nothing is.
    pub(crate) fn link(&self, target: &OsStr, name: &OsStr) -> io::Result<()> {
        Ok(symlinkat(target, &self.0, name)?)
    }

    /// Removes a file, or a link itself.
    pub(crate) fn remove(&self, name: &OsStr) -> io::Result<()> {
        Ok(unlinkat(&self.0, name, AtFlags::empty())?)
    }

    /// Removes a folder in which there is no file, at any depth.
    ///
    /// # Errors
    /// Also if there is one: then empty folders beside it may be gone.
    pub(crate) fn remove_empty(&self, name: &OsStr) -> io::Result<()> {
        match unlinkat(&self.0, name, AtFlags::REMOVEDIR) {
            Err(Errno::NOTEMPTY | Errno::EXIST) => {}
            removed => return Ok(removed?),
        }
        let inner = openat(&self.0, name, READ | OFlags::DIRECTORY, Mode::empty())?;
        let found = entries(&inner.try_clone()?.into(), MOST_EMPTY)?;
        let inner = Self(inner);
        for entry in found {
            inner.remove_empty(&entry.name)?;
        }
        Ok(unlinkat(&self.0, name, AtFlags::REMOVEDIR)?)
    }

    /// What kind of thing is at a name, and its mode; `None` if nothing is there.
    pub(crate) fn look(&self, name: &OsStr) -> io::Result<Option<(FileType, Mode)>> {
        match statat(&self.0, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some((FileType::from_raw_mode(stat.st_mode), Mode::from_raw_mode(stat.st_mode)))),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

/// Opens a file or a folder to read it, by its absolute path.
pub(crate) fn open(path: &Path) -> io::Result<File> {
    if path.parent().is_none() {
        return Ok(openat(&Folder::open(path)?.0, ".", READ, Mode::empty())?.into());
    }
    let (folder, name) = Folder::of(path)?;
    Ok(openat(&folder.0, name, READ, Mode::empty())?.into())
}

/// Opens a regular file to read it, by its absolute path.
///
/// # Errors
/// Also for everything that is no regular file.
pub(crate) fn open_regular(path: &Path) -> io::Result<File> {
    let file = open(path)?;
    match file.metadata()? {
        metadata if metadata.is_file() => Ok(file),
        metadata if metadata.is_dir() => Err(io::ErrorKind::IsADirectory.into()),
        _ => Err(io::Error::other("not a regular file")),
    }
}

/// What is at a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A regular file.
    File,
    /// A folder.
    Folder,
    /// Anything else, such as a link.
    Other,
}

/// A name in a folder, and whether a folder is there or at the end of a link.
pub(crate) struct Entry {
    /// The name.
    pub(crate) name: OsString,
    /// What is there itself.
    pub(crate) kind: Kind,
    /// It leads to a folder.
    pub(crate) is_directory: bool,
}

/// The names in an opened folder, in no order.
///
/// # Errors
/// Also if there are more than `most`.
pub(crate) fn entries(folder: &File, most: usize) -> io::Result<Vec<Entry>> {
    let mut entries = Vec::new();
    for entry in Dir::read_from(folder)? {
        let entry = entry?;
        if matches!(entry.file_name().to_bytes(), b"." | b"..") {
            continue;
        }
        if entries.len() == most {
            return Err(io::Error::other(format!("more than {most} entries")));
        }
        let ask = |flags: AtFlags| match statat(folder, entry.file_name(), flags) {
            Ok(stat) => FileType::from_raw_mode(stat.st_mode),
            Err(_) => FileType::Unknown,
        };
        // Not every file system says so with the name.
        let itself = match entry.file_type() {
            FileType::Unknown => ask(AtFlags::SYMLINK_NOFOLLOW),
            known => known,
        };
        let kind = match itself {
            FileType::RegularFile => Kind::File,
            FileType::Directory => Kind::Folder,
            _ => Kind::Other,
        };
        // Asked of what a link leads to, if it leads anywhere.
        let is_directory = match itself {
            FileType::Symlink => ask(AtFlags::empty()) == FileType::Directory,
            _ => kind == Kind::Folder,
        };
        entries.push(Entry { name: OsString::from_vec(entry.file_name().to_bytes().to_vec()), kind, is_directory });
    }
    Ok(entries)
}

/// The folder and the name of a file.
pub(crate) fn split(path: &Path) -> io::Result<(&Path, &OsStr)> {
    match (path.parent(), path.file_name()) {
        (Some(folder), Some(name)) => Ok((folder, name)),
        _ => Err(io::ErrorKind::InvalidInput.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    #[test]
    fn no_part_of_a_path_may_have_become_a_link() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        fs::create_dir_all(root.join("real/deep")).unwrap();
        fs::write(root.join("real/deep/file"), "x").unwrap();
        symlink("real", root.join("link")).unwrap();
        symlink("real/deep/file", root.join("file")).unwrap();
        assert!(open_regular(&root.join("real/deep/file")).is_ok());
        assert!(open(&root.join("link/deep/file")).is_err());
        assert!(open(&root.join("file")).is_err());
        assert!(open(&root.join("link")).is_err());
        assert!(Folder::make(&root.join("link/new")).is_err());
        assert!(!root.join("real/new").exists());
        assert!(Folder::make(&root.join("real/a/b")).is_ok());
        assert!(Folder::open(Path::new("relative")).is_err());
        assert!(Folder::open(&root.join("real/../real")).is_err());
    }

    #[test]
    fn folders_are_listed_with_what_their_links_lead_to() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        fs::create_dir(root.join("folder")).unwrap();
        symlink("folder", root.join("link")).unwrap();
        symlink("nowhere", root.join("dangling")).unwrap();
        let mut names: Vec<_> =
            entries(&open(&root).unwrap(), 3).unwrap().into_iter().map(|e| (e.name, e.is_directory)).collect();
        names.sort();
        assert_eq!(names, [("dangling".into(), false), ("folder".into(), true), ("link".into(), true)]);
        assert!(entries(&open(&root).unwrap(), 2).is_err());
        assert!(open(Path::new("/")).unwrap().metadata().unwrap().is_dir());
    }
}
