//! What reads cost: operations on the disk, counted.

#![allow(clippy::unwrap_used, reason = "a test that fails says where")]

mod support;

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use storage::disk::{Disk, LocalDisk, Stamp};
use storage::{Durability, Record, Store, TenantStore, Write};
use support::{Spread, assistant_message, change_head, create, msg, open, prompt, prt, ses, text_part, user_message};
use wire::ids::SessionId;
use wire::tenant::Tenant;

/// The local disk, with a count of what is read of it.
#[derive(Default)]
struct Counting(AtomicUsize);

impl Counting {
    fn count(&self) -> &LocalDisk {
        self.0.fetch_add(1, Ordering::Relaxed);
        &LocalDisk
    }
}

impl Disk for Counting {
    fn create(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        LocalDisk.create(path, bytes)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        LocalDisk.rename(from, to)
    }
    fn rename_new(&self, from: &Path, to: &Path) -> io::Result<()> {
        LocalDisk.rename_new(from, to)
    }
    fn mkdir(&self, path: &Path) -> io::Result<()> {
        LocalDisk.mkdir(path)
    }
    fn rmdir(&self, path: &Path) -> io::Result<()> {
        LocalDisk.rmdir(path)
    }
    fn unlink(&self, path: &Path) -> io::Result<()> {
        LocalDisk.unlink(path)
    }
    fn read(&self, path: &Path) -> io::Result<(Vec<u8>, Stamp)> {
        self.count().read(path)
    }
    fn read_piece(&self, path: &Path, from: u64, most: usize) -> io::Result<Vec<u8>> {
        self.count().read_piece(path, from, most)
    }
    fn stamp(&self, path: &Path) -> io::Result<Stamp> {
        self.count().stamp(path)
    }
    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        self.count().list(path)
    }
    fn list_stamped(&self, path: &Path) -> io::Result<Vec<(String, Stamp)>> {
        self.count().list_stamped(path)
    }
    fn fsync_file(&self, path: &Path) -> io::Result<()> {
        LocalDisk.fsync_file(path)
    }
    fn fsync_dir(&self, path: &Path) -> io::Result<()> {
        LocalDisk.fsync_dir(path)
    }
}

/// A turn: a prompt, its answer, and the commit that settles it and writes the prompt once more.
fn turn(store: &TenantStore, id: &SessionId, number: u64) {
    let (asked, answer) = (format!("q{number:04}"), msg(&format!("a{number:04}")));
    change_head(store, id, |head| prompt(id, &asked, head, 10 * number));
    let run = store.take_run(id, store.run_number(id).unwrap()).unwrap();
    run.commit(vec![
        text_part(id, &answer, &prt(&format!("a{number:04}")), "an answer"),
        assistant_message(id, &answer, 10 * number + 1, Some(10 * number + 2)),
    ])
    .unwrap();
    change_head(store, id, |head| {
        let mut head = head.clone();
        head.settle(head.issued, run_protocol::TicketAnswer::Dropped);
        (vec![user_message(id, &msg(&asked), 10 * number)], head)
    });
}

/// What the other store sees of a session, as texts, and how often it read the disk for it.
struct Other {
    store: TenantStore,
    disk: Arc<Counting>,
    id: SessionId,
}

impl Other {
    fn open(root: &Path, id: &SessionId) -> Self {
        let disk = Arc::new(Counting::default());
        let store = Store::open_on(disk.clone(), root.into(), Durability::Os, Arc::new(Spread)).unwrap();
        Self { store: store.tenant(&Tenant::default()), disk, id: id.clone() }
    }

    fn read(&self) -> (Vec<String>, usize) {
        let before = self.disk.0.load(Ordering::Relaxed);
        let page = self.store.messages(&self.id, None, None).unwrap();
        let texts = page.items.iter().flat_map(|message| &message.parts).filter_map(|part| part.text());
        let texts = texts.map(|text| text.text.clone()).collect();
        (texts, self.disk.0.load(Ordering::Relaxed) - before)
    }
}

#[test]
fn a_turn_on_another_replica_costs_the_same_in_a_long_session_as_in_a_short_one() {
    let dir = tempfile::tempdir().unwrap();
    let (store, id) = (open(dir.path()), ses("a"));
    create(&store, &id);
    let other = Other::open(dir.path(), &id);
    let mut costs = Vec::new();
    for number in 1..=100 {
        turn(&store, &id, number);
        let (texts, cost) = other.read();
        assert_eq!(texts.len() as u64, 2 * number);
        costs.push(cost);
    }
    let most = costs[2..12].iter().max().unwrap();
    let cheap = costs[80..].iter().filter(|cost| *cost <= most).count();
    assert!(cheap >= 18, "{costs:?}");
}

#[test]
fn a_change_of_an_old_message_on_another_replica_is_seen_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let (store, id) = (open(dir.path()), ses("a"));
    create(&store, &id);
    (1..=30).for_each(|number| turn(&store, &id, number));
    let other = Other::open(dir.path(), &id);
    other.read();
    for number in 1..=30 {
        let (message, part, text) =
            (msg(&format!("a{number:04}")), prt(&format!("a{number:04}")), format!("new {number}"));
        change_head(&store, &id, |head| (vec![text_part(&id, &message, &part, &text)], head.clone()));
        let (texts, _) = other.read();
        assert_eq!(texts[2 * number - 1], text);
    }
    // As many as nobody keeps a list of.
    let change =
        |number: usize| text_part(&id, &msg(&format!("q{number:04}")), &prt(&format!("q{number:04}")), "changed");
    change_head(&store, &id, |head| ((1..=30).map(change).collect(), head.clone()));
    let (texts, _) = other.read();
    assert!(texts.iter().step_by(2).all(|text| text == "changed"), "{texts:?}");
    let gone = msg("a0003");
    change_head(&store, &id, |head| {
        let part = Write::Remove(Record::Part { message: gone.clone(), id: prt("a0003") });
        (vec![part, Write::Remove(Record::Message { session: id.clone(), id: gone.clone() })], head.clone())
    });
    assert_eq!(other.read().0.len(), 59);
}

/// Its last step ended, and its runner wrote it once more before it began another.
#[test]
fn the_newest_answer_is_looked_at_again_after_each_commit() {
    let dir = tempfile::tempdir().unwrap();
    let (store, id) = (open(dir.path()), ses("a"));
    create(&store, &id);
    turn(&store, &id, 1);
    change_head(&store, &id, |head| prompt(&id, "q0002", head, 20));
    let run = store.take_run(&id, store.run_number(&id).unwrap()).unwrap();
    let answer = |text: &str| {
        let part = text_part(&id, &msg("a0002"), &prt("a0002"), text);
        run.commit(vec![part, assistant_message(&id, &msg("a0002"), 21, Some(22))]).unwrap();
    };
    answer("said");
    let other = Other::open(dir.path(), &id);
    assert_eq!(other.read().0.last().unwrap(), "said");
    answer("said again");
    change_head(&store, &id, |head| (vec![], head.clone()));
    assert_eq!(other.read().0.last().unwrap(), "said again");
}

/// A commit that broke off has changed a message and not the head: that is seen in the end.
#[test]
fn what_a_commit_left_that_broke_off_is_seen_after_some_more() {
    let dir = tempfile::tempdir().unwrap();
    let (store, id) = (open(dir.path()), ses("a"));
    create(&store, &id);
    (1..=3).for_each(|number| turn(&store, &id, number));
    let other = Other::open(dir.path(), &id);
    other.read();
    let path = dir.path().join("storage/part/msg_a0001/prt_a0001.json");
    let text = std::fs::read_to_string(&path).unwrap().replace("an answer", "broken off");
    std::fs::write(path.with_extension("new"), text).unwrap();
    std::fs::rename(path.with_extension("new"), &path).unwrap();
    let is_seen = |number| {
        turn(&store, &id, number);
        other.read().0[1] == "broken off"
    };
    assert!((4..=24).any(is_seen));
}
