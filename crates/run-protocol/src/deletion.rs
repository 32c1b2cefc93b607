//! How a deletion is finished once the head says that the session is deleted: by whoever asked for it, or by a run that finds
//! it so. Either may die on the way, and both may do it at once: each part of it may be done twice.

/// What is done next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Delete {
    /// Read the run guard's number: [`DeleteInput::Number`].
    ReadNumber,
    /// Take the run guard from this number, for good: [`DeleteInput::Taken`]. After that no run can write any more.
    Take {
        /// The number.
        number: u64,
    },
    /// Tell of it, remove the records. The sessions below it went before.
    Remove,
    /// Note in the head that all is removed.
    Note,
    /// Forget the session's lease, if coordination can be reached.
    Forget,
    /// Unlink the markers. The last that is done: until then a sweep finds what is left to do.
    Unlink,
    /// It is finished. Nothing follows.
    End,
    /// Others took the guard each time: the sweep finds the deletion. Nothing follows.
    GiveUp,
}

/// What came of it. What fails ends the deletion here; the sweep finds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeleteInput {
    /// The run guard's number.
    Number(u64),
    /// Whether the run guard could be taken.
    Taken(bool),
    /// It is done.
    Done,
}

/// A deletion that is being finished. See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Deletion {
    next: Delete,
    /// How often the run guard may still be tried.
    takes: u32,
}

impl Deletion {
    /// Begins: the run guard is tried so many times.
    pub fn begin(takes: u32) -> Self {
        Self { next: Delete::ReadNumber, takes }
    }

    /// What is done next.
    pub fn step(&self) -> Delete {
        self.next
    }

    /// Goes on with what came of it.
    pub fn went(&mut self, input: DeleteInput) {
        self.next = match (self.next, input) {
            (Delete::ReadNumber, DeleteInput::Number(number)) => {
                self.takes = self.takes.saturating_sub(1);
                Delete::Take { number }
            }
            (Delete::Take { .. }, DeleteInput::Taken(true)) => Delete::Remove,
            (Delete::Take { .. }, DeleteInput::Taken(false)) if self.takes > 0 => Delete::ReadNumber,
            (Delete::Remove, DeleteInput::Done) => Delete::Note,
            (Delete::Note, DeleteInput::Done) => Delete::Forget,
            (Delete::Forget, DeleteInput::Done) => Delete::Unlink,
            (Delete::Unlink | Delete::End, DeleteInput::Done) => Delete::End,
            _ => Delete::GiveUp,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_removed_before_the_guard_is_taken() {
        let mut deletion = Deletion::begin(2);
        deletion.went(DeleteInput::Number(4));
        assert_eq!(deletion.step(), Delete::Take { number: 4 });
        deletion.went(DeleteInput::Taken(false));
        assert_eq!(deletion.step(), Delete::ReadNumber);
        deletion.went(DeleteInput::Number(5));
        let mut contended = deletion;
        contended.went(DeleteInput::Taken(false));
        assert_eq!(contended.step(), Delete::GiveUp);
        deletion.went(DeleteInput::Taken(true));
        for next in [Delete::Remove, Delete::Note, Delete::Forget, Delete::Unlink] {
            assert_eq!(deletion.step(), next);
            deletion.went(DeleteInput::Done);
        }
        assert_eq!(deletion.step(), Delete::End);
    }
}
