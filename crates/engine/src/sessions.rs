//! Sessions: made, read, listed, changed, deleted.

use crate::api::{EngineError, NewSession, RequestName, Scope, SessionPatch, SessionQuery};
use crate::asks::found;
use crate::commit::{Committer, Decision, Under, body};
use crate::engine::{Engine, blocking};
use crate::named::Acting;
use crate::run::session_record;
use coordination::SessionKey;
use run_protocol::{Delete, DeleteInput, Deletion, Head, HeadState, RecordVersion};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::time::Duration;
use storage::{Page, Record, SessionFilter, StoreError, Write};
use wire::ids::{MessageId, SessionId};
use wire::message::{MessageWithParts, Tokens};
use wire::part::{Part, ToolState};
use wire::session::{Session, SessionStatus, SessionTime, default_title};
use wire::tenant::Tenant;

/// Where the head of a session that is being deleted keeps the session's record.
const DELETED: &str = "deleted";
/// How often a deletion tries to take the run guard; others may take it at the same moment.
const TAKES: u32 = 100;
/// For so long a deletion waits until it is told.
const TELLING: Duration = Duration::from_secs(5);
/// For so long a reader of messages waits until this replica follows the events.
const FEED: Duration = Duration::from_millis(500);
/// Sessions listed where no limit is given.
const LISTED: usize = 100;

impl Engine {
    /// Makes a session in a directory.
    pub async fn create_session(
        &self,
        scope: &Scope,
        new: NewSession,
        name: Option<&RequestName>,
    ) -> Result<Session, EngineError> {
        self.is_coordinated()?;
        let about = async {
            if let Some(parent) = &new.parent_id {
                self.session(&scope.tenant, parent).await?;
            }
            Ok(self.0.ids.session())
        };
        self.once(&scope.tenant, name, about, |acting| self.make_session(scope, new.clone(), acting)).await
    }

    async fn make_session(&self, scope: &Scope, new: NewSession, acting: Acting) -> Result<Session, EngineError> {
        let instance = self.instance(scope).await?;
        let now = self.now_ms();
        let id = acting.session;
        let path = scope.directory.strip_prefix(&instance.worktree).map(|path| path.to_string_lossy().into_owned());
        let session = Session {
            slug: slug(self.0.ids.bits()),
            project_id: instance.project.id.clone(),
            directory: scope.directory.to_string_lossy().into_owned(),
            path: path.unwrap_or_default(),
            title: new.title.unwrap_or_else(|| default_title(&crate::time::iso(now), new.parent_id.is_some())),
            parent_id: new.parent_id,
            summary: None,
            cost: 0.0,
            tokens: Tokens::default(),
            share: None,
            agent: new.agent,
            model: new.model,
            version: wire::OPENCODE_VERSION.into(),
            metadata: new.metadata,
            time: SessionTime { created: now, updated: now, compacting: None, archived: None },
            permission: new.permission,
            revert: None,
            extra: wire::Extra::new(),
            id,
        };
        let (store, stored) = (self.tenant_store(&scope.tenant), session.clone());
        let made = blocking(move || {
            let head = Head::new(stored.project_id.clone());
            match store.create_session(&stored, head) {
                // Made by an earlier sending of the same request.
                Err(StoreError::Exists) => Ok(Some(store.session(&stored.id)?)),
                made => Ok(made.map(|()| None)?),
            }
        });
        let session = made.await?.unwrap_or(session);
        let key = SessionKey::new(scope.tenant.clone(), session.id.clone());
        self.publish(&self.origin(&key, &session, None), wire::event::session_created(&session), None).await;
        Ok(session)
    }

    /// A session.
    pub async fn session(&self, tenant: &Tenant, id: &SessionId) -> Result<Session, EngineError> {
        let (store, wanted) = (self.tenant_store(tenant), id.clone());
        blocking(move || found(store.session(&wanted))).await?.ok_or_else(|| EngineError::SessionNotFound(id.clone()))
    }

    /// The sessions of the scope's project, newest change first.
    pub async fn sessions(&self, scope: &Scope, query: SessionQuery) -> Result<Vec<Session>, EngineError> {
        let instance = self.instance(scope).await?;
        let store = self.tenant_store(&scope.tenant);
        let filter = SessionFilter {
            project: Some(instance.project.id.clone()),
            directory: query.directory.filter(|_| query.path.is_none()),
            path_prefix: query.path,
            roots: query.roots,
            search: query.search,
            start: query.start,
            limit: Some(query.limit.unwrap_or(LISTED)),
        };
        blocking(move || store.sessions(&filter).map_err(EngineError::from)).await
    }

    /// The sessions that a session's tasks made.
    pub async fn children(&self, tenant: &Tenant, id: &SessionId) -> Result<Vec<Session>, EngineError> {
        self.session(tenant, id).await?;
        let (store, id) = (self.tenant_store(tenant), id.clone());
        blocking(move || store.children(&id).map_err(EngineError::from)).await
    }

    /// Changes the named fields and no other.
    pub async fn patch_session(
        &self,
        tenant: &Tenant,
        id: &SessionId,
        patch: SessionPatch,
        name: Option<&RequestName>,
    ) -> Result<Session, EngineError> {
        let about = async { Ok(self.session(tenant, id).await?.id) };
        self.once(tenant, name, about, |acting| self.change_session(tenant, patch, acting)).await
    }

    async fn change_session(
        &self,
        tenant: &Tenant,
        patch: SessionPatch,
        acting: Acting,
    ) -> Result<Session, EngineError> {
        let Acting { session: id, name, is_again } = acting;
        let key = SessionKey::new(tenant.clone(), id.clone());
        let now = self.now_ms();
        let (head, (session, changed)) = self
            .head_commit(&key, Committer::Request, move |head, at| {
                let mut session = at.session()?;
                if !head.apply_once(name.as_deref()) {
                    // An earlier sending changed it; its sender may not have lived to tell it.
                    return Ok(Decision::Leave((session, true)));
                }
                let before = session.clone();
                if let Some(title) = &patch.title {
                    session.title = title.clone();
                }
                if let Some(metadata) = &patch.metadata {
                    session.metadata = Some(metadata.clone());
                }
                if let Some(rules) = &patch.permission {
                    let there = session.permission.get_or_insert_default();
                    // An earlier sending may have come as far as the record.
                    if !(is_again && there.ends_with(rules)) {
                        there.extend(rules.iter().cloned());
                    }
                }
                if let Some(archived) = &patch.archived {
                    session.time.archived = Some(archived.clone());
                }
                if session == before && !is_again {
                    return Ok(Decision::Leave((session, false)));
                }
                // Neither the title nor the archive counts as an update.
                if patch.metadata.is_some() || patch.permission.is_some() {
                    session.time.updated = session.time.updated.max(now);
                }
                let write = Write::Put(session_record(&session), body(&session)?);
                Ok(Decision::Write(vec![write], (session, true)))
            })
            .await?;
        if changed {
            let version = (id.to_string(), RecordVersion::head(head.rev));
            let origin = self.origin(&key, &session, None);
            self.publish(&origin, wire::event::session_updated(&session), Some(version)).await;
        }
        Ok(session)
    }

    /// What a prompt's turn changed; nothing without a message.
    pub async fn diff(
        &self,
        tenant: &Tenant,
        id: &SessionId,
        message: Option<&MessageId>,
    ) -> Result<Value, EngineError> {
        let Some(message) = message else { return Ok(json!([])) };
        let found = match self.message(tenant, id, message).await {
            Err(EngineError::MessageNotFound(_)) => None,
            found => Some(found?),
        };
        let summary = found.as_ref().and_then(|found| found.info.user()?.summary.as_ref());
        Ok(summary.map_or_else(|| json!([]), |summary| summary["diffs"].clone()))
    }

    /// What the sessions of a directory that are at work are doing: those whose head is open. The lease says what its
    /// owner does; where there is none, somebody will take the work up.
    pub async fn statuses(&self, scope: &Scope) -> Result<BTreeMap<SessionId, SessionStatus>, EngineError> {
        // Without coordination the heads still say who is at work.
        let leases = self.0.ports.leases.statuses(&scope.tenant).await.unwrap_or_default();
        let directory = scope.directory.to_string_lossy();
        let open = self.open_sessions(&scope.tenant).await?;
        let status = |session: Session| {
            let status = leases.get(&session.id).and_then(|status| serde_json::from_str(status).ok());
            let status = status.filter(|status| *status != SessionStatus::Idle).unwrap_or(SessionStatus::Busy);
            (session.id, status)
        };
        Ok(open.into_iter().filter(|session| session.directory == directory).map(status).collect())
    }

    /// The sessions that are at work, or have work that somebody will take up.
    pub(crate) async fn open_sessions(&self, tenant: &Tenant) -> Result<Vec<Session>, EngineError> {
        let store = self.tenant_store(tenant);
        blocking(move || {
            let marked: BTreeSet<SessionId> = store.markers()?.into_iter().map(|marker| marker.session).collect();
            let mut open = Vec::new();
            for id in marked {
                if let Some(head) = found(store.head(&id))?.filter(|head| head.is_live() && head.is_open()) {
                    open.extend(found(store.session_under(&id, &head))?);
                }
            }
            Ok(open)
        })
        .await
    }

    /// Messages in ascending order: the newest `limit` before a place, all without.
    pub async fn messages(
        &self,
        tenant: &Tenant,
        id: &SessionId,
        limit: Option<usize>,
        before: Option<(u64, MessageId)>,
    ) -> Result<Page, EngineError> {
        let (store, wanted) = (self.tenant_store(tenant), id.clone());
        // What lies there of a session that is only half made, or half gone, nobody sees.
        let page = blocking(move || match found(store.session(&wanted))? {
            Some(_) => found(store.messages(&wanted, limit, before)),
            None => Ok(None),
        })
        .await?;
        let mut page = page.ok_or_else(|| EngineError::SessionNotFound(id.clone()))?;
        self.show_progress(tenant, &mut page.items).await;
        Ok(page)
    }

    /// Gives calls that run what they said of themselves last, as far as this replica is told of it soon.
    async fn show_progress(&self, tenant: &Tenant, messages: &mut [MessageWithParts]) {
        let is_running = |part: &Part| matches!(part.tool().map(|call| &call.state), Some(ToolState::Running { .. }));
        let mut running = messages.iter_mut().flat_map(|message| &mut message.parts).filter(|part| is_running(part));
        if let Some(first) = running.next()
            && let Ok(Ok(feed)) = tokio::time::timeout(FEED, self.feed(tenant)).await
        {
            feed.show_progress(std::iter::once(first).chain(running));
        }
    }

    /// One message with its parts.
    pub async fn message(
        &self,
        tenant: &Tenant,
        session: &SessionId,
        id: &MessageId,
    ) -> Result<MessageWithParts, EngineError> {
        let (store, owner, wanted) = (self.tenant_store(tenant), session.clone(), id.clone());
        // OpenCode looks for the message alone, whichever of the two is missing.
        let message = blocking(move || match found(store.session(&owner))? {
            Some(_) => found(store.message(&owner, &wanted)),
            None => Ok(None),
        })
        .await?;
        let mut message = message.ok_or_else(|| EngineError::MessageNotFound(id.clone()))?;
        self.show_progress(tenant, std::slice::from_mut(&mut message)).await;
        Ok(message)
    }

    /// A session's head as it is stored.
    pub(crate) async fn read_head(&self, key: &SessionKey) -> Result<Head, EngineError> {
        let (store, id) = (self.tenant_store(&key.tenant), key.session.clone());
        blocking(move || match store.head(&id) {
            Err(StoreError::NotFound) => Err(EngineError::SessionNotFound(id)),
            other => Ok(other?),
        })
        .await
    }

    /// Deletes a session and its children: what runs is stopped, nothing comes back.
    pub async fn delete_session(
        &self,
        tenant: &Tenant,
        id: &SessionId,
        name: Option<&RequestName>,
    ) -> Result<(), EngineError> {
        let about = async { Ok(self.session(tenant, id).await?.id) };
        self.once(tenant, name, about, |acting| async move {
            match self.delete_once(tenant, &acting.session).await {
                // An earlier sending has begun it; whatever is left of it is somebody's, too. Its replica may have died before
                // that was durable.
                Err(EngineError::SessionNotFound(_)) if acting.is_again => {
                    let (store, id) = (self.tenant_store(tenant), acting.session.clone());
                    blocking(move || found(store.sync_seen(&id)).map(|_| ())).await
                }
                other => other,
            }
        })
        .await
    }

    async fn delete_once(&self, tenant: &Tenant, id: &SessionId) -> Result<(), EngineError> {
        let key = SessionKey::new(tenant.clone(), id.clone());
        let session = self.mark_deleted(&key).await?;
        self.finish_with_descendants(&key, Some(session)).await
    }

    /// The first half of a deletion, durable when it returns. Returns the session as it was.
    async fn mark_deleted(&self, key: &SessionKey) -> Result<Session, EngineError> {
        let session = self.session(&key.tenant, &key.session).await?;
        self.head_commit(key, Committer::Request, |head, at| {
            // Whoever finishes the deletion tells of it.
            head.extra.insert(DELETED.into(), json!(at.session()?));
            Ok(Decision::Write(vec![begin_deletion(head, at)], ()))
        })
        .await?;
        Ok(session)
    }

    /// Finishes a deletion whose first half is durable. May be done twice.
    pub(crate) async fn finish_deletion(&self, key: &SessionKey) -> Result<(), EngineError> {
        let head = self.read_head(key).await?;
        let session = head.extra.get(DELETED).and_then(|session| serde_json::from_value(session.clone()).ok());
        self.finish_with_descendants(key, session).await
    }

    /// Deletes the sessions below one that is marked as deleted, then finishes with it: all are marked from the top down, so
    /// that none gets another child meanwhile, and finished from the bottom up. There may be thousands, one below the other.
    async fn finish_with_descendants(&self, key: &SessionKey, session: Option<Session>) -> Result<(), EngineError> {
        self.stop_deleted(key).await;
        let mut known = HashSet::from([key.session.clone()]);
        let mut marked = vec![(key.clone(), session)];
        loop {
            let (store, id, above) = (self.tenant_store(&key.tenant), key.session.clone(), known.clone());
            let below = blocking(move || store.descendants(&id, &above).map_err(EngineError::from)).await?;
            if below.is_empty() {
                break;
            }
            for id in below {
                let below = SessionKey::new(key.tenant.clone(), id.clone());
                known.insert(id);
                match self.mark_deleted(&below).await {
                    Ok(session) => {
                        self.stop_deleted(&below).await;
                        marked.push((below, Some(session)));
                    }
                    // Somebody else deletes it.
                    Err(EngineError::SessionNotFound(_)) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        for (key, session) in marked.iter().rev() {
            self.finish_deletion_of(key, session.as_ref()).await?;
        }
        Ok(())
    }

    /// Removes the marker of a deletion that was never begun, since its replica died before. Under the guard: somebody may
    /// be about to begin one.
    pub(crate) async fn withdraw_deletion(&self, key: &SessionKey) -> Result<(), EngineError> {
        let withdrawn = self.head_commit(key, Committer::Request, |_, at| {
            Ok(Decision::Write(vec![Write::Remove(Record::Deletion { session: at.id.clone() })], ()))
        });
        match withdrawn.await {
            Ok(_) | Err(EngineError::SessionNotFound(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Has the run of a deleted session stop, wherever it is. One that does not hear it loses its guard a moment later.
    async fn stop_deleted(&self, key: &SessionKey) {
        self.0.runs.poke(key, None);
        let _ = self.0.ports.leases.poke(key, true).await;
    }

    async fn finish_deletion_of(&self, key: &SessionKey, session: Option<&Session>) -> Result<(), EngineError> {
        let mut deletion = Deletion::begin(TAKES);
        loop {
            let (store, id) = (self.tenant_store(&key.tenant), key.session.clone());
            deletion.went(match deletion.step() {
                Delete::ReadNumber => DeleteInput::Number(blocking(move || Ok(store.run_number(&id)?)).await?),
                Delete::Take { number } => {
                    let taken = blocking(move || match store.take_run(&id, number) {
                        Ok(_) => Ok(true),
                        Err(StoreError::Fenced | StoreError::Contended { .. }) => Ok(false),
                        Err(error) => Err(error.into()),
                    });
                    DeleteInput::Taken(taken.await?)
                }
                Delete::Remove => {
                    self.remove_deleted(key, session).await?;
                    DeleteInput::Done
                }
                Delete::Note => {
                    self.head_commit(key, Committer::Deleter, |head, _| {
                        head.state = HeadState::Removed;
                        head.extra.remove(DELETED);
                        Ok(Decision::Write(Vec::new(), ()))
                    })
                    .await?;
                    DeleteInput::Done
                }
                Delete::Forget => {
                    let _ = self.0.ports.leases.forget(key).await;
                    DeleteInput::Done
                }
                Delete::Unlink => {
                    blocking(move || {
                        store.remove_markers_upto(&id, u64::MAX)?;
                        store.remove_deletion_marker(&id).map_err(EngineError::from)
                    })
                    .await?;
                    DeleteInput::Done
                }
                Delete::End => break,
                Delete::GiveUp => {
                    let error = "the session is contended; its deletion is finished soon";
                    return Err(EngineError::Unavailable(error.into()));
                }
            });
        }
        self.0.waiters.wake(key);
        Ok(())
    }

    /// Tells of the deletion and removes the records of a session that no run can write to any more.
    async fn remove_deleted(&self, key: &SessionKey, session: Option<&Session>) -> Result<(), EngineError> {
        if let Some(session) = session {
            let origin = self.origin(key, session, None);
            self.publish(&origin, wire::event::session_deleted(session), None).await;
            // Until it is out the deletion is not finished: where this replica cannot tell it any more, another does.
            if !self.flush(&key.tenant, TELLING).await {
                return Err(EngineError::Unavailable("the session is deleted; the rest of it goes soon".into()));
            }
        }
        let (store, id) = (self.tenant_store(&key.tenant), key.session.clone());
        blocking(move || store.remove_session(&id).map_err(EngineError::from)).await
    }

    /// The branch of the directory's repository.
    pub async fn vcs(&self, scope: &Scope) -> Result<Value, EngineError> {
        let instance = self.instance(scope).await?;
        if instance.project.vcs.is_none() {
            return Ok(json!({}));
        }
        let head = tokio::fs::read_to_string(instance.worktree.join(".git/HEAD")).await.unwrap_or_default();
        let branch = head.trim().strip_prefix("ref: refs/heads/").map(str::to_owned);
        Ok(match branch {
            Some(branch) => json!({ "branch": branch, "default_branch": branch }),
            None => json!({}),
        })
    }

    /// The projects that are known here: the scope's.
    pub async fn projects(&self, scope: &Scope) -> Result<Vec<Value>, EngineError> {
        let instance = self.instance(scope).await?;
        Ok(vec![serde_json::to_value(&instance.project).unwrap_or_default()])
    }
}

/// From here on the session is neither read nor listed. The marker is durable before the head says so: whatever dies, the
/// sweep finds it.
pub(crate) fn begin_deletion(head: &mut Head, at: &Under<'_>) -> Write {
    head.state = HeadState::Deleted;
    Write::Put(Record::Deletion { session: at.id.clone() }, Vec::new())
}

/// Two words for people.
pub(crate) fn slug(bits: u64) -> String {
    const HOW: [&str; 16] = [
        "amber", "brave", "calm", "clear", "eager", "fair", "gentle", "hidden", "keen", "light", "merry", "neat",
        "proud", "quiet", "swift", "warm",
    ];
    const WHAT: [&str; 16] = [
        "anchor", "beacon", "bridge", "canyon", "delta", "ferry", "harbor", "island", "lagoon", "meadow", "orchard",
        "pilot", "reef", "sail", "tide", "wharf",
    ];
    format!("{}-{}", HOW[(bits % 16) as usize], WHAT[(bits / 16 % 16) as usize])
}
