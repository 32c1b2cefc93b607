//! What a command may use at most.

use crate::family::{Machine, Use, in_use};
use serde::{Deserialize, Serialize};
use std::time::{Duration, Instant};

/// What a command and all that it starts may use. The core file size is always zero.
///
/// Open files and the size of files are the kernel's limits: the call fails that would exceed them. Processes and memory
/// are counted for the whole family by its supervisor, a few times a second, and a family that exceeds them is killed: the
/// kernel counts processes by user, and memory by process. For a user other than root the kernel also stops a family that
/// grows faster than it can be killed, at four times its limit; for root the supervisor has the higher priority.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Processes at the same time.
    pub processes: u64,
    /// Bytes of memory in use, of all processes together.
    pub memory_bytes: u64,
    /// Open files per process.
    pub open_files: u64,
    /// Bytes of one file that a process writes.
    pub file_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { processes: 1024, memory_bytes: 8 << 30, open_files: 4096, file_bytes: 16 << 30 }
    }
}

/// A limit that a command was killed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Exceeded {
    /// It had too many processes.
    Processes,
    /// It had too much memory.
    Memory,
}

/// How often the machine is looked at, which costs some 50 microseconds.
pub(crate) const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How often the family is looked at in any case, which costs some 10 microseconds for each process of the machine.
const COUNT_EVERY: Duration = Duration::from_secs(2);

/// Keeps a family within its limits.
pub(crate) struct Watch {
    limits: Limits,
    /// The machine at the newest count.
    machine: Machine,
    counted_at: Instant,
}

impl Watch {
    pub(crate) fn new(limits: Limits, now: Instant) -> Self {
        Self { limits, machine: Machine::look(), counted_at: now }
    }

    /// Looks whether the family exceeds a limit. It is counted only now and then, or when the machine has an eighth of a
    /// limit more in use than at the last count: without that the family cannot have grown by more, unless others shrank.
    pub(crate) fn look(&mut self, now: Instant) -> Option<Exceeded> {
        let machine = Machine::look();
        let more_tasks = machine.tasks > self.machine.tasks + self.limits.processes / 8;
        let less_memory = machine.available + self.limits.memory_bytes / 8 < self.machine.available;
        if !more_tasks && !less_memory && now < self.counted_at + COUNT_EVERY {
            return None;
        }
        (self.machine, self.counted_at) = (machine, now);
        let Use { processes, resident } = in_use();
        if processes > self.limits.processes {
            Some(Exceeded::Processes)
        } else {
            (resident > self.limits.memory_bytes).then_some(Exceeded::Memory)
        }
    }
}
