//! Snapshots of work trees: taken, compared, told apart, kept and removed.

#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};
use storage::{Kind, SnapshotId, TenantStore};
use support::{create, open, ses};

struct Tree {
    _dir: tempfile::TempDir,
    data: PathBuf,
    root: PathBuf,
    store: TenantStore,
}

impl Tree {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (data, root) = (dir.path().join("data"), dir.path().canonicalize().unwrap().join("tree"));
        fs::create_dir_all(root.join(".git")).unwrap();
        let store = open(&data);
        Self { _dir: dir, data, root, store }
    }

    fn write(&self, path: &str, text: &str) {
        fs::write(self.root.join(path), text).unwrap();
    }

    fn take(&self, session: &str) -> SnapshotId {
        self.store.take_snapshot(&self.root, &ses(session)).unwrap().unwrap()
    }

    fn changes(&self, session: &str, from: &SnapshotId, anywhere: bool) -> Vec<PathBuf> {
        let to = self.take(session);
        self.store.changes_of(&self.root, &ses(session), (from, &to), anywhere).unwrap().unwrap()
    }

    fn content(&self, id: &SnapshotId, path: &str) -> Option<String> {
        let snapshot = self.store.snapshot(&self.root, id).unwrap()?;
        let entry = snapshot.get(Path::new(path))?;
        let bytes = self.store.snapshot_content(&self.root, &entry.content).unwrap()?;
        Some(String::from_utf8(bytes).unwrap())
    }

    fn files(&self) -> usize {
        fn count(path: &Path) -> usize {
            fs::read_dir(path).map_or(1, |entries| entries.map(|entry| count(&entry.unwrap().path())).sum())
        }
        count(&self.data.join("flotilla/snapshot")) + count(&self.data.join("flotilla/snapshot-of"))
    }
}

#[test]
fn a_snapshot_tells_what_was_there_whatever_came_since() {
    let tree = Tree::new();
    tree.write("a", "one");
    std::os::unix::fs::symlink("/etc", tree.root.join("link")).unwrap();
    let first = tree.take("a");
    assert_eq!(tree.take("b"), first, "the same files, the same snapshot");
    tree.write("a", "two");
    tree.write("b", "new");
    let second = tree.take("a");
    assert_ne!(second, first);
    assert_eq!(tree.content(&first, "a").as_deref(), Some("one"));
    assert_eq!(tree.content(&second, "a").as_deref(), Some("two"));
    assert_eq!(tree.content(&first, "b"), None);
    let snapshot = tree.store.snapshot(&tree.root, &first).unwrap().unwrap();
    assert_eq!(snapshot.get(Path::new("link")).unwrap().kind, Kind::Link);
    assert_eq!(tree.content(&first, "link").as_deref(), Some("/etc"), "where it leads, not what is there");
    // Another process, which has seen nothing yet.
    let store = open(&tree.data);
    assert_eq!(store.take_snapshot(&tree.root, &ses("c")).unwrap().unwrap(), second);
    let unknown = SnapshotId::parse(&"0".repeat(40)).unwrap();
    assert!(store.snapshot(&tree.root, &unknown).unwrap().is_none());
    assert_eq!(store.changes_of(&tree.root, &ses("c"), (&unknown, &second), true).unwrap(), None);
}

#[test]
fn what_is_damaged_is_missing() {
    let tree = Tree::new();
    tree.write("a", "one");
    let id = tree.take("a");
    for entry in walk(&tree.data.join("flotilla/snapshot")) {
        fs::write(&entry, "").unwrap();
    }
    assert_eq!(tree.content(&id, "a"), None);
}

fn walk(path: &Path) -> Vec<PathBuf> {
    match fs::read_dir(path) {
        Ok(entries) => entries.flat_map(|entry| walk(&entry.unwrap().path())).collect(),
        Err(_) => vec![path.to_owned()],
    }
}

#[test]
fn what_changed_is_the_command_s_unless_another_session_s_tool_wrote_it() {
    let tree = Tree::new();
    for name in ["mine", "theirs", "both", "mine-by-tool", "task's"] {
        tree.write(name, "old");
    }
    let before = tree.take("me");
    let note = |name: &str, session: &str, parent: Option<&str>| {
        let parent = parent.map(ses);
        tree.store.note_write(&tree.root, &tree.root.join(name), &ses(session), parent.as_ref()).unwrap();
    };
    note("theirs", "other", None);
    note("both", "other", None);
    note("both", "me", None);
    note("mine-by-tool", "me", None);
    note("task's", "child", Some("me"));
    for name in ["mine", "theirs", "both", "mine-by-tool", "task's"] {
        tree.write(name, "new");
    }
    let all = ["both", "mine", "mine-by-tool", "task's"].map(PathBuf::from);
    assert_eq!(tree.changes("me", &before, true), all);
    let noted = ["both", "mine-by-tool", "task's"].map(PathBuf::from);
    assert_eq!(tree.changes("me", &before, false), noted, "without a command only what was noted");
    let theirs = ["both", "theirs"].map(PathBuf::from);
    tree.take("other");
    assert_eq!(tree.changes("other", &before, false), theirs);
    // What was noted long before says nothing of what came since.
    let old = SystemTime::now() - Duration::from_secs(60);
    for note in
        walk(&tree.data.join("flotilla/snapshot")).iter().filter(|path| path.parent().unwrap().ends_with("note"))
    {
        fs::File::open(note).unwrap().set_modified(old).unwrap();
    }
    assert!(tree.changes("me", &before, true).contains(&PathBuf::from("theirs")));
}

#[test]
fn snapshots_go_with_their_session_or_after_a_week_and_nothing_goes_that_is_referred_to() {
    let tree = Tree::new();
    tree.write("a", "one");
    let first = tree.take("gone");
    tree.write("a", "two");
    let second = tree.take("stays");
    let age = |days: u64| {
        let then = SystemTime::now() - Duration::from_secs(days * 24 * 3600 + 3600);
        for path in walk(&tree.data.join("flotilla/snapshot")) {
            fs::File::open(path).unwrap().set_modified(then).unwrap();
        }
    };
    create(&tree.store, &ses("gone"));
    support::change_head(&tree.store, &ses("gone"), |head| {
        (Vec::new(), run_protocol::Head { state: run_protocol::HeadState::Deleted, ..head.clone() })
    });
    tree.store.remove_session(&ses("gone")).unwrap();
    assert_eq!(tree.store.remove_old().unwrap(), 0, "somebody may be about to refer to it");
    age(2);
    assert_eq!(tree.store.remove_old().unwrap(), 2, "the snapshot and its content");
    assert_eq!(tree.content(&first, "a"), None);
    assert_eq!(tree.content(&second, "a").as_deref(), Some("two"));
    for path in walk(&tree.data.join("flotilla/snapshot-of")) {
        let then = SystemTime::now() - Duration::from_secs(8 * 24 * 3600);
        fs::File::open(path).unwrap().set_modified(then).unwrap();
    }
    assert_eq!(tree.store.remove_old().unwrap(), 3);
    assert_eq!(tree.files(), 0);
    // What was seen before is relied on only while it is kept.
    tree.write("b", "three");
    assert_eq!(tree.content(&tree.take("new"), "b").as_deref(), Some("three"));
}
