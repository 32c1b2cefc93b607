//! What replicas and clients do beside the runs, and what befalls them.

use crate::bound::{Bound, Fault, Flaw};
use crate::feed::Feed;
use crate::redis::{Answer, How};
use crate::run::{TAKES, upto};
use crate::world::{AttemptName, Chore, Command, Facts, Replica, ReplicaName, Task, World};
use coordination::Entered;
use run_protocol::entering::Enter;
use run_protocol::steward::room_to_claim;
use run_protocol::{
    Adoption, Amends, Asked, Beaten, Delete, Deletion, Duty, End, EnterInput, Entering, Entry, Follow, HeadState,
    RunHere, Sweep, Waiting,
};
use std::collections::BTreeMap;

/// How often a session's lease is asked for: more often makes no difference, since each answer may be lost but once.
const ENTERS: u32 = 2;

/// What can happen next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// A client's prompt is stored, and acknowledged.
    Prompt(usize),
    /// A client sends it again.
    Retry(usize),
    /// A client aborts.
    Abort(usize),
    /// A client deletes the session.
    Delete(usize),
    /// The first reader of events comes to a replica.
    Read(usize),
    /// The next moment of a replica's feed.
    Follow(usize),
    /// The next moment of a run.
    Run(usize, usize, How),
    /// Something comes into a step or a wait.
    Notice(usize, usize),
    /// The next moment of something else.
    Task(usize, usize, How),
    /// The steward's next call.
    Chore(usize, How),
    /// A beat.
    Tick(usize),
    /// What is due is claimed.
    Claim(usize, How),
    /// The markers are gone through.
    Sweep(usize),
    /// A replica joins the fleet after a start.
    Join(usize),
    /// A replica buries what fell silent.
    Bury(usize, ReplicaName),
    /// A replica's time is over without an answered beat.
    Freeze(usize),
    /// A late command takes effect.
    Arrive(usize),
    /// A replica that died is started again.
    Restart(usize),
    /// A replica goes on after its pause; others may have buried it.
    Resume(usize),
    /// A replica reaches Redis again.
    Heal(usize),
    /// A fault that needs no call.
    Befall(Fault, usize),
}

impl World {
    /// What an action means here.
    pub fn describe(&self, action: Action) -> String {
        match action {
            Action::Run(r, index, _) | Action::Notice(r, index) => {
                let run = &self.replicas[r].runs[index];
                format!("{action:?}: attempt {}: {:?}, {:?}", run.attempt, run.effect, run.stage)
            }
            Action::Task(r, index, _) => format!("{action:?}: {:?}", self.replicas[r].tasks[index]),
            Action::Chore(r, _) => format!("{action:?}: {:?}", self.replicas[r].chores[0]),
            Action::Arrive(index) => format!("{action:?}: {:?}", self.late[index]),
            _ => format!("{action:?}"),
        }
    }

    /// All that can happen next.
    pub fn actions(&self, bound: &Bound, actions: &mut Vec<Action>) {
        let calls = |how: &How| match how {
            How::Well => true,
            How::With(fault) => self.left.has(*fault),
        };
        for (r, replica) in self.replicas.iter().enumerate() {
            self.faults(r, replica, actions);
            if !replica.is_awake() {
                continue;
            }
            let reaches = self.reaches(r);
            let can_meet = |publishes: bool| {
                let hows = How::ALL.into_iter().filter(move |how| *how == How::Well || reaches);
                hows.filter(calls).filter(move |how| *how != How::With(Fault::HintLost) || publishes)
            };
            self.requests(r, reaches, actions);
            for index in 0..replica.runs.len() {
                actions.push(Action::Notice(r, index));
                match self.run_calls(r, index) {
                    true => actions.extend(can_meet(self.is_heard(r, index)).map(|how| Action::Run(r, index, how))),
                    false => actions.push(Action::Run(r, index, How::Well)),
                }
            }
            for (index, task) in replica.tasks.iter().enumerate() {
                match task {
                    Task::Enter { next: Enter::Ask, .. } | Task::Poke { .. } => {
                        actions.extend(can_meet(true).map(|how| Action::Task(r, index, how)));
                    }
                    Task::Enter { .. } => actions.push(Action::Task(r, index, How::Well)),
                    Task::Delete(deletion) if deletion.step() == Delete::Forget => {
                        actions.extend(can_meet(false).map(|how| Action::Task(r, index, how)));
                    }
                    Task::Delete(_) => actions.push(Action::Task(r, index, How::Well)),
                }
            }
            if replica.feed.is_some() {
                actions.push(Action::Follow(r));
            }
            if !replica.chores.is_empty() {
                actions.extend(can_meet(false).map(|how| Action::Chore(r, how)));
            } else if reaches || replica.is_cut {
                actions.push(Action::Tick(r));
            }
            if reaches {
                if self.may_claim(r) {
                    actions.extend(can_meet(false).map(|how| Action::Claim(r, how)));
                }
                if self.has_to_sweep(bound.flaw) {
                    actions.push(Action::Sweep(r));
                }
                for dead in self.silent() {
                    actions.push(Action::Bury(r, dead));
                }
            } else if replica.is_cut && !replica.is_frozen {
                actions.push(Action::Freeze(r));
            }
            if replica.id.is_none() {
                actions.push(Action::Join(r));
            }
        }
        actions.extend((0..self.late.len()).map(Action::Arrive));
        actions.extend(
            [Fault::Failover, Fault::Emptied]
                .into_iter()
                .filter(|f| self.left.has(*f))
                .map(|fault| Action::Befall(fault, 0)),
        );
    }

    fn faults(&self, r: usize, replica: &Replica, actions: &mut Vec<Action>) {
        let befall = |fault| self.left.has(fault).then_some(Action::Befall(fault, r));
        if !replica.is_up {
            actions.push(Action::Restart(r));
            return;
        }
        actions.extend(befall(Fault::Crash));
        match replica.is_paused {
            true => actions.push(Action::Resume(r)),
            false => actions.extend(befall(Fault::Pause)),
        }
        match replica.is_cut {
            true => actions.push(Action::Heal(r)),
            false => actions.extend(befall(Fault::Cut)),
        }
    }

    fn requests(&self, r: usize, reaches: bool, actions: &mut Vec<Action>) {
        let is_live = self.store.head.head().is_live();
        if self.left.readers > 0 && reaches && self.replicas[r].feed.is_none() {
            actions.push(Action::Read(r));
        }
        if !reaches || self.replicas[r].is_frozen || !is_live {
            return;
        }
        if self.left.prompts > 0 {
            actions.push(Action::Prompt(r));
        }
        if self.left.retries > 0 && self.seen.acknowledged > 0 {
            actions.push(Action::Retry(r));
        }
        if self.left.aborts > 0 && self.store.head.head().is_open() {
            actions.push(Action::Abort(r));
        }
        if self.left.deletions > 0 && self.seen.acknowledged > 0 {
            actions.push(Action::Delete(r));
        }
    }

    /// The lease is due, and this replica, which reaches Redis, may claim it.
    pub fn may_claim(&self, r: usize) -> bool {
        let is_due = self.redis.lease(&()).is_some_and(|lease| lease.owner().is_none());
        is_due && room_to_claim(false, self.replicas[r].is_frozen, 0, 1).is_some()
    }

    /// Open work that nobody has a lease for, or an abort that its owner was not told of since the last beat.
    pub fn has_to_sweep(&self, flaw: Option<Flaw>) -> bool {
        if flaw == Some(Flaw::NoSweep) {
            return false;
        }
        let head = self.store.head.head();
        let is_untold = || {
            let owner = self.holder().map(|(owner, _)| owner);
            owner.is_some_and(|owner| self.redis.pokes().get(&owner).is_none_or(BTreeMap::is_empty))
        };
        head.is_open() && (self.redis.lease(&()).is_none() || (head.stopped > head.settled && is_untold()))
    }

    /// Names that beat no more.
    pub fn silent(&self) -> Vec<ReplicaName> {
        let beats = |id: ReplicaName| {
            self.replicas.iter().any(|replica| replica.id == Some(id) && replica.is_awake() && !replica.is_cut)
        };
        self.redis.beats().keys().copied().filter(|id| !beats(*id)).collect()
    }

    /// What follows an action. False: nothing does.
    pub fn act(&mut self, action: Action, flaw: Option<Flaw>) -> bool {
        if let Action::Run(_, _, How::With(fault))
        | Action::Task(_, _, How::With(fault))
        | Action::Chore(_, How::With(fault))
        | Action::Claim(_, How::With(fault))
        | Action::Befall(fault, _) = action
            && !self.left.take(fault)
        {
            return false;
        }
        if !self.left.has(Fault::Failover) && !matches!(action, Action::Befall(Fault::Failover, _)) {
            self.copy = None;
        }
        match action {
            Action::Prompt(r) => self.prompt(r),
            Action::Retry(r) => {
                // It has a ticket: the client waits for that, here.
                self.left.retries -= 1;
                self.depose();
                self.wait(r, self.seen.acknowledged);
            }
            Action::Abort(r) => self.abort(r, flaw),
            Action::Delete(r) => {
                self.left.deletions -= 1;
                self.depose();
                let mut head = self.store.head.head();
                head.state = HeadState::Deleted;
                self.store.head = Facts::of(&head);
                self.seen.is_deleted = true;
                self.replicas[r].tasks.push(Task::Delete(Deletion::begin(TAKES)));
            }
            Action::Read(r) => {
                self.left.readers -= 1;
                self.replicas[r].feed = Some(Feed::begin());
            }
            Action::Follow(r) => return self.follow(r, flaw),
            Action::Run(r, index, how) => return self.run_on(r, index, how, flaw),
            Action::Notice(r, index) => return self.notice(r, index),
            Action::Task(r, index, how) => self.task(r, index, how, flaw),
            Action::Chore(r, how) => self.chore(r, how),
            Action::Tick(r) => self.tick(r),
            Action::Claim(r, how) => self.claim(r, how),
            Action::Sweep(r) => self.sweep(r),
            Action::Join(r) => {
                let (id, mark) = (self.new_id(), self.new_mark());
                let born = self.change(|table| table.join(&id, &mark));
                let replica = &mut self.replicas[r];
                (replica.id, replica.born) = (Some(id), born);
            }
            Action::Bury(_, dead) => {
                let beat = self.redis.beats().get(&dead).copied().unwrap_or_default();
                self.change(|table| table.bury(&dead, beat, 0));
            }
            Action::Freeze(r) => self.replicas[r].is_frozen = true,
            Action::Arrive(index) => {
                let command = self.late.remove(index);
                self.execute(&command, true);
            }
            Action::Restart(r) => self.replicas[r] = Replica::restarted(),
            Action::Resume(r) => (self.replicas[r].is_paused, self.replicas[r].is_frozen) = (false, true),
            Action::Heal(r) => self.replicas[r].is_cut = false,
            Action::Befall(fault, r) => self.befall(fault, r),
        }
        if !self.left.has(Fault::Failover) {
            self.copy = None;
        }
        self.forget_what_decides_nothing();
        true
    }

    fn befall(&mut self, fault: Fault, r: usize) {
        let replica = &mut self.replicas[r];
        match fault {
            Fault::Crash => *replica = Replica::dead(None),
            Fault::Pause => replica.is_paused = true,
            Fault::Cut => {
                replica.is_cut = true;
                if let Some(feed) = &mut replica.feed {
                    feed.heard = None;
                }
            }
            Fault::Failover => {
                if let Some(copy) = self.copy.take() {
                    self.redis = copy;
                }
                (self.seen.begun, self.seen.has_forgotten) = (0, true);
                self.copy = self.left.has(Fault::Failover).then(|| self.redis.clone());
            }
            Fault::Emptied => {
                self.redis = coordination::table::Table::default();
                (self.seen.begun, self.seen.has_forgotten) = (0, true);
                self.copy = self.copy.is_some().then(coordination::table::Table::default);
            }
            Fault::AnswerLost | Fault::Late | Fault::Twice | Fault::HintLost => {}
        }
    }

    fn prompt(&mut self, r: usize) {
        self.left.prompts -= 1;
        self.depose();
        let mut head = self.store.head.head();
        let was_open = head.is_open();
        let k = head.issue() as u8;
        self.store.head = Facts::of(&head);
        self.seen.acknowledged = k;
        let number = self.store.run;
        self.enter(r, k, was_open, Some(number));
    }

    /// Somebody waits on a replica, and has heard nothing for a while.
    fn wait(&mut self, r: usize, upto: u8) {
        if Waiting::decide(&self.store.head.head(), upto.into(), true) == Waiting::Enter {
            self.enter(r, upto, true, None);
        }
    }

    fn enter(&mut self, r: usize, ticket: u8, was_open: bool, number: Option<u64>) {
        let attempt = self.new_attempt();
        let (entering, next) = Entering::begin(was_open, number, ENTERS, false);
        self.replicas[r].tasks.push(Task::Enter { attempt, ticket, was_open, entering, next });
    }

    fn abort(&mut self, r: usize, flaw: Option<Flaw>) {
        self.left.aborts -= 1;
        self.depose();
        let mut head = self.store.head.head();
        let Some(stopped) = head.abort(None).upto else { return };
        self.seen.aborted |= upto(stopped) & !upto(head.settled);
        if flaw != Some(Flaw::CancelByHintOnly) {
            self.store.head = Facts::of(&head);
        }
        for run in &mut self.replicas[r].runs {
            run.is_poked = true;
        }
        self.replicas[r].tasks.push(Task::Poke { upto: stopped as u8 });
    }

    fn task(&mut self, r: usize, index: usize, how: How, flaw: Option<Flaw>) {
        let (id, born) = (self.replicas[r].id, self.replicas[r].born);
        match self.replicas[r].tasks.remove(index) {
            Task::Enter { attempt, ticket, was_open, mut entering, next } => {
                let input = match next {
                    Enter::ReadNumber => EnterInput::Number(Some(self.store.run)),
                    _ => {
                        let Some(replica) = id else { return };
                        let wish = Command::Enter { replica, born, attempt, ticket };
                        EnterInput::Asked(match self.call(r, &wish, how) {
                            Some(Answer::Entered(Entered::Won)) => Asked::Won,
                            Some(Answer::Reborn) => Asked::Unknown,
                            None if self.reaches(r) => Asked::Unknown,
                            // Another works; or Redis is away for long, and the sweep finds the ticket.
                            _ => Asked::Others,
                        })
                    }
                };
                let next = match entering.next(input) {
                    Enter::Wait { .. } => entering.next(EnterInput::Waited { awaits_owners: false }),
                    next => next,
                };
                match next {
                    Enter::Run(entry) => self.replicas[r].spawn(attempt, entry),
                    Enter::End => {}
                    next => {
                        let again = Task::Enter { attempt, ticket, was_open, entering, next };
                        self.replicas[r].tasks.insert(index, again);
                    }
                }
            }
            Task::Poke { upto } => {
                self.call(r, &Command::Poke, how);
                self.wait(r, upto);
            }
            Task::Delete(mut deletion) => {
                if self.delete_on(r, &mut deletion, how, flaw) == Some(false) {
                    self.replicas[r].tasks.insert(index, Task::Delete(deletion));
                }
            }
        }
    }

    fn chore(&mut self, r: usize, how: How) {
        let Some(replica) = self.replicas[r].id else { return };
        match self.replicas[r].chores.remove(0) {
            Chore::Adopt { attempt, fence } => {
                if !fence.holds(self.store.run) {
                    // Others have been there since.
                    return self.lose(r, attempt);
                }
                // Unanswered: the next beat finds that the count differs.
                if let Some(Answer::Adopted(adopted)) = self.call(r, &Command::Adopt { replica, attempt, fence }, how) {
                    let here = self.replicas[r].run_here();
                    let still_works = here.is_some_and(|run| run.attempt == attempt && run.life.fence() == Some(fence));
                    match Adoption::decide(adopted, still_works) {
                        Adoption::Keep => {}
                        Adoption::HandOver => self.replicas[r].chores.push(Chore::HandOver { attempt }),
                        Adoption::Lose => self.lose(r, attempt),
                    }
                }
            }
            Chore::HandOver { attempt } => {
                self.call(r, &Command::HandOver { attempt, end: End::HandOver }, how);
            }
        }
    }

    fn lose(&mut self, r: usize, attempt: AttemptName) {
        for run in self.replicas[r].runs.iter_mut().filter(|run| run.attempt == attempt) {
            run.is_lost = true;
        }
    }

    fn tick(&mut self, r: usize) {
        let Some(id) = self.replicas[r].id else { return };
        // There is one session.
        let here = u64::from(!self.replicas[r].runs.is_empty());
        match Duty::decide(self.beat(r, id), here) {
            Duty::LookByThemselves => {
                for run in self.replicas[r].runs.iter_mut().filter(|run| run.life.fence().is_some()) {
                    run.is_poked = true;
                }
            }
            Duty::JoinAgain(Some(mark)) => {
                self.replicas[r].born = mark;
                self.adopt_all(r);
            }
            Duty::JoinAgain(None) => {
                let (new, born) = (self.new_id(), self.replicas[r].born);
                self.replicas[r].id = Some(new);
                self.change(|table| table.join(&new, &born));
                self.adopt_all(r);
            }
            Duty::GoOn { claims: _, amends } => {
                self.replicas[r].is_frozen = false;
                let log = self.log;
                if let Some(feed) = self.replicas[r].feed.as_mut().filter(|feed| feed.next == Follow::Listen) {
                    feed.read_on(log);
                }
                let pokes = self.redis.news(&id, &[]).pokes;
                if !pokes.is_empty() {
                    self.change(|table| table.news(&id, &pokes));
                    if let Some(run) = self.replicas[r].runs.last_mut() {
                        run.is_poked = true;
                    }
                }
                if amends {
                    self.reconcile(r);
                }
            }
        }
    }

    /// How a beat is answered. That something is due is no news here: it is claimed at any moment.
    fn beat(&mut self, r: usize, id: ReplicaName) -> Beaten<u8> {
        let (born, mark) = (self.replicas[r].born, self.new_mark());
        if self.replicas[r].is_cut {
            Beaten::Unanswered
        } else if let Some(mark) = self.change(|table| table.reborn(&born, &id, || mark)) {
            Beaten::Reborn(mark)
        } else if !self.redis.beats().contains_key(&id) {
            Beaten::Buried
        } else {
            let news = self.redis.news(&id, &[]);
            let is_mistaken = !news.pokes.is_empty() && self.replicas[r].runs.is_empty();
            Beaten::Alive { owned: news.owned, due: news.due, is_mistaken }
        }
    }

    fn adopt_all(&mut self, r: usize) {
        let here = self.replicas[r].run_here();
        let begun = here.and_then(|run| Some(Chore::Adopt { attempt: run.attempt, fence: run.life.fence()? }));
        self.replicas[r].chores.extend(begun);
    }

    fn reconcile(&mut self, r: usize) {
        let replica = &self.replicas[r];
        let owned = self.holder().filter(|(owner, _)| Some(*owner) == replica.id);
        let here = replica.run_here();
        let run = here.map_or(RunHere::No, |run| run.life.fence().map_or(RunHere::WithoutLease, RunHere::Works));
        let chore = match (Amends::decide(owned.is_some(), run), owned, here) {
            (Amends::HandOver, Some((_, attempt)), _) => Chore::HandOver { attempt },
            (Amends::Adopt(fence), _, Some(run)) => Chore::Adopt { attempt: run.attempt, fence },
            _ => return,
        };
        self.replicas[r].chores.push(chore);
    }

    /// Goes through the markers: of the newest ticket, or of the deletion.
    fn sweep(&mut self, r: usize) {
        let (head, born) = (self.store.head.head(), self.replicas[r].born);
        let marker = head.is_live().then_some(head.issued);
        if let Sweep::Work { is_aborted } = Sweep::decide(&head, marker) {
            self.execute(&Command::EnsureDue { born }, true);
            if is_aborted {
                self.execute(&Command::Poke, true);
            }
        }
    }

    fn claim(&mut self, r: usize, how: How) {
        let Some(replica) = self.replicas[r].id else { return };
        let (born, attempt) = (self.replicas[r].born, self.new_attempt());
        if self.call(r, &Command::Claim { replica, born, attempt }, how) == Some(Answer::Yes(true)) {
            self.replicas[r].spawn(attempt, Entry::Claimed);
        }
    }
}
