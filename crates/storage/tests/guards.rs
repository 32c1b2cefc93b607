//! Guards: who may write, with real files and real threads.

#![allow(clippy::unwrap_used)]

mod support;

use run_protocol::{Fence, Head};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;
use storage::disk::{Disk, LocalDisk, Stamp};
use storage::{Durability, Record, Store, StoreError, TenantStore, Write};
use support::*;
use wire::ids::SessionId;
use wire::tenant::Tenant;

#[test]
fn no_update_of_many_writers_is_lost() {
    const THREADS: u64 = 8;
    const EACH: u64 = 100;
    let dir = tempfile::tempdir().unwrap();
    let id = ses("a");
    create(&open(dir.path()), &id);
    let todo = Record::Todo { session: id.clone() };
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let mut writers = Vec::new();
        for thread in 0..THREADS {
            // A store of its own for each: nothing in memory keeps them apart.
            let (store, id, todo) = (open(dir.path()), id.clone(), todo.clone());
            writers.push(scope.spawn(move || {
                for n in 0..EACH {
                    // What a fenced commit had written already is written again: a change must bear that.
                    let entry = format!("{thread} {n}");
                    change_head(&store, &id, |head| {
                        let mut entries: BTreeSet<String> = match store.read(&todo).unwrap() {
                            Some(bytes) => serde_json::from_slice(&bytes).unwrap(),
                            None => BTreeSet::new(),
                        };
                        entries.insert(entry.clone());
                        let mut head = head.clone();
                        head.issue();
                        (vec![put(todo.clone(), &serde_json::to_value(entries).unwrap())], head)
                    });
                }
            }));
        }
        // Meanwhile a reader never sees half a head.
        let (store, reader, done) = (open(dir.path()), id.clone(), &done);
        scope.spawn(move || {
            let mut rev = 0;
            while !done.load(Ordering::Relaxed) {
                let head = store.head(&reader).unwrap();
                assert!(head.rev >= rev && head.issued == head.rev);
                rev = head.rev;
            }
        });
        let results: Vec<_> = writers.into_iter().map(|writer| writer.join()).collect();
        done.store(true, Ordering::Relaxed);
        assert!(results.iter().all(|result| result.is_ok()));
    });
    let store = open(dir.path());
    assert_eq!(store.head(&id).unwrap().rev, THREADS * EACH);
    let entries: BTreeSet<String> = serde_json::from_slice(&store.read(&todo).unwrap().unwrap()).unwrap();
    assert_eq!(entries.len() as u64, THREADS * EACH);
}

#[test]
fn of_two_takers_of_the_same_number_one_wins() {
    let dir = tempfile::tempdir().unwrap();
    let id = ses("a");
    create(&open(dir.path()), &id);
    for n in 0..50 {
        let start = std::sync::Barrier::new(2);
        let won: Vec<bool> = std::thread::scope(|scope| {
            let take = || {
                let store = open(dir.path());
                start.wait();
                match store.take_run(&id, n) {
                    Ok(guard) => {
                        assert_eq!(guard.fence(), Fence(n + 1));
                        true
                    }
                    Err(StoreError::Fenced) => false,
                    Err(error) => panic!("{error}"),
                }
            };
            let takers = [scope.spawn(take), scope.spawn(take)];
            takers.map(|taker| taker.join().unwrap()).into()
        });
        assert_eq!(won.iter().filter(|&&won| won).count(), 1, "at {n}");
    }
}

#[test]
fn tool_calls_commit_side_by_side_under_one_run() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let id = ses("a");
    create(&store, &id);
    let run = store.take_run(&id, 0).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (run, id) = (&run, &id);
            scope.spawn(move || {
                for n in 0..50 {
                    // Each a message of its own as well, so that the directories are made beside each other.
                    let message = msg(&format!("m{n}"));
                    run.commit(vec![text_part(id, &message, &prt(&format!("p{thread}")), "x")]).unwrap();
                }
            });
        }
    });
    run.commit((0..50).map(|n| user_message(&id, &msg(&format!("m{n}")), n)).collect()).unwrap();
    let items = store.messages(&id, None, None).unwrap().items;
    assert_eq!(items.iter().map(|item| item.parts.len()).sum::<usize>(), 200);
    assert!(run.is_held());
    store.take_run(&id, 1).unwrap();
    assert!(!run.is_held());
    assert!(matches!(run.commit(vec![]), Err(StoreError::Fenced)));
}

/// A disk on which one thread can be stopped before an operation, as a process that was paused there would be.
#[derive(Default)]
struct Pausing {
    disk: LocalDisk,
    stop: Mutex<Option<Stop>>,
}

/// How far the thread came that may be stopped.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Step {
    Stopped,
    Done,
}

struct Stop {
    /// The operation, counted among those that write, before which it stops.
    at: usize,
    reached: Sender<Step>,
    go_on: Receiver<()>,
}

impl Pausing {
    /// Runs `work` on a thread of its own until it comes to its `at`th writing operation. Returns the thread and what
    /// lets it go on; nothing in the second place if it ended before.
    fn run_until<T: Send + 'static>(
        &self,
        at: usize,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> (JoinHandle<T>, Option<Sender<()>>) {
        let ((reached, progress), (go, go_on)) = (channel(), channel());
        *self.stop.lock().unwrap() = Some(Stop { at, reached: reached.clone(), go_on });
        let thread = std::thread::spawn(move || {
            let result = work();
            let _ = reached.send(Step::Done);
            result
        });
        let stopped = progress.recv_timeout(Duration::from_secs(30)).unwrap() == Step::Stopped;
        *self.stop.lock().unwrap() = None;
        (thread, stopped.then_some(go))
    }

    fn before(&self) {
        let mut stop = self.stop.lock().unwrap();
        let Some(Stop { at, .. }) = &mut *stop else { return };
        if *at > 0 {
            *at -= 1;
            return;
        }
        let stopped = stop.take().unwrap();
        drop(stop);
        stopped.reached.send(Step::Stopped).unwrap();
        stopped.go_on.recv_timeout(Duration::from_secs(30)).unwrap();
    }
}

impl Disk for Pausing {
    fn create(&self, path: &Path, bytes: &[u8]) -> std::io::Result<()> {
        self.before();
        self.disk.create(path, bytes)
    }
    fn rename(&self, from: &Path, to: &Path) -> std::io::Result<()> {
        self.before();
        self.disk.rename(from, to)
    }
    fn rename_new(&self, from: &Path, to: &Path) -> std::io::Result<()> {
        self.before();
        self.disk.rename_new(from, to)
    }
    fn mkdir(&self, path: &Path) -> std::io::Result<()> {
        self.before();
        self.disk.mkdir(path)
    }
    fn rmdir(&self, path: &Path) -> std::io::Result<()> {
        self.disk.rmdir(path)
    }
    fn unlink(&self, path: &Path) -> std::io::Result<()> {
        self.disk.unlink(path)
    }
    fn read(&self, path: &Path) -> std::io::Result<(Vec<u8>, Stamp)> {
        self.disk.read(path)
    }
    fn read_piece(&self, path: &Path, from: u64, most: usize) -> std::io::Result<Vec<u8>> {
        self.disk.read_piece(path, from, most)
    }
    fn stamp(&self, path: &Path) -> std::io::Result<Stamp> {
        self.disk.stamp(path)
    }
    fn list(&self, path: &Path) -> std::io::Result<Vec<String>> {
        self.disk.list(path)
    }
    fn list_stamped(&self, path: &Path) -> std::io::Result<Vec<(String, Stamp)>> {
        self.disk.list_stamped(path)
    }
    fn fsync_file(&self, path: &Path) -> std::io::Result<()> {
        self.before();
        self.disk.fsync_file(path)
    }
    fn fsync_dir(&self, path: &Path) -> std::io::Result<()> {
        self.before();
        self.disk.fsync_dir(path)
    }
}

/// Every kind of record, as a commit may hold it. No two tags share one.
fn kinds(tag: &str) -> [Record; 9] {
    let (session, message) = (ses(tag), msg(tag));
    [
        Record::Session { project: "p".into(), id: session.clone() },
        Record::Message { session: session.clone(), id: message.clone() },
        Record::Part { message: message.clone(), id: prt("x") },
        Record::Todo { session: session.clone() },
        Record::Diff { session: session.clone() },
        Record::Ticket { session: session.clone(), message },
        Record::Ask { session, id: "per_a".into() },
        Record::Approvals { project: tag.into() },
        Record::Key { hash: format!("ab{tag}") },
    ]
}

type Commit = Box<dyn FnOnce(Write) -> Result<(), StoreError> + Send>;

fn head_commit(store: &TenantStore, session: &SessionId) -> Commit {
    let guard = store.take_head(session).unwrap();
    let head = guard.head().clone();
    Box::new(move |write| guard.commit(vec![write], head).map(|_| ()))
}

fn run_commit(store: &TenantStore, session: &SessionId) -> Commit {
    let guard = store.take_run(session, store.run_number(session).unwrap()).unwrap();
    Box::new(move |write| guard.commit(vec![write]))
}

/// For every kind of record, write and guard: a holder pauses before its first, second, ... writing operation, another
/// takes the guard and commits, the old one wakes.
fn every_pause(durability: Durability) {
    let dir = tempfile::tempdir().unwrap();
    let disk = Arc::new(Pausing::default());
    let old = Store::open_on(disk.clone(), dir.path().into(), durability, Arc::new(Spread)).unwrap();
    let old = old.tenant(&Tenant::default());
    let new = open(dir.path());
    let mut tag = 0;
    for kind in 0..9 {
        for write in ["put", "put new", "remove"] {
            // The session's record is there from the start.
            if kind == 0 && write == "put new" {
                continue;
            }
            for commit in [head_commit, run_commit] {
                let mut pauses = 0;
                while {
                    tag += 1;
                    let session = ses(&tag.to_string());
                    create(&new, &session);
                    let record = kinds(&tag.to_string())[kind].clone();
                    let write = match write {
                        "put" => Write::Put(record, b"\"old\"".to_vec()),
                        "put new" => Write::PutNew(record, b"\"old\"".to_vec()),
                        _ => Write::Remove(record),
                    };
                    !done_before_the_pause(&disk, &old, &new, &session, pauses, write, commit)
                } {
                    pauses += 1;
                }
                assert!((1..40).contains(&pauses), "{kind} {write}: {pauses}");
            }
        }
    }
}

fn done_before_the_pause(
    disk: &Pausing,
    old: &TenantStore,
    new: &TenantStore,
    session: &SessionId,
    pause: usize,
    write: Write,
    commit: fn(&TenantStore, &SessionId) -> Commit,
) -> bool {
    let record = write.record().clone();
    if matches!(write, Write::Remove(_)) {
        commit(new, session)(Write::Put(record.clone(), b"\"first\"".to_vec())).unwrap();
    }
    let old_commit = commit(old, session);
    let (old_holder, go_on) = disk.run_until(pause, move || old_commit(write));
    let Some(go_on) = go_on else {
        old_holder.join().unwrap().unwrap();
        return true;
    };
    commit(new, session)(Write::Put(record.clone(), b"\"new\"".to_vec())).unwrap();
    let head = new.head(session).unwrap();
    go_on.send(()).unwrap();
    let result = old_holder.join().unwrap();
    let value = new.read(&record).unwrap().unwrap();
    assert_eq!(new.head(session).unwrap(), head, "the head of {record:?} at {pause}");
    assert_eq!(value, b"\"new\"", "{record:?} at {pause}: {result:?}");
    // Where everything had landed before the pause, what remains is an fsync: the commit may still succeed.
    assert!(matches!(result, Ok(()) | Err(StoreError::Fenced)), "{record:?} at {pause}: {result:?}");
    false
}

#[test]
fn a_holder_that_pauses_anywhere_in_a_commit_changes_nothing_any_more() {
    every_pause(Durability::Os);
}

#[test]
fn nor_does_one_that_makes_its_writes_durable() {
    every_pause(Durability::Disk);
}

#[test]
fn a_session_whose_making_was_cut_short_is_finished_by_the_same_call() {
    for at in 0..20 {
        let dir = tempfile::tempdir().unwrap();
        let disk = Arc::new(Pausing::default());
        let store = Store::open_on(disk.clone(), dir.path().into(), Durability::Os, Arc::new(Spread));
        let store = store.unwrap().tenant(&Tenant::default());
        let id = ses("a");
        let (first, go_on) = disk.run_until(at, {
            let (store, session) = (store.clone(), session(&id, 1));
            move || store.create_session(&session, Head::new("p"))
        });
        let Some(go_on) = go_on else {
            first.join().unwrap().unwrap();
            return assert!(at > 5);
        };
        open(dir.path()).create_session(&session(&id, 1), Head::new("p")).unwrap();
        assert_eq!(store.session(&id).unwrap(), session(&id, 1));
        go_on.send(()).unwrap();
        // The other has made it: exactly one of the two did, or both made the very same record.
        let result = first.join().unwrap();
        assert!(matches!(result, Err(StoreError::Exists | StoreError::Fenced)), "at {at}: {result:?}");
        assert_eq!(store.session(&id).unwrap(), session(&id, 1));
        let aside: Vec<PathBuf> =
            std::fs::read_dir(dir.path().join("flotilla/new")).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert_eq!(aside, [] as [PathBuf; 0], "at {at}");
    }
    panic!("it never ended");
}
