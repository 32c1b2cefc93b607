//! All that was ever appended to the event log, in its order, with who said it; and what is wrong with that order alone.

use crate::view::{Told, View};
use bytes::Bytes;
use coordination::{Cursor, Entry, Ports, Subscription};
use run_protocol::Fence;
use serde::Deserialize;
use serde_json::value::RawValue;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use wire::ids::SessionId;
use wire::permission::PermissionRequest;
use wire::tenant::Tenant;

/// An entry of the log.
pub(crate) struct Line {
    /// Its place among all that were ever appended.
    pub place: usize,
    /// How often the log was emptied before.
    pub volume: u64,
    /// Where it happened: readers of another directory are not shown it. None for the beginning of a log, which nobody is shown.
    directory: Option<String>,
    /// What streams of all events send for it.
    pub body: Bytes,
    /// What streams of its directory send for it.
    pub payload: Bytes,
    pub told: Option<Told>,
}

/// What the body of an entry is made from.
#[derive(Deserialize)]
struct Envelope<'a> {
    directory: String,
    #[serde(borrow)]
    payload: &'a RawValue,
}

/// All entries, and what is wrong with their order.
#[derive(Default)]
pub(crate) struct Chronicle {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    lines: Vec<Arc<Line>>,
    places: HashMap<Cursor, usize>,
    heard: Option<Subscription>,
    volume: u64,
    /// The newest fence that said something, and whose it was.
    fences: BTreeMap<SessionId, (Fence, String)>,
    /// What a reader from the beginning on knows.
    view: View,
    /// Sessions whose work somebody wanted to stop: an abort is told as idle before what it broke off is.
    stopped: BTreeSet<SessionId>,
    broken: Vec<String>,
}

impl Chronicle {
    /// Begins to listen, before anything is appended.
    pub(crate) async fn begin(&self, ports: &Ports) -> coordination::Result<()> {
        let heard = ports.events.subscribe(&Tenant::default()).await?;
        self.state().heard = Some(heard);
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// To be called right after a call by which a replica may have appended some of these entries.
    pub(crate) async fn may_have(&self, by: &str, entries: &[Entry], ports: &Ports) {
        let at_work = ports.leases.statuses(&Tenant::default()).await.unwrap_or_default();
        let mut state = self.state();
        let mut entries = entries.iter();
        while let Some(appended) = state.heard.as_mut().and_then(|heard| heard.try_recv().ok()) {
            for (cursor, body) in appended.entries {
                // They keep their order.
                let Some(entry) = entries.find(|entry| entry.body == body) else {
                    state.broken.push(format!("{by} appended what it was not asked to: {body:?}"));
                    return;
                };
                state.append(by, cursor, entry);
                let idle = entry.session.as_ref().filter(|session| entry.status.is_some() && state.says_idle(session));
                if let Some(session) = idle.filter(|session| at_work.contains_key(*session)) {
                    state.broken.push(format!("{by} said that {session} is idle while it has a lease"));
                }
            }
        }
    }

    /// The log is empty from here on, and whoever comes back reads all anew.
    pub(crate) fn emptied(&self) {
        let mut state = self.state();
        state.volume += 1;
        state.view = state.view.anew();
    }

    /// Runners may take guards by old numbers: the disk forgot the newest ones.
    pub(crate) fn forget_fences(&self) {
        self.state().fences.clear();
    }

    /// Somebody wants the work of a session stopped.
    pub(crate) fn stops(&self, session: &SessionId) {
        self.state().stopped.insert(session.clone());
    }

    /// The entry that a cursor names.
    pub(crate) fn line(&self, cursor: &str) -> Option<Arc<Line>> {
        let state = self.state();
        state.places.get(&Cursor(cursor.to_owned())).map(|place| state.lines[*place].clone())
    }

    /// The place of the first entry from this one on that readers of a directory are shown, or of all; the end if there is none.
    pub(crate) fn next(&self, place: usize, directory: Option<&str>) -> usize {
        let state = self.state();
        let here = |line: &Arc<Line>| match (&line.directory, directory) {
            (Some(of), Some(directory)) => of == directory,
            (of, _) => of.is_some(),
        };
        state.lines.iter().skip(place).find(|line| here(line)).map_or(state.lines.len(), |line| line.place)
    }

    /// How many entries there were, and how often the log was emptied.
    pub(crate) fn end(&self) -> (usize, u64) {
        let state = self.state();
        (state.lines.len(), state.volume)
    }

    /// What is wrong with the order of the entries.
    pub(crate) fn broken(&self) -> Vec<String> {
        self.state().broken.clone()
    }

    /// What runs ask for, as a reader from the beginning on knows it.
    pub(crate) fn asks(&self) -> Vec<PermissionRequest> {
        self.state().view.asks()
    }

    /// What a reader from the beginning on knows.
    pub(crate) fn view(&self) -> View {
        self.state().view.clone()
    }
}

impl State {
    /// True for a session of which nothing but idleness is to be told.
    fn says_idle(&self, session: &SessionId) -> bool {
        self.view.is_idle(session) && !self.stopped.contains(session)
    }

    fn append(&mut self, by: &str, cursor: Cursor, entry: &Entry) {
        let (place, volume, body) = (self.lines.len(), self.volume, entry.body.clone());
        let mut line = Line { place, volume, directory: None, body, payload: Bytes::new(), told: None };
        if *entry == Entry::beginning() {
            if self.lines.last().is_some_and(|line| line.volume == volume) {
                return self.broken.push(format!("{by} began a log that is not empty"));
            }
        } else {
            let envelope: Option<Envelope<'_>> = serde_json::from_slice(&entry.body).ok();
            let (Some(told), Some(Envelope { directory, payload })) = (Told::read_envelope(&entry.body), envelope)
            else {
                return self.broken.push(format!("{by} appended what cannot be read: {:?}", entry.body));
            };
            self.tell(by, entry, &told);
            line.directory = Some(directory);
            line.payload = entry.body.slice_ref(payload.get().as_bytes());
            line.told = Some(told);
        }
        self.places.insert(cursor, place);
        self.lines.push(Arc::new(line));
    }

    fn tell(&mut self, by: &str, entry: &Entry, told: &Told) {
        if let (Some(session), Some(fence)) = (&entry.session, entry.fence) {
            let newest = self.fences.insert(session.clone(), (fence, by.to_owned()));
            if let Some((newer, whose)) = newest.filter(|(newest, _)| *newest > fence) {
                let what = &told.kind;
                let (newer, fence) = (newer.0, fence.0);
                self.broken
                    .push(format!("{by} told {what} of {session} as {fence} after {whose} had begun as {newer}"));
            }
            if self.says_idle(session) && told.kind.starts_with("message.") {
                self.broken.push(format!("{by} told {} of {session}, which was said to be idle", told.kind));
            }
        }
        self.view.take(told);
    }
}
