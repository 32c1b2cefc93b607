//! What becomes of calls between a replica and coordination, and how often each fault struck.

use crate::dice::Dice;
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// What becomes of one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It is done and answered.
    Done,
    /// It never arrives.
    Dropped,
    /// It is done, and its answer is lost.
    Unanswered,
    /// It is done long after its caller gave up.
    Late,
    /// It is done and answered, and comes once more, later.
    Doubled,
}

/// The faults that strike calls, and the count of all faults.
#[derive(Default)]
pub(crate) struct Weather {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    is_calm: bool,
    storm_until: Option<Instant>,
    struck: BTreeMap<&'static str, u64>,
}

impl Weather {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A fault struck.
    pub(crate) fn strike(&self, fault: &'static str) {
        *self.state().struck.entry(fault).or_default() += 1;
    }

    /// How often each fault struck.
    pub(crate) fn struck(&self) -> BTreeMap<&'static str, u64> {
        self.state().struck.clone()
    }

    /// For a time calls suffer ten times as often.
    pub(crate) fn storm(&self, time: Duration) {
        self.state().storm_until = Some(Instant::now() + time);
    }

    /// No call suffers from here on.
    pub(crate) fn calm_down(&self) {
        self.state().is_calm = true;
    }

    /// How many times more often than usual calls suffer now.
    fn wind(&self) -> u64 {
        let state = self.state();
        match state.storm_until {
            _ if state.is_calm => 0,
            Some(until) if Instant::now() < until => 10,
            _ => 1,
        }
    }

    /// What becomes of the next call.
    pub(crate) fn fate(&self, dice: &Dice) -> Fate {
        let wind = self.wind();
        let drawn = dice.below(1_000);
        let (fate, fault) = match drawn {
            _ if drawn < 8 * wind => (Fate::Dropped, "call dropped"),
            _ if drawn < 16 * wind => (Fate::Unanswered, "call failed after its effect"),
            _ if drawn < 22 * wind => (Fate::Late, "call done late"),
            _ if drawn < 30 * wind => (Fate::Doubled, "call doubled"),
            _ => return Fate::Done,
        };
        self.strike(fault);
        fate
    }

    /// True for a message of a channel that is lost.
    pub(crate) fn loses(&self, dice: &Dice) -> bool {
        let lost = dice.chance(15 * self.wind());
        if lost {
            self.strike("message lost");
        }
        lost
    }

    /// How long a call is under way, one way.
    pub(crate) fn delay(&self, dice: &Dice) -> Duration {
        if dice.chance(10 * self.wind()) {
            self.strike("call delayed");
            return dice.ms(50, 1_500);
        }
        dice.ms(0, 4)
    }
}
