//! The event feed: one follower of the log per replica and tenant, shared by all readers.
//!
//! The follower folds what it reads into the present state of every session that runs, so that a newcomer is healed
//! exactly at a cursor: state first, then what comes after it.

use crate::api::EngineError;
use crate::engine::Engine;
use crate::fold::Fold;
use bytes::Bytes;
use coordination::{Cursor, Read};
use serde::Deserialize;
use serde_json::value::RawValue;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::broadcast;
use wire::event::Event;
use wire::ids::SessionId;
use wire::tenant::Tenant;

/// Events that a reader may lag behind before it is cut.
const READER_BUFFER: usize = 8192;
/// Cursors that a feed remembers, to find where a log went back to: more than a copy of the log lags behind.
const REMEMBERED: usize = 8192;
/// Entries read from the log at once.
const PAGE: usize = 500;

/// One event as streams send it; made once per event and shared by all readers.
#[derive(Debug)]
pub struct FeedItem {
    /// The id to send with it; none for what only this reader gets.
    pub cursor: Option<String>,
    /// The directory that `/event` filters by; none goes to everybody.
    pub directory: Option<String>,
    /// The session it is about.
    pub session: Option<SessionId>,
    /// `{id, type, properties}`.
    pub payload: Bytes,
    /// `{directory, project, payload}`.
    pub envelope: Bytes,
}

/// Where a reader begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum From {
    /// With what comes from now on.
    Now,
    /// With the state of what runs, then with what comes.
    Heal,
    /// After this cursor; healed if the log no longer holds it.
    Cursor(String),
}

/// A reader of a tenant's events.
pub struct Follower {
    first: VecDeque<Arc<FeedItem>>,
    live: broadcast::Receiver<Arc<FeedItem>>,
    stopped: tokio_util::sync::CancellationToken,
}

impl Follower {
    /// The next event. None: the reader was too slow, or the replica stops: the connection must be cut, not ended.
    ///
    /// Cancellation-safe.
    pub async fn next(&mut self) -> Option<Arc<FeedItem>> {
        if let Some(item) = self.first.pop_front() {
            return Some(item);
        }
        tokio::select! {
            biased;
            item = self.live.recv() => item.ok(),
            () = self.stopped.cancelled() => None,
        }
    }

    /// The next event if there is one already: lets a stream send several at once.
    pub fn try_next(&mut self) -> Option<Arc<FeedItem>> {
        self.first.pop_front().or_else(|| self.live.try_recv().ok())
    }
}

#[derive(Default)]
pub(crate) struct Feeds(tokio::sync::Mutex<HashMap<Tenant, Arc<Feed>>>);

/// A tenant's feed on this replica.
pub(crate) struct Feed {
    tenant: Tenant,
    engine: std::sync::Weak<crate::engine::Inner>,
    stopped: tokio_util::sync::CancellationToken,
    state: Mutex<State>,
}

struct State {
    newest: Option<Cursor>,
    /// The newest cursors that were read, oldest first.
    read: VecDeque<Cursor>,
    fold: Fold,
    live: broadcast::Sender<Arc<FeedItem>>,
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(default)]
    directory: Option<String>,
    #[serde(borrow)]
    payload: &'a RawValue,
}

impl Engine {
    /// The tenant's feed; begun with its first reader.
    pub(crate) async fn feed(&self, tenant: &Tenant) -> Result<Arc<Feed>, EngineError> {
        let mut feeds = self.0.feeds.0.lock().await;
        if let Some(feed) = feeds.get(tenant) {
            return Ok(feed.clone());
        }
        let subscription =
            self.0.ports.events.subscribe(tenant).await.map_err(|error| EngineError::Unavailable(error.to_string()))?;
        let feed = Arc::new(Feed {
            tenant: tenant.clone(),
            engine: Arc::downgrade(&self.0),
            stopped: self.0.stopped.clone(),
            state: Mutex::new(State {
                newest: None,
                read: VecDeque::new(),
                fold: Fold::default(),
                live: broadcast::channel(READER_BUFFER).0,
            }),
        });
        feed.read_on(self).await.map_err(|error| EngineError::Unavailable(error.to_string()))?;
        feeds.insert(tenant.clone(), feed.clone());
        self.0.tasks.spawn(self.clone().follow_log(feed.clone(), subscription));
        Ok(feed)
    }

    /// The tenants whose log this replica follows, with the newest cursor that it has read.
    pub(crate) async fn followed(&self) -> Vec<(Tenant, Option<Cursor>)> {
        let feeds = self.0.feeds.0.lock().await;
        feeds.iter().map(|(tenant, feed)| (tenant.clone(), feed.newest())).collect()
    }

    /// Reads a log on whose newest cursor, by the tick, is another than what came over the subscription.
    pub(crate) async fn catch_up(&self, tenant: &Tenant) {
        let feed = self.0.feeds.0.lock().await.get(tenant).cloned();
        if let Some(feed) = feed
            && let Err(error) = feed.read_on(self).await
        {
            tracing::warn!(%tenant, %error, "the event log cannot be read on");
        }
    }

    /// The task `feed`, one per tenant that is followed; it ends with the replica.
    async fn follow_log(self, feed: Arc<Feed>, mut subscription: coordination::Subscription) {
        loop {
            let appended = tokio::select! {
                appended = subscription.recv() => appended,
                () = self.0.stopped.cancelled() => return,
            };
            match appended {
                Some(appended) => {
                    if !feed.append(&self, appended.previous.as_ref(), appended.entries) {
                        self.catch_up(&feed.tenant).await;
                    }
                }
                None => match self.0.ports.events.subscribe(&feed.tenant).await {
                    Ok(again) => {
                        subscription = again;
                        self.catch_up(&feed.tenant).await;
                    }
                    Err(_) => tokio::time::sleep(Duration::from_millis(200 + self.0.ids.bits() % 200)).await,
                },
            }
        }
    }
}

impl Feed {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn newest(&self) -> Option<Cursor> {
        self.state().newest.clone()
    }

    /// True once the session's newest idle has gone to the readers of this replica.
    pub(crate) fn has_told_idle(&self, session: &SessionId) -> bool {
        self.state().fold.is_idle(session)
    }

    /// Whether the readers of this replica were told of the end of an answer; none if they were told nothing of it.
    pub(crate) fn has_told_end(&self, session: &SessionId, message: &wire::ids::MessageId) -> Option<bool> {
        self.state().fold.has_end(session, message)
    }

    /// What a message says so far that was never stored: the open texts of its parts, as the log tells them.
    pub(crate) fn open_text(&self, part: &wire::ids::PartId) -> Option<String> {
        self.state().fold.text(part)
    }

    /// Reads the log from the newest cursor to its end.
    async fn read_on(&self, engine: &Engine) -> coordination::Result<()> {
        loop {
            let from = self.newest();
            match engine.0.ports.events.read_after(&self.tenant, from.as_ref(), PAGE).await? {
                Read::Entries(entries) if entries.is_empty() => return Ok(()),
                // The subscription may have delivered some of them in the meantime: then it is read on from there.
                Read::Entries(entries) => drop(self.append(engine, from.as_ref(), entries)),
                Read::Reset => self.begin_anew(engine, from).await?,
            }
        }
    }

    /// The log no longer holds the newest cursor: it began anew, was trimmed, or went back. It is read from its beginning,
    /// and every reader is cut: each comes back and is healed, or is given what follows.
    ///
    /// One that went back has lost what readers were shown and what was folded already. What it shares with this feed must
    /// not be folded once more, nor be replayed to a reader that comes with an older cursor, who would never be shown what
    /// was lost. So that is forgotten, for all replicas, and the log begins with what is new.
    async fn begin_anew(&self, engine: &Engine, from: Option<Cursor>) -> coordination::Result<()> {
        if let Some(shared) = self.newest_shared(engine).await? {
            tracing::warn!(tenant = %self.tenant, "the event log went back; readers are healed");
            engine.0.ports.events.forget_until(&self.tenant, &shared).await?;
        }
        let mut state = self.state();
        if state.newest == from {
            // What was folded stays: it is all that is left to heal readers from.
            state.newest = None;
            state.read.clear();
            state.live = broadcast::channel(READER_BUFFER).0;
        }
        Ok(())
    }

    /// The newest of the cursors that were read that the log still holds. Those before it are there, too, those after it
    /// are not: it is found by halving.
    async fn newest_shared(&self, engine: &Engine) -> coordination::Result<Option<Cursor>> {
        let read = self.state().read.clone();
        let (mut held, mut lost) = (0, read.len());
        while held < lost {
            let middle = held + (lost - held) / 2;
            match engine.0.ports.events.read_after(&self.tenant, Some(&read[middle]), 1).await? {
                Read::Entries(_) => held = middle + 1,
                Read::Reset => lost = middle,
            }
        }
        Ok(held.checked_sub(1).map(|newest| read[newest].clone()))
    }

    /// Takes entries in that follow `previous`; false, and nothing done, if that is not the newest cursor any more.
    fn append(&self, engine: &Engine, previous: Option<&Cursor>, entries: Vec<(Cursor, Bytes)>) -> bool {
        let now = engine.now_ms();
        let mut idle = Vec::new();
        {
            let mut state = self.state();
            if state.newest.as_ref() != previous {
                return false;
            }
            for (cursor, body) in entries {
                if let Some((item, event)) = read_item(&cursor, body) {
                    if event.kind == "session.idle"
                        && let Some(session) = &item.session
                    {
                        idle.push(session.clone());
                    }
                    state.fold.take(&item, event, now);
                    // Nobody may be listening.
                    let _ = state.live.send(item);
                }
                if state.read.len() == REMEMBERED {
                    state.read.pop_front();
                }
                state.read.push_back(cursor.clone());
                state.newest = Some(cursor);
            }
            state.fold.forget_idle(now);
        }
        for session in idle {
            engine.0.waiters.wake(&coordination::SessionKey::new(self.tenant.clone(), session));
        }
        true
    }

    pub(crate) async fn follow(&self, from: From) -> Result<Follower, EngineError> {
        let Some(inner) = self.engine.upgrade() else { return Err(EngineError::Unavailable("stopping".into())) };
        let engine = Engine(inner);
        match from {
            From::Now => Ok(self.join(VecDeque::new())),
            From::Heal => Ok(self.heal(&engine)),
            From::Cursor(cursor) => self.replay(&engine, Cursor(cursor)).await,
        }
    }

    fn join(&self, first: VecDeque<Arc<FeedItem>>) -> Follower {
        Follower { first, live: self.state().live.subscribe(), stopped: self.stopped.clone() }
    }

    fn heal(&self, engine: &Engine) -> Follower {
        // State and subscription are taken together: nothing falls between them, nothing shows twice.
        let state = self.state();
        let first = state.fold.heal(engine, state.newest.as_ref());
        Follower { first, live: state.live.subscribe(), stopped: self.stopped.clone() }
    }

    async fn replay(&self, engine: &Engine, mut cursor: Cursor) -> Result<Follower, EngineError> {
        let mut first = VecDeque::new();
        loop {
            {
                let state = self.state();
                if state.newest.as_ref() == Some(&cursor) {
                    return Ok(Follower { first, live: state.live.subscribe(), stopped: self.stopped.clone() });
                }
            }
            // A reader may come with a cursor that this replica has not read yet.
            let read = engine.0.ports.events.read_after(&self.tenant, Some(&cursor), PAGE).await;
            match read.map_err(|error| EngineError::Unavailable(error.to_string()))? {
                Read::Reset => return Ok(self.heal(engine)),
                Read::Entries(entries) if entries.is_empty() => {
                    self.read_on(engine).await.map_err(|error| EngineError::Unavailable(error.to_string()))?;
                }
                Read::Entries(entries) => {
                    let newest = self.newest();
                    for (next, body) in entries {
                        let at_newest = Some(&next) == newest.as_ref();
                        first.extend(read_item(&next, body).map(|(item, _)| item));
                        cursor = next;
                        if at_newest {
                            break;
                        }
                    }
                }
            }
        }
    }
}

fn read_item(cursor: &Cursor, body: Bytes) -> Option<(Arc<FeedItem>, Event)> {
    let (directory, payload) = {
        let envelope: Envelope<'_> = serde_json::from_slice(&body).ok()?;
        (envelope.directory, Bytes::copy_from_slice(envelope.payload.get().as_bytes()))
    };
    let event: Event = serde_json::from_slice(&payload).ok()?;
    let session = event.properties["sessionID"].as_str().and_then(|id| SessionId::parse(id).ok());
    let item = FeedItem { cursor: Some(cursor.0.clone()), directory, session, payload, envelope: body };
    Some((Arc::new(item), event))
}
