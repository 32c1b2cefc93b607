//! One ordered queue of events per tenant: the first goes at once, what comes while a publish is under way is the next
//! batch. A batch that fails is sent again with its number, so that nothing is appended twice.

use crate::aside;
use crate::commit::json_within;
use crate::engine::{Counters, Engine};
use bytes::Bytes;
use coordination::{Adopted, Entry, SessionKey};
use run_protocol::{Fence, RecordVersion};
use serde::Serialize;
use serde_json::value::RawValue;
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use storage::TenantStore;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use wire::event::{Event, Happened};
use wire::ids::SessionId;
use wire::session::SessionStatus;
use wire::tenant::Tenant;

/// Events that may wait for coordination, and the bytes that they may have together; then whoever publishes waits, too.
const QUEUE: usize = 4096;
const QUEUE_BYTES: u32 = 32 << 20;
/// Events in one batch, and the bytes that they have together, unless one alone has more.
const BATCH: usize = 256;
const BATCH_BYTES: usize = 1 << 20;

#[derive(Default)]
pub(crate) struct Publishers(Mutex<HashMap<Tenant, Queue>>);

/// The way into the queue of a tenant.
#[derive(Clone)]
struct Queue {
    sender: mpsc::Sender<Queued>,
    /// The bytes that are left.
    room: Arc<Semaphore>,
}

enum Queued {
    Entry(Box<Entry>, OwnedSemaphorePermit),
    Flush(oneshot::Sender<()>),
}

/// Where an event comes from.
#[derive(Clone, Debug)]
pub(crate) struct Origin {
    pub tenant: Tenant,
    pub directory: String,
    pub project: Option<String>,
    /// The session it is about, if any.
    pub session: Option<SessionId>,
    /// The run that says it; none for what a head commit changed.
    pub fence: Option<Fence>,
}

/// What is logged: the envelope of `/global/event`.
#[derive(Serialize)]
struct Envelope<'a, P> {
    directory: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    project: Option<&'a str>,
    /// Where the body lies whose outline the payload is.
    #[serde(skip_serializing_if = "Option::is_none")]
    aside: Option<&'a str>,
    payload: &'a P,
}

impl Origin {
    /// The log entry of an event.
    pub(crate) fn entry(&self, event: &Event, version: Option<(String, RecordVersion)>) -> Entry {
        self.entry_with(event, serde_json::to_vec(&self.envelope(event, None)).unwrap_or_default(), version)
    }

    fn entry_with(&self, event: &Event, body: Vec<u8>, version: Option<(String, RecordVersion)>) -> Entry {
        let status = (event.kind == "session.status").then(|| event.properties["status"].to_string());
        Entry { status, ..self.entry_of(body, version) }
    }

    /// The log entry of a large event.
    async fn large_entry(&self, store: TenantStore, event: Event, version: Option<(String, RecordVersion)>) -> Entry {
        match aside::keep(store, event).await {
            Ok((name, outline)) => {
                let body = serde_json::to_vec(&self.envelope(&outline, Some(&name))).unwrap_or_default();
                self.entry_of(body, version)
            }
            // Rather a log that keeps less than an event that nobody is told.
            Err(body) => {
                let payload = String::from_utf8(body).ok().and_then(|text| RawValue::from_string(text).ok());
                let body = serde_json::to_vec(&self.envelope(&payload, None)).unwrap_or_default();
                self.entry_of(body, version)
            }
        }
    }

    fn envelope<'a, P>(&'a self, payload: &'a P, aside: Option<&'a str>) -> Envelope<'a, P> {
        Envelope { directory: &self.directory, project: self.project.as_deref(), aside, payload }
    }

    fn entry_of(&self, body: Vec<u8>, version: Option<(String, RecordVersion)>) -> Entry {
        Entry {
            session: self.session.clone(),
            fence: self.fence,
            record: version,
            status: None,
            body: Bytes::from(body),
        }
    }
}

impl Engine {
    /// Queues an event. Waits only while the queue is full, which is while coordination is away.
    pub(crate) async fn publish(&self, origin: &Origin, happened: Happened, version: Option<(String, RecordVersion)>) {
        let event = self.new_event(happened);
        let entry = match json_within(&origin.envelope(&event, None), aside::LARGE) {
            Ok(Some(body)) => origin.entry_with(&event, body, version),
            _ => origin.large_entry(self.tenant_store(&origin.tenant), event, version).await,
        };
        Counters::add(&self.0.counters.events, 1);
        let queue = self.queue(&origin.tenant);
        let bytes = u32::try_from(entry.body.len()).unwrap_or(QUEUE_BYTES).min(QUEUE_BYTES);
        // The queue ends only with the replica, and its room is never closed.
        let Ok(room) = queue.room.acquire_many_owned(bytes).await else { return };
        let _ = queue.sender.send(Queued::Entry(Box::new(entry), room)).await;
    }

    /// Waits until everything queued so far is out, at most for `limit`. False: it is not, or this replica has stopped.
    pub(crate) async fn flush(&self, tenant: &Tenant, limit: Duration) -> bool {
        let (done, out) = oneshot::channel();
        let queue = self.queue(tenant);
        let all = async { queue.sender.send(Queued::Flush(done)).await.is_ok() && out.await.is_ok() };
        tokio::time::timeout(limit, all).await.unwrap_or(false)
    }

    /// The entries of a busy, idle or other status, for scripts that append them by themselves.
    pub(crate) fn status_entries(&self, origin: &Origin, status: &SessionStatus) -> Vec<Entry> {
        let Some(session) = &origin.session else { return Vec::new() };
        let mut happened = vec![wire::event::session_status(session, status)];
        if *status == SessionStatus::Idle {
            happened.push(wire::event::session_idle(session));
        }
        happened.into_iter().map(|event| origin.entry(&self.new_event(event), None)).collect()
    }

    fn queue(&self, tenant: &Tenant) -> Queue {
        let mut queues = self.0.publishers.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if let Some(queue) = queues.get(tenant) {
            return queue.clone();
        }
        let (sender, receiver) = mpsc::channel(QUEUE);
        let queue = Queue { sender, room: Arc::new(Semaphore::new(QUEUE_BYTES as usize)) };
        queues.insert(tenant.clone(), queue.clone());
        self.0.tasks.spawn(self.clone().run_queue(tenant.clone(), receiver));
        queue
    }

    /// The task `publisher`, one per tenant; it ends with the replica.
    async fn run_queue(self, tenant: Tenant, mut queue: mpsc::Receiver<Queued>) {
        let mut received = Vec::with_capacity(BATCH);
        let mut number = 0;
        loop {
            tokio::select! {
                biased;
                count = queue.recv_many(&mut received, BATCH) => if count == 0 { return },
                () = self.0.stopped.cancelled() => return,
            }
            let (mut batch, mut bytes) = (Vec::with_capacity(received.len()), 0);
            // Their bytes are taken until all that was received is out.
            let (mut rooms, mut flushed) = (Vec::with_capacity(received.len()), Vec::new());
            for queued in received.drain(..) {
                match queued {
                    Queued::Entry(entry, room) => {
                        if bytes + entry.body.len() > BATCH_BYTES && !batch.is_empty() {
                            if !self.send_batch(&tenant, &mut number, std::mem::take(&mut batch)).await {
                                return;
                            }
                            bytes = 0;
                        }
                        bytes += entry.body.len();
                        batch.push(*entry);
                        rooms.push(room);
                    }
                    Queued::Flush(done) => flushed.push(done),
                }
            }
            if !batch.is_empty() && !self.send_batch(&tenant, &mut number, batch).await {
                return;
            }
            for done in flushed {
                let _ = done.send(());
            }
        }
    }

    /// Sends a batch until it is out. What was left out because coordination forgot a lease is sent once more, as a batch
    /// of its own, when the lease could be taken back. False: this replica stopped before.
    async fn send_batch(&self, tenant: &Tenant, number: &mut u64, entries: Vec<Entry>) -> bool {
        // The publisher's identity stays the same when the replica is buried and joins again, so that the numbers do.
        let publisher = self.0.replica.publisher();
        let (mut batch, mut is_repeated) = (entries, false);
        *number += 1;
        let mut wait = 20;
        loop {
            match self.0.ports.events.publish(tenant, &publisher, *number, &batch).await {
                Ok(fenced) if fenced.is_empty() || is_repeated => return true,
                Ok(fenced) => {
                    let is_known;
                    (batch, is_known) = self.still_owned(tenant, batch, &fenced).await;
                    if batch.is_empty() {
                        return true;
                    }
                    *number += 1;
                    is_repeated = is_known;
                    if is_known {
                        continue;
                    }
                }
                Err(error) => tracing::warn!(%tenant, %error, "events wait for coordination"),
            }
            tokio::select! {
                biased;
                () = tokio::time::sleep(Duration::from_millis(wait + self.0.ids.bits() % wait)) => {}
                () = self.0.stopped.cancelled() => return false,
            }
            wait = (wait * 2).min(1_000);
        }
    }

    /// Of the entries that were left out: those of runs that are here, still hold their guard, and whose lease could be taken
    /// back. False beside them: of some that is not known.
    async fn still_owned(&self, tenant: &Tenant, batch: Vec<Entry>, fenced: &[usize]) -> (Vec<Entry>, bool) {
        let replica = self.0.replica.id();
        let (mut owned, mut is_known) = (Vec::new(), true);
        for (index, entry) in batch.into_iter().enumerate() {
            let (Some(session), Some(fence)) = (&entry.session, entry.fence) else { continue };
            let key = SessionKey::new(tenant.clone(), session.clone());
            let Some(attempt) = self.0.runs.attempt_of(&key, fence).filter(|_| fenced.contains(&index)) else {
                continue;
            };
            // Its successor may have given the lease back already.
            if matches!(self.read_run_number(&key).await, Ok(number) if !fence.holds(number)) {
                self.0.runs.lose(&key, &attempt);
                continue;
            }
            match self.0.ports.leases.adopt(&key, &replica, &attempt, fence).await {
                Ok(Adopted::Mine) => owned.push(entry),
                Ok(Adopted::Lost) => self.0.runs.lose(&key, &attempt),
                Err(error) => {
                    tracing::warn!(%session, %error, "events of a run wait for its lease");
                    owned.push(entry);
                    is_known = false;
                }
            }
        }
        (owned, is_known)
    }
}
