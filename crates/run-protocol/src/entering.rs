//! How a session's lease is asked for, until it is known who runs.
//!
//! The run guard's number is read each time before the lease is asked for: who wins takes the guard from that number, and
//! whoever had the lease in between has moved it.

use crate::life::Entry;

/// What is done next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Enter {
    /// Read the run guard's number: [`EnterInput::Number`].
    ReadNumber,
    /// Ask for the lease: [`EnterInput::Asked`].
    Ask,
    /// Wait a while: [`EnterInput::Waited`].
    Wait {
        /// How often the lease was asked for.
        tries: u32,
    },
    /// The lease is won: run. Nothing follows.
    Run(Entry),
    /// Others run, or will find the ticket. Nothing follows.
    End,
}

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EnterInput {
    /// The number; none if it could not be read.
    Number(Option<u64>),
    /// How the wish was answered.
    Asked(Asked),
    /// The wait is over.
    Waited {
        /// Coordination forgot everything a moment ago: a lease that is missing may have an owner that takes it back.
        awaits_owners: bool,
    },
}

/// The answer to a wish for a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// The lease is this attempt's.
    Won,
    /// Others work, and were told; or whoever claims the lease will.
    Others,
    /// None that tells: it was lost, or coordination forgot everything.
    Unknown,
}

/// A wish for a session's lease. See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Entering {
    was_open: bool,
    /// The run guard's, as it was read last.
    number: u64,
    tries: u32,
    limit: u32,
}

impl Entering {
    /// Begins. `was_open`: the session was open before the ticket that this is about; `number` of the run guard, where it was
    /// read already; `limit`: how often the lease is asked for. `awaits_owners`: see [`EnterInput::Waited`].
    pub fn begin(was_open: bool, number: Option<u64>, limit: u32, awaits_owners: bool) -> (Self, Enter) {
        let mut entering = Self { was_open, number: 0, tries: 0, limit };
        let first = match (entering.look(awaits_owners), number) {
            (Enter::ReadNumber, Some(number)) => entering.next(EnterInput::Number(Some(number))),
            (first, _) => first,
        };
        (entering, first)
    }

    /// What follows.
    #[must_use]
    pub fn next(&mut self, input: EnterInput) -> Enter {
        match input {
            EnterInput::Number(Some(number)) => {
                self.number = number;
                self.tries += 1;
                Enter::Ask
            }
            EnterInput::Asked(Asked::Won) => {
                Enter::Run(Entry::Entered { number: self.number, was_open: self.was_open })
            }
            EnterInput::Asked(Asked::Unknown) if self.tries < self.limit => Enter::Wait { tries: self.tries },
            EnterInput::Waited { awaits_owners } => self.look(awaits_owners),
            EnterInput::Number(None) | EnterInput::Asked(Asked::Others | Asked::Unknown) => Enter::End,
        }
    }

    fn look(&self, awaits_owners: bool) -> Enter {
        if self.was_open && awaits_owners { Enter::End } else { Enter::ReadNumber }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_is_read_anew_before_each_wish() {
        let (mut entering, first) = Entering::begin(false, Some(3), 2, true);
        assert_eq!(first, Enter::Ask);
        assert_eq!(entering.next(EnterInput::Asked(Asked::Unknown)), Enter::Wait { tries: 1 });
        assert_eq!(entering.next(EnterInput::Waited { awaits_owners: true }), Enter::ReadNumber);
        assert_eq!(entering.next(EnterInput::Number(Some(4))), Enter::Ask);
        let won = Enter::Run(Entry::Entered { number: 4, was_open: false });
        assert_eq!(entering.next(EnterInput::Asked(Asked::Won)), won);
        assert_eq!(entering.next(EnterInput::Asked(Asked::Unknown)), Enter::End);
    }

    #[test]
    fn a_session_that_was_open_is_left_to_owners_that_may_come_back() {
        let (mut entering, first) = Entering::begin(true, Some(3), 8, true);
        assert_eq!(first, Enter::End);
        assert_eq!(entering.next(EnterInput::Waited { awaits_owners: false }), Enter::ReadNumber);
        assert_eq!(entering.next(EnterInput::Number(None)), Enter::End);
    }
}
