//! How a replica brings the leases that coordination counts as its own, and the runs that it has, to agree.

use crate::Fence;

/// The answer to a lease that was to be taken back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Adopted {
    /// The lease is this attempt's (again).
    Mine,
    /// Somebody else has it.
    Lost,
}

/// What follows from a lease that was to be taken back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Adoption {
    /// The run has it and goes on.
    Keep,
    /// It was given away meanwhile, and taken back by this: nobody runs it, so it is handed over.
    HandOver,
    /// It is another's: the run is told that it is lost.
    Lose,
}

impl Adoption {
    /// Decides from the answer, and from whether the run still works under the fence that the lease was taken back with.
    pub fn decide(adopted: Adopted, still_works: bool) -> Self {
        match adopted {
            Adopted::Mine if still_works => Self::Keep,
            Adopted::Mine => Self::HandOver,
            Adopted::Lost => Self::Lose,
        }
    }
}

/// A run that a replica has of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunHere {
    /// None.
    No,
    /// One that has not begun, or has given its lease away.
    WithoutLease,
    /// One that works under this fence.
    Works(Fence),
}

/// What is done about a session where coordination counts other leases for a replica than it has runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Amends {
    /// They agree, or will.
    Nothing,
    /// The lease was won by a call whose answer was lost: nobody runs it, so it is handed over.
    HandOver,
    /// The run takes its lease back.
    Adopt(Fence),
}

impl Amends {
    /// Decides from whether coordination counts the session's lease for the replica, and from the run that it has.
    pub fn decide(is_owned: bool, run: RunHere) -> Self {
        match (is_owned, run) {
            (true, RunHere::No) => Self::HandOver,
            (false, RunHere::Works(fence)) => Self::Adopt(fence),
            _ => Self::Nothing,
        }
    }
}
