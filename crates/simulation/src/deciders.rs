//! People who decide: now and then they reply to something that a run asks for, at times once more or to what is long answered.
//! Some ask any replica what is open; the others know by the events, and ask only once the log was emptied.

use crate::clients::Client;
use crate::requests::Request;
use serde_json::json;
use tokio::time::sleep;
use wire::permission::{PermissionRequest, Reply};

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
                (read, volume) = (self.open().await, now);
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

    async fn open(&self) -> Vec<PermissionRequest> {
        match self.insist("permissions", &Request::get("/permission")).await {
            Some(Ok(open)) => open,
            Some(Err(refused)) => {
                self.ledger.breaks(format!("permissions were not listed: {refused}"));
                Vec::new()
            }
            None => Vec::new(),
        }
    }

    async fn reply(&self, request: &PermissionRequest) {
        let (reply, message) = match self.dice.below(100) {
            0..65 => (Reply::Once, None),
            65..75 => (Reply::Always, None),
            75..90 => (Reply::Reject, Some("Not so.")),
            _ => (Reply::Reject, None),
        };
        let (id, session) = (&request.id, &request.session_id);
        let number = self.ledger.sends(Replied { request: request.clone(), reply, is_given: false });
        let name = self.name_or_none();
        let sent = if message.is_none() && self.dice.chance(300) {
            let path = format!("/session/{session}/permissions/{id}");
            Request::post(path, Some(json!({ "response": reply })), name)
        } else {
            Request::post(format!("/permission/{id}/reply"), Some(json!({ "reply": reply, "message": message })), name)
        };
        match self.insist_and_hear(&format!("{reply:?} for {id}"), &sent, &|| {}).await {
            Some(Ok(answer)) if answer.sendings == 1 => self.ledger.is_given(number),
            Some(Ok(_)) | None => {}
            Some(Err(refused)) if refused.is_answered() => {}
            Some(Err(refused)) => self.is_gone(session, "a reply", &refused),
        }
    }
}
