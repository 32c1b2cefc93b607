//! What there is: the store, Redis, the replicas, what is on its way, and what an observer has seen.

use crate::bound::{Bound, Fault};
use crate::feed::Feed;
use coordination::table::{Names, Table};
use run_protocol::entering::Enter;
use run_protocol::{Deletion, Effect, End, Entering, Entry, Fence, Head, HeadState, Life};
use std::collections::BTreeMap;

/// Names are small numbers. One that nobody remembers any more is given again, as if it were drawn at random.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Small;

/// The name of a replica. No other value that is hashed has its type: see [`crate::alike`].
pub type ReplicaName = i16;

/// The name of an attempt. No other value that is hashed has its type, either.
pub type AttemptName = u16;

impl Names for Small {
    type Replica = ReplicaName;
    type Session = ();
    type Attempt = AttemptName;
    type Mark = u8;
}

/// The run guard's number before anybody took it. No other number that is hashed in 64 bits is as large.
pub const FIRST_NUMBER: u64 = 100;

/// How many attempts there may be without a completed step.
const ATTEMPTS: u32 = 4;

/// All of it. Its hash is the same for worlds that are [alike](crate::alike).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct World {
    /// The data directory.
    pub store: Store,
    /// What Redis remembers: the in-process backend's own table.
    pub redis: Table<Small>,
    /// What a copy of it knows that lags one write behind; kept while a failover may still come.
    pub copy: Option<Table<Small>>,
    /// Entries of the event log, counted while somebody follows it.
    pub log: u8,
    /// Commands that nobody waits for any more, and that may still take effect.
    pub late: Vec<Command>,
    /// The fleet.
    pub replicas: Vec<Replica>,
    /// What may still happen.
    pub left: Left,
    /// What was seen.
    pub seen: Seen,
}

/// The facts.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Store {
    /// The run guard's number.
    pub run: u64,
    /// The head, as far as decisions go.
    pub head: Facts,
}

/// What decisions read in a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Facts {
    issued: u8,
    settled: u8,
    stopped: u8,
    tries: u8,
    spared: u8,
    life: u8,
}

impl Facts {
    /// The head that the core decides from.
    pub fn head(self) -> Head {
        let state = [HeadState::Live, HeadState::Deleted, HeadState::Removed][usize::from(self.life)];
        Head {
            issued: self.issued.into(),
            settled: self.settled.into(),
            stopped: self.stopped.into(),
            tries: self.tries.into(),
            spared: self.spared.into(),
            state,
            ..Head::new("")
        }
    }

    /// What of a head is kept.
    pub fn of(head: &Head) -> Self {
        Self {
            issued: head.issued as u8,
            settled: head.settled as u8,
            stopped: head.stopped as u8,
            tries: head.tries as u8,
            spared: head.spared as u8,
            life: head.state as u8,
        }
    }
}

/// A process.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Replica {
    /// Dead ones have no tasks.
    pub is_up: bool,
    /// Stopped by a signal: it does nothing until it goes on.
    pub is_paused: bool,
    /// It does not reach Redis.
    pub is_cut: bool,
    /// It cannot prove its ownership.
    pub is_frozen: bool,
    /// Its name in the fleet; none before it has joined.
    pub id: Option<ReplicaName>,
    /// The mark that it knows Redis by.
    pub born: u8,
    /// Its runs.
    pub runs: Vec<Run>,
    /// What else it has to do, each on its own.
    pub tasks: Vec<Task>,
    /// What its steward does, one after the other.
    pub chores: Vec<Chore>,
    /// What its readers are shown, once it has some.
    pub feed: Option<Feed>,
}

/// A run, with the core's own state.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Run {
    /// The attempt that its lease bears.
    pub attempt: AttemptName,
    /// What decides.
    pub life: Life,
    /// What it decided last.
    pub effect: Effect,
    /// How far that is done.
    pub stage: Stage,
    /// It was told that its lease is another's.
    pub is_lost: bool,
    /// It was told to look at the store.
    pub is_poked: bool,
}

/// How far an effect of several moments is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stage {
    /// Not at all.
    Begun,
    /// The head guard is held, the head is read.
    Taken { head: Facts, is_deposed: bool },
    /// And the run guard was there.
    Checked { head: Facts, is_deposed: bool },
    /// A write under the run guard has landed; what it tells is not told.
    Wrote,
    /// That is told, too.
    Told,
    /// A deletion is being finished.
    Deleting(Deletion),
    /// The run is over; its lease is given away.
    GivingAway { end: End },
}

/// What a replica does beside its runs.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Task {
    /// Asks for the lease.
    Enter { attempt: AttemptName, ticket: u8, was_open: bool, entering: Entering, next: Enter },
    /// Tells the owner to look.
    Poke { upto: u8 },
    /// Finishes a deletion.
    Delete(Deletion),
}

/// What a steward does after a beat.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Chore {
    /// Takes the lease back in a run's name.
    Adopt { attempt: AttemptName, fence: Fence },
    /// Gives a lease away that nobody runs.
    HandOver { attempt: AttemptName },
}

/// A command to Redis.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Command {
    Enter { replica: ReplicaName, born: u8, attempt: AttemptName, ticket: u8 },
    Confirm { attempt: AttemptName },
    Begin { attempt: AttemptName, fence: Fence },
    Former,
    Publish { fence: Fence },
    Release { attempt: AttemptName, seen: u64 },
    HandOver { attempt: AttemptName, end: End },
    Adopt { replica: ReplicaName, attempt: AttemptName, fence: Fence },
    Claim { replica: ReplicaName, born: u8, attempt: AttemptName },
    EnsureDue { born: u8 },
    Poke,
    Forget,
}

/// What may still happen.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Left {
    pub prompts: u8,
    pub aborts: u8,
    pub deletions: u8,
    pub retries: u8,
    pub readers: u8,
    /// Of each kind of fault.
    pub of: [u8; Fault::ALL.len()],
    /// Of all kinds together.
    pub faults: u8,
}

impl Left {
    /// True if a fault of this kind may come; then it is used up.
    pub fn take(&mut self, fault: Fault) -> bool {
        let of = &mut self.of[fault as usize];
        if self.faults == 0 || *of == 0 {
            return false;
        }
        *of -= 1;
        self.faults -= 1;
        if self.faults == 0 {
            // What can no longer happen makes no difference.
            self.of = [0; Fault::ALL.len()];
        }
        true
    }

    /// True if a fault of this kind may come.
    pub fn has(&self, fault: Fault) -> bool {
        self.faults > 0 && self.of[fault as usize] > 0
    }
}

/// What an observer that sees everything has seen.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Seen {
    /// Tickets that were acknowledged: 1 up to this.
    pub acknowledged: u8,
    /// Bits of tickets that a write of a current runner has answered.
    pub worked: u8,
    /// Bits of tickets that were settled.
    pub settled: u8,
    /// Bits of tickets that an abort was acknowledged for while they were open.
    pub aborted: u8,
    /// The newest fence that has read the head.
    pub opened: u64,
    /// Who took the run guard last.
    pub runner: Option<AttemptName>,
    /// Who has read the head under the newest fence.
    pub opener: Option<AttemptName>,
    /// The newest fence that began, as far as this Redis has not forgotten it.
    pub begun: u64,
    /// Redis has forgotten something.
    pub has_forgotten: bool,
    /// A deletion was acknowledged.
    pub is_deleted: bool,
    /// The session's records are removed.
    pub is_removed: bool,
    /// What was broken, as bits of [`crate::properties::Broken`].
    pub broken: u8,
}

impl World {
    /// Nothing has happened.
    pub fn new(bound: &Bound) -> Self {
        let mut redis = Table::default();
        let replicas = (0..ReplicaName::from(bound.replicas)).map(|id| {
            let born = redis.join(&id, &0);
            Replica::new(Some(id), born)
        });
        let replicas = replicas.collect();
        let of = Fault::ALL.map(|fault| bound.of_kind(fault));
        World {
            store: Store { run: FIRST_NUMBER, head: Facts::of(&Head::new("")) },
            copy: (bound.of_kind(Fault::Failover) > 0 && bound.faults > 0).then(|| redis.clone()),
            redis,
            log: 0,
            late: Vec::new(),
            replicas,
            left: Left {
                prompts: bound.prompts,
                aborts: bound.aborts,
                deletions: bound.deletions,
                retries: bound.retries,
                readers: bound.readers,
                of,
                faults: bound.faults,
            },
            seen: Seen::default(),
        }
    }

    /// What nobody asks for any more is forgotten, so that worlds are alike which differ in it only.
    pub fn forget_what_decides_nothing(&mut self) {
        // Who took or read first, once it has no run any more.
        let replicas = &self.replicas;
        let runs = |name: &AttemptName| replicas.iter().any(|r| r.runs.iter().any(|run| run.attempt == *name));
        self.seen.runner = self.seen.runner.filter(runs);
        self.seen.opener = self.seen.opener.filter(runs);
        // What became of a ticket before it was settled: if it is settled again, that is broken whatever it was.
        self.seen.worked &= !self.seen.settled;
        self.seen.aborted &= !self.seen.settled;
        // That a run was told to look, once there is nothing that it could find: it looks, and goes on.
        let is_told_for_nothing = !self.may_be_stopped();
        for run in self.replicas.iter_mut().flat_map(|replica| &mut replica.runs) {
            let is_over = matches!(run.stage, Stage::GivingAway { .. });
            run.is_poked &= !(is_over || is_told_for_nothing);
            run.is_lost &= !is_over;
        }
        if is_told_for_nothing {
            for table in std::iter::once(&mut self.redis).chain(&mut self.copy) {
                let poked = |(replica, pokes): (&ReplicaName, &BTreeMap<(), u64>)| {
                    pokes.first_key_value().map(|(session, count)| (*replica, (*session, *count)))
                };
                for (replica, poke) in table.pokes().iter().filter_map(poked).collect::<Vec<_>>() {
                    table.news(&replica, &[poke]);
                }
            }
        }
    }

    /// A run may find in the head that it is to stop, now or later.
    fn may_be_stopped(&self) -> bool {
        let head = self.store.head.head();
        self.left.aborts > 0 || self.left.deletions > 0 || !head.is_live() || head.stopped > head.settled
    }

    /// A replica reaches Redis.
    pub fn reaches(&self, replica: usize) -> bool {
        let replica = &self.replicas[replica];
        replica.is_awake() && !replica.is_cut && replica.id.is_some()
    }

    /// Changes what Redis remembers; the copy comes to know what was before.
    pub fn change<T>(&mut self, change: impl FnOnce(&mut Table<Small>) -> T) -> T {
        let before = self.copy.is_some().then(|| self.redis.clone());
        let answer = change(&mut self.redis);
        if let Some(before) = before.filter(|before| *before != self.redis) {
            self.copy = Some(before);
        }
        answer
    }

    /// Takes the head guard from whoever holds it.
    pub fn depose(&mut self) {
        for run in self.replicas.iter_mut().flat_map(|replica| &mut replica.runs) {
            if let Stage::Taken { is_deposed, .. } | Stage::Checked { is_deposed, .. } = &mut run.stage {
                *is_deposed = true;
            }
        }
    }

    /// An attempt's name that nobody remembers.
    pub fn new_attempt(&self) -> AttemptName {
        let of_redis = |table: &Table<Small>, name| table.confirm(&(), &name);
        let is_used = |name: AttemptName| {
            of_redis(&self.redis, name)
                || self.copy.as_ref().is_some_and(|copy| of_redis(copy, name))
                || self.late.iter().any(|command| command.attempt() == Some(name))
                || self.replicas.iter().any(|replica| {
                    replica.runs.iter().any(|run| run.attempt == name)
                        || replica
                            .tasks
                            .iter()
                            .any(|task| matches!(task, Task::Enter { attempt, .. } if *attempt == name))
                        || replica.chores.iter().any(|chore| match chore {
                            Chore::Adopt { attempt, .. } | Chore::HandOver { attempt } => *attempt == name,
                        })
                })
        };
        (0..AttemptName::MAX).find(|name| !is_used(*name)).unwrap_or(AttemptName::MAX)
    }

    /// A replica's name that nobody remembers.
    pub fn new_id(&self) -> ReplicaName {
        let of_redis = |table: &Table<Small>, name: ReplicaName| {
            table.beats().contains_key(&name) || table.lease(&()).is_some_and(|lease| lease.owner() == Some(&name))
        };
        let is_used = |name: ReplicaName| {
            of_redis(&self.redis, name)
                || self.copy.as_ref().is_some_and(|copy| of_redis(copy, name))
                || self.late.iter().any(|command| command.replica() == Some(name))
                || self.replicas.iter().any(|replica| replica.id == Some(name))
        };
        (0..ReplicaName::MAX).find(|name| !is_used(*name)).unwrap_or(ReplicaName::MAX)
    }

    /// A mark that nobody remembers: there are as many as Redis was emptied.
    pub fn new_mark(&self) -> u8 {
        self.replicas.iter().map(|replica| replica.born).max().unwrap_or_default() + 1
    }
}

impl Command {
    fn attempt(&self) -> Option<AttemptName> {
        match self {
            Self::Enter { attempt, .. }
            | Self::Confirm { attempt }
            | Self::Begin { attempt, .. }
            | Self::Release { attempt, .. }
            | Self::HandOver { attempt, .. }
            | Self::Adopt { attempt, .. }
            | Self::Claim { attempt, .. } => Some(*attempt),
            Self::Former | Self::Publish { .. } | Self::EnsureDue { .. } | Self::Poke | Self::Forget => None,
        }
    }

    fn replica(&self) -> Option<ReplicaName> {
        match self {
            Self::Enter { replica, .. } | Self::Adopt { replica, .. } | Self::Claim { replica, .. } => Some(*replica),
            _ => None,
        }
    }
}

impl Replica {
    fn new(id: Option<ReplicaName>, born: u8) -> Self {
        Self {
            is_up: true,
            is_paused: false,
            is_cut: false,
            is_frozen: false,
            id,
            born,
            runs: Vec::new(),
            tasks: Vec::new(),
            chores: Vec::new(),
            feed: None,
        }
    }

    /// A process that was started again, and has not joined.
    pub fn restarted() -> Self {
        Self::new(None, 0)
    }

    /// One that is dead.
    pub fn dead(id: Option<ReplicaName>) -> Self {
        Self { is_up: false, ..Self::new(id, 0) }
    }

    /// It can do something.
    pub fn is_awake(&self) -> bool {
        self.is_up && !self.is_paused
    }

    /// Begins a run, as the engine does. A former run of the session that is still here has lost its lease: it is told.
    pub fn spawn(&mut self, attempt: AttemptName, entry: Entry) {
        for run in &mut self.runs {
            run.is_lost = true;
        }
        let (life, effect) = Life::begin(entry, ATTEMPTS);
        self.runs.push(Run { attempt, life, effect, stage: Stage::Begun, is_lost: false, is_poked: false });
    }

    /// The run that stands for the session here: the newest.
    pub fn run_here(&self) -> Option<&Run> {
        self.runs.last()
    }
}
