//! What runs do: the core says what, here it is done to the store and to Redis, moment by moment.

use crate::bound::Flaw;
use crate::properties::Broken;
use crate::redis::{Answer, How};
use crate::world::{AttemptName, Command, Facts, Stage, World};
use run_protocol::turn::{Ending, Look};
use run_protocol::{
    Delete, DeleteInput, Deletion, Effect, End, Fence, Head, HeadState, Input, Opened, StopReason, TicketAnswer, Worked,
};

/// How often a deletion tries to take the run guard: more often makes no difference, it may be given up at any failure.
pub const TAKES: u32 = 2;

/// What came of a moment of an effect.
enum Came {
    /// It is not over.
    Not,
    /// It is over.
    Of(Given),
}

/// An input of the core, by value.
enum Given {
    Plain(Input<'static>),
    Head(Facts),
}

/// Why a runner's head commit settles tickets.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Why {
    Answered { seen: u64 },
    Aborted,
    GivenUp,
}

impl World {
    /// True if the next moment of a run is a call to Redis.
    pub fn run_calls(&self, replica: usize, run: usize) -> bool {
        let run = &self.replicas[replica].runs[run];
        match (run.effect, run.stage) {
            (_, Stage::GivingAway { .. } | Stage::Wrote) => true,
            (_, Stage::Deleting(deletion)) => deletion.step() == Delete::Forget,
            (effect, Stage::Begun) => {
                matches!(effect, Effect::Confirm | Effect::Begin { .. } | Effect::AskFormer | Effect::Release { .. })
            }
            _ => false,
        }
    }

    /// True if the next moment of a run appends to the log, and somebody listens.
    pub fn is_heard(&self, replica: usize, run: usize) -> bool {
        let run = &self.replicas[replica].runs[run];
        let appends = match run.stage {
            Stage::Begun => matches!(run.effect, Effect::Begin { .. } | Effect::Release { .. }),
            stage => stage == Stage::Wrote,
        };
        appends && self.replicas.iter().any(|replica| replica.feed.as_ref().is_some_and(|feed| feed.heard.is_some()))
    }

    /// The next moment of a run. False: it waits.
    pub fn run_on(&mut self, replica: usize, run: usize, how: How, flaw: Option<Flaw>) -> bool {
        let Some(came) = self.moment(replica, run, how, flaw) else { return false };
        match came {
            Came::Not => {}
            Came::Of(Given::Plain(input)) => self.advance(replica, run, input),
            Came::Of(Given::Head(facts)) => {
                let (head, is_frozen) = (facts.head(), self.replicas[replica].is_frozen);
                self.advance(replica, run, Input::Head { head: &head, is_draining: false, is_frozen });
            }
        }
        true
    }

    fn advance(&mut self, replica: usize, index: usize, input: Input<'_>) {
        let run = &mut self.replicas[replica].runs[index];
        run.effect = run.life.next(input);
        run.stage = Stage::Begun;
        if let Effect::End(end) = run.effect {
            match end.handover() {
                Some(_) => run.stage = Stage::GivingAway { end },
                None => drop(self.replicas[replica].runs.remove(index)),
            }
        }
    }

    /// A step, or a wait, that something comes into: a loss, a freeze, what the head says. False: nothing does.
    pub fn notice(&mut self, replica: usize, index: usize) -> bool {
        let is_frozen = self.replicas[replica].is_frozen;
        let look = Look::at(&self.store.head.head());
        let run = &mut self.replicas[replica].runs[index];
        let reason = match (run.effect, run.stage) {
            (_, Stage::GivingAway { .. }) => return false,
            (Effect::Park, _) if look != Look::Go && !run.is_lost => {
                self.advance(replica, index, Input::Done);
                return true;
            }
            (Effect::Work { .. } | Effect::Wait { .. } | Effect::Park, _) if run.is_lost => StopReason::Lost,
            (Effect::Work { .. } | Effect::Wait { .. }, _) if is_frozen => StopReason::Frozen,
            (Effect::Work { .. } | Effect::Wait { .. }, _) if run.is_poked => {
                run.is_poked = false;
                match look.stops() {
                    Some(reason) => reason,
                    None => return true,
                }
            }
            _ => return false,
        };
        let input = match (run.effect, reason) {
            (Effect::Work { .. }, reason) => Input::Worked(Worked::Stopped(reason)),
            (_, StopReason::Lost) => Input::Lost,
            _ => Input::Waited(false),
        };
        self.advance(replica, index, input);
        true
    }

    fn moment(&mut self, replica: usize, index: usize, how: How, flaw: Option<Flaw>) -> Option<Came> {
        let run = self.replicas[replica].runs[index].clone();
        let attempt = run.attempt;
        let over = |input| Some(Came::Of(Given::Plain(input)));
        if let Stage::GivingAway { end } = run.stage {
            let answer = self.call(replica, &Command::HandOver { attempt, end }, how);
            // Given up where Redis is away for long; tried again otherwise.
            if answer.is_some() || !self.reaches(replica) {
                self.replicas[replica].runs.remove(index);
            }
            return Some(Came::Not);
        }
        match run.effect {
            Effect::ReadNumber => over(Input::Number(self.store.run)),
            Effect::Confirm if flaw == Some(Flaw::ClaimWithoutConfirm) => over(Input::Confirmed(true)),
            Effect::Confirm => match self.call(replica, &Command::Confirm { attempt }, how) {
                Some(Answer::Yes(yes)) => over(Input::Confirmed(yes)),
                _ => over(Input::Failed),
            },
            Effect::Take { number } => over(Input::Taken(self.take_run(attempt, number, flaw))),
            Effect::Begin { fence, .. } => match self.call(replica, &Command::Begin { attempt, fence }, how) {
                Some(Answer::Yes(yes)) => over(Input::Begun(yes)),
                _ => over(Input::Failed),
            },
            Effect::AskFormer => match self.call(replica, &Command::Former, how) {
                Some(Answer::Former(former)) => over(Input::Follows(former)),
                _ => over(Input::Failed),
            },
            Effect::Look => Some(Came::Of(Given::Head(self.store.head))),
            Effect::Wait { .. } => over(Input::Waited(true)),
            Effect::Park if self.replicas[replica].is_frozen => None,
            Effect::Park => over(Input::Done),
            Effect::Work { seen, .. } => self.work(replica, index, seen, how, flaw),
            Effect::Open { .. }
            | Effect::Count { .. }
            | Effect::EndStep
            | Effect::Reserve
            | Effect::SettleAborted { .. }
            | Effect::CloseAborted { .. }
            | Effect::Settle { .. }
            | Effect::GiveUp { .. } => Some(self.head_commit(replica, index, flaw)),
            Effect::FinishDeletion => {
                let mut deletion = match run.stage {
                    Stage::Deleting(deletion) => deletion,
                    _ => Deletion::begin(TAKES),
                };
                match self.delete_on(replica, &mut deletion, how, flaw) {
                    Some(false) => {
                        self.replicas[replica].runs[index].stage = Stage::Deleting(deletion);
                        Some(Came::Not)
                    }
                    Some(true) => over(Input::Done),
                    None => over(Input::Failed),
                }
            }
            Effect::Release { seen, .. } => match self.call(replica, &Command::Release { attempt, seen }, how) {
                Some(Answer::Released(released)) => over(Input::Released(released)),
                _ if self.reaches(replica) => Some(Came::Not),
                _ => over(Input::Failed),
            },
            Effect::FinishIntent => over(Input::Done),
            Effect::End(End::Over | End::HandOver | End::Lost | End::Failed) => None,
        }
    }

    /// A compare-and-set on the run guard's number.
    pub fn take_run(&mut self, attempt: AttemptName, number: u64, flaw: Option<Flaw>) -> Option<Fence> {
        if self.store.run != number && flaw != Some(Flaw::FenceWithoutCompare) {
            return None;
        }
        let deposes_owner = self.holder().is_some_and(|(_, owner)| {
            let fence = self.redis.lease(&()).and_then(|lease| lease.fence);
            let is_at_work = |run: &crate::world::Run| run.attempt == owner && run.life.fence() == fence;
            owner != attempt
                && fence == Some(Fence(self.store.run))
                && self.replicas.iter().any(|replica| replica.runs.iter().any(is_at_work))
        });
        // A Redis that forgot gives leases to others than who works; the guard keeps them apart all the same.
        if deposes_owner && !self.seen.has_forgotten {
            self.break_(Broken::OwnerDeposed);
        }
        self.store.run = number + 1;
        self.seen.runner = Some(attempt);
        Some(Fence(self.store.run))
    }

    /// A step that answers all that it has loaded: a write, what it tells, the end.
    fn work(&mut self, replica: usize, index: usize, seen: u64, how: How, flaw: Option<Flaw>) -> Option<Came> {
        let run = self.replicas[replica].runs[index].clone();
        let fence = run.life.fence()?;
        let stage = match run.stage {
            Stage::Begun => {
                if self.store.run != fence.0 && flaw != Some(Flaw::FenceWithoutCompare) {
                    return Some(Came::Of(Given::Plain(Input::Lost)));
                }
                if self.seen.runner != Some(run.attempt) {
                    self.break_(Broken::TwoRunners);
                }
                if self.seen.is_removed {
                    self.break_(Broken::Resurrected);
                }
                self.seen.worked |= upto(seen);
                Stage::Wrote
            }
            Stage::Wrote => {
                self.call(replica, &Command::Publish { fence }, how);
                Stage::Told
            }
            _ => return Some(Came::Of(Given::Plain(Input::Worked(Worked::Answered)))),
        };
        self.replicas[replica].runs[index].stage = stage;
        Some(Came::Not)
    }

    /// A head commit of a runner: take the head guard, then look for the run guard, then commit if the head guard is still
    /// held.
    fn head_commit(&mut self, replica: usize, index: usize, flaw: Option<Flaw>) -> Came {
        let run = self.replicas[replica].runs[index].clone();
        let fence = match run.effect {
            Effect::Open { fence, .. } => fence,
            _ => run.life.fence().unwrap_or(Fence(0)),
        };
        let stage = match run.stage {
            Stage::Taken { head, is_deposed } => {
                if self.store.run != fence.0 && flaw != Some(Flaw::FenceWithoutCompare) {
                    return Came::Of(Given::Plain(Input::Lost));
                }
                Stage::Checked { head, is_deposed }
            }
            Stage::Checked { head, is_deposed } => return self.decide(replica, index, fence, head, is_deposed, flaw),
            _ => {
                self.depose();
                if matches!(run.effect, Effect::Open { .. }) && fence.0 >= self.seen.opened {
                    self.seen.opened = fence.0;
                    self.seen.opener = Some(run.attempt);
                }
                Stage::Taken { head: self.store.head, is_deposed: false }
            }
        };
        self.replicas[replica].runs[index].stage = stage;
        Came::Not
    }

    fn decide(
        &mut self,
        replica: usize,
        index: usize,
        fence: Fence,
        read: Facts,
        is_deposed: bool,
        flaw: Option<Flaw>,
    ) -> Came {
        let run = self.replicas[replica].runs[index].clone();
        let mut head = read.head();
        let plain = |input| Came::Of(Given::Plain(input));
        let (writes, why, came) = match run.effect {
            Effect::Open { was_open, .. } => {
                let opened = Opened::decide(&head, was_open);
                (opened != Opened::Deleted, None, plain(Input::Opened(opened)))
            }
            Effect::Count { former } => {
                head.count_after(former);
                (true, None, plain(Input::Done))
            }
            Effect::EndStep => {
                head.end_step();
                (true, None, Came::Of(Given::Head(Facts::of(&head))))
            }
            Effect::Reserve => (true, None, Came::Of(Given::Head(Facts::of(&head)))),
            Effect::SettleAborted { upto } | Effect::CloseAborted { upto, .. } => {
                head.settle(upto, TicketAnswer::Dropped);
                (true, Some(Why::Aborted), plain(Input::Done))
            }
            Effect::Settle { seen } | Effect::GiveUp { seen } => {
                let asked = if flaw == Some(Flaw::SettleWithoutTheLook) { head.issued } else { seen };
                let ending = Ending::decide(&head, asked);
                let writes = matches!(ending, Ending::Settle { .. });
                if let Ending::Settle { upto } = ending {
                    head.settle(upto, TicketAnswer::Dropped);
                }
                let why = match run.effect {
                    Effect::Settle { .. } => Why::Answered { seen },
                    _ => Why::GivenUp,
                };
                (writes, Some(why), plain(Input::Ended(ending)))
            }
            _ => (false, None, plain(Input::Failed)),
        };
        if !writes {
            return came;
        }
        if read.head().state != HeadState::Live {
            // Nothing of a deleted session is written again but its end.
            return plain(Input::Lost);
        }
        if is_deposed && !matches!(flaw, Some(Flaw::FenceWithoutCompare | Flaw::CheckThenWrite)) {
            self.replicas[replica].runs[index].stage = Stage::Begun;
            return Came::Not;
        }
        if self.seen.opened > fence.0 || (self.seen.opened == fence.0 && self.seen.opener != Some(run.attempt)) {
            self.break_(Broken::TwoRunners);
        }
        self.land(&head, why);
        came
    }

    /// A head commit lands.
    fn land(&mut self, head: &Head, why: Option<Why>) {
        let before = self.store.head.head().settled;
        self.store.head = Facts::of(head);
        let Some(why) = why else { return };
        for k in before + 1..=head.settled {
            let bit = upto(k) & !upto(k - 1);
            if self.seen.settled & bit != 0 {
                self.break_(Broken::PromptLost);
            }
            self.seen.settled |= bit;
            match why {
                Why::Answered { seen } if k > seen || self.seen.worked & bit == 0 => self.break_(Broken::PromptLost),
                Why::Answered { .. } | Why::GivenUp if self.seen.aborted & bit != 0 => self.break_(Broken::Abort),
                Why::Aborted if self.seen.aborted & bit == 0 => self.break_(Broken::Abort),
                _ => {}
            }
        }
    }

    /// The next moment of a deletion that is being finished; true once it is. None: it failed.
    pub fn delete_on(&mut self, replica: usize, deletion: &mut Deletion, how: How, flaw: Option<Flaw>) -> Option<bool> {
        let input = match deletion.step() {
            Delete::ReadNumber => DeleteInput::Number(self.store.run),
            Delete::Take { number } => DeleteInput::Taken(self.take_for_good(number, flaw)),
            Delete::Remove => {
                self.seen.is_removed = true;
                DeleteInput::Done
            }
            Delete::Note => {
                // Not without coordination: a request's head commit takes its lock there.
                if !self.reaches(replica) {
                    return None;
                }
                self.depose();
                let mut head = self.store.head.head();
                head.state = HeadState::Removed;
                self.store.head = Facts::of(&head);
                DeleteInput::Done
            }
            Delete::Forget => {
                self.call(replica, &Command::Forget, how);
                DeleteInput::Done
            }
            // The sweep does the same about a marker of a session that is removed.
            Delete::Unlink => DeleteInput::Done,
            Delete::End => return Some(true),
            Delete::GiveUp => return None,
        };
        deletion.went(input);
        match deletion.step() {
            Delete::End => Some(true),
            Delete::GiveUp => None,
            _ => Some(false),
        }
    }

    fn take_for_good(&mut self, number: u64, flaw: Option<Flaw>) -> bool {
        if self.store.run != number && flaw != Some(Flaw::FenceWithoutCompare) {
            return false;
        }
        self.store.run = number + 1;
        self.seen.runner = None;
        true
    }
}

/// The bits of the tickets up to this one.
pub fn upto(ticket: u64) -> u8 {
    ((1_u16 << ticket.min(8)) - 1) as u8
}
