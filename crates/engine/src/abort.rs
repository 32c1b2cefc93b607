//! Aborts: what runs and waits in a session is stopped, wherever it is.

use crate::api::{EngineError, RequestName};
use crate::commit::{Committer, Decision};
use crate::engine::Engine;
use crate::publish::Origin;
use coordination::SessionKey;
use run_protocol::Waiting;
use std::time::Duration;
use tokio::time::Instant;
use wire::ids::SessionId;
use wire::session::SessionStatus;
use wire::tenant::Tenant;

/// How long an abort waits until what it stopped is settled.
const PATIENCE: Duration = Duration::from_secs(10);

impl Engine {
    /// Stops what runs and waits in a session, wherever it is. True when it is settled, or after a limit.
    ///
    /// An idle or unknown session only gets the idle events.
    pub async fn abort(
        &self,
        tenant: &Tenant,
        id: &SessionId,
        name: Option<&RequestName>,
    ) -> Result<bool, EngineError> {
        let about = async { Ok(id.clone()) };
        self.once(tenant, name, about, |acting| self.abort_once(tenant, id, acting.name)).await
    }

    /// The same, noted under a name: sent again under it, it stops nothing that was asked since.
    pub(crate) async fn abort_once(
        &self,
        tenant: &Tenant,
        id: &SessionId,
        name: Option<String>,
    ) -> Result<bool, EngineError> {
        let key = SessionKey::new(tenant.clone(), id.clone());
        let committer = if self.0.runs.is_here(&key) { Committer::Neighbour } else { Committer::Request };
        let stopped = self
            .head_commit(&key, committer, move |head, _| {
                let abort = head.abort(name.as_deref());
                Ok(if abort.changes { Decision::Write(Vec::new(), abort.upto) } else { Decision::Leave(abort.upto) })
            })
            .await;
        let upto = match stopped {
            Ok((_, upto)) => upto,
            Err(EngineError::SessionNotFound(_)) => None,
            Err(error) => return Err(error),
        };
        let Some(upto) = upto else {
            self.publish_idle(&key).await;
            return Ok(true);
        };
        self.0.runs.poke(&key, None);
        if let Err(error) = self.0.ports.leases.poke(&key, true).await {
            tracing::warn!(session = %id, %error, "the owner of an aborted run looks by itself");
        }
        let waiter = self.0.waiters.join(&key);
        let deadline = Instant::now() + PATIENCE;
        let (mut entered, mut late) = (false, false);
        while Instant::now() < deadline {
            let woken = waiter.notify.notified();
            tokio::pin!(woken);
            woken.as_mut().enable();
            let Ok(head) = self.read_head(&key).await else { return Ok(true) };
            // Once is enough: this request does not wait for long.
            match Waiting::decide(&head, upto, late && !entered) {
                Waiting::Gone | Waiting::Settled => return Ok(true),
                Waiting::Enter => {
                    self.enter(&key, upto, true, None).await;
                    entered = true;
                }
                Waiting::Wait => {}
            }
            late = tokio::time::timeout(Duration::from_millis(100), woken).await.is_err();
        }
        Ok(true)
    }

    async fn publish_idle(&self, key: &SessionKey) {
        let session = self.session(&key.tenant, &key.session).await.ok();
        let origin = Origin {
            tenant: key.tenant.clone(),
            directory: session.as_ref().map(|session| session.directory.clone()).unwrap_or_default(),
            project: Some(session.map(|session| session.project_id).unwrap_or_default()),
            session: Some(key.session.clone()),
            fence: None,
        };
        let entries = self.status_entries(&origin, &SessionStatus::Idle);
        if let Err(error) = self.0.ports.leases.append_if_idle(key, &entries).await {
            tracing::info!(session = %key.session, %error, "idle events were not published");
        }
    }
}
