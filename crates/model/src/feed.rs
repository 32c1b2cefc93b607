//! How a replica follows the event log for its readers: the core says what is next, here it is done.

use crate::bound::Flaw;
use crate::world::World;
use run_protocol::{Follow, Followed};

/// How far a replica has followed the event log.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Feed {
    /// What it does next.
    pub next: Follow,
    /// The newest entry that its readers were shown.
    pub newest: u8,
    /// What its subscription, if it has one, has yet to bring: the entries after one up to another.
    pub heard: Option<Vec<(u8, u8)>>,
    /// Something was lost on the way to it, or could not be read: the next tick tells that there is more.
    pub has_lost: bool,
}

impl Feed {
    /// The first reader has come.
    pub fn begin() -> Self {
        Self { next: Follow::begin(), newest: 0, heard: None, has_lost: false }
    }

    /// Shows all that is in the log.
    pub fn read_on(&mut self, log: u8) {
        (self.newest, self.has_lost) = (log, false);
    }

    /// True if its readers wait for the next event, and were not shown all before it, though nothing was lost.
    pub fn misses(&self, log: u8) -> bool {
        let is_waiting = self.next == Follow::Listen && self.heard.as_ref().is_some_and(Vec::is_empty);
        is_waiting && !self.has_lost && self.newest != log
    }
}

impl World {
    /// The next moment of a replica's feed. False: it waits, or there is none.
    pub fn follow(&mut self, replica: usize, flaw: Option<Flaw>) -> bool {
        let (reaches, log) = (self.reaches(replica), self.log);
        let Some(feed) = &mut self.replicas[replica].feed else { return false };
        let moment = match feed.next {
            Follow::Subscribe if flaw == Some(Flaw::ReplayBeforeSubscribe) => Follow::ReadOn,
            Follow::ReadOn if flaw == Some(Flaw::ReplayBeforeSubscribe) => Follow::Subscribe,
            next => next,
        };
        let followed = match moment {
            Follow::Subscribe if reaches => {
                feed.heard = Some(Vec::new());
                Followed::Done
            }
            // It tries until Redis is reached.
            Follow::Subscribe => return false,
            Follow::ReadOn if reaches => {
                feed.read_on(log);
                Followed::Done
            }
            Follow::ReadOn => {
                feed.has_lost = true;
                Followed::Failed
            }
            Follow::Listen => match &mut feed.heard {
                None => Followed::Ended,
                Some(queue) if queue.is_empty() => return false,
                Some(queue) => {
                    let (previous, newest) = queue.remove(0);
                    let follows = feed.newest == previous;
                    if follows {
                        feed.newest = newest;
                    }
                    Followed::Heard { follows }
                }
            },
        };
        feed.next = feed.next.next(followed);
        true
    }
}
