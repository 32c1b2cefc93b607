//! Commands to Redis: what they do there, and what becomes of them on the way.

use crate::bound::Fault;
use crate::world::{AttemptName, Command, ReplicaName, Small, World};
use coordination::table::{Begun, Holder, Table, Told, Wish};
use coordination::{Adopted, Entered, Released};
use run_protocol::{Fence, Former};

/// Later than everything: a delay is over at any moment.
const LATER: u64 = u64::MAX;

/// What Redis answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    Entered(Entered),
    /// Redis bears another mark.
    Reborn,
    Yes(bool),
    Former(Former),
    Released(Released),
    Adopted(Adopted),
    Done,
}

/// How a call goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum How {
    /// Well; or it is refused at once, where Redis is not reached.
    Well,
    /// With a fault.
    With(Fault),
}

impl How {
    /// All that a call can meet.
    pub const ALL: [Self; 5] = [
        Self::Well,
        Self::With(Fault::AnswerLost),
        Self::With(Fault::Late),
        Self::With(Fault::Twice),
        Self::With(Fault::HintLost),
    ];
}

impl World {
    /// A replica calls Redis. None: it learns nothing but that it failed.
    pub fn call(&mut self, replica: usize, command: &Command, how: How) -> Option<Answer> {
        if !self.reaches(replica) {
            return None;
        }
        match how {
            How::Well => Some(self.execute(command, true)),
            How::With(Fault::HintLost) => Some(self.execute(command, false)),
            How::With(Fault::AnswerLost) => {
                self.execute(command, true);
                None
            }
            How::With(Fault::Twice) => {
                let answer = self.execute(command, true);
                self.late.push(command.clone());
                Some(answer)
            }
            How::With(_) => {
                self.late.push(command.clone());
                None
            }
        }
    }

    /// A command takes effect. `heard`: what it publishes arrives.
    pub fn execute(&mut self, command: &Command, heard: bool) -> Answer {
        let key = ();
        match *command {
            Command::Enter { replica, born, attempt, ticket } => {
                let mark = self.new_mark();
                if self.change(|table| table.reborn(&born, &replica, || mark)).is_some() {
                    return Answer::Reborn;
                }
                let wish = Wish { ticket: ticket.into(), for_others: false };
                let (entered, told) = self.change(|table| {
                    let (entered, told) = table.enter(&replica, &key, &attempt, wish, 0);
                    (entered, count_once(table, told))
                });
                self.hear(told, heard);
                Answer::Entered(entered)
            }
            Command::Confirm { attempt } => Answer::Yes(self.redis.confirm(&key, &attempt)),
            Command::Begin { attempt, fence } => {
                let begun = self.change(|table| table.begin(&key, &attempt, fence, 0));
                if begun == Begun::First {
                    self.tell(fence, heard);
                    self.seen.begun = self.seen.begun.max(fence.0);
                }
                Answer::Yes(begun != Begun::NotMine)
            }
            Command::Former => Answer::Former(self.redis.former(&key)),
            Command::Publish { fence } => {
                if self.redis.admits(Some(&key), Some(fence)) {
                    self.tell(fence, heard);
                }
                Answer::Done
            }
            Command::Release { attempt, seen } => {
                let released = self.change(|table| table.release(&key, &attempt, seen));
                if released == Released::Done {
                    self.append(heard);
                }
                Answer::Released(released)
            }
            Command::HandOver { attempt, end } => {
                let Some(handover) = end.handover() else { return Answer::Done };
                // The delay is over at any moment.
                let told = self.change(|table| table.hand_over(&key, &attempt, 0, handover.failed));
                self.hear(told, heard);
                Answer::Done
            }
            Command::Adopt { replica, attempt, fence } => {
                Answer::Adopted(self.change(|table| table.adopt(&key, &replica, &attempt, fence)))
            }
            Command::Claim { replica, born, attempt } => {
                let claimed = self.change(|table| table.claim(&replica, &born, &[attempt], LATER));
                Answer::Yes(!claimed.is_empty())
            }
            Command::EnsureDue { born } => {
                let told = self.change(|table| table.ensure_due(&key, &born, 0));
                self.hear(told, heard);
                Answer::Done
            }
            Command::Poke => {
                let told = self.change(|table| {
                    let told = table.poke(&key);
                    count_once(table, told)
                });
                self.hear(told, heard);
                Answer::Done
            }
            Command::Forget => {
                self.change(|table| table.forget(&key));
                Answer::Done
            }
        }
    }

    /// An event of a runner is in the log.
    fn tell(&mut self, fence: Fence, heard: bool) {
        if self.seen.begun > fence.0 {
            self.break_(crate::properties::Broken::LateEvent);
        }
        self.append(heard);
    }

    /// An event is in the log, and told to who has subscribed to it.
    fn append(&mut self, heard: bool) {
        let (before, after) = (self.log, self.log + 1);
        for feed in self.replicas.iter_mut().filter_map(|replica| replica.feed.as_mut()) {
            self.log = after;
            match &mut feed.heard {
                Some(queue) if heard => queue.push((before, after)),
                Some(_) => feed.has_lost = true,
                None => {}
            }
        }
    }

    /// What is said over the control channels. That leases are due is told by each tick, too: nobody is woken here.
    fn hear(&mut self, told: Option<Told<Small>>, heard: bool) {
        let Some(Told::Poke(owner, (), fence)) = told.filter(|_| heard) else { return };
        let listens = |id: Option<ReplicaName>| id == Some(owner);
        for replica in self.replicas.iter_mut().filter(|replica| replica.is_up && !replica.is_cut) {
            if listens(replica.id)
                && let Some(run) = replica.runs.last_mut()
                && (fence.is_none() || run.life.fence().is_none() || run.life.fence() == fence)
            {
                run.is_poked = true;
            }
        }
    }

    /// The attempt that holds the lease.
    pub fn holder(&self) -> Option<(ReplicaName, AttemptName)> {
        match self.redis.lease(&()).map(|lease| &lease.holder) {
            Some(Holder::Owner(replica, attempt)) => Some((*replica, *attempt)),
            _ => None,
        }
    }
}

/// What a replica is poked for is told and acknowledged in one moment here: that it was poked more than once decides nothing.
fn count_once(table: &mut Table<Small>, told: Option<Told<Small>>) -> Option<Told<Small>> {
    if let Some(Told::Poke(owner, (), _)) = &told {
        let pokes = table.news(owner, &[]).pokes;
        if pokes.iter().any(|(_, count)| *count > 1) {
            table.news(owner, &pokes);
            table.poke(&());
        }
    }
    told
}
