//! The snapshots of a step: taken only around calls that may write.

use super::write::put;
use super::{Scene, Writing};
use crate::api::EngineError;
use crate::run::Run;
use crate::snapshots::Worksite;
use serde_json::json;
use storage::SnapshotId;
use tools::Writes;
use wire::part::{Part, PartKind};

impl Scene {
    /// The work tree that snapshots are taken of: one of a repository, unless the configuration says that none are.
    pub(crate) fn worksite(&self, run: &Run) -> Option<Worksite> {
        let is_wanted = self.instance.project.vcs.is_some() && self.instance.config["snapshot"] != json!(false);
        is_wanted.then(|| Worksite {
            tenant: run.handle.key.tenant.clone(),
            session: self.session.id.clone(),
            root: self.instance.worktree.clone(),
        })
    }
}

/// The work tree before a step.
#[derive(Default)]
pub(super) struct Before {
    pub(super) id: Option<SnapshotId>,
    /// It is not tried again.
    tried: bool,
}

impl Before {
    /// The one that a former runner took for the message.
    pub(super) fn of(parts: &[Part]) -> Self {
        let snapshot = parts.iter().find_map(|part| match &part.kind {
            PartKind::StepStart(step) => SnapshotId::parse(step.snapshot.as_deref()?),
            _ => None,
        });
        Self { id: snapshot, tried: true }
    }

    pub(super) fn text(&self) -> Option<String> {
        self.id.as_ref().map(SnapshotId::to_string)
    }
}

impl Writing<'_> {
    /// The model calls a tool: if it may write, and is the first that may, the work tree is kept as it is. A step that only
    /// speaks and reads spends nothing.
    pub(super) async fn snapshot_before(&mut self, tool: &str) -> Result<(), EngineError> {
        let tool = self.engine().0.tools.meant(tool, &self.scene.tool_names());
        if self.before.tried || tool.is_none_or(|tool| tool.writes() == Writes::Nothing) {
            return Ok(());
        }
        self.before.tried = true;
        let Some(site) = self.scene.worksite(self.run) else { return Ok(()) };
        let stop = self.stop.clone();
        self.before.id = tokio::select! {
            biased;
            taken = self.engine().take_snapshot(&site) => taken,
            () = stop.token.cancelled() => None,
        };
        let text = self.before.text();
        if let Some(Part { kind: PartKind::StepStart(step), .. }) = &mut self.start
            && text.is_some()
        {
            // Something else came first: the step was told without it, and is not told again, as OpenCode tells it once.
            step.snapshot = text;
            if let Some(start) = self.start.clone() {
                self.changes.add(&start);
                self.run.commit_lightly(vec![put(&start)?]).await?;
            }
        }
        Ok(())
    }

    /// The work tree after the step, and what tells what it changed.
    pub(super) async fn snapshot_after(&mut self) -> (Option<SnapshotId>, Option<PartKind>) {
        let (Some(before), Some(site)) = (&self.before.id, self.scene.worksite(self.run)) else { return (None, None) };
        let anywhere = self.calls.tools().any(|tool| self.engine().writes_anywhere(tool));
        self.engine().end_snapshot(&site, before, anywhere).await
    }

    /// The step ends early: what it changed until then is told.
    pub(super) async fn put_patch(&mut self) -> Result<(), EngineError> {
        let (_, patch) = self.snapshot_after().await;
        let Some(patch) = patch.map(|kind| self.part(kind)) else { return Ok(()) };
        self.changes.add(&patch);
        self.put_part(&patch).await
    }
}
