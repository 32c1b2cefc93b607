//! The few operations that the store needs of a file system, and the real one.

use rustix::buffer::spare_capacity;
use rustix::fs::{AtFlags, CWD, Mode, OFlags, RenameFlags};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;

/// What tells one version of a file from the next: every write is a rename, so the inode changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stamp {
    /// The inode.
    pub inode: u64,
    /// Nanoseconds since the epoch, by the file system's clock. Only ever compared for equality.
    pub modified: i128,
    /// Bytes.
    pub size: u64,
}

/// A file system as the store sees it. Every path is absolute; no operation makes a missing parent.
///
/// `rename` is atomic: it happens or it does not, and a reader sees the old file or the new one. Nothing is durable
/// before `fsync_file` (a file's contents) and `fsync_dir` (a directory's names).
pub trait Disk: Send + Sync {
    /// Makes a file that must not be there, with these contents.
    fn create(&self, path: &Path, bytes: &[u8]) -> io::Result<()>;
    /// Moves a file over whatever is at `to`, or a directory to where nothing or an empty directory is.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Moves a file; `AlreadyExists` if something is at `to`.
    fn rename_new(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Makes a directory.
    fn mkdir(&self, path: &Path) -> io::Result<()>;
    /// Removes an empty directory.
    fn rmdir(&self, path: &Path) -> io::Result<()>;
    /// Removes a file.
    fn unlink(&self, path: &Path) -> io::Result<()>;
    /// A file's contents and the stamp of just these contents.
    fn read(&self, path: &Path) -> io::Result<(Vec<u8>, Stamp)>;
    /// Up to `most` bytes of a file's contents, from one place on; fewer only at its end.
    fn read_piece(&self, path: &Path, from: u64, most: usize) -> io::Result<Vec<u8>>;
    /// The stamp of a file or directory.
    fn stamp(&self, path: &Path) -> io::Result<Stamp>;
    /// The names in a directory, in no order; those that are not UTF-8 are left out.
    fn list(&self, path: &Path) -> io::Result<Vec<String>>;
    /// The names in a directory with their stamps.
    fn list_stamped(&self, path: &Path) -> io::Result<Vec<(String, Stamp)>>;
    /// Makes a file's contents durable.
    fn fsync_file(&self, path: &Path) -> io::Result<()>;
    /// Makes a directory's names durable.
    fn fsync_dir(&self, path: &Path) -> io::Result<()>;
}

/// The file system of this machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct LocalDisk;

impl Disk for LocalDisk {
    fn create(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        std::fs::OpenOptions::new().write(true).create_new(true).open(path)?.write_all(bytes)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        Ok(rustix::fs::rename(from, to)?)
    }

    fn rename_new(&self, from: &Path, to: &Path) -> io::Result<()> {
        match rustix::fs::renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
            // Not every file system can; a hard link does not replace, either.
            Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS | rustix::io::Errno::NOTSUP) => {
                rustix::fs::link(from, to)?;
                Ok(rustix::fs::unlink(from)?)
            }
            result => Ok(result?),
        }
    }

    fn mkdir(&self, path: &Path) -> io::Result<()> {
        std::fs::create_dir(path)
    }

    fn rmdir(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_dir(path)
    }

    fn unlink(&self, path: &Path) -> io::Result<()> {
        Ok(rustix::fs::unlink(path)?)
    }

    fn read(&self, path: &Path) -> io::Result<(Vec<u8>, Stamp)> {
        let file = std::fs::File::open(path)?;
        let stamp = stamp_of(&rustix::fs::fstat(&file)?);
        // A record never changes once it is in its place: its size is known, and nothing is asked twice.
        let mut bytes = Vec::with_capacity(usize::try_from(stamp.size).unwrap_or_default());
        while (bytes.len() as u64) < stamp.size {
            match rustix::io::read(&file, spare_capacity(&mut bytes)) {
                Ok(0) => break,
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok((bytes, stamp))
    }

    fn read_piece(&self, path: &Path, from: u64, most: usize) -> io::Result<Vec<u8>> {
        let mut file = std::fs::File::open(path)?;
        file.seek(SeekFrom::Start(from))?;
        let mut bytes = Vec::with_capacity(most);
        file.take(most as u64).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    fn stamp(&self, path: &Path) -> io::Result<Stamp> {
        Ok(stamp_of(&rustix::fs::stat(path)?))
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(path)? {
            names.extend(entry?.file_name().into_string().ok());
        }
        Ok(names)
    }

    fn list_stamped(&self, path: &Path) -> io::Result<Vec<(String, Stamp)>> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = rustix::fs::open(path, flags, Mode::empty())?;
        let mut entries = Vec::new();
        for entry in rustix::fs::Dir::read_from(&directory)? {
            let entry = entry?;
            let Ok(name) = entry.file_name().to_str() else { continue };
            if name == "." || name == ".." {
                continue;
            }
            // Relative to the open directory: a third of the cost of a whole path, and it counts for ten thousand.
            match rustix::fs::statat(&directory, entry.file_name(), AtFlags::empty()) {
                Ok(stat) => entries.push((name.to_owned(), stamp_of(&stat))),
                Err(rustix::io::Errno::NOENT) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(entries)
    }

    fn fsync_file(&self, path: &Path) -> io::Result<()> {
        std::fs::File::open(path)?.sync_all()
    }

    fn fsync_dir(&self, path: &Path) -> io::Result<()> {
        std::fs::File::open(path)?.sync_all()
    }
}

fn stamp_of(stat: &rustix::fs::Stat) -> Stamp {
    Stamp {
        inode: stat.st_ino,
        modified: i128::from(stat.st_mtime) * 1_000_000_000 + i128::from(stat.st_mtime_nsec),
        size: u64::try_from(stat.st_size).unwrap_or_default(),
    }
}
