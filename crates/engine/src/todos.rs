//! A session's list of things to do: written by its run, read by everybody.

use crate::api::EngineError;
use crate::commit::{Decision, body};
use crate::engine::{Engine, blocking};
use crate::run::Run;
use run_protocol::RecordVersion;
use storage::{Record, Write};
use wire::ids::SessionId;
use wire::session::Todo;
use wire::tenant::Tenant;

/// What orders the events of the list; no id is like it.
const VERSIONED: &str = "todo";

/// Replaces the list of the run's session.
pub(crate) async fn put(run: &Run, todos: Vec<Todo>) -> Result<(), EngineError> {
    let session = run.handle.key.session.clone();
    let happened = wire::event::todo_updated(&session, &todos);
    let (head, ()) = run
        .head_commit(move |_, at| {
            let record = Record::Todo { session: at.id.clone() };
            Ok(Decision::Write(vec![Write::Put(record, body(&todos)?)], ()))
        })
        .await?;
    let version = (VERSIONED.to_owned(), RecordVersion::head(head.rev));
    run.engine.publish(&run.origin, happened, Some(version)).await;
    Ok(())
}

impl Engine {
    /// The session's list of things to do.
    pub async fn todos(&self, tenant: &Tenant, id: &SessionId) -> Result<Vec<Todo>, EngineError> {
        self.session(tenant, id).await?;
        let (store, record) = (self.tenant_store(tenant), Record::Todo { session: id.clone() });
        let stored = blocking(move || store.read(&record).map_err(EngineError::from)).await?;
        Ok(stored.and_then(|body| serde_json::from_slice(&body).ok()).unwrap_or_default())
    }
}
