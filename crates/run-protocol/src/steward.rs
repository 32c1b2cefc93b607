//! What a replica does about the answer to its beat, and how much it may claim.

/// How a beat was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Beaten<Mark> {
    /// Not at all.
    Unanswered,
    /// Others have buried this replica.
    Buried,
    /// Coordination forgot everything, and bears this mark.
    Reborn(Mark),
    /// This replica lives.
    Alive {
        /// Leases that coordination counts as its own.
        owned: u64,
        /// Leases that wait for an owner.
        due: u64,
        /// It is to look at a session that nothing runs for here: others take it for the owner.
        is_mistaken: bool,
    },
}

/// What follows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Duty<Mark> {
    /// Every run looks at the store by itself, so that an abort reaches it.
    LookByThemselves,
    /// Join the fleet again, and take back the leases of the runs that have begun. With a mark: coordination bears that now,
    /// and this replica keeps its name. Without: it takes a new one, since what is said of the buried one must stay true.
    JoinAgain(Option<Mark>),
    /// Go on: heed the pokes, bury the silent.
    GoOn {
        /// Claim what is due.
        claims: bool,
        /// Bring leases and runs to agree, see [`crate::Amends`].
        amends: bool,
    },
}

impl<Mark> Duty<Mark> {
    /// Decides from the answer, and from how many runs there are here.
    pub fn decide(beaten: Beaten<Mark>, runs: u64) -> Self {
        match beaten {
            Beaten::Unanswered => Self::LookByThemselves,
            Beaten::Buried => Self::JoinAgain(None),
            Beaten::Reborn(mark) => Self::JoinAgain(Some(mark)),
            Beaten::Alive { owned, due, is_mistaken } => {
                Self::GoOn { claims: due > 0, amends: is_mistaken || owned != runs }
            }
        }
    }
}

/// How many leases a replica may claim that has so many runs about to begin, of so many at most. None while it leaves, or
/// cannot prove that it lives: what it claimed would wait for its burial.
pub fn room_to_claim(leaves: bool, is_frozen: bool, entering: usize, limit: usize) -> Option<usize> {
    (!leaves && !is_frozen).then(|| limit.saturating_sub(entering))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_counted_otherwise_is_brought_to_agree() {
        let alive = |owned, due| Duty::<u8>::decide(Beaten::Alive { owned, due, is_mistaken: false }, 2);
        assert_eq!(alive(2, 0), Duty::GoOn { claims: false, amends: false });
        assert_eq!(alive(1, 3), Duty::GoOn { claims: true, amends: true });
        // One lease too many and one too few are as many as there should be.
        let mistaken = Beaten::Alive { owned: 2, due: 0, is_mistaken: true };
        assert_eq!(Duty::<u8>::decide(mistaken, 2), Duty::GoOn { claims: false, amends: true });
        assert_eq!(Duty::<u8>::decide(Beaten::Buried, 0), Duty::JoinAgain(None));
        assert_eq!(Duty::decide(Beaten::Reborn(7), 0), Duty::JoinAgain(Some(7)));
    }

    #[test]
    fn who_cannot_prove_that_it_lives_claims_nothing() {
        assert_eq!(room_to_claim(false, false, 30, 32), Some(2));
        assert_eq!(room_to_claim(false, false, 40, 32), Some(0));
        assert_eq!(room_to_claim(true, false, 0, 32), None);
        assert_eq!(room_to_claim(false, true, 0, 32), None);
    }
}
