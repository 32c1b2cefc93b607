//! Putting files of a work tree back to what they were.

use crate::folder::{self, Folder};
use crate::replace::beside;
use rustix::fs::FileType;
use std::ffi::OsString;
use std::fs::Permissions;
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// What was at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Held {
    /// Nothing.
    Nothing,
    /// A file.
    File {
        /// What was in it.
        bytes: Vec<u8>,
        /// Whether it could be executed.
        executable: bool,
    },
    /// A symbolic link that led there.
    Link(OsString),
}

/// Puts back what was at an absolute path of which no folder is a link. A reader sees what is there now or what was there
/// then. `unique` is in the name of what is written first and renamed then. Blocks.
///
/// # Errors
/// Also if a folder with files in it is there now, or something else in the place of a folder above it.
pub fn put_back(path: &Path, held: &Held, unique: &str) -> io::Result<()> {
    let (folder, name) = folder::split(path)?;
    let folder = match held {
        Held::Nothing => match Folder::open(folder) {
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                return Ok(());
            }
            folder => folder?,
        },
        _ => Folder::make(folder)?,
    };
    let mut there = folder.look(name)?;
    if matches!(there, Some((FileType::Directory, _))) {
        if *held == Held::Nothing || folder.remove_empty(name).is_err() {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        there = None;
    }
    let beside = beside(name, unique);
    let written = match held {
        Held::Nothing if there.is_none() => return Ok(()),
        Held::Nothing => return folder.remove(name),
        Held::Link(target) => folder.link(target, &beside),
        Held::File { bytes, executable } => folder.create(&beside).and_then(|mut file| {
            file.write_all(bytes)?;
            let new = file.metadata()?.permissions().mode();
            let mode = match there {
                Some((FileType::RegularFile, mode)) => mode.as_raw_mode(),
                _ => new,
            };
            // Whoever may read it may execute it, as with git.
            let mode = if *executable { mode | (mode & 0o444) >> 2 } else { mode & !0o111 };
            file.set_permissions(Permissions::from_mode(mode & 0o7777))
        }),
    };
    written.and_then(|()| folder.rename(&beside, name)).inspect_err(|_| {
        let _ = folder.remove(&beside);
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    #[test]
    fn what_was_there_is_there_again_whatever_is_there_now() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        let file = |text: &str, executable| Held::File { bytes: text.into(), executable };
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;

        let path = root.join("deep/er/run");
        put_back(&path, &file("one", true), "1").unwrap();
        assert_eq!((fs::read_to_string(&path).unwrap().as_str(), mode(&path) & 0o100), ("one", 0o100));
        fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        put_back(&path, &file("two", true), "2").unwrap();
        assert_eq!((fs::read_to_string(&path).unwrap().as_str(), mode(&path)), ("two", 0o700), "nobody else may now");
        put_back(&path, &Held::Link("away".into()), "3").unwrap();
        assert_eq!(fs::read_link(&path).unwrap(), Path::new("away"));
        put_back(&path, &file("three", false), "4").unwrap();
        assert!(fs::symlink_metadata(&path).unwrap().is_file(), "the link is replaced, not followed");
        assert_eq!(mode(&path) & 0o111, 0);
        for unique in ["5", "6"] {
            put_back(&path, &Held::Nothing, unique).unwrap();
            assert!(!path.exists());
        }
        put_back(&root.join("no/such/folder/file"), &Held::Nothing, "7").unwrap();
        assert_eq!(fs::read_dir(root.join("deep/er")).unwrap().count(), 0, "nothing is left behind");
    }

    #[test]
    fn nothing_is_written_through_a_link_and_no_folder_with_files_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        fs::create_dir_all(root.join("outside")).unwrap();
        fs::write(root.join("outside/kept"), "").unwrap();
        symlink("outside", root.join("link")).unwrap();
        let held = Held::File { bytes: Vec::new(), executable: false };
        assert!(put_back(&root.join("link/file"), &held, "1").is_err());
        for held in [held, Held::Nothing] {
            assert!(put_back(&root.join("outside"), &held, "2").is_err());
        }
        assert_eq!(fs::read_dir(root.join("outside")).unwrap().count(), 1);
        fs::create_dir_all(root.join("empty/in/it")).unwrap();
        let held = Held::Link("outside".into());
        assert!(put_back(&root.join("empty"), &Held::Nothing, "3").is_err());
        put_back(&root.join("empty"), &held, "4").unwrap();
        assert_eq!(fs::read_link(root.join("empty")).unwrap(), Path::new("outside"));
    }
}
