//! Clients that follow the events: each is cut when its replica dies, or of itself, and comes back to one that is drawn, most of
//! them with the id of the last event that they have.

use crate::chronicle::{Chronicle, Line};
use crate::dice::Dice;
use crate::fleet::Fleet;
use crate::mortal::Mortal;
use crate::requests::{Event, Request, Streamed};
use crate::view::{Told, View};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::time::{Instant, sleep, timeout_at};

/// Which events a reader follows, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Those of one directory. Anew it begins with what comes.
    Directory,
    /// All. Anew it is shown the state of what runs first.
    Global,
    /// The same, and it never says what it has, as OpenCode's terminal client.
    Forgetful,
}

/// A reader of events.
pub(crate) struct Reader {
    pub number: usize,
    pub kind: Kind,
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
        let kind = dice.pick(&[Kind::Directory, Kind::Directory, Kind::Global, Kind::Global, Kind::Forgetful]);
        let kind = kind.copied().unwrap_or(Kind::Global);
        Self { number, kind, fleet, dice, state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn chronicle(&self) -> &Chronicle {
        &self.fleet.chronicle
    }

    /// The place of the first entry from this one on that it is to be told.
    fn next(&self, place: usize) -> usize {
        let directory = Fleet::scope().directory;
        self.chronicle().next(place, directory.to_str().filter(|_| self.kind == Kind::Directory))
    }

    /// True once it has all that was ever told.
    pub(crate) fn has_all(&self) -> bool {
        let (end, _) = self.chronicle().end();
        let from = {
            let state = self.state();
            state.at.as_ref().map_or(state.began, |line| line.place + 1)
        };
        self.next(from) == end
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
            self.connect(place).await;
            sleep(self.dice.ms(20, 600)).await;
        }
    }

    async fn connect(&self, place: usize) {
        let last = self.state().last.clone().filter(|_| self.kind != Kind::Forgetful);
        let path = if self.kind == Kind::Directory { "/event" } else { "/global/event" };
        self.fleet.trace.note(format_args!("reader {} comes to {place} with {last:?}", self.number));
        let opened = self.fleet.ask(place, |replica| {
            let last = last.clone();
            async move {
                let stream = Request::get(path).follow(&replica, last.as_deref()).await?;
                Ok((replica.who, stream, self.begin(last)))
            }
        });
        let Ok((who, mut stream, stage)) = opened.await else { return };
        let until = Instant::now() + self.dice.ms(500, 30_000);
        let read = engine::on_strand(who.clone(), self.read(&mut stream, &who, stage));
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

    async fn read(&self, stream: &mut Streamed, who: &Mortal, mut stage: Stage) {
        let mut is_connected = false;
        // None: it is cut.
        while let Some(event) = stream.next(who).await {
            let line = event.id.as_ref().and_then(|id| self.chronicle().line(id));
            if let Some(line) = line.clone().filter(|line| is_connected && self.body(line) == event.data.as_bytes()) {
                self.take(event.id, line, &mut stage);
                continue;
            }
            let told = match self.kind {
                Kind::Directory => Told::read_payload(event.data.as_bytes()),
                Kind::Global | Kind::Forgetful => Told::read_envelope(event.data.as_bytes()),
            };
            let Some(told) = told else {
                return self.state().broken.push(format!("{:?} is no event", event.data));
            };
            match told.kind.as_str() {
                "server.connected" if event.id.is_none() && !is_connected => is_connected = true,
                "server.heartbeat" if event.id.is_none() && is_connected => {}
                _ if is_connected => self.take_state(event, &told, line, &mut stage),
                kind => self.state().broken.push(format!("a stream begins with {kind}")),
            }
        }
        if stream.has_ended {
            self.state().broken.push("a stream ended, and was not cut".to_owned());
        }
    }

    /// What its streams send for an entry.
    fn body<'a>(&self, line: &'a Line) -> &'a [u8] {
        if self.kind == Kind::Directory { &line.payload } else { &line.body }
    }

    /// An entry of the log.
    fn take(&self, id: Option<String>, line: Arc<Line>, stage: &mut Stage) {
        let mut state = self.state();
        let follows = match (*stage, &state.at) {
            (Stage::Live, Some(at)) => line.place == self.next(at.place + 1) && line.volume == at.volume,
            _ => line.place <= self.next(state.began),
        };
        if !follows {
            let after = state.at.as_ref().map(|at| at.place);
            let (place, began) = (line.place, state.began);
            state.broken.push(format!("{place} comes after {after:?} in a stream that began at {began}"));
        }
        *stage = Stage::Live;
        if let Some(told) = &line.told {
            state.view.take(told);
        }
        state.at = Some(line);
        state.last = id;
    }

    /// A piece of the state of what runs; the last of it bears the cursor that all of it stands for.
    fn take_state(&self, event: Event, told: &Told, line: Option<Arc<Line>>, stage: &mut Stage) {
        let (_, volume) = self.chronicle().end();
        let mut state = self.state();
        if *stage != Stage::New {
            state.broken.push(format!("{} is told and not in the log", event.data));
        }
        // Once the log was emptied, only the status is sure to be as it is: see the guarantees.
        if volume == 0 || told.kind == "session.status" {
            state.view.take(told);
        }
        if line.is_some() {
            *stage = Stage::Live;
            state.at = line;
        }
        if event.id.is_some() {
            state.last = event.id;
        }
    }
}
