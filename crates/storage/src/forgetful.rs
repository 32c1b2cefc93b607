//! A disk in memory that forgets at a crash what was not made durable. For tests and simulations.
#![allow(clippy::unwrap_used, reason = "a disk for tests: they panic where it is used as no disk is")]

use crate::disk::{Disk, Stamp};
use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

type Node = usize;

/// How much of what was not made durable a crash leaves.
#[derive(Clone, Copy, Debug)]
pub enum Crash {
    /// Nothing: each directory loses all names since its last fsync, each file its contents.
    ForgetAll,
    /// Everything: only the process died.
    KeepAll,
    /// In each directory the first so many changes, chosen from this seed; files lose what was not synced.
    Some(u64),
}

/// The disk. After the operation that was chosen it is gone for whoever holds it: every later one fails.
#[derive(Default)]
pub struct Forgetful {
    state: Mutex<State>,
}

#[derive(Clone, Default)]
struct State {
    nodes: Vec<Inode>,
    /// Writing operations that are still done. Nothing: all.
    left: Option<usize>,
    failing_fsyncs: bool,
}

#[derive(Clone)]
enum Inode {
    File { bytes: Vec<u8>, durable: Option<Vec<u8>> },
    Directory { names: BTreeMap<String, Node>, durable: BTreeMap<String, Node>, changes: Vec<Change> },
}

/// One atomic change of a directory's names.
#[derive(Clone)]
struct Change {
    remove: Option<String>,
    add: Option<(String, Node)>,
}

fn fail<T>(kind: ErrorKind) -> io::Result<T> {
    Err(kind.into())
}

fn empty_directory() -> Inode {
    Inode::Directory { names: BTreeMap::new(), durable: BTreeMap::new(), changes: Vec::new() }
}

impl Forgetful {
    /// A disk with an empty, durable directory `root`.
    pub fn new(root: &str) -> Arc<Self> {
        let disk = Self { state: Mutex::new(State { nodes: vec![empty_directory()], ..State::default() }) };
        disk.mkdir(Path::new(root)).unwrap();
        disk.fsync_dir(Path::new("/")).unwrap();
        Arc::new(disk)
    }

    /// Lets `operations` more writing operations happen; the next one and all that follow fail.
    pub fn die_after(&self, operations: usize) {
        self.state.lock().unwrap().left = Some(operations);
    }

    /// True once an operation failed because the disk is gone.
    pub fn is_dead(&self) -> bool {
        self.state.lock().unwrap().left == Some(0)
    }

    /// Lets every fsync fail, as a disk with bad blocks does.
    pub fn fail_fsyncs(&self, fail: bool) {
        self.state.lock().unwrap().failing_fsyncs = fail;
    }

    /// What is there when the machine is up again.
    pub fn after(&self, crash: Crash) -> Arc<Self> {
        let mut state = self.state.lock().unwrap().clone();
        let mut seed = if let Crash::Some(seed) = crash { seed } else { 0 };
        for node in &mut state.nodes {
            match node {
                Inode::File { bytes, durable } => match crash {
                    Crash::KeepAll => *durable = Some(bytes.clone()),
                    Crash::ForgetAll | Crash::Some(_) => *bytes = durable.clone().unwrap_or_default(),
                },
                Inode::Directory { names, durable, changes } => {
                    seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    let kept = match crash {
                        Crash::ForgetAll => 0,
                        Crash::KeepAll => changes.len(),
                        Crash::Some(_) => (seed >> 33) as usize % (changes.len() + 1),
                    };
                    for change in changes.drain(..).take(kept) {
                        change.make(durable);
                    }
                    *names = durable.clone();
                }
            }
        }
        state.left = None;
        Arc::new(Self { state: Mutex::new(state) })
    }

    fn write<T>(&self, operation: impl FnOnce(&mut State) -> io::Result<T>) -> io::Result<T> {
        let mut state = self.state.lock().unwrap();
        match &mut state.left {
            Some(0) => return Err(io::Error::other("the power is off")),
            Some(left) => *left -= 1,
            None => {}
        }
        operation(&mut state)
    }

    fn fsync(&self, path: &Path) -> io::Result<()> {
        self.write(|state| {
            if state.failing_fsyncs {
                return Err(io::Error::other("bad block"));
            }
            let node = state.find(path)?;
            match &mut state.nodes[node] {
                Inode::File { bytes, durable } => *durable = Some(bytes.clone()),
                Inode::Directory { names, durable, changes } => {
                    *durable = names.clone();
                    changes.clear();
                }
            }
            Ok(())
        })
    }

    fn look<T>(&self, operation: impl FnOnce(&State) -> io::Result<T>) -> io::Result<T> {
        let state = self.state.lock().unwrap();
        if state.left == Some(0) {
            return Err(io::Error::other("the power is off"));
        }
        operation(&state)
    }
}

impl Change {
    fn make(self, names: &mut BTreeMap<String, Node>) {
        if let Some(name) = self.remove {
            names.remove(&name);
        }
        if let Some((name, node)) = self.add {
            names.insert(name, node);
        }
    }
}

impl State {
    fn find(&self, path: &Path) -> io::Result<Node> {
        let mut node = 0;
        for name in path.iter().skip(1) {
            let Inode::Directory { names, .. } = &self.nodes[node] else { return fail(ErrorKind::NotADirectory) };
            node = *names.get(name.to_str().unwrap()).ok_or(ErrorKind::NotFound)?;
        }
        Ok(node)
    }

    fn parent(&self, path: &Path) -> io::Result<(Node, String)> {
        Ok((self.find(path.parent().unwrap())?, path.file_name().unwrap().to_str().unwrap().to_owned()))
    }

    fn change(&mut self, directory: Node, remove: Option<String>, add: Option<(String, Node)>) -> io::Result<()> {
        let change = Change { remove, add };
        let Inode::Directory { names, changes, .. } = &mut self.nodes[directory] else {
            return fail(ErrorKind::NotADirectory);
        };
        changes.push(change.clone());
        change.make(names);
        Ok(())
    }

    fn add(&mut self, path: &Path, inode: Inode) -> io::Result<()> {
        let (parent, name) = self.parent(path)?;
        if self.find(path).is_ok() {
            return fail(ErrorKind::AlreadyExists);
        }
        self.nodes.push(inode);
        self.change(parent, None, Some((name, self.nodes.len() - 1)))
    }

    fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let node = self.find(from)?;
        let ((source, old), (target, new)) = (self.parent(from)?, self.parent(to)?);
        if let Ok(there) = self.find(to)
            && let Inode::Directory { names, .. } = &self.nodes[there]
            && !names.is_empty()
        {
            return fail(ErrorKind::DirectoryNotEmpty);
        }
        if source == target {
            return self.change(source, Some(old), Some((new, node)));
        }
        self.change(source, Some(old), None)?;
        self.change(target, None, Some((new, node)))
    }

    fn names(&self, path: &Path) -> io::Result<&BTreeMap<String, Node>> {
        match &self.nodes[self.find(path)?] {
            Inode::Directory { names, .. } => Ok(names),
            Inode::File { .. } => fail(ErrorKind::NotADirectory),
        }
    }

    fn stamp(&self, node: Node) -> Stamp {
        let size = if let Inode::File { bytes, .. } = &self.nodes[node] { bytes.len() } else { 0 };
        Stamp { inode: node as u64, modified: 0, size: size as u64 }
    }

    fn remove(&mut self, path: &Path) -> io::Result<()> {
        self.find(path)?;
        let (parent, name) = self.parent(path)?;
        self.change(parent, Some(name), None)
    }
}

impl Disk for Forgetful {
    fn create(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        self.write(|state| state.add(path, Inode::File { bytes: bytes.into(), durable: None }))
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.write(|state| state.rename(from, to))
    }
    fn rename_new(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.write(|state| if state.find(to).is_ok() { fail(ErrorKind::AlreadyExists) } else { state.rename(from, to) })
    }
    fn mkdir(&self, path: &Path) -> io::Result<()> {
        self.write(|state| state.add(path, empty_directory()))
    }
    fn rmdir(&self, path: &Path) -> io::Result<()> {
        self.write(|state| match state.names(path)?.is_empty() {
            true => state.remove(path),
            false => fail(ErrorKind::DirectoryNotEmpty),
        })
    }
    fn unlink(&self, path: &Path) -> io::Result<()> {
        self.write(|state| state.remove(path))
    }
    fn read(&self, path: &Path) -> io::Result<(Vec<u8>, Stamp)> {
        self.look(|state| {
            let node = state.find(path)?;
            match &state.nodes[node] {
                Inode::File { bytes, .. } => Ok((bytes.clone(), state.stamp(node))),
                Inode::Directory { .. } => fail(ErrorKind::IsADirectory),
            }
        })
    }
    fn read_piece(&self, path: &Path, from: u64, most: usize) -> io::Result<Vec<u8>> {
        let from = usize::try_from(from).unwrap_or(usize::MAX);
        self.read(path).map(|(bytes, _)| bytes.into_iter().skip(from).take(most).collect())
    }
    fn stamp(&self, path: &Path) -> io::Result<Stamp> {
        self.look(|state| Ok(state.stamp(state.find(path)?)))
    }
    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        self.look(|state| Ok(state.names(path)?.keys().cloned().collect()))
    }
    fn list_stamped(&self, path: &Path) -> io::Result<Vec<(String, Stamp)>> {
        self.look(|state| {
            Ok(state.names(path)?.iter().map(|(name, node)| (name.clone(), state.stamp(*node))).collect())
        })
    }
    fn fsync_file(&self, path: &Path) -> io::Result<()> {
        self.fsync(path)
    }
    fn fsync_dir(&self, path: &Path) -> io::Result<()> {
        self.fsync(path)
    }
}

/// The root that the tests use.
pub fn root() -> PathBuf {
    PathBuf::from("/data")
}
