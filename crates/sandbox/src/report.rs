//! What a supervisor tells its replica: one JSON document a line.

use crate::Exceeded;
use serde::{Deserialize, Serialize};

/// A line on the supervisor's standard error.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "report", rename_all = "lowercase")]
pub(crate) enum Report {
    /// The command runs.
    Started {
        /// Its process, which is its process group, too.
        pid: i32,
    },
    /// The command could not be started.
    Failed {
        /// Why, for people.
        error: String,
    },
    /// The command ended, and nothing that it started is left.
    Exited {
        /// Its exit code, unless a signal ended it.
        code: Option<i32>,
        /// The signal that ended it.
        signal: Option<i32>,
        /// The limit that it was killed for.
        exceeded: Option<Exceeded>,
    },
}

/// Bytes that the replica writes on the supervisor's standard input.
pub(crate) mod order {
    /// The replica is alive.
    pub(crate) const BEAT: u8 = b'b';
    /// End the command: SIGTERM to its group, SIGKILL to everything after the grace.
    pub(crate) const STOP: u8 = b's';
}
