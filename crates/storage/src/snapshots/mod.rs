//! Snapshots of work trees: what the files of a directory hold at a moment, kept so that it can be shown and brought back.
//!
//! A snapshot needs no lock and no guard: contents and snapshots are named by what they hold, so that two replicas which
//! take one of the same work tree write the same files or different ones. They are not made durable: a power cut may cost
//! the newest, and what is damaged is taken for missing.
//!
//! Beside them stand *notes*, which say who writes which file. What changed while a command ran is what the command did, or
//! another session's tool: the notes tell the two apart.

mod content;
mod scan;

pub use content::{ContentId, Entry, Kind, Snapshot, SnapshotId};
pub(crate) use scan::Seeing;

use crate::error::{At, Result, if_there};
use crate::store::TenantStore;
use crate::sync::lock;
use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use wire::ids::SessionId;

/// What was seen of a work tree is relied on for so long: less than anything is kept that nobody refers to.
const RELIED_ON: Duration = Duration::from_secs(12 * 3600);
/// A note may be made so long before its file is written, in nanoseconds.
const NOTED_BEFORE: i128 = 500_000_000;

/// Who writes a file.
struct Note {
    session: String,
    parent: String,
}

impl TenantStore {
    /// Takes a snapshot of the work tree for a session. None if there are too many files, or if it takes too long.
    pub fn take_snapshot(&self, worktree: &Path, session: &SessionId) -> Result<Option<SnapshotId>> {
        self.make_directories()?;
        let root = scan::real(worktree)?;
        let tree = self.tree(&root)?;
        let now = self.file_system_time()?;
        let key = (self.tenant.clone(), root.clone());
        let cached = lock(&self.inner.seeings).get(&key);
        let before = cached.filter(|seeing| seeing.at.is_some_and(|at| at.elapsed() < RELIED_ON)).unwrap_or_default();
        let seeing = scan::scan(&root, &before, |id, bytes| self.put_content(&tree, now, id, bytes))?;
        let Some(seeing) = seeing else { return Ok(None) };
        let snapshot = Snapshot(seeing.files.iter().map(|(path, seen)| (path.clone(), seen.entry)).collect());
        let bytes = snapshot.to_bytes();
        let id = Snapshot::id(&bytes);
        // Written anew though it may be there: what was seen now is relied on from now.
        self.put_file(&tree.join("taken").join(id.as_str()), &bytes)?;
        self.put_file(&self.reference(session, &tree, &id), b"")?;
        let mut seeings = lock(&self.inner.seeings);
        let weight = seeing.weight();
        seeings.remove(&key);
        seeings.get_or_insert_with(&key, || Arc::new(seeing));
        seeings.weigh(&key, weight);
        Ok(Some(id))
    }

    /// A snapshot that was taken of the work tree; none if it is no longer kept.
    pub fn snapshot(&self, worktree: &Path, id: &SnapshotId) -> Result<Option<Snapshot>> {
        let path = self.tree_of(&scan::real(worktree)?).join("taken").join(id.as_str());
        let Some((bytes, _)) = if_there(self.inner.disk.read(&path), &path)? else { return Ok(None) };
        if Snapshot::id(&bytes) != *id {
            return Ok(None);
        }
        Snapshot::parse(&bytes, &path).map(Some)
    }

    /// What was in a file; none if it is no longer kept.
    pub fn snapshot_content(&self, worktree: &Path, content: &ContentId) -> Result<Option<Vec<u8>>> {
        let path = content_path(&self.tree_of(&scan::real(worktree)?), content);
        let bytes = if_there(self.inner.disk.read(&path), &path)?.map(|(bytes, _)| bytes);
        Ok(bytes.filter(|bytes| ContentId::of(bytes) == *content))
    }

    /// Notes that a session writes a file (its real path), before it does. A task writes for its parent, too.
    pub fn note_write(
        &self,
        worktree: &Path,
        file: &Path,
        session: &SessionId,
        parent: Option<&SessionId>,
    ) -> Result<()> {
        let tree = self.tree(&scan::real(worktree)?)?;
        let mut note = format!("{session}\n{}\n", parent.map(SessionId::as_str).unwrap_or_default()).into_bytes();
        note.extend_from_slice(file.as_os_str().as_bytes());
        self.put_file(&tree.join("note").join(self.inner.random_name()), &note)
    }

    /// The files, below the work tree's root, that a session changed between two of its snapshots. None if one of them is
    /// no longer kept. `anywhere`: it ran something that may write any file; else only what it noted is its own.
    ///
    /// What two commands of different sessions saw change at the same time is both of theirs.
    pub fn changes_of(
        &self,
        worktree: &Path,
        session: &SessionId,
        (from, to): (&SnapshotId, &SnapshotId),
        anywhere: bool,
    ) -> Result<Option<Vec<PathBuf>>> {
        if from == to {
            return Ok(Some(Vec::new()));
        }
        let (Some(before), Some(after)) = (self.snapshot(worktree, from)?, self.snapshot(worktree, to)?) else {
            return Ok(None);
        };
        let mut changed = before.changed_until(&after);
        let root = scan::real(worktree)?;
        let tree = self.tree_of(&root);
        let reference = self.reference(session, &tree, from);
        let since = if_there(self.inner.disk.stamp(&reference), &reference)?.map_or(0, |stamp| stamp.modified);
        let notes = self.notes(&tree, since - NOTED_BEFORE)?;
        let own = |note: &Note| note.session == session.as_str() || note.parent == session.as_str();
        changed.retain(|path| match notes.get(&root.join(path)) {
            Some(notes) => notes.iter().any(own),
            None => anywhere,
        });
        Ok(Some(changed))
    }

    /// The notes that were made since then, by the files that they name.
    fn notes(&self, tree: &Path, since: i128) -> Result<HashMap<PathBuf, Vec<Note>>> {
        let directory = tree.join("note");
        let mut notes: HashMap<PathBuf, Vec<Note>> = HashMap::new();
        for (name, stamp) in if_there(self.inner.disk.list_stamped(&directory), &directory)?.unwrap_or_default() {
            let path = directory.join(name);
            if stamp.modified < since {
                continue;
            }
            let Some((bytes, _)) = if_there(self.inner.disk.read(&path), &path)? else { continue };
            let mut fields = bytes.splitn(3, |byte| *byte == b'\n');
            let mut text = || String::from_utf8_lossy(fields.next().unwrap_or_default()).into_owned();
            let note = Note { session: text(), parent: text() };
            let file = PathBuf::from(OsStr::from_bytes(fields.next().unwrap_or_default()));
            notes.entry(file).or_default().push(note);
        }
        Ok(notes)
    }

    fn put_content(&self, tree: &Path, now: i128, id: &ContentId, bytes: &[u8]) -> Result<()> {
        let path = content_path(tree, id);
        match if_there(self.inner.disk.stamp(&path), &path)? {
            // One that nobody has referred to for long may be on its way out.
            Some(stamp) if now - stamp.modified < RELIED_ON.as_nanos().cast_signed() => Ok(()),
            _ => self.put_file(&path, bytes),
        }
    }

    /// Puts a file in its place as a whole, whatever was there.
    fn put_file(&self, path: &Path, bytes: &[u8]) -> Result<()> {
        let aside = self.directory("flotilla/new").join(self.inner.random_name());
        self.inner.disk.create(&aside, bytes).at(&aside)?;
        let placed = match self.inner.disk.rename(&aside, path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                path.parent().map_or(Ok(()), |directory| self.inner.make_directory(directory))?;
                self.inner.disk.rename(&aside, path)
            }
            placed => placed,
        };
        placed.at(path).inspect_err(|_| {
            let _ = self.inner.disk.unlink(&aside);
        })
    }

    /// Where the snapshots of a work tree lie; made if it is missing.
    fn tree(&self, root: &Path) -> Result<PathBuf> {
        let tree = self.tree_of(root);
        if if_there(self.inner.disk.stamp(&tree.join("note")), &tree)?.is_none() {
            for directory in ["", "content", "taken", "note"] {
                self.inner.make_directory(&tree.join(directory))?;
            }
        }
        Ok(tree)
    }

    fn tree_of(&self, root: &Path) -> PathBuf {
        let name = sha1_smol::Sha1::from(root.as_os_str().as_bytes()).digest().to_string();
        self.directory("flotilla/snapshot").join(name)
    }

    /// As long as it is there, the session needs the snapshot; its time stamp is that of the newest taking.
    fn reference(&self, session: &SessionId, tree: &Path, id: &SnapshotId) -> PathBuf {
        let tree = tree.file_name().and_then(OsStr::to_str).unwrap_or_default();
        self.directory("flotilla/snapshot-of").join(session.as_str()).join(format!("{tree}.{id}"))
    }
}

fn content_path(tree: &Path, id: &ContentId) -> PathBuf {
    let name = id.to_string();
    tree.join("content").join(&name[..2]).join(name)
}
