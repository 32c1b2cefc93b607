//! How a log is followed that others append to: subscribed to first, then read to its end, then listened to. What is appended
//! while it is read comes over the subscription, too; the other way round it would fall between the two.

/// What whoever follows a log does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Follow {
    /// Subscribe to it.
    Subscribe,
    /// Read it to its end, from the newest entry that was taken in.
    ReadOn,
    /// Take in what the subscription brings.
    Listen,
}

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Followed {
    /// It is done.
    Done,
    /// It could not be done.
    Failed,
    /// The subscription brought entries. They were taken in if they follow the newest one.
    Heard {
        /// They do.
        follows: bool,
    },
    /// The subscription ended.
    Ended,
}

impl Follow {
    /// What is done first.
    pub fn begin() -> Self {
        Self::Subscribe
    }

    /// What is done next.
    #[must_use]
    pub fn next(self, followed: Followed) -> Self {
        match (self, followed) {
            (Self::Subscribe, Followed::Done) => Self::ReadOn,
            // What could not be read is read when more comes, or once a tick tells of it.
            (Self::ReadOn, _) => Self::Listen,
            (Self::Listen, Followed::Heard { follows: false }) => Self::ReadOn,
            (Self::Listen, Followed::Ended) | (Self::Subscribe, _) => Self::Subscribe,
            (Self::Listen, _) => Self::Listen,
        }
    }
}
