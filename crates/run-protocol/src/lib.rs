//! The decisions of the run protocol as a pure core.
//!
//! No I/O, no time, no randomness: what is decided here is decided from values that the caller read, and what comes out
//! is what the caller must do. The engine runs it; a model checker can explore it.

pub mod adoption;
pub mod beats;
pub mod deletion;
pub mod entering;
pub mod follow;
pub mod head;
pub mod life;
pub mod liveness;
pub mod patience;
pub mod steward;
pub mod sweep;
pub mod turn;
pub mod waiting;

pub use adoption::{Adopted, Adoption, Amends, RunHere};
pub use beats::BeatWatch;
pub use deletion::{Delete, DeleteInput, Deletion};
pub use entering::{Asked, EnterInput, Entering};
pub use follow::{Follow, Followed};
pub use head::{Ended, Head, HeadState, Intent, IntentKind, Retry, Spent, Ticket, TicketAnswer, TicketKind};
pub use life::{Effect, End, Entry, Former, Handover, Input, Life, Opened, Released, Worked};
pub use liveness::Liveness;
pub use patience::Patience;
pub use steward::{Beaten, Duty};
pub use sweep::Sweep;
pub use turn::{Ending, Look, Opening, StopReason};
pub use waiting::Waiting;

use serde::{Deserialize, Serialize};

/// The number of a session's run guard while a runner holds it. It only grows; a write that bears an older one fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Fence(pub u64);

impl Fence {
    /// Whether a runner under this fence still holds its guard, whose number is this. Who does not takes no lease back: another
    /// was here meanwhile, and what is still to be told would be told after it.
    pub fn holds(self, number: u64) -> bool {
        number == self.0
    }
}

impl std::fmt::Display for Fence {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// The version of a record in an event: compared as text, so that a newer one wins.
///
/// A head commit's version is above every run commit's: finishing a message is the last run commit to it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RecordVersion(String);

impl RecordVersion {
    /// The version of what a runner commits: its fence, and a number that grows with each of its commits.
    pub fn run(fence: Fence, sequence: u64) -> Self {
        Self(format!("0.{:020}.{sequence:020}", fence.0))
    }

    /// The version of what a head commit changes.
    pub fn head(rev: u64) -> Self {
        Self(format!("1.{rev:020}"))
    }

    /// The version as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_as_text() {
        assert!(RecordVersion::run(Fence(9), 10) < RecordVersion::run(Fence(10), 1));
        assert!(RecordVersion::run(Fence(9), 9) < RecordVersion::run(Fence(9), 10));
        assert!(RecordVersion::run(Fence(u64::MAX), 1) < RecordVersion::head(0));
    }
}
