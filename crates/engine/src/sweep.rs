//! The sweep: what open markers tell of work that nobody does, and what is kept for too long.

use crate::engine::{Engine, blocking};
use coordination::SessionKey;
use run_protocol::Sweep;
use std::collections::BTreeSet;
use wire::ids::SessionId;
use wire::tenant::Tenant;

/// What a sweep finds.
#[derive(Default)]
struct Found {
    /// Sessions with open work.
    open: BTreeSet<SessionId>,
    /// Those whose open work was aborted: the abort's replica may not have lived to tell the owner.
    stopped: BTreeSet<SessionId>,
    /// Those that live, with the marker of a deletion.
    not_begun: Vec<SessionId>,
    /// Those with the marker of a ticket that is not given out.
    not_given_out: BTreeSet<SessionId>,
}

impl Engine {
    /// The task `sweep at start`; it ends by itself.
    pub(crate) async fn sweep_at_start(self) {
        tokio::select! {
            biased;
            // Should coordination have been restarted empty just now, the owners that live take their leases back first.
            () = tokio::time::sleep(self.0.settings.tick * 3) => self.sweep().await,
            () = self.0.stopped.cancelled() => {}
        }
    }

    /// The task `sweep`: beside the beat, which must not wait for the store. It ends by itself.
    pub(crate) fn spawn_sweep(&self) {
        let engine = self.clone();
        self.0.tasks.spawn(async move { engine.sweep().await });
    }

    /// The task `tidy`: removes from the store what was kept for long enough. It ends by itself.
    pub(crate) async fn tidy(&self) {
        for tenant in self.tenants().await {
            let store = self.tenant_store(&tenant);
            match blocking(move || Ok(store.remove_old()?)).await {
                Ok(removed) => tracing::info!(%tenant, removed, "removed what was kept for long enough"),
                Err(error) => tracing::warn!(%tenant, %error, "old names and tickets stay for another hour"),
            }
        }
    }

    /// Goes through the markers: what is settled is unlinked, what nobody works for becomes due, who works for what was
    /// aborted is told, what a death broke off before it was acknowledged is withdrawn.
    pub(crate) async fn sweep(&self) {
        if self.0.replica.awaits_owners(self.0.settings.lease_ttl) {
            return;
        }
        for tenant in self.tenants().await {
            let store = self.tenant_store(&tenant);
            let found = blocking(move || {
                let mut found = Found::default();
                for marker in store.markers()? {
                    let Ok(head) = store.head(&marker.session) else { continue };
                    match Sweep::decide(&head, marker.ticket) {
                        Sweep::Unlink => match marker.ticket {
                            Some(ticket) => store.remove_marker(&marker.session, ticket)?,
                            None => store.remove_deletion_marker(&marker.session)?,
                        },
                        Sweep::WithdrawDeletion => found.not_begun.push(marker.session),
                        Sweep::WithdrawPrompts => {
                            found.not_given_out.insert(marker.session);
                        }
                        Sweep::Work { is_aborted } => {
                            if is_aborted {
                                found.stopped.insert(marker.session.clone());
                            }
                            found.open.insert(marker.session);
                        }
                    }
                }
                Ok(found)
            });
            match found.await {
                Ok(found) => {
                    let key = |session| SessionKey::new(tenant.clone(), session);
                    let born = self.0.replica.born();
                    for session in found.open {
                        let _ = self.0.ports.leases.ensure_due(&key(session), &born).await;
                    }
                    for session in found.stopped {
                        let _ = self.0.ports.leases.poke(&key(session), true).await;
                    }
                    for session in found.not_begun {
                        if let Err(error) = self.withdraw_deletion(&key(session)).await {
                            tracing::warn!(%tenant, %error, "the marker of a deletion that was not begun stays");
                        }
                    }
                    for session in found.not_given_out {
                        if let Err(error) = self.withdraw_prompts(&key(session)).await {
                            tracing::warn!(%tenant, %error, "what is left of a prompt that was never acknowledged stays");
                        }
                    }
                }
                Err(error) => tracing::warn!(%tenant, %error, "the sweep could not read the markers"),
            }
        }
    }

    /// The tenants that this installation has.
    async fn tenants(&self) -> Vec<Tenant> {
        vec![Tenant::default()]
    }
}
