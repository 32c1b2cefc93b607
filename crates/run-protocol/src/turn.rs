//! What a runner does next, given the head that it read.

use crate::head::{Head, HeadState};

/// What a new owner must do before anything else, whoever was there before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opening {
    /// The session was deleted: remove what is left of it.
    FinishDeletion,
    /// A revert, or another such intent, is stored: carry it out.
    FinishIntent,
    /// An abort waits: close the open turn as aborted and settle up to this ticket.
    CloseAborted {
        /// The ticket up to which the abort reaches.
        upto: u64,
    },
    /// Nothing is open: give the lease back.
    Release,
    /// Too many attempts ended without a completed step: record the failure and settle.
    GiveUp,
    /// Close what dangles and go on.
    Run,
}

impl Opening {
    /// Decides from the head as it stands after the run guard was taken. `tries`: attempts since the last completed step,
    /// with the one that would begin now; `limit`: how many there may be.
    pub fn decide(head: &Head, tries: u32, limit: u32) -> Self {
        match head.state {
            HeadState::Deleted => Self::FinishDeletion,
            HeadState::Removed => Self::Release,
            HeadState::Live if head.intent.is_some() => Self::FinishIntent,
            HeadState::Live if head.stopped > head.settled => Self::CloseAborted { upto: head.stopped },
            HeadState::Live if !head.is_open() => Self::Release,
            HeadState::Live if tries > limit => Self::GiveUp,
            HeadState::Live => Self::Run,
        }
    }
}

/// Why a step must stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StopReason {
    /// Aborted up to this ticket.
    Aborted {
        /// The ticket up to which the abort reaches.
        upto: u64,
    },
    /// The session was deleted, or the run was lost: nothing more is written.
    Lost,
    /// The replica's time is over: what runs is recorded as interrupted.
    Interrupted,
    /// Ownership can no longer be proven: what runs is recorded as interrupted, the run parks.
    Frozen,
}

/// What a runner finds when it looks at the head: at each load, step end, head commit and poke.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// Go on.
    Go,
    /// The session was deleted: stop, write nothing more.
    Deleted,
    /// Aborted up to this ticket: cancel, close the records, settle.
    Aborted {
        /// The ticket up to which the abort reaches.
        upto: u64,
    },
}

impl Look {
    /// Decides from the head.
    pub fn at(head: &Head) -> Self {
        if !head.is_live() {
            Self::Deleted
        } else if head.stopped > head.settled {
            Self::Aborted { upto: head.stopped }
        } else {
            Self::Go
        }
    }

    /// Why a step that is under way must stop, if it must.
    pub fn stops(self) -> Option<StopReason> {
        match self {
            Self::Go => None,
            Self::Deleted => Some(StopReason::Lost),
            Self::Aborted { upto } => Some(StopReason::Aborted { upto }),
        }
    }
}

/// The final look, under the head guard, when a run has nothing left to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Everything given out was seen: settle up to this ticket and release.
    Settle {
        /// The newest ticket.
        upto: u64,
    },
    /// A ticket came that the run has not loaded: load again.
    LoadAgain,
    /// An abort or a deletion came first.
    Stopped(Look),
}

impl Ending {
    /// Decides from the head and from the newest ticket that the run has loaded.
    pub fn decide(head: &Head, seen: u64) -> Self {
        match Look::at(head) {
            Look::Go if head.issued == seen => Self::Settle { upto: seen },
            Look::Go => Self::LoadAgain,
            stopped => Self::Stopped(stopped),
        }
    }
}

/// How long an attempt waits, in milliseconds; `tries`: attempts since the last completed step, with this one. In terms of
/// how long a silent replica keeps its runs.
pub fn attempt_delay_ms(tries: u32, ttl_ms: u64) -> u64 {
    match tries {
        0 | 1 => 0,
        2 => ttl_ms / 2,
        _ => ttl_ms * 3,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::head::{Intent, IntentKind};

    fn head(issued: u64, settled: u64, stopped: u64) -> Head {
        Head { issued, settled, stopped, ..Head::new("p") }
    }

    #[test]
    fn a_new_owner_closes_an_abort_before_it_runs() {
        assert_eq!(Opening::decide(&head(2, 1, 2), 0, 3), Opening::CloseAborted { upto: 2 });
        assert_eq!(Opening::decide(&head(2, 2, 2), 0, 3), Opening::Release);
        assert_eq!(Opening::decide(&head(3, 2, 2), 0, 3), Opening::Run);
    }

    #[test]
    fn an_intent_is_carried_out_first_whatever_is_aborted() {
        let intent = Intent { ticket: 2, kind: IntentKind::Revert };
        let mut head = Head { intent: Some(intent), ..head(2, 1, 2) };
        assert_eq!(Opening::decide(&head, 9, 3), Opening::FinishIntent);
        head.state = HeadState::Deleted;
        assert_eq!(Opening::decide(&head, 0, 3), Opening::FinishDeletion);
    }

    #[test]
    fn too_many_attempts_end_in_an_error() {
        assert_eq!(Opening::decide(&head(1, 0, 0), 4, 3), Opening::GiveUp);
        assert_eq!(Opening::decide(&head(1, 0, 0), 3, 3), Opening::Run);
    }

    #[test]
    fn a_ticket_that_came_during_the_last_step_is_not_settled_unseen() {
        assert_eq!(Ending::decide(&head(2, 0, 0), 1), Ending::LoadAgain);
        assert_eq!(Ending::decide(&head(2, 0, 0), 2), Ending::Settle { upto: 2 });
        assert_eq!(Ending::decide(&head(2, 0, 1), 2), Ending::Stopped(Look::Aborted { upto: 1 }));
    }

    #[test]
    fn a_deleted_session_only_gets_removed() {
        let mut deleted = head(2, 0, 2);
        deleted.state = HeadState::Deleted;
        assert_eq!(Opening::decide(&deleted, 0, 3), Opening::FinishDeletion);
        assert_eq!(Look::at(&deleted), Look::Deleted);
    }
}
