//! Disposal: what runs in a directory is stopped, what is known of the directory is read anew, on every replica.

use crate::api::{EngineError, RequestName, Scope};
use crate::engine::Engine;
use crate::named::{Acting, hash_of};
use crate::publish::Origin;
use coordination::SessionKey;
use futures_util::future::join_all;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;
use wire::event::{global_disposed, instance_disposed};
use wire::ids::SessionId;
use wire::session::Session;
use wire::tenant::Tenant;

/// Sessions that are stopped at the same time.
const AT_ONCE: usize = 16;
/// How long it is waited until the readers of this replica were told of what was stopped.
const TOLD: Duration = Duration::from_secs(5);
/// What stands in the place of a directory where all of them are meant.
const EVERYWHERE: &str = "global";

impl Engine {
    /// Stops what runs in a directory, as an abort does, wherever it runs; then tells every replica to forget the
    /// directory's configuration. One that is wrong is no hindrance: it may be why this is asked for.
    ///
    /// Errors: those of [`Engine::abort`]; what was stopped by then stays stopped.
    pub async fn dispose(&self, scope: &Scope, name: Option<&RequestName>) -> Result<bool, EngineError> {
        self.once(&scope.tenant, name, self.no_session(), |acting| async move {
            let directory = scope.directory.to_string_lossy();
            let open = self.open_sessions(&scope.tenant).await?;
            let here = open.into_iter().filter(|session| session.directory == directory).collect();
            self.stop_all(&scope.tenant, here, &acting).await?;
            self.forget(&scope.tenant, scope.directory.clone()).await;
            Ok(true)
        })
        .await
    }

    /// The same for every directory in which something runs, and for all that this replica knows of.
    pub async fn dispose_all(&self, tenant: &Tenant, name: Option<&RequestName>) -> Result<bool, EngineError> {
        self.once(tenant, name, self.no_session(), |acting| async move {
            let open = self.open_sessions(tenant).await?;
            let at_work = open.iter().map(|session| PathBuf::from(&session.directory));
            let directories: BTreeSet<PathBuf> = at_work.chain(self.0.instances.directories()).collect();
            self.stop_all(tenant, open, &acting).await?;
            for directory in directories {
                self.forget(tenant, directory).await;
            }
            self.0.instances.forget(None);
            self.publish(&of_no_session(tenant, EVERYWHERE.into(), None), global_disposed(), None).await;
            Ok(true)
        })
        .await
    }

    /// A disposal is about no single session: the record of its name bears an id that nothing else has.
    async fn no_session(&self) -> Result<SessionId, EngineError> {
        Ok(self.0.ids.session())
    }

    /// Forgets a directory's configuration here, and tells everybody that it is to be forgotten.
    async fn forget(&self, tenant: &Tenant, directory: PathBuf) {
        let scope = Scope { tenant: tenant.clone(), directory };
        let project = self.instance(&scope).await.ok().map(|instance| instance.project.id.clone());
        self.0.instances.forget(Some(&scope.directory));
        let directory = scope.directory.to_string_lossy().into_owned();
        let happened = instance_disposed(&directory);
        self.publish(&of_no_session(tenant, directory, project), happened, None).await;
    }

    /// Stops sessions, each once for a request that bears a name.
    async fn stop_all(&self, tenant: &Tenant, sessions: Vec<Session>, acting: &Acting) -> Result<(), EngineError> {
        for some in sessions.chunks(AT_ONCE) {
            let stopped = join_all(some.iter().map(|session| self.stop_for(tenant, &session.id, acting))).await;
            stopped.into_iter().collect::<Result<(), EngineError>>()?;
        }
        Ok(())
    }

    async fn stop_for(&self, tenant: &Tenant, session: &SessionId, acting: &Acting) -> Result<(), EngineError> {
        let name = acting.name.as_deref().map(|name| hash_of(&[name, session.as_str()]));
        self.abort_once(tenant, session, name).await?;
        self.until_told_idle(&SessionKey::new(tenant.clone(), session.clone())).await;
        Ok(())
    }

    /// Waits until the log tells that a session rests: what follows comes after it. Not longer than for a while.
    async fn until_told_idle(&self, key: &SessionKey) {
        let Ok(feed) = self.feed(&key.tenant).await else { return };
        let waiter = self.0.waiters.join(key);
        let told = async {
            loop {
                let woken = waiter.notify.notified();
                tokio::pin!(woken);
                woken.as_mut().enable();
                if feed.has_told_idle(&key.session) {
                    return;
                }
                woken.await;
            }
        };
        let _ = tokio::time::timeout(TOLD, told).await;
    }
}

fn of_no_session(tenant: &Tenant, directory: String, project: Option<String>) -> Origin {
    Origin { tenant: tenant.clone(), directory, project, session: None, fence: None }
}
