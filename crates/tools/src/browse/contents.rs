//! What is in a folder, and in a file.

use super::{BrowseError, Place};
use crate::builtin::read::attachable;
use crate::folder::{self, Kind};
use crate::search;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::Serialize;
use std::collections::HashSet;
use std::ffi::OsString;
use std::io::{self, Read};
use std::path::Path;

/// A folder with more entries than this is not listed.
const MAX_ENTRIES: usize = 20_000;

/// A larger file is not shown.
const MAX_BYTES: u64 = 16 * 1024 * 1024;

/// A file or a folder in a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FileNode {
    /// Its name.
    pub name: String,
    /// Its path relative to the directory, that of a folder with a slash at the end.
    pub path: String,
    /// Its absolute path.
    pub absolute: String,
    /// `file` or `directory`.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// Whether `.gitignore` and its kin exclude it, or a folder that it is in.
    pub ignored: bool,
}

/// What is in a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FileContent {
    /// `text` or `binary`.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// The text without white space around it; bytes as `encoding` says.
    pub content: String,
    /// `base64` where it is binary.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub encoding: Option<&'static str>,
    /// What kind of binary file it is.
    #[serde(rename = "mimeType", skip_serializing_if = "Option::is_none")]
    pub mime: Option<&'static str>,
}

/// The files and folders in a folder, folders first. Links are left out.
///
/// # Errors
/// [`BrowseError::Refused`] where there is no such folder in the directory, or too much in it.
pub fn list(directory: &Path, path: &str) -> Result<Vec<FileNode>, BrowseError> {
    let place = Place::locate(directory, path)?;
    let refused = |error: io::Error| BrowseError::Refused(format!("Not a folder that can be listed: {path} ({error})"));
    let opened = folder::open(&place.real).map_err(refused)?;
    let entries = folder::entries(&opened, MAX_ENTRIES).map_err(refused)?;
    let taken = not_ignored(&place);
    let mut nodes: Vec<FileNode> = entries
        .into_iter()
        .filter_map(|entry| {
            let (kind, slash) = match entry.kind {
                Kind::Folder => ("directory", "/"),
                Kind::File => ("file", ""),
                Kind::Other => return None,
            };
            let ignored = !taken.contains(&entry.name);
            let name = entry.name.into_string().ok()?;
            let path = format!("{}{slash}", place.relative.join(&name).display());
            let absolute = place.shown.join(&name).display().to_string();
            Some(FileNode { name, path, absolute, kind, ignored })
        })
        .collect();
    nodes.sort_by_cached_key(|node| (node.kind, node.name.to_lowercase(), node.name.clone()));
    Ok(nodes)
}

/// The names in a folder that nothing excludes: what is met on the way there and no further.
fn not_ignored(place: &Place) -> HashSet<OsString> {
    let folder = place.real.clone();
    let depth = folder.strip_prefix(&place.root).map_or(0, |way| way.components().count());
    let walk = search::walk(&place.root, true)
        .max_depth(Some(depth + 1))
        .filter_entry(move |entry| folder.starts_with(entry.path()) || entry.path().parent() == Some(&folder))
        .build();
    let entries = walk.filter_map(Result::ok).filter(|entry| entry.path().parent() == Some(&place.real));
    entries.map(|entry| entry.file_name().to_owned()).collect()
}

/// The content of a file; that of a missing one is empty.
///
/// # Errors
/// [`BrowseError::Refused`] where it is not in the directory, no regular file, or too large.
pub fn content(directory: &Path, path: &str) -> Result<FileContent, BrowseError> {
    let place = Place::locate(directory, path)?;
    let bytes = match read(&place.real) {
        Ok(bytes) => bytes,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Vec::new(),
        Err(error) => return Err(BrowseError::Refused(format!("Not a file that can be read: {path} ({error})"))),
    };
    let text = if bytes.contains(&0) { None } else { std::str::from_utf8(&bytes).ok() };
    Ok(match text {
        Some(text) => {
            let content = text.trim_matches(|c: char| c.is_whitespace() || c == '\u{feff}').to_owned();
            FileContent { kind: "text", content, encoding: None, mime: None }
        }
        None => FileContent {
            kind: "binary",
            content: BASE64_STANDARD.encode(&bytes),
            encoding: Some("base64"),
            mime: Some(attachable(&bytes).unwrap_or("application/octet-stream")),
        },
    })
}

fn read(file: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    folder::open_regular(file)?.take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(io::Error::other(format!("larger than {} MiB", MAX_BYTES >> 20)));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    /// A directory with files, and links out of it and within it.
    fn directory() -> (tempfile::TempDir, tempfile::TempDir) {
        let (dir, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::write(outside.path().join("secret"), "x").unwrap();
        for folder in [".git", "src/deep", "target/sub"] {
            fs::create_dir_all(dir.path().join(folder)).unwrap();
        }
        for (path, text) in [
            (".gitignore", "target\n*.log\n"),
            ("B.txt", " \u{feff}b\n\n"),
            ("a.log", ""),
            ("src/c", "c"),
            ("target/d", "d"),
        ] {
            fs::write(dir.path().join(path), text).unwrap();
        }
        symlink(outside.path(), dir.path().join("out")).unwrap();
        symlink(outside.path().join("secret"), dir.path().join("secret")).unwrap();
        symlink("src", dir.path().join("in")).unwrap();
        (dir, outside)
    }

    fn listed(directory: &Path, path: &str) -> Vec<(String, bool)> {
        list(directory, path).unwrap().into_iter().map(|node| (node.path, node.ignored)).collect()
    }

    #[test]
    fn a_folder_is_listed_with_what_is_ignored() {
        let (dir, _outside) = directory();
        let named =
            |names: &[(&str, bool)]| names.iter().map(|(path, ignored)| ((*path).into(), *ignored)).collect::<Vec<_>>();
        let root = named(&[
            (".git/", false),
            ("src/", false),
            ("target/", true),
            (".gitignore", false),
            ("a.log", true),
            ("B.txt", false),
        ]);
        assert_eq!(listed(dir.path(), ""), root);
        assert_eq!(listed(dir.path(), "src/.."), root);
        assert_eq!(listed(dir.path(), "target"), named(&[("target/sub/", true), ("target/d", true)]));
        assert_eq!(listed(dir.path(), "in"), named(&[("in/deep/", false), ("in/c", false)]));
        let absolute = dir.path().join("src");
        assert_eq!(listed(dir.path(), absolute.to_str().unwrap()), named(&[("src/deep/", false), ("src/c", false)]));
    }

    #[test]
    fn nothing_outside_of_the_directory_is_shown() {
        let (dir, outside) = directory();
        let away = outside.path().to_str().unwrap();
        for path in ["..", "/", "out", "src/../..", "secret", "out/secret", "out/nothing", away, "\0"] {
            assert!(list(dir.path(), path).is_err(), "{path}");
            assert!(content(dir.path(), path).is_err(), "{path}");
        }
        assert!(list(dir.path(), "B.txt").is_err() && list(dir.path(), "none").is_err());
        assert!(content(dir.path(), "src").is_err());
    }

    #[test]
    fn a_file_is_shown_as_text_where_it_is_text() {
        let (dir, _outside) = directory();
        let text = |path: &str| content(dir.path(), path).unwrap().content;
        assert_eq!(
            (text("B.txt").as_str(), text("in/c").as_str(), text("none").as_str(), text("B.txt/x").as_str()),
            ("b", "c", "", "")
        );
        fs::write(dir.path().join("binary"), [0x89, b'P', b'N', b'G', b'\r', b'\n', 0x1a, b'\n', 0]).unwrap();
        let binary = content(dir.path(), "binary").unwrap();
        assert_eq!((binary.kind, binary.encoding, binary.mime), ("binary", Some("base64"), Some("image/png")));
        fs::write(dir.path().join("latin"), b"caf\xe9").unwrap();
        assert_eq!(content(dir.path(), "latin").unwrap().content, "Y2Fm6Q==");
        fs::File::create(dir.path().join("large")).unwrap().set_len(MAX_BYTES + 1).unwrap();
        assert!(content(dir.path(), "large").is_err());
    }
}
