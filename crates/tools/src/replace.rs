//! Replacing a file as a whole.

use crate::folder::{self, Folder, open_regular};
use crate::{Call, ToolError};
use rustix::fs::{FileType, Mode};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use wire::event::{file_edited, file_watcher_updated};

/// A file that is read as a whole to be changed is not larger than this.
const MAX_BYTES: u64 = 64 * 1024 * 1024;

/// The text of a file; `None` if there is none.
///
/// # Errors
/// Also if it is no UTF-8: it could not be written back unchanged.
pub(crate) async fn read_text(path: &Path) -> Result<Option<String>, ToolError> {
    let Some(bytes) = read(path).await? else { return Ok(None) };
    let text = String::from_utf8(bytes);
    text.map(Some).map_err(|_| ToolError::Failed(format!("{}: not UTF-8 text", path.display())))
}

/// The text of a file, only to be shown; `None` if there is none.
pub(crate) async fn read_lossy(path: &Path) -> Result<Option<String>, ToolError> {
    Ok(read(path).await?.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
}

async fn read(path: &Path) -> Result<Option<Vec<u8>>, ToolError> {
    let shown = path.display().to_string();
    let path = path.to_owned();
    let read = move || {
        let file = match open_regular(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened?,
        };
        let mut bytes = Vec::new();
        file.take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > MAX_BYTES { Err(io::ErrorKind::FileTooLarge.into()) } else { Ok(Some(bytes)) }
    };
    blocking(read).await.map_err(|error| explain(error, &shown))
}

/// Replaces a file by `text`, or makes it and the folders above it. A reader sees the old text or the new one.
///
/// `unique` is in the name of the file that is written first and renamed then: no other writer has the same.
pub(crate) async fn write_text(path: &Path, text: String, unique: &str) -> Result<(), ToolError> {
    let shown = path.display().to_string();
    let (path, unique) = (path.to_owned(), unique.to_owned());
    blocking(move || replace(&path, text.as_bytes(), &unique)).await.map_err(|error| explain(error, &shown))
}

/// Removes a file.
pub(crate) async fn remove(path: &Path) -> Result<(), ToolError> {
    let shown = path.display().to_string();
    let path = path.to_owned();
    let remove = move || {
        let (folder, name) = Folder::of(&path)?;
        folder.remove(name)
    };
    blocking(remove).await.map_err(|error| explain(error, &shown))
}

/// Tells clients that a tool wrote `path`.
pub(crate) async fn publish(call: &Call, path: &Path, existed: bool) {
    let path = path.display().to_string();
    call.host.publish(file_edited(&path)).await;
    call.host.publish(file_watcher_updated(&path, if existed { "change" } else { "add" })).await;
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}

fn explain(error: io::Error, path: &str) -> ToolError {
    match error.kind() {
        io::ErrorKind::IsADirectory => ToolError::Failed(format!("Path is a directory, not a file: {path}")),
        _ => ToolError::Failed(format!("{path}: {error}")),
    }
}

fn replace(path: &Path, bytes: &[u8], unique: &str) -> io::Result<()> {
    let (folder, name) = folder::split(path)?;
    let folder = Folder::make(folder)?;
    let old_mode = match folder.look(name)? {
        None => None,
        Some((FileType::RegularFile, mode)) if (mode & (Mode::WUSR | Mode::WGRP | Mode::WOTH)).is_empty() => {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        Some((FileType::RegularFile, mode)) => Some(mode.as_raw_mode()),
        Some((FileType::Directory, _)) => return Err(io::ErrorKind::IsADirectory.into()),
        Some(_) => return Err(io::Error::other("not a regular file")),
    };
    let beside = beside(name, unique);
    let mut file = folder.create(&beside)?;
    let written = file.write_all(bytes).and_then(|()| match old_mode {
        Some(mode) => file.set_permissions(fs::Permissions::from_mode(mode)),
        None => Ok(()),
    });
    written.and_then(|()| folder.rename(&beside, name)).inspect_err(|_| {
        let _ = folder.remove(&beside);
    })
}

/// The name of what is written first and renamed to `name` then.
pub(crate) fn beside(name: &OsStr, unique: &str) -> OsString {
    // Names may have 255 bytes; the original one is cut to leave room for what makes this one different.
    let short: String = name.to_string_lossy().chars().take(40).collect();
    format!(".{short}.{unique}.tmp").into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_replaced_file_keeps_its_mode_and_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("deep/er/run.sh");
        write_text(&path, "one".into(), "1").await.unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o751)).unwrap();
        write_text(&path, "two".into(), "2").await.unwrap();
        assert_eq!(read_text(&path).await.unwrap().as_deref(), Some("two"));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o751);
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }

    #[tokio::test]
    async fn what_is_no_regular_file_is_neither_read_nor_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let pipe = dir.path().join("pipe");
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        for path in [pipe.as_path(), dir.path(), Path::new("/dev/zero")] {
            assert!(read_text(path).await.is_err(), "{path:?}");
            assert!(write_text(path, "x".into(), "1").await.is_err(), "{path:?}");
        }
        let read_only = dir.path().join("read-only");
        fs::write(&read_only, "x").unwrap();
        fs::set_permissions(&read_only, fs::Permissions::from_mode(0o444)).unwrap();
        assert!(write_text(&read_only, "y".into(), "1").await.is_err());
        assert_eq!(read_text(&dir.path().join("none")).await.unwrap(), None);
    }
}
