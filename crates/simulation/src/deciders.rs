//! People who decide: now and then they reply to something that a run asks for, at times once more or to what is long answered.
//! Some ask any replica what is open; the others know by the events, and ask only once the log was emptied.

use crate::clients::Client;
use crate::fleet::Fleet;
use engine::EngineError;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::time::sleep;
use wire::permission::{PermissionRequest, Reply};
use wire::tenant::Tenant;

/// A reply that was sent.
#[derive(Clone)]
pub(crate) struct Replied {
    pub request: PermissionRequest,
    pub reply: Reply,
    /// It was acknowledged the first time that it was sent. Sent again, it is acknowledged as well where the ask is gone.
    pub is_given: bool,
}

impl Client {
    /// The task `decider`: it never ends of itself.
    pub(crate) async fn decide(self, listens: bool) {
        let (mut known, mut read, mut volume): (Vec<PermissionRequest>, _, _) = (Vec::new(), Vec::new(), 0);
        loop {
            sleep(self.dice.ms(50, 2_000)).await;
            let (_, now) = self.fleet.chronicle.end();
            if !listens || volume != now {
                (read, volume) = (self.list().await, now);
            }
            let mut open = if listens { self.fleet.chronicle.asks() } else { Vec::new() };
            open.extend(read.iter().filter(|ask| !open.contains(ask)).cloned().collect::<Vec<_>>());
            known.extend(open.iter().filter(|ask| !known.contains(ask)).cloned().collect::<Vec<_>>());
            if self.dice.chance(100) {
                open.clone_from(&known);
            }
            if let Some(request) = self.dice.pick(&open) {
                self.reply(request).await;
            }
        }
    }

    async fn list(&self) -> Vec<PermissionRequest> {
        let listed = self.insist("permissions", |engine| async move { engine.permissions(&Fleet::scope()).await });
        match listed.await {
            Some(Ok(open)) => open,
            Some(Err(error)) => {
                self.ledger.breaks(format!("permissions were not listed: {error}"));
                Vec::new()
            }
            None => Vec::new(),
        }
    }

    async fn reply(&self, request: &PermissionRequest) {
        let (reply, message) = match self.dice.below(100) {
            0..65 => (Reply::Once, None),
            65..75 => (Reply::Always, None),
            75..90 => (Reply::Reject, Some("Not so.".to_owned())),
            _ => (Reply::Reject, None),
        };
        let number = self.ledger.sends(Replied { request: request.clone(), reply, is_given: false });
        let (name, sendings) = (self.name(), AtomicU64::new(0));
        let what = format!("{reply:?} for {}", request.id);
        let answered = self.insist(&what, |engine| {
            sendings.fetch_add(1, Ordering::Relaxed);
            let (id, message, name) = (&request.id, message.clone(), name.clone());
            async move { engine.reply_permission(&Tenant::default(), id, reply, message, Some(&name)).await }
        });
        match answered.await {
            Some(Ok(())) if sendings.into_inner() == 1 => self.ledger.is_given(number),
            Some(Ok(()) | Err(EngineError::PermissionNotFound(_))) | None => {}
            Some(Err(error)) => self.is_gone(&request.session_id, "a reply", &error),
        }
    }
}
