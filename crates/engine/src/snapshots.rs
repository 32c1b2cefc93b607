//! Snapshots of the work tree around the steps that may write, and what they say was changed.

use crate::api::EngineError;
use crate::engine::{Engine, blocking};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;
use storage::{Entry, SnapshotId, TenantStore};
use tools::{Patch, Writes};
use wire::ids::SessionId;
use wire::message::MessageWithParts;
use wire::part::{Part, PartKind};
use wire::tenant::Tenant;

/// A step waits so long for a snapshot; one that it does not get is not taken.
const PATIENCE: Duration = Duration::from_secs(60);
/// The patches of one summary have at most so many bytes; further files are named without theirs.
const MOST_PATCH: usize = 1024 * 1024;

/// What the steps of some messages changed.
#[derive(Clone, Debug, Default)]
pub(crate) struct Changes {
    /// The work tree.
    root: PathBuf,
    /// It as it was before.
    first: Option<SnapshotId>,
    /// It as it was afterwards.
    last: Option<SnapshotId>,
    /// The files, by their absolute paths.
    files: BTreeSet<PathBuf>,
}

impl Changes {
    /// What these messages changed.
    pub(crate) fn of<'a>(messages: impl IntoIterator<Item = &'a MessageWithParts>) -> Self {
        let mut changes = Self::default();
        for message in messages {
            let Some(answer) = message.info.assistant() else { continue };
            changes.root = PathBuf::from(&answer.path.root);
            message.parts.iter().for_each(|part| changes.add(part));
        }
        changes
    }

    /// The same, of this work tree.
    pub(crate) fn below(self, root: &Path) -> Self {
        Self { root: root.to_owned(), ..self }
    }

    /// Adds a part of one more step.
    pub(crate) fn add(&mut self, part: &Part) {
        let id = |text: &Option<String>| text.as_deref().and_then(SnapshotId::parse);
        match &part.kind {
            PartKind::StepStart(step) => self.first = self.first.take().or_else(|| id(&step.snapshot)),
            PartKind::StepFinish(step) => self.last = id(&step.snapshot).or_else(|| self.last.take()),
            _ => self.files.extend(patch_of(part).into_iter().flat_map(|patch| patch.files)),
        }
    }
}

/// What a part of type `patch` says.
pub(crate) struct PatchPart {
    /// The work tree before its step.
    pub hash: SnapshotId,
    /// The files that the step changed, by their absolute paths.
    pub files: Vec<PathBuf>,
}

/// The patch that a part is, if it is one.
pub(crate) fn patch_of(part: &Part) -> Option<PatchPart> {
    let PartKind::Other(fields) = &part.kind else { return None };
    if fields.get("type")? != "patch" {
        return None;
    }
    let files = fields.get("files")?.as_array()?.iter().filter_map(|file| file.as_str().map(PathBuf::from));
    Some(PatchPart { hash: SnapshotId::parse(fields.get("hash")?.as_str()?)?, files: files.collect() })
}

/// The part for what a step changed; none where that is nothing.
fn patch(hash: &SnapshotId, root: &Path, files: &[PathBuf]) -> Option<PartKind> {
    let files: Vec<String> = files.iter().map(|file| root.join(file).to_string_lossy().into_owned()).collect();
    let fields = json!({ "type": "patch", "hash": hash.as_str(), "files": files });
    serde_json::from_value(fields).ok().filter(|_| !files.is_empty())
}

/// Where a step works, as its snapshots need it.
#[derive(Clone)]
pub(crate) struct Worksite {
    pub tenant: Tenant,
    pub session: SessionId,
    /// The root of the work tree.
    pub root: PathBuf,
}

impl Engine {
    /// Takes a snapshot. None, and a line in the log, where that fails: no step fails for it.
    pub(crate) async fn take_snapshot(&self, site: &Worksite) -> Option<SnapshotId> {
        let (store, work) = (self.tenant_store(&site.tenant), site.clone());
        let taken = blocking(move || Ok(store.take_snapshot(&work.root, &work.session)?));
        let why = match tokio::time::timeout(PATIENCE, taken).await {
            Ok(Ok(Some(id))) => return Some(id),
            Ok(Ok(None)) => "the work tree is too large".to_owned(),
            Ok(Err(error)) => error.to_string(),
            Err(_) => "it took too long".to_owned(),
        };
        tracing::warn!(session = %site.session, worktree = %site.root.display(), why, "there is no snapshot of a step");
        None
    }

    /// The end of a step that began with a snapshot: the work tree as it is now, and the part that tells what the step
    /// changed, if it did. `anywhere`: it ran something that may write any file.
    pub(crate) async fn end_snapshot(
        &self,
        site: &Worksite,
        before: &SnapshotId,
        anywhere: bool,
    ) -> (Option<SnapshotId>, Option<PartKind>) {
        let Some(after) = self.take_snapshot(site).await else { return (None, None) };
        let (store, work, ids) = (self.tenant_store(&site.tenant), site.clone(), (before.clone(), after.clone()));
        let changed =
            blocking(move || Ok(store.changes_of(&work.root, &work.session, (&ids.0, &ids.1), anywhere)?)).await;
        let files = match changed {
            Ok(files) => files.unwrap_or_default(),
            Err(error) => {
                tracing::warn!(session = %site.session, %error, "what a step changed is not known");
                Vec::new()
            }
        };
        (Some(after), patch(before, &site.root, &files))
    }

    /// Whether a tool may write files without locking them first.
    pub(crate) fn writes_anywhere(&self, tool: &str) -> bool {
        self.0.tools.get(tool).is_none_or(|tool| tool.writes() == Writes::Anything)
    }

    /// What was changed, file by file, as summaries show it: `{file, patch, additions, deletions, status}`.
    pub(crate) async fn diffs(&self, tenant: &Tenant, changes: &Changes) -> Vec<Value> {
        if changes.files.is_empty() {
            return Vec::new();
        }
        let (store, changes) = (self.tenant_store(tenant), changes.clone());
        let diffs = blocking(move || diffs(&store, &changes)).await;
        diffs.unwrap_or_else(|error| {
            tracing::warn!(%error, "what a turn changed cannot be shown");
            Vec::new()
        })
    }
}

fn diffs(store: &TenantStore, changes: &Changes) -> Result<Vec<Value>, EngineError> {
    let (Some(first), Some(last)) = (&changes.first, &changes.last) else { return Ok(Vec::new()) };
    let (Some(before), Some(after)) = (store.snapshot(&changes.root, first)?, store.snapshot(&changes.root, last)?)
    else {
        return Ok(Vec::new());
    };
    let mut diffs = Vec::new();
    let mut bytes = 0;
    for path in changes.files.iter().filter_map(|file| file.strip_prefix(&changes.root).ok()) {
        let (old, new) = (before.get(path), after.get(path));
        if old == new {
            continue;
        }
        let status = match (old, new) {
            (None, _) => "added",
            (_, None) => "deleted",
            _ => "modified",
        };
        let (old, new) = (text(store, &changes.root, old)?, text(store, &changes.root, new)?);
        let mut patch = Patch { text: String::new(), additions: 0, deletions: 0 };
        if let (Some(old), Some(new)) = (old, new) {
            patch = Patch::summary(path, &old, &new);
        }
        bytes += patch.text.len();
        if bytes > MOST_PATCH {
            patch.text.clear();
        }
        diffs.push(json!({
            "file": path.to_string_lossy(),
            "patch": patch.text,
            "additions": patch.additions,
            "deletions": patch.deletions,
            "status": status,
        }));
    }
    Ok(diffs)
}

/// The text of a file of a snapshot: empty where there is no file, none where it is no text.
fn text(store: &TenantStore, root: &Path, entry: Option<&Entry>) -> Result<Option<String>, EngineError> {
    let Some(entry) = entry else { return Ok(Some(String::new())) };
    let bytes = store.snapshot_content(root, &entry.content)?;
    Ok(bytes.filter(|bytes| !bytes.contains(&0)).and_then(|bytes| String::from_utf8(bytes).ok()))
}
