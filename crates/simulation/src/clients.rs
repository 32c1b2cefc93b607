//! What clients do, drawn from the seed: they send a request until it is answered, each time to a replica that is drawn, and
//! keep what they were told.

use crate::acts::ACT;
use crate::deciders::Replied;
use crate::dice::Dice;
use crate::fleet::Fleet;
use crate::model::{ANSWER, question};
use crate::requests::{Answer, Name, Refused, Request};
use serde::de::DeserializeOwned;
use serde_json::json;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::{Instant, sleep};
use wire::clock::Entropy;
use wire::ids::{MessageId, SessionId};
use wire::message::MessageWithParts;
use wire::session::Session;

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
    /// Its ticket when it was acknowledged.
    pub k: Option<u64>,
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
    /// What prompts were answered with, each by the session that it was sent to.
    pub answers: Vec<(SessionId, MessageWithParts)>,
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

    /// The sessions that clients know.
    fn sessions(&self) -> Vec<Known> {
        self.pages().sessions.clone()
    }

    /// The prompts of a session that were acknowledged.
    fn asked(&self, id: &SessionId) -> Vec<MessageId> {
        let pages = self.pages();
        let asked = pages.asked.iter().filter(|asked| asked.session == *id);
        asked.map(|asked| asked.message.clone()).collect()
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

/// What is said in a message.
pub(crate) fn text_of(message: &MessageWithParts) -> String {
    message.parts.iter().filter_map(|part| part.text()).map(|text| text.text.as_str()).collect()
}

impl Client {
    /// The task `client`: makes a session, then does so many things in any.
    pub(crate) async fn live(self, operations: u64) {
        self.make_session().await;
        for turn in 0..operations {
            sleep(self.dice.ms(0, 4_000)).await;
            let sessions = self.ledger.sessions();
            let Some(Known { id, .. }) = self.dice.pick(&sessions).cloned() else { return };
            match self.dice.below(100) {
                0..68 => self.prompt(&id, turn).await,
                68..80 => self.abort(&id).await,
                80..87 => self.read(&id, None).await,
                87..90 => self.read(&id, Some(1 + self.dice.below(4))).await,
                90..93 => self.list().await,
                93..97 => self.delete(&id).await,
                _ => self.make_session().await,
            }
        }
    }

    /// How a request is called that acts once under its name.
    pub(crate) fn name(&self) -> Name {
        let name = format!("{:032x}", self.dice.bits());
        if self.dice.chance(700) { Name::Id(name) } else { Name::Key(name) }
    }

    /// The same of one that may as well be sent as a new one.
    pub(crate) fn name_or_none(&self) -> Name {
        if self.dice.chance(300) { Name::New } else { self.name() }
    }

    /// Sends a request until it is answered by more than "ask again". None, and a violation, if it never is.
    pub(crate) async fn insist<T: DeserializeOwned>(
        &self,
        what: &str,
        request: &Request,
    ) -> Option<Result<T, Refused>> {
        let answer = self.insist_and_hear(what, request, &|| {}).await?;
        self.parse(what, answer)
    }

    fn parse<T: DeserializeOwned>(&self, what: &str, answer: Result<Answer, Refused>) -> Option<Result<T, Refused>> {
        match answer.map(|answer| serde_json::from_slice(&answer.body)) {
            Ok(Ok(body)) => Some(Ok(body)),
            Ok(Err(error)) => {
                self.ledger.breaks(format!("{what} was answered with something else: {error}"));
                None
            }
            Err(refused) => Some(Err(refused)),
        }
    }

    /// The same; `heard` is called each time that an answer that is no error begins.
    pub(crate) async fn insist_and_hear(
        &self,
        what: &str,
        request: &Request,
        heard: &(dyn Fn() + Send + Sync),
    ) -> Option<Result<Answer, Refused>> {
        let until = Instant::now() + PATIENCE;
        let (mut last, mut sendings) = ("no answer".to_owned(), 0);
        while Instant::now() < until {
            sendings += 1;
            let place = self.dice.below(self.fleet.size() as u64) as usize;
            self.fleet.trace.note(format_args!("client {} asks {place} for {what}", self.number));
            let id = format!("{:032x}", self.dice.bits());
            let answer = self.fleet.ask(place, |replica| async move { request.send(&replica, &id, heard).await });
            if let Ok(mut answer) = answer.await {
                if let Ok(answer) = &mut answer {
                    answer.sendings = sendings;
                }
                let refused = answer.as_ref().err();
                if let Some(broken) = refused.and_then(|refused| refused.breaks()) {
                    let refused = refused.map(ToString::to_string).unwrap_or_default();
                    self.ledger.breaks(format!("{what} was refused with {refused}, which {broken}"));
                }
                if let Some(refused) = refused.filter(|refused| refused.passes()) {
                    last = refused.to_string();
                } else {
                    let outcome = refused.map(ToString::to_string);
                    self.fleet.trace.note(format_args!("client {}: {what}, {outcome:?}", self.number));
                    self.ledger.pages().operations += 1;
                    return Some(answer);
                }
            }
            sleep(self.dice.ms(20, 600)).await;
        }
        self.ledger.breaks(format!("{what} was never answered: {last}"));
        None
    }

    async fn make_session(&self) {
        let permission = json!([{ "permission": ACT, "pattern": "*", "action": "ask" }]);
        // Nobody else calls it so.
        let body = json!({ "title": format!("titled {:016x}", self.dice.bits()), "permission": permission });
        let request = Request::post("/session", Some(body), self.name());
        match self.insist::<Session>("a session", &request).await {
            Some(Ok(session)) => {
                let new = Known { id: session.id, is_aborted: false, is_condemned: false, is_deleted: false };
                self.ledger.pages().sessions.push(new);
            }
            Some(Err(refused)) => self.ledger.breaks(format!("a session was refused: {refused}")),
            None => {}
        }
    }

    /// An answer that says that the session is gone, though nobody wanted that.
    pub(crate) fn is_gone(&self, id: &SessionId, what: &str, refused: &Refused) {
        let is_condemned = self.ledger.known(id).is_some_and(|known| known.is_condemned);
        if !(is_condemned && refused.is_absent()) {
            self.ledger.breaks(format!("{what} in {id} was refused: {refused}"));
        }
    }

    /// A prompt, with an id of its client's or without, whose answer is waited for or not.
    async fn prompt(&self, id: &SessionId, turn: u64) {
        let own = self.dice.chance(700).then(|| self.fleet.ids(&self.dice).message());
        let calls = self.calls.as_ref().map_or(0, |dice| dice.below(4).saturating_sub(1));
        let text = question(turn, self.number, calls);
        let what = format!("the answer to {}", own.as_ref().map_or(text.as_str(), |own| own.as_str()));
        let mut body = json!({ "parts": [{ "type": "text", "text": text }] });
        if let Some(own) = &own {
            body["messageID"] = json!(own);
        }
        let name = if own.is_some() { self.name_or_none() } else { self.name() };
        let waiting = Request::post(format!("/session/{id}/message"), Some(body), name);
        let request = if self.dice.chance(500) {
            Request { path: format!("/session/{id}/prompt_async"), ..waiting.clone() }
        } else {
            waiting.clone()
        };
        let is_acknowledged = AtomicBool::new(false);
        // The status alone says that the prompt is stored.
        let heard = || {
            if let Some(own) = own.as_ref().filter(|_| !is_acknowledged.swap(true, Ordering::Relaxed)) {
                self.acknowledged(id, own, &text);
            }
        };
        let answer = match self.insist_and_hear(&what, &request, &heard).await {
            Some(Ok(answer)) => answer.body,
            Some(Err(refused)) => return self.is_gone(id, "a prompt", &refused),
            None => return,
        };
        let message = match own {
            Some(own) => own,
            None => match self.find(id, &text).await {
                Some(found) => found,
                None => return,
            },
        };
        self.read_back(id, &message).await;
        if !answer.is_empty() {
            self.take_answer(id, &message, &text, &answer);
        } else if self.dice.chance(500) {
            // The two routes of a prompt differ in how they answer: the same request waits for what the first began.
            match self.insist_and_hear(&what, &waiting, &|| {}).await {
                Some(Ok(answer)) => self.take_answer(id, &message, &text, &answer.body),
                Some(Err(refused)) => self.is_gone(id, "a wait", &refused),
                None => {}
            }
        }
    }

    fn acknowledged(&self, id: &SessionId, message: &MessageId, text: &str) {
        let (session, message, text) = (id.clone(), message.clone(), text.to_owned());
        let k = self.fleet.ticket(&session, &message);
        self.fleet.trace.note(format_args!("client {}: {message} is acknowledged, {k:?}", self.number));
        self.ledger.pages().asked.push(Asked { session, message, text, k });
    }

    /// What a prompt of this client became that had no id of its own. None if its session is gone.
    async fn find(&self, id: &SessionId, text: &str) -> Option<MessageId> {
        let request = Request::get(format!("/session/{id}/message"));
        match self.insist::<Vec<MessageWithParts>>("a prompt by its text", &request).await? {
            Ok(items) => {
                let is_it = |item: &&MessageWithParts| item.info.user().is_some() && text_of(item) == text;
                let found = items.iter().find(is_it).map(|item| item.info.id().clone());
                match &found {
                    Some(message) => self.acknowledged(id, message, text),
                    None => self.ledger.breaks(format!("{text:?} was acknowledged in {id}, and is not there")),
                }
                found
            }
            Err(refused) => {
                self.is_gone(id, "a read", &refused);
                None
            }
        }
    }

    /// The answer of a turn: the prompt's own, or that of the one that it was answered with.
    fn take_answer(&self, id: &SessionId, message: &MessageId, text: &str, answer: &[u8]) {
        let answer: MessageWithParts = match serde_json::from_slice(answer) {
            Ok(answer) => answer,
            Err(error) => return self.ledger.breaks(format!("{message} was answered with no message: {error}")),
        };
        let is_aborted = self.ledger.known(id).is_none_or(|known| known.is_aborted || known.is_condemned);
        match answer.info.assistant() {
            Some(said) => {
                let is_whole = said.finish.as_deref() == Some("stop") && said.error.is_none();
                let said_text = text_of(&answer);
                if is_whole && said.parent_id == *message && said_text != format!("{ANSWER}{text}") {
                    self.ledger.breaks(format!("{message} was answered with {said_text:?}"));
                }
                if !is_aborted && said.time.completed.is_none() {
                    self.ledger.breaks(format!("{message} was answered with {}, which goes on", said.id));
                }
            }
            None if is_aborted => {}
            None => self.ledger.breaks(format!("{message} was answered with {}, a prompt", answer.info.id())),
        }
        self.ledger.pages().answers.push((id.clone(), answer));
    }

    /// What one replica acknowledged, every other reads.
    async fn read_back(&self, id: &SessionId, message: &MessageId) {
        let request = Request::get(format!("/session/{id}/message/{message}"));
        if let Some(Err(refused)) = self.insist::<MessageWithParts>("a message", &request).await {
            self.is_gone(id, "reading back", &refused);
        }
    }

    /// All acknowledged prompts of the session are read, in pages of so many or at once.
    async fn read(&self, id: &SessionId, limit: Option<u64>) {
        let before = self.ledger.asked(id);
        let (mut items, mut cursor): (Vec<MessageWithParts>, Option<String>) = (Vec::new(), None);
        loop {
            let query = match (limit, &cursor) {
                (Some(limit), Some(cursor)) => format!("?limit={limit}&before={cursor}"),
                (Some(limit), None) => format!("?limit={limit}"),
                (None, _) => String::new(),
            };
            let request = Request::get(format!("/session/{id}/message{query}"));
            let answer = match self.insist_and_hear("messages", &request, &|| {}).await {
                Some(Ok(answer)) => answer,
                Some(Err(refused)) => return self.is_gone(id, "a read", &refused),
                None => return,
            };
            cursor.clone_from(&answer.next);
            match self.parse::<Vec<MessageWithParts>>("messages", Ok(answer)) {
                Some(Ok(page)) => items.splice(0..0, page),
                Some(Err(_)) | None => return,
            };
            if cursor.is_none() {
                break;
            }
        }
        for asked in &before {
            let times = items.iter().filter(|message| message.info.id() == asked).count();
            if times != 1 {
                self.ledger.breaks(format!("{asked} was acknowledged and is read {times} times"));
            }
        }
    }

    /// All acknowledged sessions are listed, but for those that somebody wanted gone; and none whose deletion was acknowledged.
    async fn list(&self) {
        let before = self.ledger.sessions();
        let Some(Ok(listed)) = self.insist::<Vec<Session>>("sessions", &Request::get("/session")).await else {
            return;
        };
        for Known { id, is_deleted, .. } in &before {
            let is_condemned = self.ledger.known(id).is_some_and(|known| known.is_condemned);
            let times = listed.iter().filter(|session| session.id == *id).count();
            if times > 1 || (times == 0 && !is_condemned) || (times == 1 && *is_deleted) {
                self.ledger.breaks(format!("{id} is listed {times} times"));
            }
        }
    }

    async fn abort(&self, id: &SessionId) {
        self.ledger.mark(id, |known| known.is_aborted = true);
        self.fleet.chronicle.stops(id);
        let stopped = self.ledger.asked(id);
        let request = Request::post(format!("/session/{id}/abort"), None, self.name_or_none());
        match self.insist::<bool>("an abort", &request).await {
            Some(Ok(_)) => {
                let at = self.fleet.now_ms();
                self.ledger.pages().aborted.push(Aborted { session: id.clone(), stopped, at });
            }
            Some(Err(refused)) => self.is_gone(id, "an abort", &refused),
            None => {}
        }
    }

    async fn delete(&self, id: &SessionId) {
        self.ledger.mark(id, |known| known.is_condemned = true);
        self.fleet.chronicle.stops(id);
        let request = Request::delete(format!("/session/{id}"), self.name_or_none());
        match self.insist::<bool>("a deletion", &request).await {
            Some(Ok(_)) => self.ledger.mark(id, |known| known.is_deleted = true),
            Some(Err(refused)) => self.is_gone(id, "a deletion", &refused),
            None => {}
        }
    }
}
