//! Clients that follow the events: each is cut when its replica dies, or of itself, and comes back to one that is drawn with the
//! id of the last event that it has.

use crate::chronicle::{Chronicle, Line};
use crate::dice::Dice;
use crate::fleet::Fleet;
use crate::mortal::Mortal;
use crate::view::{Told, View};
use engine::{FeedItem, Follower, From};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::time::{Instant, sleep, timeout_at};
use wire::tenant::Tenant;

/// A reader of events.
pub(crate) struct Reader {
    pub number: usize,
    /// Asks for the state of what runs first, as `/global/event` does; or begins with what comes, as `/event` does.
    pub heals: bool,
    pub fleet: Arc<Fleet>,
    pub dice: Dice,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The id of the last event that it has.
    last: Option<String>,
    /// The entry of the log that it was given last; none while it has only the state of what runs.
    at: Option<Arc<Line>>,
    /// How many entries there were when its stream began.
    began: usize,
    view: View,
    broken: Vec<String>,
}

/// Where a stream is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// It begins anew: with the state of what runs, or with what comes.
    New,
    /// It goes on behind the last event that the reader has.
    Live,
}

impl Reader {
    pub(crate) fn new(number: usize, fleet: Arc<Fleet>, dice: Dice) -> Self {
        Self { number, heals: dice.chance(500), fleet, dice, state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn chronicle(&self) -> &Chronicle {
        &self.fleet.chronicle
    }

    /// True once it has all that was ever told.
    pub(crate) fn has_all(&self) -> bool {
        let (end, _) = self.chronicle().end();
        let state = self.state();
        state.at.as_ref().map_or(state.began, |line| line.place + 1) == end
    }

    /// What it was told that cannot be, and what it knows.
    pub(crate) fn told(&self) -> (Vec<String>, View) {
        let state = self.state();
        (state.broken.iter().map(|what| format!("reader {}: {what}", self.number)).collect(), state.view.clone())
    }

    /// The task `reader`, one for each: it never ends of itself.
    pub(crate) async fn live(self: Arc<Self>) {
        loop {
            let place = self.dice.below(self.fleet.size() as u64) as usize;
            if let Some(replica) = self.fleet.replica(place).filter(|replica| !replica.engine.is_draining()) {
                self.connect(place, replica.who).await;
            }
            sleep(self.dice.ms(20, 600)).await;
        }
    }

    async fn connect(&self, place: usize, who: Arc<Mortal>) {
        let last = self.state().last.clone();
        let from = match &last {
            Some(last) => From::Cursor(last.clone()),
            None if self.heals => From::Heal,
            None => From::Now,
        };
        self.fleet.trace.note(format_args!("reader {} comes to {} with {from:?}", self.number, who.name));
        let follower = self.fleet.ask(place, |engine| async move { engine.follow(&Tenant::default(), from).await });
        let Ok(Ok(mut follower)) = follower.await else { return };
        let stage = self.begin(last);
        let until = Instant::now() + self.dice.ms(500, 30_000);
        let read = engine::on_strand(who.clone(), self.read(&mut follower, &who, stage));
        let _ = timeout_at(until, read).await;
        self.fleet.trace.note(format_args!("reader {} is cut from {}", self.number, who.name));
    }

    /// A stream begins. Who comes with the id of an event that the log holds is given what follows, and nothing else.
    fn begin(&self, last: Option<String>) -> Stage {
        let (end, volume) = self.chronicle().end();
        let line = last.and_then(|last| self.chronicle().line(&last)).filter(|line| line.volume == volume);
        let mut state = self.state();
        state.began = end;
        if line.is_some() {
            return Stage::Live;
        }
        // A client reads all anew then.
        state.view = self.chronicle().view().anew();
        state.at = None;
        Stage::New
    }

    async fn read(&self, follower: &mut Follower, who: &Mortal, mut stage: Stage) {
        while let Some(item) = follower.next().await {
            who.goes_on().await;
            self.take(&item, &mut stage);
        }
    }

    fn take(&self, item: &FeedItem, stage: &mut Stage) {
        let line = item.cursor.as_ref().and_then(|cursor| self.chronicle().line(cursor));
        let (_, volume) = self.chronicle().end();
        let mut state = self.state();
        match line {
            Some(line) if line.body == item.envelope => {
                let follows = match (*stage, &state.at) {
                    (Stage::Live, Some(at)) => line.place == at.place + 1 && line.volume == at.volume,
                    _ => line.place <= state.began,
                };
                if !follows {
                    let after = state.at.as_ref().map(|at| at.place);
                    let (place, began) = (line.place, state.began);
                    state.broken.push(format!("{place} comes after {after:?} in a stream that began at {began}"));
                }
                *stage = Stage::Live;
                state.view.take(&line.told);
                state.at = Some(line);
            }
            // The state of what runs; the last of it bears the cursor that all of it stands for.
            line => {
                if *stage != Stage::New {
                    state.broken.push(format!("{:?} is told and not in the log", item.envelope));
                }
                // Once the log was emptied, only the status is sure to be as it is: see the guarantees.
                let told = Told::read_envelope(&item.envelope);
                if let Some(told) = told.filter(|told| volume == 0 || told.kind == "session.status") {
                    state.view.take(&told);
                }
                if line.is_some() {
                    *stage = Stage::Live;
                    state.at = line;
                }
            }
        }
        if item.cursor.is_some() {
            state.last.clone_from(&item.cursor);
        }
    }
}
