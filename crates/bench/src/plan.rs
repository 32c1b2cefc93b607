//! How long each measurement takes.

use std::time::Duration;

/// The sizes of a run.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Turns of one session, of Flotilla.
    pub turns: usize,
    /// Turns of one session, of OpenCode.
    pub opencode_turns: usize,
    /// How long the turns may take at most.
    pub turns_at_most: Duration,
    /// How long many sessions are prompted.
    pub load: Duration,
    /// How long sessions are created.
    pub creates: Duration,
    /// How many deltas are timed.
    pub deltas: usize,
    /// How many aborts are timed.
    pub aborts: usize,
    /// How many runs the many streams follow.
    pub streamed_runs: usize,
    /// Messages of the long session.
    pub long: usize,
}

impl Plan {
    /// The whole: at most ten minutes, OpenCode included.
    pub fn full() -> Self {
        Self {
            turns: 300,
            opencode_turns: 300,
            turns_at_most: Duration::from_secs(150),
            load: Duration::from_secs(15),
            creates: Duration::from_secs(5),
            deltas: 500,
            aborts: 100,
            streamed_runs: 5,
            long: 100_000,
        }
    }

    /// The same rows in less than two minutes: fewer samples, OpenCode without late turns.
    pub fn quick() -> Self {
        Self {
            opencode_turns: 20,
            turns_at_most: Duration::from_secs(15),
            load: Duration::from_secs(4),
            creates: Duration::from_secs(2),
            deltas: 200,
            aborts: 20,
            streamed_runs: 2,
            long: 10_000,
            ..Self::full()
        }
    }
}
