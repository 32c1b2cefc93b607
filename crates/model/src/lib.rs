//! The run protocol, explored to the end of a bound.
//!
//! What is explored is the code that runs. The decisions are those of `run_protocol`, which the engine drives, too: the life of
//! a run, what it finds when it looks, how it ends (`Life`, `Opening`, `Look`, `Ending`); what a head takes in (`Head`); how a
//! lease is asked for (`Entering`), taken back and given away (`Adoption`, `Amends`); what follows a beat (`Duty`) and when a
//! replica may claim; what a sweep does (`Sweep`); how a deletion is finished (`Deletion`) and when a request that waits works
//! itself (`Waiting`); how the event log is followed (`Follow`). What Redis does is `coordination::table::Table`, which the in-process backend keeps, and to which
//! the scripts on Redis give the same answers (`crates/coordination-redis/tests/agreement.rs`). What this crate adds is what they
//! are driven by: replicas that die, are stopped, are cut off; Redis that fails over to a copy that lags, or is restarted empty;
//! commands that arrive late, twice, or whose answer is lost; what is published and lost; clients that prompt, send again, abort,
//! delete, and read.
//!
//! **What is left out.** One session, so nothing about children. Time: a delay, a back-off, a TTL is over at any moment, and a
//! replica is frozen at any moment while it is cut off or after a pause; it may be buried as soon as it is stopped, cut off
//! or dead. Beats are not counted: a burial never names an old one. The store is two guards and a head; its files are one
//! write, requests' head commits happen in one moment, and a disk never fails. A step is one write, one event, the end: there
//! are no turns of several steps, no tools, no asks, no drain, no reverts. The lock around head commits is left out: the
//! guards must do without. Where events are read, Redis forgets nothing, and a log is read to its end in one moment. That a replica
//! looks at the run guard and then takes its lease back is one moment: between the two a whole run of another would have to begin
//! and end.
//!
//! **How it is seen that open tickets can always be settled.** At every world that is reached, not at the ends of ways: from it faults
//! and clients end, the dead are started again, and everybody does in turn what there is to do; within a bound of such rounds all
//! must be settled, and nobody may hold a lease or run. So no world is reached from which open tickets cannot be settled, whether it
//! lies on a cycle or has no successor. That every fair way leads there, and none goes round for ever, is shown for the small bound
//! ([`cycles`]): there all orders of what is left to do are followed, not one.
//!
//! **What is told twice.** What a decision takes and gives is moved to and fro here as `engine/life.rs`, `engine/replica.rs` and
//! `engine/sessions.rs` move it, and in the same order; no decision is made a second time.

mod alike;
pub mod bound;
pub mod cycles;
mod feed;
mod fleet;
pub mod properties;
mod redis;
mod run;
mod world;

use bound::{Bound, Fault};
use fleet::Action;
use properties::{Broken, SETTLES, Settling};
use redis::How;
use stateright::{Checker, HasDiscoveries, Model, Property};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use world::World;

/// The protocol within a bound.
struct Protocol {
    bound: Bound,
    /// How often each kind of fault was taken.
    taken: [AtomicU64; Fault::ALL.len()],
    settling: Settling,
}

impl Model for Protocol {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        vec![World::new(&self.bound)]
    }

    fn actions(&self, state: &World, actions: &mut Vec<Action>) {
        state.actions(&self.bound, actions);
    }

    fn next_state(&self, last: &World, action: Action) -> Option<World> {
        let mut next = last.clone();
        let is_news = next.act(action, self.bound.flaw);
        next.accept(self.bound.accepts);
        if !is_news || next == *last {
            return None;
        }
        let fault = match action {
            Action::Run(_, _, How::With(fault))
            | Action::Task(_, _, How::With(fault))
            | Action::Chore(_, How::With(fault))
            | Action::Claim(_, How::With(fault))
            | Action::Befall(fault, _) => Some(fault),
            _ => None,
        };
        if let Some(fault) = fault {
            self.taken[fault as usize].fetch_add(1, Ordering::Relaxed);
        }
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        fn holds<const WHICH: usize>(_: &Protocol, state: &World) -> bool {
            state.holds(Broken::ALL[WHICH])
        }
        let conditions = [holds::<0>, holds::<1>, holds::<2>, holds::<3>, holds::<4>, holds::<5>, holds::<6>];
        let safety = Broken::ALL.into_iter().zip(conditions);
        let mut properties: Vec<_> =
            safety.map(|(broken, condition)| Property::always(broken.name(), condition)).collect();
        properties.push(Property::always(SETTLES, |model: &Self, state: &World| {
            state.settles(model.bound.flaw, &model.settling)
        }));
        if let Some(flaw) = self.bound.flaw {
            // It is shown to break this one.
            properties.retain(|property| property.name == flaw.breaks());
        }
        properties
    }
}

/// What an exploration came to.
pub struct Explored {
    /// The bound.
    pub bound: Bound,
    /// Different states.
    pub states: usize,
    /// The longest of the shortest ways to a state.
    pub depth: usize,
    /// How long it took.
    pub took: Duration,
    /// How often each kind of fault was taken.
    pub taken: Vec<(Fault, u64)>,
    /// Whether there was nothing left within the bound.
    pub is_complete: bool,
    /// The properties that do not hold, each with the actions that lead there.
    pub broken: Vec<(&'static str, Vec<String>)>,
}

impl Explored {
    /// True if each kind of fault that may come was taken.
    pub fn took_all(&self) -> bool {
        self.taken.iter().all(|(fault, count)| *count > 0 || self.bound.of_kind(*fault) == 0)
    }

    /// True if all was explored, each kind of fault was taken, and every property holds.
    pub fn is_sound(&self) -> bool {
        self.is_complete && self.broken.is_empty() && self.took_all()
    }
}

/// Explores everything within a bound on so many threads, or until a property is broken. With a limit: for so long, on two
/// threads at least, since one by itself heeds none.
pub fn explore(bound: Bound, threads: usize, limit: Option<Duration>) -> Explored {
    let began = Instant::now();
    let model = Protocol { bound: bound.clone(), taken: Default::default(), settling: Settling::default() };
    let checker = model.checker().finish_when(HasDiscoveries::AnyFailures);
    let checker = match limit {
        None => checker.threads(threads),
        Some(limit) => checker.threads(threads.max(2)).timeout(limit),
    };
    let checker = checker.spawn_bfs().join();
    let took = began.elapsed();
    let broken = checker.discoveries().into_iter().map(|(name, path)| {
        let steps = path.into_vec().into_iter().filter_map(|(state, action)| Some(state.describe(action?)));
        (name, steps.collect())
    });
    let broken: Vec<_> = broken.collect();
    let taken = Fault::ALL.map(|fault| (fault, checker.model().taken[fault as usize].load(Ordering::Relaxed)));
    Explored {
        bound,
        states: checker.unique_state_count(),
        depth: checker.max_depth(),
        took,
        taken: taken.into(),
        is_complete: broken.is_empty() && limit.is_none_or(|limit| took < limit),
        broken,
    }
}

impl std::fmt::Display for Explored {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "bound   {}", self.bound)?;
        writeln!(
            f,
            "states  {} different, depth {}, {} in {:.0?}",
            self.states,
            self.depth,
            match (self.is_complete, self.broken.is_empty()) {
                (true, _) => "explored to the end",
                (false, true) => "not explored to the end",
                (false, false) => "explored until something broke",
            },
            self.took
        )?;
        let taken: Vec<_> = self.taken.iter().map(|(fault, count)| format!("{fault:?} {count}")).collect();
        writeln!(f, "faults  {}", taken.join(", "))?;
        for (name, actions) in &self.broken {
            writeln!(f, "BROKEN  {name}, after")?;
            for action in actions {
                writeln!(f, "          {action}")?;
            }
        }
        Ok(())
    }
}
