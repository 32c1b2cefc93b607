//! The head guard: one short read-modify-write of everything of a session that many may write.

use crate::commit::{self, Action, Step};
use crate::error::{At, Result, StoreError, if_there};
use crate::number;
use crate::record::{Record, Write};
use crate::store::TenantStore;
use run_protocol::{Fence, Head, HeadState};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use wire::ids::SessionId;
use wire::session::Session;

/// A head guard as somebody sees it who does not hold it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    /// Its number.
    pub number: u64,
    /// False while its holder has a commit under way.
    pub empty: bool,
}

/// The right to one head commit, as long as nobody else takes it. Dropping it writes nothing.
///
/// Whoever pauses while holding it loses it without harm: its commit ends in `Fenced` and changes nothing that the next
/// holder has read.
#[must_use]
pub struct HeadGuard {
    store: TenantStore,
    session: SessionId,
    held: PathBuf,
    head: Head,
}

impl TenantStore {
    /// Makes a session: its guards and head first, then its record. `Exists` if it is there.
    ///
    /// After a crash between the two the same call finishes it.
    pub fn create_session(&self, session: &Session, head: Head) -> Result<()> {
        let record = Record::Session { project: head.project.clone(), id: session.id.clone() };
        let target = self.path(&record)?;
        let bytes = serde_json::to_vec(session).map_err(|error| StoreError::corrupt(&target, error))?;
        match self.make_guard(&session.id, &head, Some(&bytes)) {
            // Number 0 is ours until somebody takes it: the record stands beside its place already.
            Ok(()) => commit::finish_first(&self.inner, &self.guard(&session.id).join("head/0"), &target),
            Err(StoreError::Exists) => {
                let guard = self.take_head(&session.id)?;
                let (live, half_made) = (guard.head.is_live(), self.read(&record)?.is_none());
                if !live || !half_made {
                    self.sync_seen(&session.id)?;
                    self.inner.sync_directories(target.parent())?;
                    return Err(StoreError::Exists);
                }
                let head = guard.head.clone();
                guard.commit(vec![Write::PutNew(record, bytes)], head).map(|_| ())
            }
            Err(error) => Err(error),
        }
    }

    /// Makes durable what a session's head tells, which was read before this: whoever placed it may have died before it had. For
    /// those who acknowledge what they found done.
    pub fn sync_seen(&self, session: &SessionId) -> Result<()> {
        let guard = self.guard(session);
        self.inner.sync_directories(guard.parent().into_iter().chain([&*guard]))
    }

    /// Makes the guards and the head of a session whose record follows in another's commit, as a child's does under its
    /// parent's head guard. `Exists` if they are there.
    pub fn create_guard(&self, session: &SessionId, head: &Head) -> Result<()> {
        self.make_guard(session, head, None)
    }

    /// Builds the guards aside and moves them into place whole. `first`: a file that waits in the head guard's directory.
    pub(crate) fn make_guard(&self, session: &SessionId, head: &Head, first: Option<&[u8]>) -> Result<()> {
        self.make_directories()?;
        let aside = self.directory("flotilla/new").join(self.inner.random_name());
        let bytes = serde_json::to_vec(head).map_err(|error| StoreError::corrupt(&aside, error))?;
        let target = self.guard(session);
        let result =
            self.build_guard(&aside, &bytes, first).and_then(|()| match self.inner.disk.rename(&aside, &target) {
                Err(error) if matches!(error.kind(), ErrorKind::AlreadyExists | ErrorKind::DirectoryNotEmpty) => {
                    Err(StoreError::Exists)
                }
                Err(error) => Err(StoreError::file(&target, error)),
                Ok(()) => Ok(()),
            });
        match result {
            Ok(()) => self.inner.sync_directories(target.parent()),
            Err(error) => {
                self.discard_guard(&aside);
                Err(error)
            }
        }
    }

    fn build_guard(&self, aside: &Path, head: &[u8], first: Option<&[u8]>) -> Result<()> {
        let inner = &self.inner;
        let directories = ["", "run", "run/0", "head", "head/0"].map(|name| aside.join(name));
        for directory in &directories {
            inner.disk.mkdir(directory).at(directory)?;
        }
        let mut files = vec![(aside.join("head.json"), head)];
        files.extend(first.map(|bytes| (aside.join("head/0").join(commit::FIRST), bytes)));
        for (path, bytes) in &files {
            inner.disk.create(path, bytes).at(path)?;
        }
        if let Some(sync) = &inner.sync {
            sync.files(&files.into_iter().map(|(path, _)| path).collect::<Vec<_>>())?;
            sync.names(directories.iter().map(PathBuf::as_path))?;
        }
        Ok(())
    }

    /// Removes what was built aside; what can't be removed lies in nobody's way.
    fn discard_guard(&self, aside: &Path) {
        let disk = &self.inner.disk;
        for file in ["head.json".into(), format!("head/0/{}", commit::FIRST)] {
            let _ = disk.unlink(&aside.join(file));
        }
        for directory in ["run/0", "run", "head/0", "head", ""] {
            let _ = disk.rmdir(&aside.join(directory));
        }
    }

    /// The head as it stands, of a deleted session, too. A session of OpenCode's that has no head yet has a new one.
    pub fn head(&self, session: &SessionId) -> Result<Head> {
        match self.stored_head(session)? {
            Some(head) => Ok(head),
            None => self.old_project(session)?.map(Head::new).ok_or(StoreError::NotFound),
        }
    }

    fn stored_head(&self, session: &SessionId) -> Result<Option<Head>> {
        let path = self.guard(session).join("head.json");
        let Some((bytes, _)) = if_there(self.inner.disk.read(&path), &path)? else { return Ok(None) };
        let head: Head = serde_json::from_slice(&bytes).map_err(|error| StoreError::corrupt(&path, error))?;
        if head.format > Head::FORMAT {
            return Err(StoreError::NewerFormat { path, found: head.format, known: Head::FORMAT });
        }
        Ok(Some(head))
    }

    /// Looks at the head guard without taking it.
    ///
    /// Who contends without a lock takes it at once if it is empty, else only when the number has stayed the same for a
    /// while.
    pub fn look_head(&self, session: &SessionId) -> Result<Look> {
        let guard = self.guard(session).join("head");
        let number = number::current(&*self.inner.disk, &guard)?;
        let empty = number::is_empty(&*self.inner.disk, &number::directory(&guard, number))?;
        Ok(Look { number, empty })
    }

    /// Takes the head guard from whoever holds it and reads the head: one attempt, `Contended` if another was faster.
    pub fn take_head(&self, session: &SessionId) -> Result<HeadGuard> {
        let disk = &*self.inner.disk;
        let guard = self.guard(session).join("head");
        let number = match number::current(disk, &guard) {
            Err(StoreError::NotFound) => {
                self.adopt_old_session(session)?;
                number::current(disk, &guard)?
            }
            number => number?,
        };
        self.take_head_at(session, number)
    }

    /// Takes the head guard if its number is still `number`, and reads the head; `Contended` if another was faster.
    pub fn take_head_at(&self, session: &SessionId, number: u64) -> Result<HeadGuard> {
        let disk = &*self.inner.disk;
        let guard = self.guard(session).join("head");
        match number::take(disk, &guard, number) {
            Ok(taken) => {
                let head = self.stored_head(session)?.ok_or_else(|| StoreError::corrupt(&guard, "it has no head"))?;
                let held = number::directory(&guard, taken);
                Ok(HeadGuard { store: self.clone(), session: session.clone(), held, head })
            }
            Err(StoreError::Fenced) => {
                let Look { number, empty } = self.look_head(session)?;
                Err(StoreError::Contended { number, empty })
            }
            Err(error) => Err(error),
        }
    }
}

impl HeadGuard {
    /// The head as it stood when the guard was taken.
    pub fn head(&self) -> &Head {
        &self.head
    }

    /// Succeeds if the run guard still has this number, else `Fenced`.
    ///
    /// A runner asks between taking the head guard and committing: whoever deposed it takes the run guard first and
    /// reads the head after, so either this fails or the commit is there when the other reads.
    pub fn check_run(&self, fence: Fence) -> Result<()> {
        let held = number::directory(&self.store.guard(&self.session).join("run"), fence.0);
        if number::is_held(&*self.store.inner.disk, &held)? { Ok(()) } else { Err(StoreError::Fenced) }
    }

    /// Makes the writes in their order and then the head, whose `rev` grows by one. Returns the head as it was written.
    ///
    /// `Fenced` if the guard was taken meanwhile: the caller begins again with taking and reading. `Deleted` for a head
    /// that would bring a deleted session back. After any other error a beginning of the writes may be there, but not
    /// the head.
    pub fn commit(self, writes: Vec<Write>, mut head: Head) -> Result<Head> {
        let returns = match self.head.state {
            HeadState::Live => false,
            HeadState::Deleted => head.state == HeadState::Live,
            HeadState::Removed => head.state != HeadState::Removed,
        };
        if returns {
            return Err(StoreError::Deleted);
        }
        head.rev = self.head.rev + 1;
        head.note_changes(writes.iter().filter_map(|write| write.record().message()));
        let target = self.store.guard(&self.session).join("head.json");
        let bytes = serde_json::to_vec(&head).map_err(|error| StoreError::corrupt(&target, error))?;
        let mut steps = self.store.steps(&writes)?;
        steps.push(Step { target, action: Action::Put(bytes.into()) });
        commit::commit(&self.store.inner, &self.held, &steps)?;
        self.store.apply_to_view(&self.session, self.head.rev, &writes, &head);
        Ok(head)
    }

    /// Gives the guard up; nothing is written. The same as dropping it.
    pub fn release(self) {}
}
