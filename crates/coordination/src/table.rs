//! Who works for what, as a plain value: beats, leases and pokes, without a clock, a channel or a log. The in-process
//! backend keeps one behind a mutex; a model checker holds, copies and compares them. Redis answers the same to the same
//! operations.

use crate::leases::{Adopted, BUSY, Entered, Former, Released};
use run_protocol::Fence;
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::hash::Hash;

/// What a name can do.
pub trait Name: Clone + Ord + Hash + Debug {}

impl<T: Clone + Ord + Hash + Debug> Name for T {}

/// The names that a table speaks of.
pub trait Names: Clone + Ord + Hash + Debug {
    /// A replica.
    type Replica: Name;
    /// A session.
    type Session: Name;
    /// An attempt to become a session's runner.
    type Attempt: Name;
    /// The mark of a table that remembers.
    type Mark: Name;
}

/// The names of the ports.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortNames;

impl Names for PortNames {
    type Replica = crate::ReplicaId;
    type Session = crate::SessionKey;
    type Attempt = crate::Attempt;
    type Mark = crate::Born;
}

/// Beats, leases and pokes. What is derived (who owns what, what is due) is kept in one place only: the lease. Moments are
/// milliseconds of one clock, the keeper's.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Table<N: Names> {
    born: Option<N::Mark>,
    beats: BTreeMap<N::Replica, u64>,
    leases: BTreeMap<N::Session, Lease<N>>,
    trials: BTreeMap<N::Replica, N::Session>,
    pokes: BTreeMap<N::Replica, BTreeMap<N::Session, u64>>,
    /// The newest fence of each session that began, and when, whether its lease is still there or not: no older one begins.
    begun: BTreeMap<N::Session, (Fence, u64)>,
}

/// One lease. There is no abort flag: in one process nobody but its owner could read it, and the owner is poked.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Lease<N: Names> {
    /// Who has it.
    pub holder: Holder<N>,
    /// The fence that its owner works under, or its last one did.
    pub fence: Option<Fence>,
    /// The newest ticket that its owner was told of.
    pub want: u64,
    /// How the attempt before ended.
    pub former: Former,
    /// The session's status, as JSON.
    pub status: Cow<'static, str>,
}

/// Who has a lease.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Holder<N: Names> {
    /// A replica, by an attempt of its.
    Owner(N::Replica, N::Attempt),
    /// Nobody: it may be claimed from this moment on.
    Nobody(u64),
}

/// What is to be said over the control channels.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Told<N: Names> {
    /// To one replica: look at the store for this session.
    Poke(N::Replica, N::Session, Option<Fence>),
    /// To all: leases are due.
    Wake,
}

/// A wish that somebody becomes a session's runner, beside who wishes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Wish {
    /// The newest ticket that it is about.
    pub ticket: u64,
    /// The wisher leaves: another is to run.
    pub for_others: bool,
}

/// What a lease that is to begin answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begun {
    /// It begins: what this call says is said.
    First,
    /// It had begun by the same call.
    Again,
    /// It is not this attempt's, or a newer fence has begun.
    NotMine,
}

/// What a replica that lives is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct News<N: Names> {
    /// How many leases it owns.
    pub owned: u64,
    /// What it was poked for, and how often.
    pub pokes: Vec<(N::Session, u64)>,
    /// How many leases wait for an owner.
    pub due: u64,
}

impl<N: Names> Default for Table<N> {
    fn default() -> Self {
        Self {
            born: None,
            beats: BTreeMap::new(),
            leases: BTreeMap::new(),
            trials: BTreeMap::new(),
            pokes: BTreeMap::new(),
            begun: BTreeMap::new(),
        }
    }
}

impl<N: Names> Lease<N> {
    fn new(holder: Holder<N>) -> Self {
        Self { holder, fence: None, want: 0, former: Former::default(), status: BUSY.into() }
    }

    fn is_of(&self, attempt: &N::Attempt) -> bool {
        matches!(&self.holder, Holder::Owner(_, own) if own == attempt)
    }

    /// The replica that has it.
    pub fn owner(&self) -> Option<&N::Replica> {
        match &self.holder {
            Holder::Owner(replica, _) => Some(replica),
            Holder::Nobody(_) => None,
        }
    }
}

impl<N: Names> Table<N> {
    /// Enters a replica into the fleet. `proposal` becomes the mark if there is none; returns the mark.
    pub fn join(&mut self, replica: &N::Replica, proposal: &N::Mark) -> N::Mark {
        self.beats.entry(replica.clone()).or_insert(0);
        self.born.get_or_insert_with(|| proposal.clone()).clone()
    }

    /// The mark to report if the caller knows another one. Who is told is entered into the new fleet at once, so that
    /// what it adopts there can be buried.
    pub fn reborn(
        &mut self,
        known: &N::Mark,
        replica: &N::Replica,
        proposal: impl FnOnce() -> N::Mark,
    ) -> Option<N::Mark> {
        let born = self.born.get_or_insert_with(proposal).clone();
        if born == *known {
            return None;
        }
        self.beats.entry(replica.clone()).or_insert(0);
        Some(born)
    }

    /// Notes which run of a replica is on trial.
    pub fn set_trial(&mut self, replica: &N::Replica, run: Option<&N::Session>) {
        match run {
            Some(run) => drop(self.trials.insert(replica.clone(), run.clone())),
            None => drop(self.trials.remove(replica)),
        }
    }

    /// Beats. False: somebody buried it.
    pub fn beat(&mut self, replica: &N::Replica) -> bool {
        self.beats.get_mut(replica).map(|beat| *beat += 1).is_some()
    }

    /// What a replica that lives is told; what it has acted on it is not told again.
    pub fn news(&mut self, replica: &N::Replica, acknowledged: &[(N::Session, u64)]) -> News<N> {
        if let Some(pokes) = self.pokes.get_mut(replica) {
            pokes.retain(|key, count| !acknowledged.iter().any(|(acked, seen)| acked == key && seen == count));
        }
        let pokes = self.pokes.get(replica).into_iter().flatten();
        News {
            owned: self.owned(replica).len() as u64,
            pokes: pokes.map(|(key, count)| (key.clone(), *count)).collect(),
            due: self.leases.values().filter(|lease| lease.owner().is_none()).count() as u64,
        }
    }

    /// All beats.
    pub fn beats(&self) -> &BTreeMap<N::Replica, u64> {
        &self.beats
    }

    /// The mark.
    pub fn born(&self) -> Option<&N::Mark> {
        self.born.as_ref()
    }

    /// What replicas were poked for and have not acted on, and how often.
    pub fn pokes(&self) -> &BTreeMap<N::Replica, BTreeMap<N::Session, u64>> {
        &self.pokes
    }

    /// Declares a replica dead if its beat is still this one. Returns how many leases it had.
    pub fn bury(&mut self, replica: &N::Replica, beat: u64, now: u64) -> Option<u64> {
        if self.beats.get(replica).is_some_and(|own| *own != beat) {
            return None;
        }
        self.beats.remove(replica);
        self.pokes.remove(replica);
        let trial = self.trials.remove(replica);
        let mut count = 0;
        for (key, lease) in self.leases.iter_mut().filter(|(_, lease)| lease.owner() == Some(replica)) {
            lease.holder = Holder::Nobody(now);
            let is_spared = trial.as_ref().is_some_and(|trial| trial != key);
            lease.former = if is_spared { Former::Spared } else { Former::Failed };
            count += 1;
        }
        Some(count)
    }

    /// The sessions that a replica owns.
    pub fn owned(&self, replica: &N::Replica) -> BTreeSet<N::Session> {
        self.leases.iter().filter(|(_, lease)| lease.owner() == Some(replica)).map(|(key, _)| key.clone()).collect()
    }

    /// A session's lease.
    pub fn lease(&self, key: &N::Session) -> Option<&Lease<N>> {
        self.leases.get(key)
    }

    /// All leases.
    pub fn leases(&self) -> &BTreeMap<N::Session, Lease<N>> {
        &self.leases
    }

    /// Sets a lease's status.
    pub fn set_status(&mut self, key: &N::Session, status: &str) {
        if let Some(lease) = self.leases.get_mut(key) {
            lease.status = Cow::Owned(status.to_owned());
        }
    }

    /// True unless what a runner says under this fence is refused, since the session's lease bears another.
    pub fn admits(&self, key: Option<&N::Session>, fence: Option<Fence>) -> bool {
        fence.is_none() || fence == key.and_then(|key| self.leases.get(key)).and_then(|lease| lease.fence)
    }

    /// Asks for a session's lease. Of a caller that knows the mark.
    pub fn enter(
        &mut self,
        replica: &N::Replica,
        key: &N::Session,
        attempt: &N::Attempt,
        wish: Wish,
        now: u64,
    ) -> (Entered, Option<Told<N>>) {
        let may_own = !wish.for_others && self.beats.contains_key(replica);
        let lease = self.leases.get_mut(key);
        if lease.as_ref().is_some_and(|lease| lease.is_of(attempt)) {
            return (Entered::Won, None);
        }
        if let Some(lease) = lease.filter(|lease| lease.owner().is_some()) {
            lease.want = lease.want.max(wish.ticket);
            return (Entered::Waiting, self.poke(key));
        }
        let lease = self.leases.entry(key.clone()).or_insert_with(|| Lease::new(Holder::Nobody(now)));
        lease.want = lease.want.max(wish.ticket);
        if may_own {
            lease.holder = Holder::Owner(replica.clone(), attempt.clone());
            return (Entered::Won, None);
        }
        (Entered::Waiting, Some(Told::Wake))
    }

    /// True while the lease bears this attempt.
    pub fn confirm(&self, key: &N::Session, attempt: &N::Attempt) -> bool {
        self.leases.get(key).is_some_and(|lease| lease.is_of(attempt))
    }

    /// Begins to work under a fence. A wish that arrives late gives an attempt its lease back after another has done the whole
    /// work: the fence of that one is newer.
    pub fn begin(&mut self, key: &N::Session, attempt: &N::Attempt, fence: Fence, now: u64) -> Begun {
        let is_outrun = self.is_outrun(key, fence);
        // A lease that was adopted bears its fence before it begins.
        let has_begun = self.begun.get(key).is_some_and(|(newest, _)| *newest == fence);
        match self.lease_of(key, attempt).filter(|_| !is_outrun) {
            None => Begun::NotMine,
            Some(lease) if lease.fence == Some(fence) && has_begun => Begun::Again,
            Some(lease) => {
                lease.fence = Some(fence);
                lease.status = BUSY.into();
                self.begun.insert(key.clone(), (fence, now));
                Begun::First
            }
        }
    }

    fn is_outrun(&self, key: &N::Session, fence: Fence) -> bool {
        self.begun.get(key).is_some_and(|(newest, _)| fence < *newest)
    }

    /// Forgets which fences began before a moment.
    pub fn forget_begun(&mut self, before: u64) {
        self.begun.retain(|_, (_, at)| *at >= before);
    }

    /// The newest fence of each session that began, and when.
    pub fn begun(&self) -> &BTreeMap<N::Session, (Fence, u64)> {
        &self.begun
    }

    /// What giving the lease back would answer.
    pub fn may_release(&self, key: &N::Session, attempt: &N::Attempt, seen: u64) -> Released {
        match self.leases.get(key).filter(|lease| lease.is_of(attempt)) {
            None => Released::Gone,
            Some(lease) if lease.want > seen => Released::More,
            Some(_) => Released::Done,
        }
    }

    /// Gives the lease back if nothing newer than `seen` wants work.
    pub fn release(&mut self, key: &N::Session, attempt: &N::Attempt, seen: u64) -> Released {
        let released = self.may_release(key, attempt, seen);
        if released == Released::Done {
            self.leases.remove(key);
        }
        released
    }

    /// Gives the lease away, if it is this attempt's: due from a moment on.
    pub fn hand_over(&mut self, key: &N::Session, attempt: &N::Attempt, due: u64, failed: bool) -> Option<Told<N>> {
        let lease = self.lease_of(key, attempt)?;
        lease.holder = Holder::Nobody(due);
        lease.former = if failed { Former::Failed } else { Former::HandedOver };
        Some(Told::Wake)
    }

    /// How the attempt before the one that has the lease ended.
    pub fn former(&self, key: &N::Session) -> Former {
        self.lease(key).map(|lease| lease.former).unwrap_or_default()
    }

    /// Takes the own lease back.
    pub fn adopt(&mut self, key: &N::Session, replica: &N::Replica, attempt: &N::Attempt, fence: Fence) -> Adopted {
        let holder = Holder::Owner(replica.clone(), attempt.clone());
        let is_outrun = self.is_outrun(key, fence);
        match self.leases.get_mut(key) {
            None if is_outrun => return Adopted::Lost,
            None => {
                self.leases.insert(key.clone(), Lease { fence: Some(fence), ..Lease::new(holder) });
            }
            Some(lease) if lease.is_of(attempt) => {
                lease.holder = holder;
                // A failover may have lost that it began: what it says would be refused.
                if !is_outrun {
                    lease.fence = Some(fence);
                }
            }
            Some(lease) if lease.owner().is_none() && lease.fence == Some(fence) => lease.holder = holder,
            Some(_) => return Adopted::Lost,
        }
        // Whoever owns a lease has a beat, else nobody could bury it.
        self.beats.entry(replica.clone()).or_insert(0);
        Adopted::Mine
    }

    /// Takes leases that are due, one per attempt.
    pub fn claim(
        &mut self,
        replica: &N::Replica,
        born: &N::Mark,
        attempts: &[N::Attempt],
        now: u64,
    ) -> Vec<(N::Session, N::Attempt)> {
        if self.born.as_ref() != Some(born) || !self.beats.contains_key(replica) {
            return Vec::new();
        }
        let mut claimed = Vec::new();
        let mut due = Vec::new();
        for (key, lease) in &self.leases {
            match &lease.holder {
                Holder::Owner(owner, attempt) if owner == replica && attempts.contains(attempt) => {
                    claimed.push((key.clone(), attempt.clone()));
                }
                Holder::Nobody(from) if *from <= now => due.push((*from, key.clone())),
                _ => {}
            }
        }
        due.sort();
        let used: Vec<_> = claimed.iter().map(|(_, attempt)| attempt.clone()).collect();
        let unused = attempts.iter().filter(|attempt| !used.contains(attempt));
        for ((_, key), attempt) in due.into_iter().zip(unused) {
            if let Some(lease) = self.leases.get_mut(&key) {
                lease.holder = Holder::Owner(replica.clone(), attempt.clone());
                claimed.push((key, attempt.clone()));
            }
        }
        claimed
    }

    /// Whether this is the table that bears the mark.
    pub fn bears(&self, mark: &N::Mark) -> bool {
        self.born.as_ref() == Some(mark)
    }

    /// Where no lease exists, makes an ownerless one that is due.
    pub fn ensure_due(&mut self, key: &N::Session, born: &N::Mark, now: u64) -> Option<Told<N>> {
        if !self.bears(born) || self.leases.contains_key(key) {
            return None;
        }
        self.leases.insert(key.clone(), Lease::new(Holder::Nobody(now)));
        Some(Told::Wake)
    }

    /// Tells a session's owner, if it has one, to look at the store.
    pub fn poke(&mut self, key: &N::Session) -> Option<Told<N>> {
        let lease = self.leases.get(key)?;
        let owner = lease.owner()?.clone();
        *self.pokes.entry(owner.clone()).or_default().entry(key.clone()).or_default() += 1;
        Some(Told::Poke(owner, key.clone(), lease.fence))
    }

    /// Drops a lease.
    pub fn forget(&mut self, key: &N::Session) {
        self.leases.remove(key);
    }

    fn lease_of(&mut self, key: &N::Session, attempt: &N::Attempt) -> Option<&mut Lease<N>> {
        self.leases.get_mut(key).filter(|lease| lease.is_of(attempt))
    }
}
