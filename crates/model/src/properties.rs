//! What must hold, and what must always be possible.

use crate::bound::{Fault, Flaw};
use crate::fleet::Action;
use crate::redis::How;
use crate::world::{Left, Seen, Task, World};
use run_protocol::{Follow, HeadState};
use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard};

/// What can be broken. Each is a safety property.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    /// A write of a runner landed though another had taken its place.
    TwoRunners = 1,
    /// A runner whose lease was its own lost the run guard to one that had none.
    OwnerDeposed = 2,
    /// A ticket was settled twice, or as answered though no current runner had seen it, or was forgotten.
    PromptLost = 4,
    /// An abort settled a ticket that it was not about, or one that it was about was answered after it.
    Abort = 8,
    /// An event of a runner is in the log behind the beginning of its successor.
    LateEvent = 16,
    /// A write landed in a session that is removed, or a deleted one lives.
    Resurrected = 32,
    /// A reader waits for what comes, and was not shown something that came before.
    Missed = 64,
}

impl Broken {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::TwoRunners,
        Self::OwnerDeposed,
        Self::PromptLost,
        Self::Abort,
        Self::LateEvent,
        Self::Resurrected,
        Self::Missed,
    ];

    /// The name of the property.
    pub fn name(self) -> &'static str {
        match self {
            Self::TwoRunners => "one runner: no write lands of a runner whose place is taken",
            Self::OwnerDeposed => "one runner: nobody without the lease deposes who has it",
            Self::PromptLost => {
                "no lost prompt: each acknowledged ticket is settled once, and answered by who has seen it"
            }
            Self::Abort => "an abort reaches the tickets that were open, and no others",
            Self::LateEvent => "no event of a runner comes after its successor began",
            Self::Resurrected => "a deleted session stays deleted",
            Self::Missed => "no event is missed: a reader that waits for the next was shown all before it",
        }
    }
}

/// The name of the property that open tickets can always be settled.
pub const SETTLES: &str = "from here all open tickets are settled once faults end";

/// For so many rounds of everybody's next moment a world may need until all is settled, or until it is one that is known to.
const ROUNDS: usize = 80;

/// The worlds that were seen to settle, by their hashes: most ways lead through the same ones.
#[derive(Debug, Default)]
pub struct Settling(Mutex<HashSet<u64>>);

impl Settling {
    fn known(&self) -> MutexGuard<'_, HashSet<u64>> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn has(&self, world: u64) -> bool {
        self.known().contains(&world)
    }

    fn add(&self, way: Vec<u64>) {
        self.known().extend(way);
    }
}

impl World {
    /// Nothing is kept of what is accepted to be broken.
    pub(crate) fn accept(&mut self, accepted: &[Broken]) {
        for broken in accepted {
            self.seen.broken &= !(*broken as u8);
        }
    }

    pub(crate) fn break_(&mut self, broken: Broken) {
        self.seen.broken |= broken as u8;
    }

    /// True unless this is broken.
    pub fn holds(&self, broken: Broken) -> bool {
        let head = self.store.head.head();
        let beside = match broken {
            Broken::PromptLost => {
                let settled = self.seen.settled & !crate::run::upto(head.settled);
                head.issued < u64::from(self.seen.acknowledged) || settled != 0
            }
            Broken::Resurrected => self.seen.is_deleted && head.state == HeadState::Live,
            Broken::Missed => {
                self.replicas.iter().filter_map(|replica| replica.feed.as_ref()).any(|f| f.misses(self.log))
            }
            _ => false,
        };
        self.seen.broken & broken as u8 == 0 && !beside
    }

    /// True if nothing is open and nobody works.
    pub(crate) fn is_at_rest(&self) -> bool {
        let idle = |replica: &crate::world::Replica| {
            replica.runs.is_empty() && replica.tasks.iter().all(|task| !matches!(task, Task::Delete(_)))
        };
        let is_shown = |feed: &crate::feed::Feed| feed.next == Follow::Listen && feed.newest == self.log;
        let are_shown = self.replicas.iter().filter_map(|replica| replica.feed.as_ref()).all(is_shown);
        are_shown
            && !self.store.head.head().is_open()
            && self.redis.lease(&()).is_none()
            && self.replicas.iter().all(idle)
    }

    /// True if the world comes to rest once no more faults come: whoever is dead is started again, whoever is stopped goes
    /// on, Redis is reached, and everybody does in turn what there is to do.
    pub fn settles(&self, flaw: Option<Flaw>, settling: &Settling) -> bool {
        let mut world = self.calmed(flaw);
        let mut way = Vec::new();
        for _ in 0..ROUNDS {
            let known = world.likeness();
            way.push(known);
            if world.is_at_rest() || settling.has(known) {
                settling.add(way);
                return true;
            }
            world.round(flaw);
        }
        false
    }

    /// The same world, in which no more faults come.
    pub(crate) fn calmed(&self, flaw: Option<Flaw>) -> Self {
        let mut world = self.clone();
        world.left =
            Left { prompts: 0, aborts: 0, deletions: 0, retries: 0, readers: 0, of: [0; Fault::ALL.len()], faults: 0 };
        world.copy = None;
        // What was seen decides nothing.
        world.seen = Seen { acknowledged: self.seen.acknowledged, ..Seen::default() };
        for r in 0..world.replicas.len() {
            if !world.replicas[r].is_up {
                world.act(Action::Restart(r), flaw);
            }
            if world.replicas[r].is_paused {
                world.act(Action::Resume(r), flaw);
            }
            if world.replicas[r].is_cut {
                world.act(Action::Heal(r), flaw);
            }
        }
        world
    }

    /// Everybody's next moment.
    fn round(&mut self, flaw: Option<Flaw>) {
        if !self.late.is_empty() {
            self.act(Action::Arrive(0), flaw);
        }
        for r in 0..self.replicas.len() {
            if self.replicas[r].id.is_none() {
                self.act(Action::Join(r), flaw);
            }
            match self.replicas[r].chores.is_empty() {
                true => self.act(Action::Tick(r), flaw),
                false => self.act(Action::Chore(r, How::Well), flaw),
            };
            for dead in self.silent() {
                self.act(Action::Bury(r, dead), flaw);
            }
            self.act(Action::Follow(r), flaw);
            if !self.replicas[r].tasks.is_empty() {
                self.act(Action::Task(r, 0, How::Well), flaw);
            }
            // The newest first: those before it go as they end.
            for index in (0..self.replicas[r].runs.len()).rev() {
                if !self.act(Action::Notice(r, index), flaw) {
                    self.act(Action::Run(r, index, How::Well), flaw);
                }
            }
            if self.may_claim(r) {
                self.act(Action::Claim(r, How::Well), flaw);
            } else if self.has_to_sweep(flaw) {
                self.act(Action::Sweep(r), flaw);
            }
        }
    }
}
