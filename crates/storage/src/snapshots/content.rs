//! What a snapshot says: which files there were, and what was in them.

use crate::error::{Result, StoreError};
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Names a snapshot of a work tree by what it holds: 40 hex digits.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SnapshotId(String);

/// Names a file's content as git does: 40 hex digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ContentId([u8; 20]);

/// What a name in a work tree stood for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A file.
    File,
    /// A file that may be executed.
    Executable,
    /// A symbolic link; its content is where it leads.
    Link,
    /// A file whose content was not taken: too large, or not to be read.
    Untold,
}

/// A name of a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// What it stood for.
    pub kind: Kind,
    /// What was in it.
    pub content: ContentId,
}

/// The files of a work tree at a moment, by their paths below its root.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot(pub(crate) BTreeMap<PathBuf, Entry>);

impl SnapshotId {
    /// The id in a text from outside, if it is one.
    pub fn parse(text: &str) -> Option<Self> {
        (text.len() == 40 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))).then(|| Self(text.into()))
    }

    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SnapshotId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl ContentId {
    /// No content.
    pub(crate) const NONE: Self = Self([0; 20]);

    /// The id of these bytes.
    pub(crate) fn of(bytes: &[u8]) -> Self {
        let mut hash = sha1_smol::Sha1::new();
        hash.update(format!("blob {}\0", bytes.len()).as_bytes());
        hash.update(bytes);
        Self(hash.digest().bytes())
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut bytes = [0; 20];
        for (byte, digits) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
            *byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
        }
        (text.len() == 40).then_some(Self(bytes))
    }
}

impl fmt::Display for ContentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for ContentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl Snapshot {
    /// What a path below the root stood for.
    pub fn get(&self, path: &Path) -> Option<&Entry> {
        self.0.get(path)
    }

    /// The paths at which `later` holds something else. One whose content either of the two does not tell is left out:
    /// it could not be brought back.
    pub fn changed_until(&self, later: &Self) -> Vec<PathBuf> {
        let gone = self.0.keys().filter(|path| !later.0.contains_key(*path));
        let mut changed: Vec<PathBuf> =
            gone.chain(later.0.keys()).filter(|path| self.get(path) != later.get(path)).cloned().collect();
        let tells = |side: &Self, path: &Path| side.get(path).is_none_or(|entry| entry.kind != Kind::Untold);
        changed.retain(|path| tells(self, path) && tells(later, path));
        changed.sort();
        changed
    }

    /// As it is stored: a line for each path, each line ended by a zero byte, as a path may have any other.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.0.len() * 96);
        for (path, entry) in &self.0 {
            let kind = match entry.kind {
                Kind::File => 'f',
                Kind::Executable => 'x',
                Kind::Link => 'l',
                Kind::Untold => 'u',
            };
            bytes.extend_from_slice(format!("{kind} {} ", entry.content).as_bytes());
            bytes.extend_from_slice(path.as_os_str().as_bytes());
            bytes.push(0);
        }
        bytes
    }

    pub(crate) fn parse(bytes: &[u8], stored_at: &Path) -> Result<Self> {
        let line = |line: &[u8]| {
            let (head, path) = line.split_at_checked(43)?;
            let head = std::str::from_utf8(head).ok()?;
            let kind = match head.get(..2)? {
                "f " => Kind::File,
                "x " => Kind::Executable,
                "l " => Kind::Link,
                "u " => Kind::Untold,
                _ => return None,
            };
            let content = ContentId::parse(head.get(2..42)?)?;
            Some((PathBuf::from(OsStr::from_bytes(path)), Entry { kind, content }))
        };
        let lines = bytes.split(|byte| *byte == 0).filter(|line| !line.is_empty());
        let files = lines.map(line).collect::<Option<_>>();
        files.map(Self).ok_or_else(|| StoreError::corrupt(stored_at, "this is no snapshot"))
    }

    pub(crate) fn id(bytes: &[u8]) -> SnapshotId {
        SnapshotId(sha1_smol::Sha1::from(bytes).digest().to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(entries: &[(&str, Kind, &str)]) -> Snapshot {
        let entry = |(path, kind, text): &(&str, Kind, &str)| {
            (PathBuf::from(path), Entry { kind: *kind, content: ContentId::of(text.as_bytes()) })
        };
        Snapshot(entries.iter().map(entry).collect())
    }

    #[test]
    fn contents_are_named_as_git_names_them() {
        assert_eq!(ContentId::of(b"one\n").to_string(), "5626abf0f72e58d7a153368ba57db4c673c0e171");
        assert_eq!(ContentId::of(b"").to_string(), "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391");
    }

    #[test]
    fn a_snapshot_comes_back_as_it_went_and_no_other_bytes_are_one() {
        let whole = snapshot(&[
            ("a b/c\nd", Kind::Link, "x"),
            ("run", Kind::Executable, "y"),
            ("big", Kind::Untold, ""),
            ("e", Kind::File, ""),
        ]);
        let bytes = whole.to_bytes();
        assert_eq!(Snapshot::parse(&bytes, Path::new("/s")).unwrap(), whole);
        assert_eq!(Snapshot::parse(b"", Path::new("/s")).unwrap(), Snapshot::default());
        for bad in [&bytes[1..], b"f short\0", b"f zz26abf0f72e58d7a153368ba57db4c673c0e171 a\0"] {
            assert!(Snapshot::parse(bad, Path::new("/s")).is_err(), "{:?}", String::from_utf8_lossy(bad));
        }
        assert_eq!(SnapshotId::parse(Snapshot::id(&bytes).as_str()), Some(Snapshot::id(&bytes)));
        assert_eq!(SnapshotId::parse("../../../../../../../../../../etc/passwd1"), None);
    }

    #[test]
    fn what_comes_goes_or_becomes_another_has_changed_unless_its_content_is_not_told() {
        let before = snapshot(&[
            ("same", Kind::File, "1"),
            ("gone", Kind::File, "1"),
            ("other", Kind::File, "1"),
            ("mode", Kind::File, "1"),
            ("grew", Kind::File, "1"),
            ("shrank", Kind::Untold, ""),
        ]);
        let after = snapshot(&[
            ("same", Kind::File, "1"),
            ("came", Kind::File, "1"),
            ("other", Kind::File, "2"),
            ("mode", Kind::Executable, "1"),
            ("grew", Kind::Untold, ""),
            ("shrank", Kind::File, "1"),
        ]);
        let expected = ["came", "gone", "mode", "other"].map(PathBuf::from);
        assert_eq!(before.changed_until(&after), expected);
        assert_eq!(after.changed_until(&before), expected);
        assert!(before.changed_until(&before).is_empty());
    }
}
