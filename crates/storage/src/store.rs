//! The store of an installation, and of one tenant in it.

use crate::cache::Bounded;
use crate::disk::{Disk, LocalDisk};
use crate::error::{At, Result, StoreError, if_there};
use crate::listing::Rows;
use crate::record::{DIRECTORIES, Record};
use crate::snapshots::Seeing;
use crate::sync::{Syncer, THREADS, lock};
use crate::view::View;
use std::collections::HashSet;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use wire::clock::Entropy;
use wire::ids::SessionId;
use wire::tenant::Tenant;

/// The format of the directory that this version writes.
const FORMAT: u32 = 1;

/// Bytes of records and of what was seen of work trees that are kept in memory, estimated, where nobody says otherwise.
const KEPT_BYTES: usize = 96 << 20;

/// What of the bytes that are kept is for messages, for rows of lists, and for what was seen of work trees.
const fn shares(bytes: usize) -> (usize, usize, usize) {
    (bytes / 2, bytes / 6, bytes / 3)
}

/// What a write that was acknowledged survives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// A power cut.
    Disk,
    /// The death of any process, not of the machine.
    Os,
}

/// The store of an installation. Cheap to clone.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

/// The store as one tenant sees it. Cheap to clone.
#[derive(Clone)]
pub struct TenantStore {
    pub(crate) inner: Arc<Inner>,
    pub(crate) tenant: Tenant,
    pub(crate) root: Arc<Path>,
}

/// While it lives, no other process that asks for it gets the directory.
#[derive(Debug)]
pub struct DirectoryLock {
    _file: std::fs::File,
}

/// Every entry of a cache bears the tenant.
type ViewKey = (Tenant, SessionId);

pub(crate) struct Inner {
    pub(crate) disk: Arc<dyn Disk>,
    /// Only with durability `disk`.
    pub(crate) sync: Option<Syncer>,
    pub(crate) views: Mutex<Bounded<ViewKey, Arc<Mutex<View>>>>,
    pub(crate) rows: Mutex<Bounded<PathBuf, Arc<Mutex<Rows>>>>,
    /// What was seen of work trees, by their roots.
    pub(crate) seeings: Mutex<Bounded<(Tenant, PathBuf), Arc<Seeing>>>,
    root: PathBuf,
    pub(crate) entropy: Arc<dyn Entropy>,
    names: AtomicU64,
    /// Tenants whose directories are known to be there.
    made: Mutex<HashSet<Tenant>>,
}

impl Store {
    /// Opens the store, and makes its directories where they are missing.
    ///
    /// Fails with one line if the directory can't be written, or if a later version has written it.
    pub fn open(root: PathBuf, durability: Durability, entropy: Arc<dyn Entropy>) -> Result<Self> {
        let root = std::path::absolute(&root).at(&root)?;
        std::fs::create_dir_all(&root).at(&root)?;
        Self::open_on(Arc::new(LocalDisk), root, durability, entropy)
    }

    /// Opens the store on a given disk, on which `root` exists.
    pub fn open_on(
        disk: Arc<dyn Disk>,
        root: PathBuf,
        durability: Durability,
        entropy: Arc<dyn Entropy>,
    ) -> Result<Self> {
        let sync = match durability {
            Durability::Disk => Some(Syncer::start(Arc::clone(&disk), THREADS)?),
            Durability::Os => None,
        };
        Self::open_with(disk, root, sync, entropy)
    }

    /// Opens the store on a given disk with durability `disk` and without a thread: whoever needs an fsync makes it, one
    /// after the other. For simulations.
    pub fn open_on_one_thread(disk: Arc<dyn Disk>, root: PathBuf, entropy: Arc<dyn Entropy>) -> Result<Self> {
        let sync = Syncer::start(Arc::clone(&disk), 0)?;
        Self::open_with(disk, root, Some(sync), entropy)
    }

    fn open_with(disk: Arc<dyn Disk>, root: PathBuf, sync: Option<Syncer>, entropy: Arc<dyn Entropy>) -> Result<Self> {
        let (views, rows, seeings) = shares(KEPT_BYTES);
        let inner = Inner {
            disk,
            sync,
            views: Mutex::new(Bounded::new(views)),
            rows: Mutex::new(Bounded::new(rows)),
            seeings: Mutex::new(Bounded::new(seeings)),
            root,
            entropy,
            names: AtomicU64::new(0),
            made: Mutex::default(),
        };
        let store = Self { inner: Arc::new(inner) };
        store.check_format()?;
        store.tenant(&Tenant::default()).make_directories()?;
        store.write_format()?;
        store.probe()?;
        Ok(store)
    }

    /// Keeps at most so many bytes in memory, as they are estimated: half of them of messages, a sixth of rows of lists, a
    /// third of what was seen of work trees. What was used longest ago goes.
    pub fn keep_at_most(&self, bytes: usize) {
        let (views, rows, seeings) = shares(bytes);
        lock(&self.inner.views).limit(views);
        lock(&self.inner.rows).limit(rows);
        lock(&self.inner.seeings).limit(seeings);
    }

    /// Bytes of records and of what was seen of work trees that are kept in memory, as they are estimated: bounded, and
    /// let go of when there is no more room.
    pub fn kept_bytes(&self) -> usize {
        lock(&self.inner.views).bytes() + lock(&self.inner.rows).bytes() + lock(&self.inner.seeings).bytes()
    }

    /// The store of one tenant. Its directories are made at its first write.
    pub fn tenant(&self, tenant: &Tenant) -> TenantStore {
        let root = match tenant.is_default() {
            true => self.inner.root.clone(),
            false => self.inner.root.join("tenants").join(tenant.as_str()),
        };
        TenantStore { inner: Arc::clone(&self.inner), tenant: tenant.clone(), root: root.into() }
    }

    /// The tenants that have anything stored, and the default one.
    pub fn tenants(&self) -> Result<Vec<Tenant>> {
        let path = self.inner.root.join("tenants");
        let names = if_there(self.inner.disk.list(&path), &path)?.unwrap_or_default();
        let others = names.iter().filter_map(|name| Tenant::parse(name).ok()).filter(|tenant| !tenant.is_default());
        Ok(std::iter::once(Tenant::default()).chain(others).collect())
    }

    /// Claims the directory for this process; `Locked` while another one has it or shares it. It ends with the value, or
    /// the process.
    pub fn lock_directory(&self) -> Result<DirectoryLock> {
        self.directory_lock(std::fs::File::try_lock)
    }

    /// Claims the directory for a fleet of processes: `Locked` while one has it for itself.
    ///
    /// Errors: also where the file system knows no locks, which then keep nobody out.
    pub fn share_directory(&self) -> Result<DirectoryLock> {
        self.directory_lock(std::fs::File::try_lock_shared)
    }

    fn directory_lock(
        &self,
        lock: impl FnOnce(&std::fs::File) -> std::result::Result<(), std::fs::TryLockError>,
    ) -> Result<DirectoryLock> {
        let path = self.inner.root.join("flotilla/lock");
        let file = std::fs::OpenOptions::new().write(true).create(true).truncate(false).open(&path).at(&path)?;
        match lock(&file) {
            Ok(()) => Ok(DirectoryLock { _file: file }),
            Err(std::fs::TryLockError::WouldBlock) => Err(StoreError::Locked(self.inner.root.clone())),
            Err(std::fs::TryLockError::Error(error)) => Err(StoreError::file(&path, error)),
        }
    }

    /// Writes and removes a small file: whether the store can be written now. Fails for good once an fsync has failed.
    pub fn probe(&self) -> Result<()> {
        let inner = &self.inner;
        if inner.sync.as_ref().is_some_and(Syncer::has_failed) {
            return Err(StoreError::SyncFailed);
        }
        let path = inner.root.join("flotilla/probe").join(inner.random_name());
        inner.disk.create(&path, b"probe").at(&path)?;
        let synced = inner.sync.as_ref().map_or(Ok(()), |sync| sync.files(std::slice::from_ref(&path)));
        inner.disk.unlink(&path).at(&path)?;
        synced
    }

    /// What tells this directory from others, whatever path it is mounted at: made by the first that asks.
    pub fn id(&self) -> Result<String> {
        let path = self.inner.root.join("flotilla/id");
        self.write_once(&path, &format!("{:016x}", self.inner.entropy.bits()))?;
        let (bytes, _) = self.inner.disk.read(&path).at(&path)?;
        Ok(String::from_utf8_lossy(&bytes).trim().to_owned())
    }

    fn check_format(&self) -> Result<()> {
        let path = self.inner.root.join("flotilla/format");
        let Some((bytes, _)) = if_there(self.inner.disk.read(&path), &path)? else { return Ok(()) };
        let text = String::from_utf8_lossy(&bytes);
        let found = text.trim().parse().map_err(|_| StoreError::corrupt(&path, "this is no number"))?;
        if found > FORMAT { Err(StoreError::NewerFormat { path, found, known: FORMAT }) } else { Ok(()) }
    }

    fn write_format(&self) -> Result<()> {
        self.write_once(&self.inner.root.join("flotilla/format"), &FORMAT.to_string())
    }

    /// Writes a line to a file that is not there yet.
    fn write_once(&self, path: &Path, line: &str) -> Result<()> {
        let inner = &self.inner;
        let beside = inner.root.join("flotilla/new").join(inner.random_name());
        inner.disk.create(&beside, format!("{line}\n").as_bytes()).at(&beside)?;
        if let Some(sync) = &inner.sync {
            sync.files(std::slice::from_ref(&beside))?;
        }
        match inner.disk.rename_new(&beside, path) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => inner.disk.unlink(&beside).at(&beside)?,
            result => result.at(path)?,
        }
        inner.sync_directories(path.parent())
    }
}

impl TenantStore {
    pub(crate) fn path(&self, record: &Record) -> Result<PathBuf> {
        record.path(&self.root)
    }

    pub(crate) fn directory(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    pub(crate) fn guard(&self, session: &SessionId) -> PathBuf {
        self.root.join("flotilla/guard").join(session.as_str())
    }

    /// Makes the tenant's directories, once in this process.
    pub(crate) fn make_directories(&self) -> Result<()> {
        if lock(&self.inner.made).contains(&self.tenant) {
            return Ok(());
        }
        if !self.tenant.is_default() {
            self.inner.make_directory(&self.inner.root.join("tenants"))?;
            self.inner.make_directory(&self.root)?;
        }
        let directories = DIRECTORIES.map(|name| self.root.join(name));
        for directory in &directories {
            self.inner.make_directory(directory)?;
        }
        self.inner
            .sync_directories([&self.inner.root, &*self.root].into_iter().chain(directories.iter().map(|d| &**d)))?;
        lock(&self.inner.made).insert(self.tenant.clone());
        Ok(())
    }
}

impl Inner {
    /// A name that no other file has, and that nobody can guess before it is used.
    pub(crate) fn random_name(&self) -> String {
        format!("{:016x}-{:x}", self.entropy.bits(), self.names.fetch_add(1, Ordering::Relaxed))
    }

    /// Makes one directory; one that is there is fine.
    pub(crate) fn make_directory(&self, path: &Path) -> Result<()> {
        match self.disk.mkdir(path) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
            result => result.at(path),
        }
    }

    /// Makes files and their names durable, if the store promises that. One that is gone again needs nothing.
    pub(crate) fn sync_files(&self, paths: &[PathBuf]) -> Result<()> {
        let Some(sync) = &self.sync else { return Ok(()) };
        let there: Vec<PathBuf> = paths.iter().filter(|path| self.disk.stamp(path).is_ok()).cloned().collect();
        match sync.files(&there) {
            Err(StoreError::Io(file)) if file.source.kind() == std::io::ErrorKind::NotFound => {}
            other => other?,
        }
        sync.directories(there.iter().filter_map(|path| path.parent()))
    }

    /// Makes the names in directories durable, if the store promises that.
    pub(crate) fn sync_directories<'a>(&self, paths: impl IntoIterator<Item = &'a Path>) -> Result<()> {
        self.sync.as_ref().map_or(Ok(()), |sync| sync.directories(paths))
    }
}
