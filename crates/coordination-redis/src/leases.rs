//! Leases on Redis.

use crate::{Backend, entries, strange};
use async_trait::async_trait;
use coordination::{
    Adopted, Attempt, Born, Enter, Entered, Entry, Former, Leases, Released, ReplicaId, Result, SessionKey,
};
use run_protocol::Fence;
use std::collections::HashMap;
use wire::ids::SessionId;
use wire::tenant::Tenant;

#[async_trait]
impl Leases for Backend {
    async fn enter(&self, enter: &Enter) -> Result<Entered> {
        let mut script = self.scripts.enter.key(self.keys.lease(&enter.key));
        script
            .arg(enter.key.to_string())
            .arg(&enter.replica.0)
            .arg(&enter.born.0)
            .arg(self.random())
            .arg(&enter.attempt.0)
            .arg(enter.ticket)
            .arg(enter.for_others);
        let answer: Vec<String> = self.link.invoke(&script).await?;
        match answer.iter().map(String::as_str).collect::<Vec<_>>()[..] {
            ["won"] => Ok(Entered::Won),
            ["waiting"] => Ok(Entered::Waiting),
            ["reborn", mark] => Ok(Entered::Reborn(Born(mark.to_owned()))),
            _ => Err(strange()),
        }
    }

    async fn confirm(&self, key: &SessionKey, attempt: &Attempt) -> Result<bool> {
        Ok(self.attempt_of(key).await?.as_ref() == Some(attempt))
    }

    async fn begin(&self, key: &SessionKey, attempt: &Attempt, fence: Fence, events: &[Entry]) -> Result<bool> {
        let mut script = self.scripts.begin.key(self.keys.lease(key));
        script.arg(key.tenant.as_str()).arg(key.to_string()).arg(&attempt.0).arg(fence.0);
        entries::push(&mut script, events, &*self.entropy);
        self.link.invoke(&script).await
    }

    async fn release(&self, key: &SessionKey, attempt: &Attempt, seen: u64, events: &[Entry]) -> Result<Released> {
        let mut script = self.scripts.release.key(self.keys.lease(key));
        script.arg(key.tenant.as_str()).arg(key.to_string()).arg(&attempt.0).arg(seen);
        entries::push(&mut script, events, &*self.entropy);
        match self.link.invoke::<String>(&script).await?.as_str() {
            "done" => Ok(Released::Done),
            "more" => Ok(Released::More),
            "gone" => Ok(Released::Gone),
            _ => Err(strange()),
        }
    }

    async fn hand_over(&self, key: &SessionKey, attempt: &Attempt, delay_ms: u64, failed: bool) -> Result<()> {
        let mut script = self.scripts.hand_over.key(self.keys.lease(key));
        self.link.invoke(script.arg(key.to_string()).arg(&attempt.0).arg(delay_ms).arg(failed)).await
    }

    async fn former(&self, key: &SessionKey) -> Result<Former> {
        let former: Option<String> =
            self.link.query(redis::cmd("HGET").arg(self.keys.lease(key)).arg("former")).await?;
        Ok(match former.as_deref() {
            Some("spared") => Former::Spared,
            Some("handed over") => Former::HandedOver,
            _ => Former::Failed,
        })
    }

    async fn adopt(&self, key: &SessionKey, replica: &ReplicaId, attempt: &Attempt, fence: Fence) -> Result<Adopted> {
        let mut script = self.scripts.adopt.key(self.keys.lease(key));
        script.arg(key.to_string()).arg(&replica.0).arg(&attempt.0).arg(fence.0);
        let is_mine: bool = self.link.invoke(&script).await?;
        Ok(if is_mine { Adopted::Mine } else { Adopted::Lost })
    }

    async fn claim(
        &self,
        replica: &ReplicaId,
        born: &Born,
        attempts: &[Attempt],
    ) -> Result<Vec<(SessionKey, Attempt)>> {
        let mut script = self.scripts.claim.key(self.keys.due());
        script.arg(&replica.0).arg(&born.0);
        for attempt in attempts {
            script.arg(&attempt.0);
        }
        let claimed: Vec<(String, String)> = self.link.invoke(&script).await?;
        let claimed = claimed.into_iter().map(|(s, attempt)| Ok((session_key(&s)?, Attempt(attempt))));
        claimed.collect()
    }

    async fn ensure_due(&self, key: &SessionKey, born: &Born) -> Result<bool> {
        let mut script = self.scripts.ensure_due.key(self.keys.lease(key));
        self.link.invoke(script.arg(key.to_string()).arg(&born.0)).await
    }

    async fn poke(&self, key: &SessionKey, abort: bool) -> Result<()> {
        let mut script = self.scripts.poke.key(self.keys.lease(key));
        self.link.invoke(script.arg(key.to_string()).arg(abort)).await
    }

    async fn forget(&self, key: &SessionKey) -> Result<()> {
        let mut script = self.scripts.forget.key(self.keys.lease(key));
        self.link.invoke(script.arg(key.to_string())).await
    }

    async fn append_if_idle(&self, key: &SessionKey, events: &[Entry]) -> Result<()> {
        let mut script = self.scripts.append_if_idle.key(self.keys.lease(key));
        script.arg(key.tenant.as_str()).arg(key.to_string());
        entries::push(&mut script, events, &*self.entropy);
        self.link.invoke(&script).await
    }

    async fn statuses(&self, tenant: &Tenant) -> Result<HashMap<SessionId, String>> {
        let busy: HashMap<String, String> = self.link.query(redis::cmd("HGETALL").arg(self.keys.busy(tenant))).await?;
        let busy = busy.into_iter().map(|(id, status)| Ok((SessionId::parse(&id).map_err(|_| strange())?, status)));
        busy.collect()
    }

    async fn attempt_of(&self, key: &SessionKey) -> Result<Option<Attempt>> {
        let attempt: Option<String> = self.link.query(redis::cmd("HGET").arg(self.keys.lease(key)).arg("att")).await?;
        Ok(attempt.filter(|attempt| !attempt.is_empty()).map(Attempt))
    }
}

/// Reads a session's name as the scripts have it.
pub fn session_key(text: &str) -> Result<SessionKey> {
    SessionKey::parse(text).ok_or_else(strange)
}
