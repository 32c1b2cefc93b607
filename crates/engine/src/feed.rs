//! The event feed: one follower of the log per replica and tenant, shared by all readers.
//!
//! The follower folds what it reads into the present state of every session that runs, so that a newcomer is healed
//! exactly at a cursor: state first, then what comes after it.

use crate::api::EngineError;
use crate::aside::Aside;
use crate::engine::Engine;
use crate::fold::{Fold, Heard, Told, ToldAsk};
use crate::replica::unavailable;
use crate::ring::{Found, Place, Ring};
use bytes::Bytes;
use coordination::{Appended, Cursor, Read, SessionKey};
use run_protocol::{Follow, Followed};
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;
use std::collections::{HashMap, HashSet, VecDeque};
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;
use wire::ids::SessionId;
use wire::part::{Part, PartKind, ToolPart, ToolState};
use wire::tenant::Tenant;

/// Cursors that a feed remembers, to find where a log went back to: more than a copy of the log lags behind.
const REMEMBERED: usize = 8192;
/// Entries read from the log at once, by the follower and by a reader that comes back.
const PAGE: usize = 500;
const REPLAYED: usize = 64;
/// For so long newcomers are shown the same state, and then what came since.
const SAME_STATE: Duration = Duration::from_secs(1);

/// One event as streams send it; made once per event and shared by all readers.
pub struct FeedItem {
    /// The id to send with it; none for what only newcomers get.
    pub cursor: Option<String>,
    /// The directory that `/event` filters by; none goes to everybody.
    pub directory: Option<String>,
    /// The session it is about.
    pub session: Option<SessionId>,
    /// `{id, type, properties}`; of a large event the outline.
    pub payload: Bytes,
    /// `{directory, project, payload}`; of a large event the outline.
    pub envelope: Bytes,
    /// Where the payload of a large event is.
    pub aside: Option<Aside>,
    /// What `/event` and `/global/event` send for it: made by the first stream that does, for all.
    pub frames: [OnceLock<Bytes>; 2],
}

impl FeedItem {
    /// An event that is here as a whole.
    pub fn whole(
        cursor: Option<String>,
        directory: Option<String>,
        session: Option<SessionId>,
        payload: Bytes,
        envelope: Bytes,
    ) -> Self {
        Self { cursor, directory, session, payload, envelope, aside: None, frames: Default::default() }
    }
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

/// A reader of a tenant's events. What it has not read yet takes the memory of a page at most.
pub struct Follower {
    first: VecDeque<Arc<FeedItem>>,
    stage: Stage,
    feed: Arc<Feed>,
}

/// What a reader reads from.
#[derive(Clone)]
enum Stage {
    /// The log, after this cursor.
    Log(Cursor),
    /// The newest events, from this place on.
    Live(Place),
}

impl Follower {
    /// The next event. None: the reader was too slow, what it has yet to read is gone, or the replica stops: the connection
    /// must be cut, not ended.
    ///
    /// Cancellation-safe.
    pub async fn next(&mut self) -> Option<Arc<FeedItem>> {
        loop {
            if let Some(item) = self.first.pop_front() {
                return Some(item);
            }
            match &mut self.stage {
                Stage::Live(place) => {
                    let more = self.feed.more.notified();
                    tokio::pin!(more);
                    more.as_mut().enable();
                    if self.feed.take(place, &mut self.first)? {
                        continue;
                    }
                    tokio::select! {
                        biased;
                        () = more => {}
                        () = self.feed.stopped.cancelled() => return None,
                    }
                }
                Stage::Log(cursor) => (self.first, self.stage) = self.feed.page(cursor.clone()).await.ok()??,
            }
        }
    }

    /// The next event if it is here already.
    pub fn try_next(&mut self) -> Option<Arc<FeedItem>> {
        if let (true, Stage::Live(place)) = (self.first.is_empty(), &mut self.stage) {
            self.feed.take(place, &mut self.first)?;
        }
        self.first.pop_front()
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
    /// Told when the newest events are others.
    more: Notify,
    /// Held by the reader that reads a log which begins anew for all that come meanwhile.
    beginning: tokio::sync::Mutex<()>,
}

struct State {
    newest: Option<Cursor>,
    /// The newest cursors that were read, oldest first.
    read: VecDeque<Cursor>,
    /// Cursors that were read before the log went back: what it still holds of them was folded and shown.
    known: HashSet<Cursor>,
    fold: Fold,
    ring: Ring,
    shown: Option<Snapshot>,
}

impl State {
    /// Whether this cursor was read lately.
    fn has_read(&self, cursor: &Cursor) -> bool {
        self.read.iter().rev().any(|read| read == cursor)
    }
}

/// The state of what runs, as newcomers are shown it.
struct Snapshot {
    items: Vec<Arc<FeedItem>>,
    /// What came after it.
    place: Place,
    made: Instant,
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(default)]
    directory: Option<String>,
    #[serde(default)]
    project: Value,
    #[serde(default)]
    aside: Option<String>,
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
        let feed = Arc::new(Feed {
            tenant: tenant.clone(),
            engine: Arc::downgrade(&self.0),
            stopped: self.0.stopped.clone(),
            state: Mutex::new(State {
                newest: None,
                read: VecDeque::new(),
                known: HashSet::new(),
                fold: Fold::default(),
                ring: Ring::default(),
                shown: None,
            }),
            more: Notify::new(),
            beginning: tokio::sync::Mutex::default(),
        });
        let mut following = Following { feed: feed.clone(), next: Follow::begin(), subscription: None };
        while following.next != Follow::Listen {
            let followed = following.follow(self).await;
            let followed = followed.map_err(unavailable)?;
            following.next = following.next.next(followed);
        }
        feeds.insert(tenant.clone(), feed.clone());
        self.0.tasks.spawn(self.clone().follow_log(following));
        Ok(feed)
    }

    /// The tenants whose log this replica follows, with the newest cursor that it has read.
    pub(crate) fn followed(&self) -> Option<Vec<(Tenant, Option<Cursor>)>> {
        let feeds = self.0.feeds.0.try_lock().ok()?;
        Some(feeds.iter().map(|(tenant, feed)| (tenant.clone(), feed.newest())).collect())
    }

    /// The sessions that readers of this replica were told to be at work.
    pub(crate) async fn told_busy(&self) -> Vec<SessionKey> {
        let feeds = self.0.feeds.0.lock().await;
        let busy = |(tenant, feed): (&Tenant, &Arc<Feed>)| {
            let sessions = feed.state().fold.busy();
            sessions.into_iter().map(|session| SessionKey::new(tenant.clone(), session)).collect::<Vec<_>>()
        };
        feeds.iter().flat_map(busy).collect()
    }

    /// Whether this replica has read so far in a log that it follows.
    pub(crate) async fn has_read(&self, tenant: &Tenant, cursor: &Cursor) -> bool {
        self.begun_feed(tenant).await.is_some_and(|feed| feed.state().has_read(cursor))
    }

    async fn begun_feed(&self, tenant: &Tenant) -> Option<Arc<Feed>> {
        self.0.feeds.0.lock().await.get(tenant).cloned()
    }

    /// Reads a log on whose newest cursor, by the tick, is another than what came over the subscription.
    pub(crate) async fn catch_up(&self, tenant: &Tenant) {
        if let Some(feed) = self.begun_feed(tenant).await
            && let Err(error) = feed.read_on(self).await
        {
            tracing::warn!(%tenant, %error, "the event log cannot be read on");
        }
    }

    /// The task `feed`, one per tenant that is followed; it ends with the replica.
    async fn follow_log(self, mut following: Following) {
        loop {
            let followed = tokio::select! {
                biased;
                followed = following.follow(&self) => followed,
                () = self.0.stopped.cancelled() => return,
            };
            let followed = match followed {
                Ok(followed) => followed,
                Err(_) => {
                    tokio::time::sleep(Duration::from_millis(200 + self.0.ids.bits() % 200)).await;
                    Followed::Failed
                }
            };
            following.next = following.next.next(followed);
        }
    }
}

/// Who follows a log for a feed.
struct Following {
    feed: Arc<Feed>,
    next: Follow,
    subscription: Option<coordination::Subscription>,
}

impl Following {
    /// Does what is next.
    async fn follow(&mut self, engine: &Engine) -> coordination::Result<Followed> {
        match self.next {
            Follow::Subscribe => {
                self.subscription = Some(engine.0.ports.events.subscribe(&self.feed.tenant).await?);
                Ok(Followed::Done)
            }
            Follow::ReadOn => {
                let read = self.feed.read_on(engine).await;
                read.inspect_err(
                    |error| tracing::warn!(tenant = %self.feed.tenant, %error, "the event log cannot be read on"),
                )?;
                Ok(Followed::Done)
            }
            Follow::Listen => {
                let Some(subscription) = &mut self.subscription else { return Ok(Followed::Ended) };
                Ok(match subscription.recv().await {
                    Some(Appended { previous, entries }) => {
                        Followed::Heard { follows: self.feed.append(engine, previous.as_ref(), entries) }
                    }
                    None => Followed::Ended,
                })
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

    /// What the readers of this replica heard of a session lately.
    pub(crate) fn heard(&self, session: &SessionId) -> Heard {
        self.state().fold.heard(session)
    }

    /// What was told of the asks of a session lately.
    pub(crate) fn asks(&self, session: &SessionId) -> Vec<ToldAsk> {
        self.state().fold.asks(session)
    }

    /// What a message says so far that was never stored: the open texts of its parts, as the log tells them.
    pub(crate) fn open_text(&self, part: &wire::ids::PartId) -> Option<String> {
        self.state().fold.text(part)
    }

    /// Gives running calls the title and the metadata that they told last: that is not stored.
    pub(crate) fn show_progress<'a>(&self, parts: impl IntoIterator<Item = &'a mut Part>) {
        for part in parts {
            let PartKind::Tool(ToolPart { state: ToolState::Running { title, metadata, .. }, .. }) = &mut part.kind
            else {
                continue;
            };
            if let Some((told_title, told_metadata)) = self.state().fold.progress(&part.id) {
                *title = told_title.or_else(|| title.take());
                *metadata = told_metadata.or_else(|| metadata.take());
            }
        }
    }

    /// Reads the log from the newest cursor to its end as it is now: on a busy log there is always more.
    async fn read_on(&self, engine: &Engine) -> coordination::Result<()> {
        loop {
            let from = self.newest();
            match engine.0.ports.events.read_after(&self.tenant, from.as_ref(), PAGE).await? {
                // Else a log that is emptied before anything is told in it could not be told from this one.
                Read::Entries(entries) if from.is_none() && entries.is_empty() => {
                    engine.0.ports.events.begin(&self.tenant).await?;
                }
                Read::Entries(entries) => {
                    let (is_empty, is_full) = (entries.is_empty(), entries.len() >= PAGE);
                    // The subscription may have delivered some of them in the meantime: then it is read on from there.
                    let is_read = self.append(engine, from.as_ref(), entries) || is_empty;
                    if is_read && !is_full {
                        return Ok(());
                    }
                }
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
        let read = {
            let state = self.state();
            // It was begun anew while this was found out: what was read since is all in the log.
            if state.newest != from {
                return Ok(());
            }
            state.read.clone()
        };
        if let Some(shared) = self.newest_shared(engine, &read).await? {
            tracing::warn!(tenant = %self.tenant, "the event log went back; readers are healed");
            engine.0.ports.events.forget_until(&self.tenant, &shared).await?;
        }
        let mut state = self.state();
        if state.newest == from {
            // What was folded stays: it is all that is left to heal readers from.
            state.newest = None;
            // Another replica may be in the midst of forgetting: then some of what is shared is still there to be read.
            state.known = state.read.drain(..).collect();
            state.ring.cut();
            drop(state);
            self.more.notify_waiters();
        }
        Ok(())
    }

    /// The newest of the cursors that were read that the log still holds. Those before it are there, too, those after it
    /// are not: it is found by halving.
    async fn newest_shared(&self, engine: &Engine, read: &VecDeque<Cursor>) -> coordination::Result<Option<Cursor>> {
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

    /// Takes entries in that follow `previous`; if that is not the newest cursor any more, nothing is done. False: some of
    /// them have yet to be read.
    fn append(&self, engine: &Engine, previous: Option<&Cursor>, entries: Vec<(Cursor, Bytes)>) -> bool {
        let now = engine.now_ms();
        let mut idle = Vec::new();
        {
            let mut state = self.state();
            if state.newest.as_ref() != previous {
                return entries.last().is_some_and(|(cursor, _)| state.has_read(cursor));
            }
            for (cursor, body) in entries {
                if !state.known.is_empty() && !state.known.contains(&cursor) {
                    state.known.clear();
                }
                if state.known.is_empty()
                    && let Some((item, told)) = read_item(engine, &self.tenant, &cursor, &body)
                {
                    if told.kind == "session.idle"
                        && let Some(session) = &item.session
                    {
                        idle.push(session.clone());
                    }
                    match (told.kind.as_ref(), &item.directory) {
                        ("server.instance.disposed", Some(directory)) => {
                            engine.0.instances.forget(Some(Path::new(directory)));
                        }
                        ("global.disposed", _) => engine.0.instances.forget(None),
                        _ => {}
                    }
                    state.fold.take(&item, &told, now);
                    state.ring.push(item);
                }
                if state.read.len() == REMEMBERED {
                    state.read.pop_front();
                }
                state.read.push_back(cursor.clone());
                state.newest = Some(cursor);
            }
            state.fold.forget_idle(now);
        }
        self.more.notify_waiters();
        for session in idle {
            engine.0.waiters.wake(&SessionKey::new(self.tenant.clone(), session));
        }
        true
    }

    pub(crate) async fn follow(self: &Arc<Self>, from: From) -> Result<Follower, EngineError> {
        // The log begins anew: a reader that came in between would not be cut if it did so once more.
        if self.newest().is_none() {
            let _beginning = self.beginning.lock().await;
            if self.newest().is_none() {
                self.read_on(&self.engine()?).await.map_err(unavailable)?;
            }
        }
        let (first, stage) = match from {
            From::Now => (VecDeque::new(), Stage::Live(self.state().ring.end())),
            From::Heal => self.heal()?,
            From::Cursor(cursor) => match self.page(Cursor(cursor)).await? {
                Some(page) => page,
                None => self.heal()?,
            },
        };
        Ok(Follower { first, stage, feed: self.clone() })
    }

    fn engine(&self) -> Result<Engine, EngineError> {
        self.engine.upgrade().map(Engine).ok_or_else(|| EngineError::Unavailable("stopping".into()))
    }

    /// Gives a reader what is at its place; false if nothing is yet, none if it lags too far behind.
    fn take(&self, place: &mut Place, into: &mut VecDeque<Arc<FeedItem>>) -> Option<bool> {
        let Found::Next(items) = self.state().ring.at(*place) else { return None };
        *place += items.len() as u64;
        into.extend(items);
        Some(!into.is_empty())
    }

    /// The state of what runs, and the place of what follows it: nothing falls between them, nothing shows twice.
    fn heal(&self) -> Result<(VecDeque<Arc<FeedItem>>, Stage), EngineError> {
        let engine = self.engine()?;
        let mut state = self.state();
        // Many who come at once share one, so that those who never read cost no more than one.
        let shared = state.shown.take().filter(|s| s.made.elapsed() < SAME_STATE && state.ring.holds(s.place));
        let shown = shared.unwrap_or_else(|| Snapshot {
            items: state.fold.heal(&engine, state.newest.as_ref()),
            place: state.ring.end(),
            made: Instant::now(),
        });
        let healed = (shown.items.iter().cloned().collect(), Stage::Live(shown.place));
        state.shown = Some(shown);
        Ok(healed)
    }

    /// Some of what follows a cursor, and where the reader is then. None if the log no longer holds the cursor.
    async fn page(&self, mut cursor: Cursor) -> Result<Option<(VecDeque<Arc<FeedItem>>, Stage)>, EngineError> {
        let engine = self.engine()?;
        loop {
            if let Some(place) = self.place_after(&cursor) {
                return Ok(Some((VecDeque::new(), Stage::Live(place))));
            }
            let read = engine.0.ports.events.read_after(&self.tenant, Some(&cursor), REPLAYED).await;
            match read.map_err(unavailable)? {
                Read::Reset => return Ok(None),
                // A reader may come with a cursor that this replica has not read yet.
                Read::Entries(entries) if entries.is_empty() => self.read_on(&engine).await.map_err(unavailable)?,
                Read::Entries(entries) => {
                    let mut items = VecDeque::with_capacity(entries.len());
                    for (next, body) in entries {
                        items.extend(read_item(&engine, &self.tenant, &next, &body).map(|(item, _)| item));
                        cursor = next;
                    }
                    return Ok(Some((items, Stage::Log(cursor))));
                }
            }
        }
    }

    fn place_after(&self, cursor: &Cursor) -> Option<Place> {
        let state = self.state();
        let is_newest = state.newest.as_ref() == Some(cursor);
        if is_newest { Some(state.ring.end()) } else { state.ring.after(cursor) }
    }
}

fn read_item<'a>(
    engine: &Engine,
    tenant: &Tenant,
    cursor: &Cursor,
    body: &'a Bytes,
) -> Option<(Arc<FeedItem>, Told<'a>)> {
    let Envelope { directory, project, aside, payload } = serde_json::from_slice(body).ok()?;
    let told: Told<'a> = serde_json::from_str(payload.get()).ok()?;
    let session = told.properties.session.and_then(|id| serde_json::from_str(id.get()).ok());
    let payload = body.slice_ref(payload.get().as_bytes());
    let aside = aside.map(|name| {
        let head = format!("{{\"directory\":{},\"project\":{project},\"payload\":", serde_json::json!(directory));
        Aside::new(engine.tenant_store(tenant), name, head.into())
    });
    let item = FeedItem::whole(Some(cursor.0.clone()), directory, session, payload, body.clone());
    Some((Arc::new(FeedItem { aside, ..item }), told))
}
