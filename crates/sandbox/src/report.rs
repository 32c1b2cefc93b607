//! What a supervisor tells its replica: one JSON document a line.

use crate::Exceeded;
use serde::{Deserialize, Serialize};
use std::os::fd::OwnedFd;

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

/// What the replica writes on the supervisor's standard input: eight bytes each, so that none is read in halves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// The command may live until then, in milliseconds of this machine's monotonic clock.
    LiveUntil(u64),
    /// End the command: SIGTERM to its group, SIGKILL to everything after the grace.
    Stop,
}

impl Order {
    /// The bytes of an order.
    pub(crate) const BYTES: usize = 8;

    fn encode(self) -> [u8; Self::BYTES] {
        match self {
            Self::LiveUntil(moment) => moment.max(1),
            Self::Stop => 0,
        }
        .to_le_bytes()
    }

    /// Writes it to a supervisor, without waiting: one that reads nothing any more has enough orders, and one that is gone
    /// needs none.
    pub(crate) fn send(self, supervisor: &OwnedFd) {
        let _ = rustix::io::write(supervisor, &self.encode());
    }

    pub(crate) fn decode(bytes: [u8; Self::BYTES]) -> Self {
        match u64::from_le_bytes(bytes) {
            0 => Self::Stop,
            moment => Self::LiveUntil(moment),
        }
    }
}
