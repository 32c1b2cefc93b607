//! What a request does that waits for tickets: a prompt for its own, an abort for those that it stopped.

use crate::head::Head;

/// What it does after a look at the head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waiting {
    /// The session is deleted: nobody settles them any more.
    Gone,
    /// They are settled.
    Settled,
    /// Nobody was heard of for a while, and nobody may be working: ask for the lease, and wait on.
    Enter,
    /// Wait until it is woken, or for a while.
    Wait,
}

impl Waiting {
    /// Decides from the head, from the newest ticket that is waited for, and from whether nothing was heard for a while.
    pub fn decide(head: &Head, ticket: u64, is_late: bool) -> Self {
        if !head.is_live() {
            Self::Gone
        } else if head.settled >= ticket {
            Self::Settled
        } else if is_late {
            Self::Enter
        } else {
            Self::Wait
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::head::HeadState;

    #[test]
    fn who_hears_nothing_for_a_while_works_itself() {
        let head = Head { issued: 2, settled: 1, ..Head::new("p") };
        assert_eq!(Waiting::decide(&head, 1, true), Waiting::Settled);
        assert_eq!(Waiting::decide(&head, 2, false), Waiting::Wait);
        assert_eq!(Waiting::decide(&head, 2, true), Waiting::Enter);
        assert_eq!(Waiting::decide(&Head { state: HeadState::Deleted, ..head }, 1, true), Waiting::Gone);
    }
}
