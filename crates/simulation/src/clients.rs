//! What clients do, drawn from the seed: they send a request until it is answered, each time to a replica that is drawn, and
//! keep what they were told.

use crate::acts::ACT;
use crate::deciders::Replied;
use crate::dice::Dice;
use crate::fleet::{Fleet, Gone};
use crate::model::question;
use engine::{Accepted, Engine, EngineError, NewSession, Prompt, RequestName, TicketRef};
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::{Instant, sleep};
use wire::clock::Entropy;
use wire::ids::{MessageId, SessionId};
use wire::part::{PartKind, TextPart};
use wire::permission::{Action, Rule};
use wire::tenant::Tenant;

/// How long a client sends a request again and again.
const PATIENCE: Duration = Duration::from_secs(240);

/// A session that clients know.
#[derive(Clone)]
pub(crate) struct Known {
    pub id: SessionId,
    /// Somebody wanted its work stopped.
    pub is_aborted: bool,
    /// Somebody wanted it gone.
    pub is_condemned: bool,
    /// Its deletion was acknowledged.
    pub is_deleted: bool,
}

/// A prompt that was acknowledged.
#[derive(Clone)]
pub(crate) struct Asked {
    pub session: SessionId,
    pub message: MessageId,
    pub text: String,
    pub k: u64,
}

/// An abort that was acknowledged.
#[derive(Clone)]
pub(crate) struct Aborted {
    pub session: SessionId,
    /// The prompts that were acknowledged before it was asked for.
    pub stopped: Vec<MessageId>,
    /// When it was acknowledged, in milliseconds since the epoch.
    pub at: u64,
}

/// What clients were told, and what they were told that cannot be.
#[derive(Default)]
pub(crate) struct Ledger {
    state: Mutex<Pages>,
}

/// What is in the ledger.
#[derive(Clone, Default)]
pub(crate) struct Pages {
    pub sessions: Vec<Known>,
    pub asked: Vec<Asked>,
    pub aborted: Vec<Aborted>,
    pub replies: Vec<Replied>,
    pub broken: Vec<String>,
    /// Requests that were answered.
    pub operations: u64,
}

impl Ledger {
    fn pages(&self) -> MutexGuard<'_, Pages> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// As it is now.
    pub(crate) fn read(&self) -> Pages {
        self.pages().clone()
    }

    pub(crate) fn breaks(&self, what: String) {
        self.pages().broken.push(what);
    }

    /// A reply is about to be sent. Returns its number.
    pub(crate) fn sends(&self, reply: Replied) -> usize {
        let mut pages = self.pages();
        pages.replies.push(reply);
        pages.replies.len() - 1
    }

    /// The reply of this number was acknowledged the first time that it was sent.
    pub(crate) fn is_given(&self, number: usize) {
        self.pages().replies[number].is_given = true;
    }

    fn known(&self, id: &SessionId) -> Option<Known> {
        self.pages().sessions.iter().find(|known| known.id == *id).cloned()
    }

    fn mark(&self, id: &SessionId, mark: impl Fn(&mut Known)) {
        self.pages().sessions.iter_mut().filter(|known| known.id == *id).for_each(mark);
    }
}

/// One client.
pub(crate) struct Client {
    pub number: usize,
    pub fleet: Arc<Fleet>,
    pub ledger: Arc<Ledger>,
    pub dice: Dice,
    /// Says how many calls of tools it wants. None: none.
    pub calls: Option<Dice>,
}

/// True for what is answered 503, or by a balancer in the place of who died: sent again, it may go better.
fn passes(error: &EngineError) -> bool {
    use EngineError::{Busy, Full, Lost, Store, TooManyQueued, Unavailable};
    matches!(error, Busy(_) | Full | Lost | Store(_) | TooManyQueued | Unavailable(_))
}

impl Client {
    /// The task `client`: makes a session, then does so many things in any.
    pub(crate) async fn live(self, operations: u64) {
        self.make_session().await;
        for turn in 0..operations {
            sleep(self.dice.ms(0, 4_000)).await;
            let sessions = self.ledger.read().sessions;
            let Some(Known { id, .. }) = self.dice.pick(&sessions).cloned() else { return };
            match self.dice.below(100) {
                0..68 => self.prompt(&id, turn).await,
                68..80 => self.abort(&id).await,
                80..93 => self.read(&id).await,
                93..97 => self.delete(&id).await,
                _ => self.make_session().await,
            }
        }
    }

    /// A name of a request, or of a body.
    pub(crate) fn name(&self) -> RequestName {
        RequestName { hash: format!("{:032x}", self.dice.bits()), body_hash: format!("{:016x}", self.dice.bits()) }
    }

    /// Sends a request until it is answered by more than "ask again". None, and a violation, if it never is.
    pub(crate) async fn insist<T, Answer>(
        &self,
        what: &str,
        request: impl Fn(Engine) -> Answer,
    ) -> Option<Result<T, EngineError>>
    where
        Answer: Future<Output = Result<T, EngineError>> + Send,
    {
        let until = Instant::now() + PATIENCE;
        let mut last = "no answer".to_owned();
        while Instant::now() < until {
            let place = self.dice.below(self.fleet.size() as u64) as usize;
            self.fleet.trace.note(format_args!("client {} asks {place} for {what}", self.number));
            match self.fleet.ask(place, &request).await {
                Ok(Err(error)) if passes(&error) => last = error.to_string(),
                Ok(answer) => {
                    let outcome = answer.as_ref().err();
                    self.fleet.trace.note(format_args!("client {}: {what}, {outcome:?}", self.number));
                    self.ledger.pages().operations += 1;
                    return Some(answer);
                }
                Err(Gone) => {}
            }
            sleep(self.dice.ms(20, 600)).await;
        }
        self.ledger.breaks(format!("{what} was never answered: {last}"));
        None
    }

    async fn make_session(&self) {
        let name = self.name();
        let made = self.insist("a session", |engine| {
            let permission = Some(vec![Rule::new(ACT, "*", Action::Ask)]);
            let (name, new) =
                (name.clone(), NewSession { title: Some("titled".into()), permission, ..NewSession::default() });
            async move { engine.create_session(&Fleet::scope(), new, Some(&name)).await }
        });
        match made.await {
            Some(Ok(session)) => {
                let new = Known { id: session.id, is_aborted: false, is_condemned: false, is_deleted: false };
                self.ledger.pages().sessions.push(new);
            }
            Some(Err(error)) => self.ledger.breaks(format!("a session was refused: {error}")),
            None => {}
        }
    }

    /// An answer that says that the session is gone, though nobody wanted that.
    pub(crate) fn is_gone(&self, id: &SessionId, what: &str, error: &EngineError) {
        let is_condemned = self.ledger.known(id).is_some_and(|known| known.is_condemned);
        if !(is_condemned && matches!(error, EngineError::SessionNotFound(_) | EngineError::MessageNotFound(_))) {
            self.ledger.breaks(format!("{what} in {id} was refused: {error}"));
        }
    }

    async fn prompt(&self, id: &SessionId, turn: u64) {
        let message = self.fleet.ids(&self.dice).message();
        let calls = self.calls.as_ref().map_or(0, |dice| dice.below(4).saturating_sub(1));
        let text = question(turn, self.number, calls);
        let what = format!("the answer to {message}");
        let stored = self.insist(&what, |engine| {
            let text = TextPart { text: text.clone(), ..TextPart::default() };
            let parts = vec![(None, PartKind::Text(text.clone()))];
            let prompt = Prompt { message_id: Some(message.clone()), parts, body_hash: text.text, ..Prompt::default() };
            async move { engine.prompt(&Tenant::default(), id, prompt).await }
        });
        let ticket = match stored.await {
            Some(Ok(Accepted::Ticket(ticket))) => ticket,
            Some(Ok(Accepted::Stored(_))) => return self.ledger.breaks(format!("{message} got no ticket")),
            Some(Err(error)) => return self.is_gone(id, "a prompt", &error),
            None => return,
        };
        let asked = Asked { session: id.clone(), message: message.clone(), text, k: ticket.k };
        self.ledger.pages().asked.push(asked);
        self.read_back(id, &message).await;
        if self.dice.chance(600) {
            self.wait(&ticket).await;
        }
    }

    async fn wait(&self, ticket: &TicketRef) {
        let what = format!("the end of {}", ticket.message);
        let answered = self.insist(&what, |engine| async move { engine.wait(ticket).await.map(drop) });
        if let Some(Err(error)) = answered.await {
            self.is_gone(&ticket.session, "a wait", &error);
        }
    }

    /// What one replica acknowledged, every other reads.
    async fn read_back(&self, id: &SessionId, message: &MessageId) {
        let there = self.insist("a message", |engine| async move {
            engine.message(&Tenant::default(), id, message).await.map(drop)
        });
        if let Some(Err(error)) = there.await {
            self.is_gone(id, "reading back", &error);
        }
    }

    /// All acknowledged prompts of the session are read.
    async fn read(&self, id: &SessionId) {
        let before = self.ledger.read().asked;
        let page =
            self.insist("messages", |engine| async move { engine.messages(&Tenant::default(), id, None, None).await });
        match page.await {
            Some(Ok(page)) => {
                for asked in before.iter().filter(|asked| asked.session == *id) {
                    let times = page.items.iter().filter(|message| *message.info.id() == asked.message).count();
                    if times != 1 {
                        self.ledger.breaks(format!("{} was acknowledged and is read {times} times", asked.message));
                    }
                }
            }
            Some(Err(error)) => self.is_gone(id, "a read", &error),
            None => {}
        }
    }

    async fn abort(&self, id: &SessionId) {
        self.ledger.mark(id, |known| known.is_aborted = true);
        self.fleet.chronicle.stops(id);
        let asked = self.ledger.read().asked.into_iter().filter(|asked| asked.session == *id);
        let stopped = asked.map(|asked| asked.message).collect();
        let name = self.name();
        let aborted = self.insist("an abort", |engine| {
            let name = name.clone();
            async move { engine.abort(&Tenant::default(), id, Some(&name)).await }
        });
        match aborted.await {
            Some(Ok(_)) => {
                let at = self.fleet.now_ms();
                self.ledger.pages().aborted.push(Aborted { session: id.clone(), stopped, at });
            }
            Some(Err(error)) => self.is_gone(id, "an abort", &error),
            None => {}
        }
    }

    async fn delete(&self, id: &SessionId) {
        self.ledger.mark(id, |known| known.is_condemned = true);
        self.fleet.chronicle.stops(id);
        let name = self.name();
        let deleted = self.insist("a deletion", |engine| {
            let name = name.clone();
            async move { engine.delete_session(&Tenant::default(), id, Some(&name)).await }
        });
        match deleted.await {
            Some(Ok(())) => self.ledger.mark(id, |known| known.is_deleted = true),
            Some(Err(error)) => self.is_gone(id, "a deletion", &error),
            None => {}
        }
    }
}
