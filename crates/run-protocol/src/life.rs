//! The life of a run: from a lease to its release, as one state machine.
//!
//! A run does one thing at a time. [`Life`] says which ([`Effect`]), whoever drives it does that and tells what came of it
//! ([`Input`]), and learns what is next. The engine drives it with a store and coordination, the model checker with values.
//!
//! The number of the run guard is read before a lease check that succeeds, the check comes before the take, nothing is
//! done before the lease says `begin`; then the head is read again, whoever was here before.

use crate::Fence;
use crate::head::Head;
use crate::turn::{Ending, Opening, StopReason};

/// How a lease came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Entry {
    /// It was asked for.
    Entered {
        /// The run guard's number, read before.
        number: u64,
        /// Whether the session was open before the ticket that it was asked for.
        was_open: bool,
    },
    /// It was due, and claimed: to be confirmed before the guard is taken.
    Claimed,
}

/// How an attempt ended that did not give its lease back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Former {
    /// It failed, or its replica was buried.
    #[default]
    Failed,
    /// Its replica was buried while another run was on trial there.
    Spared,
    /// It was handed over.
    HandedOver,
}

/// The answer to a lease that was to be given back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Released {
    /// The lease is gone, the idle events are out.
    Done,
    /// A newer ticket wants work: load again.
    More,
    /// The lease was not this attempt's any more.
    Gone,
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum End {
    /// The lease is given back, or was another's already.
    Over,
    /// Somebody else shall go on. That is no failure.
    HandOver,
    /// Another runner took the run guard, or the lease: nothing more is written.
    Lost,
    /// It cannot go on here.
    Failed,
}

/// How a lease is given away: after how many milliseconds it is due, and whether the attempt failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Handover {
    /// Milliseconds until it may be claimed.
    pub delay_ms: u64,
    /// Whether the attempt counts as failed.
    pub failed: bool,
}

impl End {
    /// How the lease is given away afterwards, should it still be this attempt's.
    pub fn handover(self) -> Option<Handover> {
        match self {
            Self::Over => None,
            Self::HandOver => Some(Handover { delay_ms: 0, failed: false }),
            Self::Lost => Some(Handover { delay_ms: 0, failed: true }),
            Self::Failed => Some(Handover { delay_ms: 1_000, failed: true }),
        }
    }
}

/// What a run does next. Each has the one input that answers it; [`Input::Lost`] and [`Input::Failed`] answer all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Effect {
    /// Read the run guard's number: [`Input::Number`].
    ReadNumber,
    /// Ask whether the lease is this attempt's: [`Input::Confirmed`].
    Confirm,
    /// Take the run guard from this number: [`Input::Taken`].
    Take {
        /// The number.
        number: u64,
    },
    /// The first head commit under the fence: see whether the session lives, reserve the next message's time:
    /// [`Input::Opened`].
    Open {
        /// The fence.
        fence: Fence,
        /// Whether an open head is the work of runs before.
        was_open: bool,
    },
    /// Begin to work under the lease: [`Input::Begun`].
    Begin {
        /// The fence.
        fence: Fence,
        /// Nobody is told that the session is busy.
        silent: bool,
    },
    /// Ask how the attempt before ended: [`Input::Follows`].
    AskFormer,
    /// Read the head, and the conversation under it: [`Input::Head`].
    Look,
    /// Wait out the back-off of this attempt, then for its trial: [`Input::Waited`].
    Wait {
        /// Attempts since the last completed step, with this one.
        tries: u32,
    },
    /// Count the attempt in the head: [`Input::Done`].
    Count {
        /// How the one before it ended.
        former: Former,
    },
    /// Wait at a durable point until ownership is proven again, or until the head says something else: [`Input::Done`].
    Park,
    /// Do a step: [`Input::Worked`].
    Work {
        /// The newest ticket that is loaded.
        seen: u64,
        /// Whether it is the first of its turn.
        is_first: bool,
        /// Whether it was told already that the session is busy with this turn.
        told_busy: bool,
    },
    /// The head commit that ends a step: its attempts are over, what it used is added up, the next time is reserved:
    /// [`Input::Head`].
    EndStep,
    /// Reserve the next message's time anew: [`Input::Head`].
    Reserve,
    /// Deal with the tickets that an abort reaches, after the step has closed its records: [`Input::Done`].
    SettleAborted {
        /// The ticket up to which the abort reaches.
        upto: u64,
    },
    /// Close what those before left open of an aborted turn, and deal with its tickets: [`Input::Done`].
    CloseAborted {
        /// The newest ticket that is dealt with.
        settled: u64,
        /// The ticket up to which the abort reaches.
        upto: u64,
    },
    /// The final look, and the answer: [`Input::Ended`].
    Settle {
        /// The newest ticket that is loaded.
        seen: u64,
    },
    /// Record that the turn failed, as its answer: [`Input::Ended`].
    GiveUp {
        /// The newest ticket.
        seen: u64,
    },
    /// Carry the stored intent out: [`Input::Done`].
    FinishIntent,
    /// Remove what is left of the session: [`Input::Done`].
    FinishDeletion,
    /// Give the lease back: [`Input::Released`].
    Release {
        /// The newest ticket that was dealt with.
        seen: u64,
        /// Nobody was told that the session is busy: nobody is told that it is idle.
        silent: bool,
    },
    /// Nothing any more.
    End(End),
}

/// What came of an effect.
#[derive(Clone, Copy, Debug)]
pub enum Input<'a> {
    /// The run guard's number.
    Number(u64),
    /// Whether the lease is this attempt's.
    Confirmed(bool),
    /// The fence; none if the number was no longer the guard's.
    Taken(Option<Fence>),
    /// What the first head commit found.
    Opened(Opened),
    /// Whether the lease was still this attempt's, and no newer fence had begun.
    Begun(bool),
    /// How the attempt before ended.
    Follows(Former),
    /// The head as it stands, and this replica as it is.
    Head {
        /// The head.
        head: &'a Head,
        /// Whether the replica's runs are to go on elsewhere.
        is_draining: bool,
        /// Whether ownership can no longer be proven.
        is_frozen: bool,
    },
    /// Whether the wait is over; false if something came meanwhile.
    Waited(bool),
    /// What a step came to.
    Worked(Worked),
    /// What the final look found.
    Ended(Ending),
    /// Whether the lease is given back.
    Released(Released),
    /// It is done.
    Done,
    /// Another runner took the run guard, or the lease: nothing more is written.
    Lost,
    /// It could not be done.
    Failed,
}

/// What the first head commit found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Opened {
    /// The session lives.
    Live {
        /// It was open before this run's ticket: what is open may be the work of others.
        goes_on: bool,
        /// An intent is stored.
        has_intent: bool,
    },
    /// It was deleted.
    Deleted,
}

impl Opened {
    /// Decides from the head. `was_open`: the session was open before the ticket that the run began for.
    pub fn decide(head: &Head, was_open: bool) -> Self {
        match head.is_live() {
            true => Self::Live { goes_on: was_open && head.is_open(), has_intent: head.intent.is_some() },
            false => Self::Deleted,
        }
    }
}

/// What a step came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Worked {
    /// There is an answer, and nothing more to do.
    Answered,
    /// A step is complete; more follow.
    Stepped,
    /// It was stopped.
    Stopped(StopReason),
}

/// Where a run is: what it waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum At {
    ReadingNumber,
    Confirming { number: u64 },
    Taking,
    Opening { fence: Fence },
    Beginning { goes_on: bool },
    AskingFormer,
    Looking,
    Waiting { seen: u64 },
    Counting { seen: u64 },
    Parked,
    Working { seen: u64 },
    EndingStep { turn_ends: bool },
    ClosingTurn,
    Settling,
    Deleting,
    Releasing { fence: Option<Fence> },
    Ended,
}

/// A turn that is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Turn {
    /// The attempt is counted.
    has_begun: bool,
    /// No step of it was done.
    is_first: bool,
}

/// The life of a run. See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Life {
    at: At,
    /// Under which the lease is this run's, and may be taken back in its name.
    fence: Option<Fence>,
    was_open: bool,
    /// How the attempt before ended, if there was one, until that is counted.
    follows: Option<Former>,
    /// Nobody was told that the session is busy.
    silent: bool,
    /// The turn that comes was told already.
    told_busy: bool,
    turn: Option<Turn>,
    /// How many attempts there may be.
    limit: u32,
}

impl Life {
    /// A run begins. `limit`: how many attempts there may be without a completed step.
    pub fn begin(entry: Entry, limit: u32) -> (Self, Effect) {
        let (at, was_open, effect) = match entry {
            Entry::Entered { number, was_open } => (At::Taking, was_open, Effect::Take { number }),
            Entry::Claimed => (At::ReadingNumber, true, Effect::ReadNumber),
        };
        let life =
            Self { at, fence: None, was_open, follows: None, silent: false, told_busy: false, turn: None, limit };
        (life, effect)
    }

    /// The fence under which the run has its lease: until it gives it back, the lease may be taken back in its name.
    pub fn fence(&self) -> Option<Fence> {
        self.fence
    }

    /// What follows an effect. An input that does not answer the effect fails the run.
    #[must_use]
    pub fn next(&mut self, input: Input<'_>) -> Effect {
        match (self.at, input) {
            (_, Input::Lost) => self.end(End::Lost),
            (At::ReadingNumber, Input::Number(number)) => self.go(At::Confirming { number }, Effect::Confirm),
            (At::Confirming { number }, Input::Confirmed(true)) => self.go(At::Taking, Effect::Take { number }),
            (At::Confirming { .. }, Input::Confirmed(false)) => self.end(End::Over),
            (At::Taking, Input::Taken(None)) => self.go(At::ReadingNumber, Effect::ReadNumber),
            (At::Taking, Input::Taken(Some(fence))) => {
                self.go(At::Opening { fence }, Effect::Open { fence, was_open: self.was_open })
            }
            (At::Opening { .. }, Input::Opened(Opened::Deleted)) => self.go(At::Deleting, Effect::FinishDeletion),
            (At::Opening { fence }, Input::Opened(Opened::Live { goes_on, has_intent })) => {
                self.fence = Some(fence);
                // A revert is over in a moment: OpenCode tells no status for it.
                self.silent = has_intent;
                // What begins the lease tells that the session is busy; each further turn tells it itself.
                self.told_busy = !has_intent;
                self.go(At::Beginning { goes_on }, Effect::Begin { fence, silent: has_intent })
            }
            // The lease is another's; or it is this attempt's by a wish that came late, and nobody else may have it before it
            // is given away.
            (At::Beginning { .. }, Input::Begun(false)) => self.end(End::HandOver),
            (At::Beginning { goes_on: true }, Input::Begun(true)) => self.go(At::AskingFormer, Effect::AskFormer),
            (At::Beginning { goes_on: false }, Input::Begun(true)) => self.look(),
            (At::AskingFormer, Input::Follows(former)) => {
                self.follows = Some(former);
                self.look()
            }
            (At::Looking, Input::Head { head, is_draining, is_frozen }) => self.open(head, is_draining, is_frozen),
            (At::EndingStep { turn_ends }, Input::Head { head, is_draining, is_frozen }) => {
                if turn_ends {
                    self.leave_turn();
                }
                self.open(head, is_draining, is_frozen)
            }
            (At::Waiting { .. }, Input::Waited(false)) | (At::Parked, Input::Done) => self.look(),
            (At::Waiting { seen }, Input::Waited(true)) => self.count(seen),
            (At::Counting { seen }, Input::Done) => {
                self.follows = None;
                self.work(seen)
            }
            (At::Working { seen }, Input::Worked(worked)) => self.worked(seen, worked),
            (At::ClosingTurn, Input::Done) => {
                self.leave_turn();
                self.look()
            }
            (At::Settling, Input::Ended(Ending::Settle { upto })) => {
                self.leave_turn();
                self.release(upto)
            }
            // What was added up must not be lost: the outcome was not committed with the ending.
            (At::Settling, Input::Ended(Ending::LoadAgain | Ending::Stopped(_))) => {
                self.go(At::EndingStep { turn_ends: true }, Effect::EndStep)
            }
            (At::Deleting, Input::Done) => self.end(End::Over),
            (At::Releasing { fence }, Input::Released(Released::More)) => {
                self.fence = fence;
                self.look()
            }
            (At::Releasing { .. }, Input::Released(Released::Done | Released::Gone)) => self.end(End::Over),
            _ => self.end(End::Failed),
        }
    }

    /// Attempts since the last completed step, with this one.
    fn tries(&self, head: &Head) -> u32 {
        let mut counted = head.clone();
        if let Some(former) = self.follows {
            counted.count_after(former);
        }
        counted.tries
    }

    fn go(&mut self, at: At, effect: Effect) -> Effect {
        self.at = at;
        effect
    }

    fn end(&mut self, end: End) -> Effect {
        self.fence = None;
        self.go(At::Ended, Effect::End(end))
    }

    fn look(&mut self) -> Effect {
        self.go(At::Looking, Effect::Look)
    }

    fn leave_turn(&mut self) {
        if self.turn.take().is_some() {
            self.told_busy = false;
        }
    }

    fn open(&mut self, head: &Head, is_draining: bool, is_frozen: bool) -> Effect {
        let tries = self.tries(head);
        let opening = Opening::decide(head, tries, self.limit);
        if opening != Opening::Run {
            self.leave_turn();
        }
        match opening {
            Opening::Run => self.go_on(head, tries, is_draining, is_frozen),
            Opening::Release => self.release(head.issued),
            Opening::FinishIntent => self.go(At::ClosingTurn, Effect::FinishIntent),
            Opening::FinishDeletion => self.go(At::Deleting, Effect::FinishDeletion),
            Opening::CloseAborted { upto } => {
                self.go(At::ClosingTurn, Effect::CloseAborted { settled: head.settled, upto })
            }
            Opening::GiveUp => self.go(At::Settling, Effect::GiveUp { seen: head.issued }),
        }
    }

    fn go_on(&mut self, head: &Head, tries: u32, is_draining: bool, is_frozen: bool) -> Effect {
        self.silent = false;
        let turn = *self.turn.get_or_insert(Turn { has_begun: false, is_first: true });
        let seen = head.issued;
        if is_draining {
            self.end(End::HandOver)
        } else if is_frozen {
            self.go(At::Parked, Effect::Park)
        } else if turn.has_begun {
            self.work(seen)
        } else if tries > 1 {
            self.go(At::Waiting { seen }, Effect::Wait { tries })
        } else {
            self.count(seen)
        }
    }

    /// An attempt after a failure is counted before anything is done, and only now, so that a run that still waits is not
    /// counted the death of its replica.
    fn count(&mut self, seen: u64) -> Effect {
        match self.follows {
            None | Some(Former::HandedOver) => self.work(seen),
            Some(former) => self.go(At::Counting { seen }, Effect::Count { former }),
        }
    }

    fn work(&mut self, seen: u64) -> Effect {
        let is_first = self.turn.is_none_or(|turn| turn.is_first);
        self.turn = Some(Turn { has_begun: true, is_first });
        self.go(At::Working { seen }, Effect::Work { seen, is_first, told_busy: is_first && self.told_busy })
    }

    fn worked(&mut self, seen: u64, worked: Worked) -> Effect {
        if let Some(turn) = &mut self.turn {
            turn.is_first = false;
        }
        match worked {
            Worked::Answered => self.go(At::Settling, Effect::Settle { seen }),
            Worked::Stepped => self.go(At::EndingStep { turn_ends: false }, Effect::EndStep),
            Worked::Stopped(StopReason::Lost) => self.end(End::Lost),
            Worked::Stopped(StopReason::Interrupted) => self.end(End::HandOver),
            Worked::Stopped(StopReason::Frozen) => self.go(At::EndingStep { turn_ends: false }, Effect::Reserve),
            Worked::Stopped(StopReason::Aborted { upto }) => self.go(At::ClosingTurn, Effect::SettleAborted { upto }),
        }
    }

    /// From here on nobody takes the lease back in this run's name.
    fn release(&mut self, seen: u64) -> Effect {
        let fence = self.fence.take();
        self.go(At::Releasing { fence }, Effect::Release { seen, silent: self.silent })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turn_that_was_given_up_ends_with_its_lease() {
        let head = Head { issued: 1, tries: 3, ..Head::new("p") };
        let fence = Fence(8);
        let (mut life, effect) = Life::begin(Entry::Claimed, 3);
        assert_eq!(effect, Effect::ReadNumber);
        assert_eq!(life.next(Input::Number(7)), Effect::Confirm);
        assert_eq!(life.next(Input::Confirmed(true)), Effect::Take { number: 7 });
        assert_eq!(life.next(Input::Taken(Some(fence))), Effect::Open { fence, was_open: true });
        let opened = Opened::Live { goes_on: true, has_intent: false };
        assert_eq!(life.next(Input::Opened(opened)), Effect::Begin { fence, silent: false });
        assert_eq!(life.next(Input::Begun(true)), Effect::AskFormer);
        assert_eq!(life.next(Input::Follows(Former::Failed)), Effect::Look);
        let read = Input::Head { head: &head, is_draining: false, is_frozen: false };
        assert_eq!(life.next(read), Effect::GiveUp { seen: 1 });
        assert_eq!(life.next(Input::Ended(Ending::Settle { upto: 1 })), Effect::Release { seen: 1, silent: false });
        assert_eq!(life.fence(), None);
        assert_eq!(life.next(Input::Released(Released::Done)), Effect::End(End::Over));
    }
}
