//! fsync for many at once.
//!
//! A few threads do it, so that the fsyncs of one commit run side by side and the file system joins them into one flush;
//! and who asks for a directory that somebody else is already queued for waits for the same fsync. In a simulation there are
//! none: who asks does it.

use crate::disk::Disk;
use crate::error::{Result, StoreError};
use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;

/// Threads of a store at work.
pub(crate) const THREADS: usize = 8;

/// Directories whose names in their parents are known to be durable. Forgotten when there are too many: that costs an
/// fsync, nothing else.
const KNOWN_DIRECTORIES: usize = 65_536;

/// What an fsync came to. `io::Error` is not `Clone`, and several may wait for one.
type Outcome = std::result::Result<(), (io::ErrorKind, Option<i32>)>;

struct Job {
    path: PathBuf,
    directory: bool,
    outcome: Mutex<Option<Outcome>>,
    done: Condvar,
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Arc<Job>>,
    /// Jobs that no thread has begun, by path: only these may be joined, for an fsync under way may have begun before
    /// the newcomer's write.
    waiting: HashMap<PathBuf, Arc<Job>>,
    closing: bool,
}

struct Shared {
    disk: Arc<dyn Disk>,
    queue: Mutex<Queue>,
    more: Condvar,
    failed: AtomicBool,
    durable: Mutex<HashSet<PathBuf>>,
}

/// Makes files and directories durable. Dropping it ends its threads.
pub(crate) struct Syncer {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

impl Syncer {
    /// Starts so many threads; without one, each fsync is made by whoever waits for it.
    pub(crate) fn start(disk: Arc<dyn Disk>, threads: usize) -> Result<Self> {
        let shared = Arc::new(Shared {
            disk,
            queue: Mutex::new(Queue { closing: threads == 0, ..Queue::default() }),
            more: Condvar::new(),
            failed: AtomicBool::new(false),
            durable: Mutex::default(),
        });
        let mut started = Vec::with_capacity(threads);
        for _ in 0..threads {
            let worker = Arc::clone(&shared);
            let thread = std::thread::Builder::new().name("store-fsync".into()).spawn(move || worker.work());
            started.push(thread.map_err(|error| StoreError::file(Path::new("thread"), error))?);
        }
        Ok(Self { shared, threads: started })
    }

    /// True once an fsync has failed: the kernel may have dropped what it could not write, so nothing can be promised.
    pub(crate) fn has_failed(&self) -> bool {
        self.shared.failed.load(Ordering::Acquire)
    }

    /// Makes the contents of files durable.
    pub(crate) fn files(&self, paths: &[PathBuf]) -> Result<()> {
        self.wait(paths.iter().map(|path| self.shared.submit(path, false)).collect(), |_| false)
    }

    /// Makes just the names in directories durable.
    pub(crate) fn names<'a>(&self, paths: impl IntoIterator<Item = &'a Path>) -> Result<()> {
        self.wait(paths.into_iter().map(|path| self.shared.submit(path, true)).collect(), |_| false)
    }

    /// As [`Syncer::names`], of directories that may not be there: those have nothing to be made durable.
    pub(crate) fn names_if_there<'a>(&self, paths: impl IntoIterator<Item = &'a Path>) -> Result<()> {
        let jobs = paths.into_iter().map(|path| self.shared.submit(path, true)).collect();
        self.wait(jobs, |kind| kind == io::ErrorKind::NotFound)
    }

    /// Makes the names in directories durable, and the directories themselves where that is not known.
    pub(crate) fn directories<'a>(&self, paths: impl IntoIterator<Item = &'a Path>) -> Result<()> {
        let mut wanted: BTreeSet<&Path> = BTreeSet::new();
        let mut fresh = Vec::new();
        let known = lock(&self.shared.durable);
        for path in paths {
            if wanted.insert(path) && !known.contains(path) {
                fresh.push(path);
            }
        }
        drop(known);
        wanted.extend(fresh.iter().filter_map(|path| path.parent()));
        self.names(wanted)?;
        let mut known = lock(&self.shared.durable);
        if known.len() + fresh.len() > KNOWN_DIRECTORIES {
            known.clear();
        }
        known.extend(fresh.into_iter().map(Path::to_path_buf));
        Ok(())
    }

    /// A directory was removed: one of that name that is made again is not durable.
    pub(crate) fn forget(&self, path: &Path) {
        lock(&self.shared.durable).remove(path);
    }

    fn wait(&self, jobs: Vec<Arc<Job>>, is_forgiven: fn(io::ErrorKind) -> bool) -> Result<()> {
        if self.threads.is_empty() {
            self.shared.work();
        }
        let mut first = Ok(());
        for job in jobs {
            let mut outcome = lock(&job.outcome);
            let outcome = loop {
                match *outcome {
                    Some(outcome) => break outcome,
                    None => outcome = job.done.wait(outcome).unwrap_or_else(|poisoned| poisoned.into_inner()),
                }
            };
            if let Err((kind, code)) = outcome.or_else(|error| if is_forgiven(error.0) { Ok(()) } else { Err(error) }) {
                let error = code.map_or_else(|| kind.into(), io::Error::from_raw_os_error);
                first = first.and(Err(StoreError::file(&job.path, error)));
            }
        }
        first
    }
}

impl Shared {
    fn submit(&self, path: &Path, directory: bool) -> Arc<Job> {
        let mut queue = lock(&self.queue);
        if let Some(job) = queue.waiting.get(path) {
            return Arc::clone(job);
        }
        let job = Arc::new(Job { path: path.into(), directory, outcome: Mutex::default(), done: Condvar::new() });
        queue.jobs.push_back(Arc::clone(&job));
        queue.waiting.insert(path.into(), Arc::clone(&job));
        drop(queue);
        self.more.notify_one();
        job
    }

    fn work(&self) {
        while let Some(job) = self.next() {
            let result = if job.directory { self.disk.fsync_dir(&job.path) } else { self.disk.fsync_file(&job.path) };
            let outcome = result.map_err(|error| (error.kind(), error.raw_os_error()));
            if matches!(outcome, Err((kind, _)) if kind != io::ErrorKind::NotFound) {
                self.failed.store(true, Ordering::Release);
            }
            *lock(&job.outcome) = Some(outcome);
            job.done.notify_all();
        }
    }

    fn next(&self) -> Option<Arc<Job>> {
        let mut queue = lock(&self.queue);
        loop {
            if let Some(job) = queue.jobs.pop_front() {
                queue.waiting.remove(&job.path);
                return Some(job);
            }
            if queue.closing {
                return None;
            }
            queue = self.more.wait(queue).unwrap_or_else(|poisoned| poisoned.into_inner());
        }
    }
}

impl Drop for Syncer {
    fn drop(&mut self) {
        lock(&self.shared.queue).closing = true;
        self.shared.more.notify_all();
        for thread in self.threads.drain(..) {
            // A thread that panicked has nothing left to give back.
            let _ = thread.join();
        }
    }
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}
