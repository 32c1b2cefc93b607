//! What a sweep does about a marker: an empty file that says that a session is open.

use crate::head::{Head, HeadState};

/// What is done about a marker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sweep {
    /// What it speaks of is dealt with: it is unlinked.
    Unlink,
    /// A deletion that was not begun, or is about to be: it is withdrawn.
    WithdrawDeletion,
    /// A prompt that was never acknowledged, or is about to be: it is withdrawn.
    WithdrawPrompts,
    /// Somebody must work: where nobody does, the session becomes due.
    Work {
        /// What is open was aborted: whoever works is told, since the abort's replica may not have lived to do so.
        is_aborted: bool,
    },
}

impl Sweep {
    /// Decides from the head and from the ticket that the marker is of; none: it is of a deletion.
    pub fn decide(head: &Head, ticket: Option<u64>) -> Self {
        match ticket {
            _ if head.state == HeadState::Removed => Self::Unlink,
            Some(ticket) if ticket <= head.settled => Self::Unlink,
            Some(ticket) if ticket > head.issued => Self::WithdrawPrompts,
            None if head.is_live() => Self::WithdrawDeletion,
            _ => Self::Work { is_aborted: head.stopped > head.settled },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(state: HeadState) -> Head {
        Head { issued: 2, settled: 1, state, ..Head::new("p") }
    }

    #[test]
    fn a_marker_is_kept_while_there_is_work() {
        let live = head(HeadState::Live);
        assert_eq!(Sweep::decide(&live, Some(1)), Sweep::Unlink);
        assert_eq!(Sweep::decide(&live, Some(2)), Sweep::Work { is_aborted: false });
        assert_eq!(Sweep::decide(&live, Some(3)), Sweep::WithdrawPrompts);
        assert_eq!(Sweep::decide(&live, None), Sweep::WithdrawDeletion);
        assert_eq!(Sweep::decide(&Head { stopped: 2, ..live }, Some(2)), Sweep::Work { is_aborted: true });
    }

    #[test]
    fn a_deletion_is_work_until_all_is_removed() {
        assert_eq!(Sweep::decide(&head(HeadState::Deleted), None), Sweep::Work { is_aborted: false });
        assert_eq!(Sweep::decide(&head(HeadState::Deleted), Some(2)), Sweep::Work { is_aborted: false });
        assert_eq!(Sweep::decide(&head(HeadState::Removed), None), Sweep::Unlink);
        assert_eq!(Sweep::decide(&head(HeadState::Removed), Some(3)), Sweep::Unlink);
    }
}
