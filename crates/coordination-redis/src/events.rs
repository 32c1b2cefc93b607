//! Event logs on Redis.

use crate::entries::{self, Message, Range, from_range};
use crate::{Backend, channels, strange};
use async_trait::async_trait;
use bytes::Bytes;
use coordination::{Appended, BatchNumber, Cursor, Entry, EventLog, Read, ReplicaId, Result, Subscription};
use redis::Cmd;
use tokio::sync::mpsc;
use wire::tenant::Tenant;

/// How many entries one script forgets: a server answers nobody else meanwhile.
const FORGOTTEN_AT_ONCE: usize = 200;

#[async_trait]
impl EventLog for Backend {
    async fn publish(
        &self,
        tenant: &Tenant,
        replica: &ReplicaId,
        batch: BatchNumber,
        entries: &[Entry],
    ) -> Result<Vec<usize>> {
        let mut script = self.scripts.publish.key(self.keys.log(tenant));
        script.arg(tenant.as_str()).arg(&replica.0).arg(batch);
        entries::push(&mut script, entries, &*self.entropy);
        let refused: String = self.link.invoke(&script).await?;
        let indexes = refused.split(',').filter(|index| !index.is_empty());
        indexes.map(|index| index.parse().map_err(|_| strange())).collect()
    }

    async fn begin(&self, tenant: &Tenant) -> Result<()> {
        let mut script = self.scripts.begin_log.key(self.keys.log(tenant));
        script.arg(tenant.as_str());
        entries::push(&mut script, &[Entry::beginning()], &*self.entropy);
        self.link.invoke(&script).await
    }

    async fn newest(&self, tenant: &Tenant) -> Result<Option<Cursor>> {
        let newest: Option<String> =
            self.link.query(redis::cmd("HGET").arg(self.keys.meta(tenant)).arg("last")).await?;
        Ok(newest.map(Cursor))
    }

    async fn read_after(&self, tenant: &Tenant, cursor: Option<&Cursor>, limit: usize) -> Result<Read> {
        let log = self.keys.log(tenant);
        let Some(cursor) = cursor else {
            let range: Range = self.link.query(&xrange(&log, "-", "+", limit)).await?;
            return Ok(Read::Entries(from_range(range)));
        };
        if !is_id(&cursor.0) {
            return Ok(Read::Reset);
        }
        // The entry at the cursor is read along: in one command nothing can be trimmed between the look and the read.
        let range: Range = self.link.query(&xrange(&log, &cursor.0, "+", limit.saturating_add(1))).await?;
        let mut entries = from_range(range);
        if entries.first().is_none_or(|(first, _)| first != cursor) {
            return Ok(Read::Reset);
        }
        entries.remove(0);
        Ok(Read::Entries(entries))
    }

    async fn forget_until(&self, tenant: &Tenant, cursor: &Cursor) -> Result<()> {
        if !is_id(&cursor.0) {
            return Ok(());
        }
        let mut script = self.scripts.forget_until.key(self.keys.log(tenant));
        script.arg(tenant.as_str()).arg(&cursor.0).arg(FORGOTTEN_AT_ONCE);
        while self.link.invoke::<String>(&script).await? == "more" {}
        Ok(())
    }

    async fn subscribe(&self, tenant: &Tenant) -> Result<Subscription> {
        let log = self.keys.log(tenant);
        let mut messages = self.channels.subscribe(vec![log.clone()]).await?;
        let (appended, receiver) = mpsc::channel(channels::MESSAGES);
        let link = self.link.clone();
        tokio::spawn(async move {
            loop {
                let message = tokio::select! {
                    message = messages.recv() => message,
                    () = appended.closed() => None,
                };
                let Some((_, payload)) = message else { return };
                // A message that can't be completed is lost, which the subscriber sees by the next one's `previous`.
                if let Some(whole) = complete(&link, &log, payload).await {
                    let _ = appended.try_send(whole);
                }
            }
        });
        Ok(receiver)
    }
}

fn xrange(log: &str, from: &str, to: &str, limit: usize) -> Cmd {
    let mut command = redis::cmd("XRANGE");
    command.arg(log).arg(from).arg(to).arg("COUNT").arg(limit);
    command
}

/// True if a stream could bear this id. A cursor comes from a client and may be anything.
fn is_id(text: &str) -> bool {
    let is_number = |text: &str| text.bytes().all(|b| b.is_ascii_digit()) && text.parse::<u64>().is_ok();
    text.split_once('-').is_some_and(|(number, random)| is_number(number) && is_number(random))
}

/// A channel's message with the bodies that were too long for it.
async fn complete(link: &crate::connection::Link, log: &str, payload: Bytes) -> Option<Appended> {
    let message = Message::parse(payload)?;
    let mut entries = Vec::with_capacity(message.entries.len());
    for (cursor, body) in message.entries {
        let body = match body {
            Some(body) => body,
            None => {
                let range: Range = link.query(&xrange(log, &cursor.0, &cursor.0, 1)).await.ok()?;
                from_range(range).pop()?.1
            }
        };
        entries.push((cursor, body));
    }
    Some(Appended { previous: message.previous, entries })
}

#[cfg(test)]
mod tests {
    use super::is_id;

    #[test]
    fn only_what_a_stream_could_bear_is_an_id() {
        assert!(is_id("1-18446744073709551615"));
        for text in ["", "-", "+", "1", "1-", "(1-2", "1-18446744073709551616", "+1-2", "a-b"] {
            assert!(!is_id(text), "{text}");
        }
    }
}
