//! Carrying a revert out. Whoever does it may die anywhere in it: the next one does the same again.

use super::{Plan, read_plan};
use crate::api::EngineError;
use crate::asks::found;
use crate::commit::{Decision, body};
use crate::engine::blocking;
use crate::run::{Run, session_record};
use crate::snapshots::{Changes, Worksite};
use run_protocol::{Intent, IntentKind, RecordVersion, TicketAnswer};
use serde_json::json;
use std::collections::HashMap;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use storage::{Entry, Kind, Record, Snapshot, SnapshotId, TenantStore, Write};
use tools::{GitSide, Held, Patch};
use wire::session::{Revert, SessionSummary};

/// How long the lock on a file is waited for; somebody who edits it holds it for a moment.
const LOCK: Duration = Duration::from_secs(10);
/// The patches of a revert have together at most so many bytes, as a session's record holds them.
const MOST_DIFF: usize = 256 * 1024;

impl Run {
    /// Carries the intent out that the head holds, and settles its ticket.
    pub(crate) async fn finish_intent(&self, intent: &Intent) -> Result<(), EngineError> {
        let key = &self.handle.key;
        let (store, id) = (self.engine.tenant_store(&key.tenant), key.session.clone());
        let stored = blocking(move || read_plan(&store, &id)).await?;
        let mut plan = stored.unwrap_or_default();
        let site = Worksite { tenant: key.tenant.clone(), session: key.session.clone(), root: plan.root.clone() };
        if intent.kind == IntentKind::Revert && plan.before.is_none() && !plan.files.is_empty() {
            // Durable before the first file is touched: who does this again must not take the half-reverted tree for it.
            plan.before = self.engine.take_snapshot(&site).await.map(|id| id.to_string());
            if plan.before.is_none() {
                // What is there could not be brought back: only the messages are taken back.
                tracing::warn!(session = %key.session, "no snapshot could be taken: no file is reverted");
                plan.files.clear();
            }
            let kept = plan.clone();
            self.head_commit(move |_, at| {
                let record = Record::Revert { session: at.id.clone() };
                Ok(Decision::Write(vec![Write::Put(record, body(&kept)?)], ()))
            })
            .await?;
        }
        // Where a file and a folder took each other's place, one has to go before the other can come.
        let mut left = Vec::new();
        for planned in &plan.files {
            if self.restore(&site, Path::new(planned.0), planned.1).await?.is_some() {
                left.push(planned);
            }
        }
        for (file, snapshot) in left {
            if let Some(why) = self.restore(&site, Path::new(file), snapshot).await? {
                tracing::warn!(session = %key.session, file, why, "a file is not restored");
            }
        }
        match intent.kind {
            IntentKind::Revert => self.record_revert(intent, plan).await,
            IntentKind::Unrevert => self.record_unrevert(intent).await,
        }
    }

    /// Makes a file what it was in a snapshot. One that cannot be is left as it is: why, is returned.
    async fn restore(&self, site: &Worksite, file: &Path, snapshot: &str) -> Result<Option<String>, EngineError> {
        // Whoever was paused here and is not the owner any more writes no file.
        while self.engine.0.replica.is_frozen() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        if self.handle.lost.is_cancelled() {
            return Err(EngineError::Lost);
        }
        let (tenant, unique) = (&self.handle.key.tenant, self.engine.0.ids.tool_output());
        let lock = self.engine.0.ports.locks.lock(&format!("file/{tenant}/{}", file.display()), LOCK).await;
        let (store, work, path) = (self.engine.tenant_store(tenant), site.clone(), file.to_owned());
        let (snapshot, guard) = (SnapshotId::parse(snapshot), self.guard.clone());
        let restored = blocking(move || {
            // Another may have finished this while the lock was waited for, and the next prompt have changed the file.
            if !guard.is_held() {
                return Err(EngineError::Lost);
            }
            let Some(held) = held(&store, &work.root, &path, snapshot.as_ref())? else { return Ok(Err(None)) };
            store.note_write(&work.root, &path, &work.session, None)?;
            Ok(tools::put_back(&path, &held, unique.as_str()).map_err(Some))
        })
        .await;
        drop(lock);
        Ok(match restored {
            Ok(Ok(())) => None,
            Ok(Err(None)) => Some("its snapshot is no longer kept".to_owned()),
            Ok(Err(Some(error))) => Some(error.to_string()),
            Err(EngineError::Lost) => return Err(EngineError::Lost),
            Err(error) => Some(error.to_string()),
        })
    }

    async fn record_revert(&self, intent: &Intent, plan: Plan) -> Result<(), EngineError> {
        let Some(point) = plan.point.clone() else { return self.record_unrevert(intent).await };
        let key = &self.handle.key;
        let (store, id, first) = (self.engine.tenant_store(&key.tenant), key.session.clone(), point.message.clone());
        let changes = blocking(move || {
            let messages = found(store.shared_messages(&id, None, None))?.map(|page| page.items).unwrap_or_default();
            let hidden = messages.iter().skip_while(|message| *message.info.id() != first);
            Ok(Changes::of(hidden.map(std::sync::Arc::as_ref)))
        });
        let diffs = self.engine.diffs(&key.tenant, &changes.await?).await;
        let (store, planned) = (self.engine.tenant_store(&key.tenant), plan.clone());
        let diff = blocking(move || git_diff(&store, &planned)).await.unwrap_or_default();
        let sum = |field: &str| diffs.iter().filter_map(|diff| diff[field].as_u64()).sum::<u64>();
        let summary: SessionSummary = serde_json::from_value(
            json!({ "additions": sum("additions"), "deletions": sum("deletions"), "files": diffs.len() }),
        )
        .map_err(|error| EngineError::Store(error.to_string()))?;
        let mut revert = Revert { message_id: point.message, part_id: point.part, extra: wire::Extra::new() };
        if let Some(before) = &plan.before {
            revert.extra.insert("snapshot".into(), json!(before));
            revert.extra.insert("diff".into(), json!(diff));
        }
        let told = wire::event::session_diff(&key.session, &json!(diffs));
        let record = Write::Put(Record::Diff { session: key.session.clone() }, body(&diffs)?);
        self.record(intent, Some((revert, summary)), vec![record], Some(told)).await
    }

    async fn record_unrevert(&self, intent: &Intent) -> Result<(), EngineError> {
        let record = Write::Remove(Record::Revert { session: self.handle.key.session.clone() });
        self.record(intent, None, vec![record], None).await
    }

    /// Shows the outcome in the session's record and settles the intent, in one commit.
    async fn record(
        &self,
        intent: &Intent,
        revert: Option<(Revert, SessionSummary)>,
        writes: Vec<Write>,
        told: Option<wire::event::Happened>,
    ) -> Result<(), EngineError> {
        let (now, ticket) = (self.engine.now_ms(), intent.ticket);
        let (head, session) = self
            .head_commit(move |head, at| {
                let mut session = at.session()?;
                if let Some((_, summary)) = &revert {
                    session.summary = Some(summary.clone());
                }
                session.revert = revert.as_ref().map(|(revert, _)| revert.clone());
                session.time.updated = session.time.updated.max(now);
                head.intent = None;
                head.settle(ticket, TicketAnswer::Dropped);
                let mut writes = writes.clone();
                writes.push(Write::Put(session_record(&session), body(&session)?));
                Ok(Decision::Write(writes, session))
            })
            .await?;
        if let Some(told) = told {
            self.publish(told).await;
        }
        let version = (session.id.to_string(), RecordVersion::head(head.rev));
        self.engine.publish(&self.origin, wire::event::session_updated(&session), Some(version)).await;
        Ok(())
    }
}

/// What a file was in a snapshot; none if that is no longer known.
fn held(
    store: &TenantStore,
    root: &Path,
    file: &Path,
    snapshot: Option<&SnapshotId>,
) -> Result<Option<Held>, EngineError> {
    let (Some(snapshot), Ok(path)) = (snapshot, file.strip_prefix(root)) else { return Ok(None) };
    let Some(snapshot) = store.snapshot(root, snapshot)? else { return Ok(None) };
    let Some(entry) = snapshot.get(path) else { return Ok(Some(Held::Nothing)) };
    let bytes = store.snapshot_content(root, &entry.content)?;
    Ok(bytes.and_then(|bytes| match entry.kind {
        Kind::File => Some(Held::File { bytes, executable: false }),
        Kind::Executable => Some(Held::File { bytes, executable: true }),
        Kind::Link => Some(Held::Link(OsString::from_vec(bytes))),
        Kind::Untold => None,
    }))
}

/// What a revert changed, as `git diff` would print it.
fn git_diff(store: &TenantStore, plan: &Plan) -> Result<String, EngineError> {
    let Some(before) = plan.before.as_deref().and_then(SnapshotId::parse) else { return Ok(String::new()) };
    let Some(before) = store.snapshot(&plan.root, &before)? else { return Ok(String::new()) };
    let mut snapshots: HashMap<&str, Snapshot> = HashMap::new();
    let mut text = String::new();
    for (file, snapshot) in &plan.files {
        if !snapshots.contains_key(snapshot.as_str()) {
            let found = SnapshotId::parse(snapshot).map(|id| store.snapshot(&plan.root, &id)).transpose()?.flatten();
            let Some(found) = found else { continue };
            snapshots.insert(snapshot, found);
        }
        let Ok(path) = PathBuf::from(file).strip_prefix(&plan.root).map(Path::to_owned) else { continue };
        let (old, new) = (before.get(&path), snapshots.get(snapshot.as_str()).and_then(|found| found.get(&path)));
        if old != new && text.len() < MOST_DIFF {
            let (old, new) = (side(store, &plan.root, old)?, side(store, &plan.root, new)?);
            text.push_str(&Patch::git(&path, old.as_ref(), new.as_ref()));
        }
    }
    Ok(text.trim_end_matches('\n').to_owned())
}

fn side(store: &TenantStore, root: &Path, entry: Option<&Entry>) -> Result<Option<GitSide>, EngineError> {
    let Some(entry) = entry else { return Ok(None) };
    let mode = match entry.kind {
        Kind::Executable => "100755",
        Kind::Link => "120000",
        Kind::File | Kind::Untold => "100644",
    };
    let bytes = store.snapshot_content(root, &entry.content)?;
    let text = bytes.filter(|bytes| !bytes.contains(&0)).and_then(|bytes| String::from_utf8(bytes).ok());
    Ok(Some(GitSide { id: entry.content.to_string(), mode, text }))
}
