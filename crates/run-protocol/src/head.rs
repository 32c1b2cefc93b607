//! A session's head: what work was given out, what of it is dealt with, and whether the session lives.

use crate::life::Former;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use wire::ids::MessageId;
use wire::message::Tokens;

/// The one record that says what a session owes. Changed only under the head guard.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Head {
    /// The format of this record. A newer one is refused.
    pub format: u32,
    /// The project that the session's record is filed under.
    pub project: String,
    /// Tickets given out.
    pub issued: u64,
    /// Tickets dealt with: answered, failed or dropped.
    pub settled: u64,
    /// Tickets aborted up to here.
    pub stopped: u64,
    /// Attempts since the last completed step.
    pub tries: u32,
    /// Attempts since then that ended with their replica, but were blamed on another run.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub spared: u32,
    /// The newest created time that was reserved, in milliseconds: a conversation never goes back in time.
    pub clock: u64,
    /// Grows with each head commit.
    pub rev: u64,
    /// Whether the session lives.
    pub state: HeadState,
    /// How the newest runs ended, oldest first: what their callers are answered.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub endings: Vec<Ended>,
    /// What the session's steps used so far. Kept here because the head is written last: a commit that is done again
    /// after half of it landed adds nothing twice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spent: Option<Spent>,
    /// The wait that the newest step is in because its model failed: whoever goes on waits for the rest of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<Retry>,
    /// What is to be done before anything else, by whoever has the session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub intent: Option<Intent>,
    /// The names of the newest requests that changed something in this session, oldest first: sent again, they change
    /// nothing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub applied: Vec<String>,
    /// The messages that the newest head commits wrote: who knows the conversation looks at no others again.
    #[serde(default)]
    pub changes: Changes,
    /// Fields that a later version added.
    #[serde(flatten)]
    pub extra: serde_json::Map<String, Value>,
}

/// Work on a session that changes its conversation or its files as a whole: no run is under way meanwhile, and what it is
/// about is stored beside the head. Whoever does it may die in it; the next one does it again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Intent {
    /// The ticket that it was given.
    pub ticket: u64,
    /// What is done.
    pub kind: IntentKind,
}

/// What an intent is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum IntentKind {
    /// Going back in the conversation.
    Revert,
    /// Taking that back.
    Unrevert,
}

/// Which messages head commits wrote, and when.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changes {
    /// All are here that were written after this rev.
    since: u64,
    /// And up to this one: a replica that does not know of this list leaves it behind.
    upto: u64,
    /// The messages and the rev of the newest commit that wrote them or their parts, oldest first.
    messages: Vec<(MessageId, u64)>,
}

/// A wait before a model is asked again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retry {
    /// The attempts that failed.
    pub attempt: u32,
    /// Why the newest did.
    pub message: String,
    /// How long the wait was to be, in milliseconds.
    pub delay: u64,
    /// When it was to end, in milliseconds since the epoch, by the clock of who began it.
    pub next: u64,
}

impl Retry {
    /// How long is still to be waited, in milliseconds. Another clock may be wrong: never longer than the whole wait.
    pub fn left(&self, now_ms: u64) -> u64 {
        self.next.saturating_sub(now_ms).min(self.delay)
    }
}

/// Sums over a session's steps.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Spent {
    /// Dollars.
    pub cost: f64,
    /// Tokens.
    pub tokens: Tokens,
}

impl Spent {
    /// Adds a step.
    pub fn add(&mut self, step: &Spent) {
        self.cost += step.cost;
        // Clients and providers may say any number.
        let more = |sum: &mut u64, step: u64| *sum = sum.saturating_add(step);
        more(&mut self.tokens.input, step.tokens.input);
        more(&mut self.tokens.output, step.tokens.output);
        more(&mut self.tokens.reasoning, step.tokens.reasoning);
        more(&mut self.tokens.cache.read, step.tokens.cache.read);
        more(&mut self.tokens.cache.write, step.tokens.cache.write);
    }

    /// Takes a step away that was added before.
    pub fn take(&mut self, step: &Spent) {
        // In billionths of a dollar: what is taken away leaves no rounding noise behind.
        self.cost = (((self.cost - step.cost) * 1e9).round() / 1e9).max(0.0);
        let less = |sum: &mut u64, step: u64| *sum = sum.saturating_sub(step);
        less(&mut self.tokens.input, step.tokens.input);
        less(&mut self.tokens.output, step.tokens.output);
        less(&mut self.tokens.reasoning, step.tokens.reasoning);
        less(&mut self.tokens.cache.read, step.tokens.cache.read);
        less(&mut self.tokens.cache.write, step.tokens.cache.write);
    }
}

/// Whether a session lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HeadState {
    /// It does.
    Live,
    /// It was deleted; its records may still be there.
    Deleted,
    /// It was deleted, and its records are gone.
    Removed,
}

impl Head {
    /// The format that this version writes.
    pub const FORMAT: u32 = 1;

    /// The head of a session that has done nothing yet.
    pub fn new(project: impl Into<String>) -> Self {
        Self {
            format: Self::FORMAT,
            project: project.into(),
            issued: 0,
            settled: 0,
            stopped: 0,
            tries: 0,
            spared: 0,
            clock: 0,
            rev: 0,
            state: HeadState::Live,
            endings: Vec::new(),
            spent: None,
            retry: None,
            intent: None,
            applied: Vec::new(),
            changes: Changes::default(),
            extra: serde_json::Map::new(),
        }
    }

    /// True while somebody must still work for this session.
    pub fn is_open(&self) -> bool {
        match self.state {
            HeadState::Live => self.issued > self.settled,
            HeadState::Deleted => true,
            HeadState::Removed => false,
        }
    }

    /// True unless the session was deleted.
    pub fn is_live(&self) -> bool {
        self.state == HeadState::Live
    }

    /// Gives out the next ticket and returns its number.
    pub fn issue(&mut self) -> u64 {
        self.issued += 1;
        self.issued
    }

    /// Reserves a created time: at least `now`, and later than every one reserved before.
    pub fn reserve_time(&mut self, now_ms: u64) -> u64 {
        self.clock = now_ms.max(self.clock + 1);
        self.clock
    }

    /// Aborts what is open. Returns the ticket up to which it was aborted, or nothing if nothing was open.
    fn stop(&mut self) -> Option<u64> {
        if self.is_live() && self.is_open() {
            self.stopped = self.issued;
            Some(self.stopped)
        } else {
            None
        }
    }

    /// Takes in the abort that a request of this name asks for.
    pub fn abort(&mut self, name: Option<&str>) -> Abort {
        if !self.apply_once(name) {
            // Sent again: what was asked after it is not meant.
            return Abort { upto: (self.settled < self.stopped).then_some(self.stopped), changes: false };
        }
        let upto = self.stop();
        // Noted though nothing is open: the same request may not stop what is asked next.
        Abort { upto, changes: upto.is_some() || name.is_some() }
    }

    /// Deals with every ticket up to `ticket`, with the same answer for all of them. Never goes back.
    pub fn settle(&mut self, ticket: u64, answer: TicketAnswer) {
        let upto = ticket.min(self.issued);
        if upto > self.settled {
            self.settled = upto;
            self.endings.push(Ended { upto, answer, extra: serde_json::Map::new() });
            let surplus = self.endings.len().saturating_sub(KEPT_ENDINGS);
            self.endings.drain(..surplus);
        }
        self.end_step();
    }

    /// Notes that a step came to its end: what its attempts left is of no more interest.
    pub fn end_step(&mut self) {
        self.tries = 0;
        self.spared = 0;
        self.retry = None;
    }

    /// Counts an attempt that follows one which did not complete a step; `spared`: another run was to blame. That is believed
    /// so often only, else a run that kills its replicas slowly could go on for ever.
    pub fn count_attempt(&mut self, spared: bool) {
        if spared && self.spared < MOST_SPARED {
            self.spared += 1;
        } else {
            self.tries += 1;
        }
    }

    /// Counts an attempt that follows one which ended so. That it was handed over is no failure.
    pub fn count_after(&mut self, former: Former) {
        match former {
            Former::HandedOver => {}
            Former::Failed => self.count_attempt(false),
            Former::Spared => self.count_attempt(true),
        }
    }

    /// Notes that the request of this name takes effect with this commit. False if it did before. A request without a name
    /// always does.
    pub fn apply_once(&mut self, name: Option<&str>) -> bool {
        let Some(name) = name else { return true };
        if self.applied.iter().any(|applied| applied == name) {
            return false;
        }
        self.applied.push(name.to_owned());
        let surplus = self.applied.len().saturating_sub(KEPT_NAMES);
        self.applied.drain(..surplus);
        true
    }

    /// Notes which messages the commit of this `rev` writes.
    pub fn note_changes<'a>(&mut self, written: impl Iterator<Item = &'a MessageId>) {
        let Changes { since, upto, messages } = &mut self.changes;
        if *upto + 1 != self.rev {
            messages.clear();
            *since = self.rev.saturating_sub(1);
        }
        *upto = self.rev;
        for id in written {
            messages.retain(|(known, _)| known != id);
            messages.push((id.clone(), self.rev));
        }
        let surplus = messages.len().saturating_sub(KEPT_CHANGES);
        if let Some((_, rev)) = messages.drain(..surplus).next_back() {
            *since = rev;
        }
    }

    /// The messages that head commits wrote since the one of `rev`; none if that is not known.
    pub fn changed_since(&self, rev: u64) -> Option<impl Iterator<Item = &MessageId>> {
        let Changes { since, upto, messages } = &self.changes;
        let is_known = *upto == self.rev && rev >= *since;
        is_known.then(|| messages.iter().filter(move |(_, at)| *at > rev).map(|(id, _)| id))
    }

    /// How the run ended that settled this ticket; none if it is open, or if that was too long ago.
    pub fn ending(&self, ticket: u64) -> Option<&TicketAnswer> {
        // Where older ones are dropped, nobody knows which of the tickets before its newest the oldest one settled.
        let oldest = self.endings.first().filter(|_| self.endings.len() >= KEPT_ENDINGS);
        if oldest.is_some_and(|oldest| ticket < oldest.upto) {
            return None;
        }
        self.endings.iter().find(|ended| ended.upto >= ticket).map(|ended| &ended.answer)
    }
}

/// A caller waits for its ticket from the moment it is given out, so only the newest endings are asked for.
const KEPT_ENDINGS: usize = 32;

/// A turn writes its prompt; replicas that are asked in turn see each other's turns.
const KEPT_CHANGES: usize = 16;

/// So often in a row a run is not blamed for the death of its replica.
const MOST_SPARED: u32 = 8;

/// A request is sent again within moments, and its outcome is then recorded by itself: only the newest names are asked for.
const KEPT_NAMES: usize = 32;

fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// What an abort comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Abort {
    /// The ticket up to which it reaches; none if nothing is open.
    pub upto: Option<u64>,
    /// Whether the head is another than before.
    pub changes: bool,
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ended {
    /// The newest ticket that it settled.
    pub upto: u64,
    /// What the callers of all of them are answered.
    pub answer: TicketAnswer,
    /// Fields that a later version added.
    #[serde(flatten)]
    pub extra: serde_json::Map<String, Value>,
}

/// A piece of open work that somebody waits for. The record that makes a prompt sure to be answered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ticket {
    /// Its number in the session.
    pub k: u64,
    /// What was asked, so that the same id with another body is refused.
    pub body_hash: String,
    /// What kind of work it is.
    pub kind: TicketKind,
    /// What is run, for the kind that runs something.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
    /// Fields that a later version added.
    #[serde(flatten)]
    pub extra: serde_json::Map<String, Value>,
}

/// What kind of work a ticket stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TicketKind {
    /// A message to be answered.
    Prompt,
    /// A command to be run; no model is asked.
    Shell,
}

/// How a ticket was settled.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum TicketAnswer {
    /// Answered by this message.
    Message {
        /// The message's id.
        id: String,
    },
    /// The run could not even begin to answer: what the caller is told.
    Failed {
        /// Why.
        message: String,
    },
    /// Aborted before a run took it up.
    Dropped,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_never_goes_back() {
        let mut head = Head::new("p");
        assert_eq!(head.reserve_time(100), 100);
        assert_eq!(head.reserve_time(50), 101);
        assert_eq!(head.reserve_time(500), 500);
    }

    #[test]
    fn a_wait_is_never_longer_than_it_was_to_be() {
        let retry = Retry { attempt: 1, message: String::new(), delay: 500, next: 10_000 };
        assert_eq!(retry.left(9_800), 200);
        assert_eq!(retry.left(20_000), 0);
        assert_eq!(retry.left(1), 500, "this clock is far behind");
        let mut head = Head::new("p");
        head.retry = Some(retry);
        head.end_step();
        assert_eq!(head.retry, None);
    }

    #[test]
    fn a_named_request_takes_effect_once() {
        let mut head = Head::new("p");
        assert!(head.apply_once(None) && head.apply_once(None));
        assert!(head.apply_once(Some("a")));
        assert!(!head.apply_once(Some("a")));
        assert!((0..KEPT_NAMES).all(|number| head.apply_once(Some(&number.to_string()))));
        assert_eq!(head.applied.len(), KEPT_NAMES);
        assert_eq!(head.applied.last().map(String::as_str), Some("31"));
    }

    #[test]
    fn what_commits_wrote_is_known_for_a_while() {
        let id = |number: u64| MessageId::parse(&format!("msg_{number}")).unwrap();
        let mut head = Head::new("p");
        let commit = |head: &mut Head, written: &[u64]| {
            head.rev += 1;
            let written: Vec<MessageId> = written.iter().map(|number| id(*number)).collect();
            head.note_changes(written.iter());
        };
        let since =
            |head: &Head, rev: u64| -> Option<Vec<MessageId>> { Some(head.changed_since(rev)?.cloned().collect()) };
        assert_eq!(since(&head, 0), Some(vec![]));
        commit(&mut head, &[1, 2]);
        commit(&mut head, &[]);
        commit(&mut head, &[1]);
        assert_eq!(since(&head, 0), Some(vec![id(2), id(1)]));
        assert_eq!(since(&head, 1), Some(vec![id(1)]));
        assert_eq!(since(&head, 3), Some(vec![]));
        (0..KEPT_CHANGES as u64).for_each(|number| commit(&mut head, &[10 + number]));
        assert_eq!(since(&head, 2), None);
        assert_eq!(since(&head, 3).unwrap().len(), KEPT_CHANGES);
        // Somebody commits who does not keep the list.
        head.rev += 1;
        assert_eq!(since(&head, head.rev - 1), None);
        commit(&mut head, &[7]);
        assert_eq!(since(&head, head.rev - 1), Some(vec![id(7)]));
        assert_eq!(since(&head, head.rev - 2), None);
        let many: Vec<u64> = (100..200).collect();
        commit(&mut head, &many);
        assert_eq!(since(&head, head.rev - 1), None);
    }

    #[test]
    fn blame_on_others_is_believed_so_often_only() {
        let mut head = Head::new("p");
        head.count_attempt(false);
        (0..MOST_SPARED).for_each(|_| head.count_attempt(true));
        assert_eq!((head.tries, head.spared), (1, MOST_SPARED));
        head.count_attempt(true);
        assert_eq!(head.tries, 2);
        head.end_step();
        assert_eq!((head.tries, head.spared), (0, 0));
    }

    #[test]
    fn an_ending_that_is_dropped_is_not_taken_for_another_one() {
        let answer = |number: u64| TicketAnswer::Message { id: format!("msg_{number}") };
        let mut head = Head { issued: 1_000, ..Head::new("p") };
        // Each settles two tickets.
        let last = KEPT_ENDINGS as u64;
        (1..=last).for_each(|number| head.settle(2 * number, answer(number)));
        assert_eq!(head.ending(2), Some(&answer(1)));
        assert_eq!(head.ending(3), Some(&answer(2)));
        head.settle(2 * last + 2, answer(last + 1));
        assert_eq!(head.ending(1), None);
        assert_eq!(head.ending(2), None, "its ending is dropped");
        assert_eq!(head.ending(4), Some(&answer(2)));
        assert_eq!(head.ending(5), Some(&answer(3)));
        assert_eq!(head.ending(2 * last + 1), Some(&answer(last + 1)));
        assert_eq!(head.ending(2 * last + 3), None, "it is open");
    }

    #[test]
    fn sums_end_where_numbers_do() {
        let tokens = || Tokens { input: u64::MAX, output: 1, ..Tokens::default() };
        let mut spent = Spent { cost: 0.0, tokens: tokens() };
        spent.add(&Spent { cost: 0.5, tokens: tokens() });
        assert_eq!((spent.cost, spent.tokens.input, spent.tokens.output), (0.5, u64::MAX, 2));
    }

    #[test]
    fn an_abort_reaches_what_was_given_out_and_no_more() {
        let mut head = Head::new("p");
        assert_eq!(head.stop(), None);
        head.issue();
        head.issue();
        assert_eq!(head.stop(), Some(2));
        assert_eq!(head.issue(), 3);
        head.settle(2, TicketAnswer::Dropped);
        assert!(head.is_open());
        head.settle(1, TicketAnswer::Dropped);
        assert_eq!(head.settled, 2);
        head.settle(9, TicketAnswer::Dropped);
        assert_eq!(head.settled, 3);
        assert_eq!(head.ending(3), Some(&TicketAnswer::Dropped));
        assert_eq!(head.ending(4), None);
    }
}
