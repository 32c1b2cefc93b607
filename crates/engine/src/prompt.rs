//! Prompts: stored durably, answered by whoever runs; waiting for them.

use crate::api::{Accepted, EngineError, Prompt, Scope, TicketRef};
use crate::asks::found;
use crate::by_user::ByUser;
use crate::commit::{Committer, Decision, Under, body};
use crate::compaction::Compaction;
use crate::engine::{Engine, blocking};
use crate::named::{Named, hash_of};
use crate::run::{message_record, session_record};
use coordination::SessionKey;
use run_protocol::{Head, Intent, RecordVersion, Ticket, TicketAnswer, TicketKind, Waiting};
use std::sync::Arc;
use std::time::Duration;
use storage::{Record, Write};
use tokio::time::Instant;
use tracing::Instrument;
use wire::event::Happened;
use wire::ids::{MessageId, PartId, SessionId};
use wire::message::{Message, MessageError, MessageTime, MessageWithParts, UserMessage, UserModel};
use wire::part::Part;
use wire::session::{Session, SessionModel};
use wire::tenant::Tenant;

/// How long an answer waits until this replica's readers were told that the session is idle.
const TELLING: Duration = Duration::from_millis(500);
/// How often a waiter looks at the store by itself.
const LOOK: Duration = Duration::from_secs(1);

/// What the commit of a prompt found.
enum Stored {
    New {
        /// The ticket, and the run guard's number before anybody was told of it.
        ticket: Option<(u64, u64)>,
        was_open: bool,
        session: Box<Session>,
        changed: bool,
        withdrawn: Vec<MessageId>,
        cleanup: Vec<(Option<String>, Happened)>,
    },
    Joined {
        k: u64,
    },
    Known,
    /// A revert is under way: nothing is stored before it has ended.
    Reverting(Intent),
}

impl Engine {
    /// Stores a prompt and sees to it that somebody answers it. Durable when it returns.
    ///
    /// Errors: `Unavailable` before anything is written, when this replica cannot reach coordination; `TooManyQueued`;
    /// `Conflict` when the message id stands for something else; `Unknown` when there is no such agent, which the events
    /// tell, too; `BadRequest` when a file has no address or is no image.
    pub async fn prompt(&self, tenant: &Tenant, id: &SessionId, mut prompt: Prompt) -> Result<Accepted, EngineError> {
        self.is_coordinated()?;
        let session = self.session(tenant, id).await?;
        let scope = Scope { tenant: tenant.clone(), directory: session.directory.clone().into() };
        let instance = self.instance(&scope).await?;
        let agent = prompt.agent.clone().unwrap_or_else(|| instance.default_agent.clone());
        let Some(rules) = instance.agent(&agent).map(|agent| agent.permission.clone()) else {
            return Err(self.refuse_agent(tenant, &session, &instance, &agent).await);
        };
        let mut model = self.choose_model(&instance, &agent, &session, &prompt)?;
        let of_agent = instance.agent(&agent).and_then(|agent| variant_of(&instance, agent, &model));
        model.variant = prompt.variant.clone().or(of_agent).or(model.variant);
        let key = SessionKey::new(tenant.clone(), id.clone());
        if let Some(ticket) = self.stored_before(&key, &prompt).await? {
            return Ok(Accepted::Ticket(ticket));
        }
        let rules = [rules, session.permission.clone().unwrap_or_default()].concat();
        let by = ByUser { engine: self, key: &key, session: &session, instance: &instance, rules: Some(rules) };
        let (parts, errors) = crate::attachments::expand(&by, prompt.parts).await?;
        prompt.parts = parts;
        for error in errors {
            let happened = wire::event::session_error(id, &error);
            self.publish(&self.origin(&key, &session, None), happened, None).await;
        }
        let (message_id, part_ids) = self.name(&key, &prompt).await?;
        // Moved and shared, never copied: a prompt may have many megabytes.
        let parts: Arc<Vec<Part>> = Arc::new(
            part_ids
                .into_iter()
                .zip(std::mem::take(&mut prompt.parts))
                .map(|(part, (_, kind))| Part {
                    id: part,
                    session_id: id.clone(),
                    message_id: message_id.clone(),
                    kind,
                })
                .collect(),
        );
        let message = UserMessage {
            id: message_id.clone(),
            session_id: id.clone(),
            time: MessageTime { created: 0, completed: None },
            format: prompt.format.clone(),
            summary: None,
            agent,
            model,
            system: prompt.system.clone(),
            tools: prompt.tools.clone(),
            extra: wire::Extra::new(),
        };
        let (head, (stored, message)) = loop {
            match self.store_prompt(&key, message.clone(), Arc::clone(&parts), &prompt).await? {
                (_, (Stored::Reverting(intent), _)) => self.wait_for_revert(&key, &intent).await?,
                stored => break stored,
            }
        };
        let ticket = |k| TicketRef { tenant: tenant.clone(), session: id.clone(), message: message_id.clone(), k };
        match stored {
            Stored::Reverting(_) => Err(EngineError::Unavailable("a revert of this session is under way".into())),
            Stored::Joined { k } => Ok(Accepted::Ticket(ticket(k))),
            Stored::Known => Ok(Accepted::Stored(Box::new(self.message(tenant, id, &message_id).await?))),
            Stored::New { ticket: new, was_open, session, changed, withdrawn, cleanup } => {
                self.tell_withdrawn(&key, &head, &session, &withdrawn).await;
                for (record, happened) in cleanup {
                    let version = record.map(|record| (record, RecordVersion::head(head.rev)));
                    self.publish(&self.origin(&key, &session, None), happened, version).await;
                }
                if prompt.shell.is_none() {
                    self.publish_prompt(&key, &head, &session, changed, &message, &parts).await;
                }
                match new {
                    None => {
                        let parts = Arc::unwrap_or_clone(parts);
                        Ok(Accepted::Stored(Box::new(MessageWithParts { info: Message::User(message), parts })))
                    }
                    Some((k, number)) => {
                        let engine = self.clone();
                        // Not bound to the caller: a client that goes away stops nothing.
                        let enter = async move { engine.enter(&key, k, was_open, Some(number)).await };
                        self.0.tasks.spawn(enter.in_current_span());
                        Ok(Accepted::Ticket(ticket(k)))
                    }
                }
            }
        }
    }

    /// The ticket of a prompt that was sent before, by its name or its message's id.
    pub(crate) async fn stored_before(
        &self,
        key: &SessionKey,
        prompt: &Prompt,
    ) -> Result<Option<TicketRef>, EngineError> {
        let Some(hash) = name_of(prompt) else { return Ok(None) };
        let Some(named) = self.read_json::<Named>(&key.tenant, Record::Key { hash }).await? else { return Ok(None) };
        let body_hash = prompt.name.as_ref().map(|name| &name.body_hash);
        let Some(message) = named.message.filter(|_| named.session == key.session) else { return Ok(None) };
        if named.body_hash.as_ref() != body_hash {
            return Err(EngineError::KeyReused);
        }
        // Before the ticket: one that was never given out is gone before its number is given to another prompt.
        let issued = self.read_head(key).await?.issued;
        let record = Record::Ticket { session: key.session.clone(), message: message.clone() };
        let Some(ticket) = self.read_json::<Ticket>(&key.tenant, record).await? else { return Ok(None) };
        let given_out = ticket.k <= issued && ticket.body_hash == prompt.body_hash;
        if given_out {
            let (store, session) = (self.tenant_store(&key.tenant), key.session.clone());
            blocking(move || Ok(store.sync_seen(&session)?)).await?;
        }
        let found = TicketRef { tenant: key.tenant.clone(), session: key.session.clone(), message, k: ticket.k };
        Ok(given_out.then_some(found))
    }

    /// Tells that a prompt names an agent that does not exist: nothing of the prompt is stored.
    pub(crate) async fn refuse_agent(
        &self,
        tenant: &Tenant,
        session: &Session,
        instance: &agents::Instance,
        agent: &str,
    ) -> EngineError {
        let shown = instance.agents.iter().filter(|agent| !agent.hidden);
        let mut names: Vec<&str> = shown.map(|agent| agent.name.as_str()).collect();
        names.sort_unstable();
        let message = format!("Agent not found: \"{agent}\". Available agents: {}", names.join(", "));
        let origin = self.origin(&SessionKey::new(tenant.clone(), session.id.clone()), session, None);
        let error = MessageError::unknown(message.clone());
        self.publish(&origin, wire::event::session_error(&session.id, &error), None).await;
        EngineError::Unknown(message)
    }

    /// The model that a prompt is for: its own, its agent's, the session's, or the default one.
    pub(crate) fn choose_model(
        &self,
        instance: &agents::Instance,
        agent: &str,
        session: &Session,
        prompt: &Prompt,
    ) -> Result<UserModel, EngineError> {
        let named = |model: &agents::ModelRef| UserModel {
            provider_id: model.provider_id.clone(),
            model_id: model.model_id.clone(),
            variant: None,
        };
        let of_session = |model: &SessionModel| UserModel {
            provider_id: model.provider_id.clone(),
            model_id: model.id.clone(),
            // One that the model does not define is for the prompt alone that named it.
            variant: model.variant.clone().filter(|variant| {
                let known = instance.model(&model.provider_id, &model.id);
                known.is_ok_and(|model| model.variants.contains_key(variant))
            }),
        };
        prompt
            .model
            .clone()
            .or_else(|| instance.agent(agent).and_then(|agent| agent.model.as_ref()).map(named))
            .or_else(|| session.model.as_ref().map(of_session))
            .or_else(|| instance.default_model.as_ref().map(named))
            .ok_or_else(|| EngineError::Unknown("No model provider is configured.".into()))
    }

    /// The ids of a prompt's message and parts: the client's own, those that its name stands for, or new ones. A name that
    /// a client gave is reserved for this session before anything else is written.
    async fn name(&self, key: &SessionKey, prompt: &Prompt) -> Result<(MessageId, Vec<PartId>), EngineError> {
        let message = prompt.message_id.clone().unwrap_or_else(|| self.0.ids.message());
        let parts: Vec<PartId> =
            prompt.parts.iter().map(|(own, _)| own.clone().unwrap_or_else(|| self.0.ids.part())).collect();
        let Some(hash) = name_of(prompt) else { return Ok((message, parts)) };
        let own = Named {
            session: key.session.clone(),
            message: Some(message),
            parts,
            by: self.0.ids.bits(),
            body_hash: prompt.name.as_ref().map(|name| name.body_hash.clone()),
        };
        let there = self.claim_name(&key.tenant, &hash, &own).await?;
        let Some(message) = there.message.filter(|_| there.body_hash == own.body_hash) else {
            return Err(EngineError::KeyReused);
        };
        if there.session != own.session {
            return Err(EngineError::Conflict(format!("The message id {message} belongs to another session")));
        }
        // Another number of parts is another body, which the ticket tells; until then they get ids of their own.
        let parts = if there.parts.len() == own.parts.len() { there.parts } else { own.parts };
        Ok((message, parts))
    }

    async fn store_prompt(
        &self,
        key: &SessionKey,
        message: UserMessage,
        parts: Arc<Vec<Part>>,
        prompt: &Prompt,
    ) -> Result<(Head, (Stored, UserMessage)), EngineError> {
        let (now, limit) = (self.now_ms(), self.0.settings.queue_limit);
        let (no_reply, body_hash, shell) = (prompt.no_reply, prompt.body_hash.clone(), prompt.shell.clone());
        // Neither a command nor a request to shorten the conversation changes who answers in it.
        let answers = shell.is_none() && !parts.iter().any(|part| Compaction::of(part).is_some());
        let permission = crate::request::switched(prompt.tools.as_ref());
        self.head_commit(key, Committer::Request, move |head, at| {
            if let Some(intent) = head.intent.clone() {
                return Ok(Decision::Leave((Stored::Reverting(intent), message.clone())));
            }
            let ticket = Record::Ticket { session: at.id.clone(), message: message.id.clone() };
            let known: Option<Ticket> = at.store.read(&ticket)?.and_then(|ticket| serde_json::from_slice(&ticket).ok());
            if let Some(known) = known.as_ref().filter(|known| known.k <= head.issued) {
                if known.body_hash != body_hash {
                    let why = format!("The message id {} stands for another prompt", message.id);
                    return Err(EngineError::Conflict(why));
                }
                return Ok(Decision::Leave((Stored::Joined { k: known.k }, message.clone())));
            }
            if at.store.message_exists(&message.id)?.is_some_and(|owner| owner != *at.id) {
                let why = format!("The message id {} belongs to another session", message.id);
                return Err(EngineError::Conflict(why));
            }
            // A ticket that was never given out is of a prompt that was never acknowledged: it is done again.
            if known.is_none()
                && let Some(there) = at.message(&message.id)?
            {
                let same = there.info.user().is_some()
                    && there.parts.iter().map(|part| &part.kind).eq(parts.iter().map(|part| &part.kind));
                if no_reply && same {
                    return Ok(Decision::Leave((Stored::Known, message.clone())));
                }
                return Err(EngineError::Conflict(format!("The message id {} is taken", message.id)));
            }
            // Its parts may be left, by other ids if it was sent under another name.
            let left_over = at.store.parts(&message.id)?.into_iter().filter(|part| part.session_id == *at.id);
            let was_open = head.is_open();
            if was_open && shell.is_some() {
                return Err(EngineError::Busy(at.id.clone()));
            }
            if head.issued - head.settled >= limit {
                return Err(EngineError::TooManyQueued);
            }
            let mut session = at.session()?;
            let cleanup = crate::revert::clean_up(head, at, &mut session, now)?;
            let (mut writes, cleanup) = cleanup.map(|cleanup| (cleanup.writes, cleanup.told)).unwrap_or_default();
            let before = (session.agent.clone(), session.model.clone());
            let mut message = message.clone();
            message.time.created = head.reserve_time(now);
            if answers {
                session.agent = Some(message.agent.clone());
                session.model = Some(SessionModel {
                    id: message.model.model_id.clone(),
                    provider_id: message.model.provider_id.clone(),
                    variant: Some(message.model.variant.clone().unwrap_or_else(|| "default".into())),
                });
            }
            if !permission.is_empty() {
                session.permission = Some(permission.clone());
            }
            session.time.updated = session.time.updated.max(message.time.created);
            let changed = before != (session.agent.clone(), session.model.clone());
            let mut withdrawn = Vec::new();
            let left_over = left_over.map(|part| part.id);
            for id in left_over.filter(|id| parts.iter().all(|part| part.id != *id)) {
                writes.push(Write::Remove(Record::Part { message: message.id.clone(), id }));
            }
            for part in parts.iter() {
                writes.push(Write::Put(Record::Part { message: message.id.clone(), id: part.id.clone() }, body(part)?));
            }
            let new = if no_reply {
                None
            } else {
                let before = head.issued;
                let k = head.issue();
                if at.store.put_marker(at.id, k)? {
                    let (messages, removals) = never_given_out(at, before, Some(&message.id))?;
                    writes.extend(removals);
                    withdrawn = messages;
                }
                let kind = if shell.is_some() { TicketKind::Shell } else { TicketKind::Prompt };
                let (body_hash, command) = (body_hash.clone(), shell.clone());
                let issued = Ticket { k, body_hash, kind, command, extra: serde_json::Map::new() };
                writes.push(Write::Put(ticket, body(&issued)?));
                Some((k, at.store.run_number(at.id)?))
            };
            writes.push(Write::Put(session_record(&session), body(&session)?));
            let stored = Message::User(message.clone());
            // By its ticket a message is found that was never acknowledged, and with all its parts it is known again.
            writes.push(Write::Reveal(message_record(&stored), body(&stored)?));
            let session = Box::new(session);
            let stored = Stored::New { ticket: new, was_open, session, changed, withdrawn, cleanup };
            Ok(Decision::Write(writes, (stored, message)))
        })
        .await
    }

    /// Removes what is left of prompts of a session whose replica died before it had given their tickets out.
    pub(crate) async fn withdraw_prompts(&self, key: &SessionKey) -> Result<(), EngineError> {
        let withdrawn = self.head_commit(key, Committer::Request, |head, at| {
            let (messages, mut writes) = never_given_out(at, head.issued, None)?;
            let markers = at.store.markers()?.into_iter().filter(|marker| marker.session == *at.id);
            // Last: who dies before is followed by the next sweep.
            for k in markers.filter_map(|marker| marker.ticket).filter(|k| *k > head.issued) {
                writes.push(Write::Remove(Record::Marker { session: at.id.clone(), k }));
            }
            // Given out meanwhile: it was about to be when it was seen.
            if writes.is_empty() {
                return Ok(Decision::Leave(None));
            }
            Ok(Decision::Write(writes, Some((at.session()?, messages))))
        });
        match withdrawn.await {
            Ok((head, Some((session, messages)))) => self.tell_withdrawn(key, &head, &session, &messages).await,
            Ok((_, None)) | Err(EngineError::SessionNotFound(_)) => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Tells that messages are gone that may have been read, though nobody was told of them.
    pub(crate) async fn tell_withdrawn(
        &self,
        key: &SessionKey,
        head: &Head,
        session: &Session,
        messages: &[MessageId],
    ) {
        let origin = self.origin(key, session, None);
        for message in messages {
            let version = (message.to_string(), RecordVersion::head(head.rev));
            self.publish(&origin, wire::event::message_removed(&key.session, message), Some(version)).await;
        }
    }

    async fn publish_prompt(
        &self,
        key: &SessionKey,
        head: &Head,
        session: &Session,
        changed: bool,
        message: &UserMessage,
        parts: &[Part],
    ) {
        let origin = self.origin(key, session, None);
        let version = |record: &str| Some((record.to_owned(), RecordVersion::head(head.rev)));
        if changed {
            self.publish(&origin, wire::event::session_updated(session), None).await;
        }
        let info = Message::User(message.clone());
        self.publish(&origin, wire::event::message_updated(&info), version(message.id.as_str())).await;
        for part in parts {
            let happened = wire::event::part_updated(part, message.time.created);
            self.publish(&origin, happened, version(part.id.as_str())).await;
        }
        self.publish(&origin, wire::event::session_updated(session), version(session.id.as_str())).await;
    }

    /// Waits until a prompt is dealt with, wherever it runs, and returns the newest answer of its turn.
    ///
    /// Errors: `SessionNotFound` if the session is deleted meanwhile; `Unknown` if the run could not even begin to
    /// answer; `Unavailable` if this replica stops before there is an answer. Dropping the future stops nothing.
    pub async fn wait(&self, ticket: &TicketRef) -> Result<MessageWithParts, EngineError> {
        let key = SessionKey::new(ticket.tenant.clone(), ticket.session.clone());
        // The feed is what wakes waiters; without it they look once a second.
        let feed = self.feed(&ticket.tenant).await.ok();
        // A client that prints what the events tell ends with the answer: the events come first.
        let is_told = || feed.as_ref().is_none_or(|feed| feed.has_told_idle(&ticket.session));
        let (mut settled, mut told_by, mut late) = (None, None, false);
        let waiter = self.0.waiters.join(&key);
        loop {
            let woken = waiter.notify.notified();
            tokio::pin!(woken);
            woken.as_mut().enable();
            if let Some((head, message)) = settled.take_if(|_| is_told()) {
                return self.answer(ticket, &head, message).await;
            }
            let (head, message) = self.look_for_answer(ticket).await?;
            match Waiting::decide(&head, ticket.k, late) {
                Waiting::Gone => return Err(EngineError::SessionNotFound(ticket.session.clone())),
                Waiting::Settled => {
                    let until = *told_by.get_or_insert_with(|| Instant::now() + TELLING);
                    if head.is_open() || is_told() || Instant::now() >= until {
                        return self.answer(ticket, &head, message).await;
                    }
                    settled = Some((head, message));
                    let _ = tokio::time::timeout_at(until, woken).await;
                    continue;
                }
                Waiting::Enter => self.enter(&key, ticket.k, true, None).await,
                Waiting::Wait => {}
            }
            late = tokio::select! {
                biased;
                woken = tokio::time::timeout(LOOK, woken) => woken.is_err(),
                () = self.0.leaving.cancelled() => {
                    return Err(EngineError::Unavailable("this replica stops; the prompt is answered elsewhere".into()));
                }
            };
        }
    }

    /// The head, and the message that answers the ticket, once there is one.
    async fn look_for_answer(&self, ticket: &TicketRef) -> Result<(Head, Option<MessageWithParts>), EngineError> {
        let (store, ticket) = (self.tenant_store(&ticket.tenant), ticket.clone());
        blocking(move || {
            let head = found(store.head(&ticket.session))?;
            let head = head.ok_or_else(|| EngineError::SessionNotFound(ticket.session.clone()))?;
            let message = match head.ending(ticket.k) {
                Some(TicketAnswer::Message { id }) => {
                    let id = MessageId::parse(id).map_err(|error| EngineError::Store(error.to_string()))?;
                    found(store.shared_message_under(&ticket.session, &id, &head))?.map(Arc::unwrap_or_clone)
                }
                _ => None,
            };
            Ok((head, message))
        })
        .await
    }

    async fn answer(
        &self,
        ticket: &TicketRef,
        head: &Head,
        message: Option<MessageWithParts>,
    ) -> Result<MessageWithParts, EngineError> {
        match head.ending(ticket.k) {
            Some(TicketAnswer::Failed { message }) => Err(EngineError::Unknown(message.clone())),
            Some(TicketAnswer::Message { .. }) => {
                message.ok_or_else(|| EngineError::MessageNotFound(ticket.message.clone()))
            }
            ending @ (Some(TicketAnswer::Dropped) | None) => {
                let page = self.messages(&ticket.tenant, &ticket.session, None, None).await?;
                // How it ended was too long ago: its answer is still there.
                let own = || answer_of_turn(&page.items, &ticket.message);
                let answer = if ending.is_none() { own() } else { None };
                // OpenCode's answer: the newest message that is no prompt, else the newest one.
                let newest = || page.items.iter().rev().find(|message| message.info.assistant().is_some());
                let answer = answer.or_else(newest).or(page.items.last()).cloned();
                answer.ok_or_else(|| EngineError::MessageNotFound(ticket.message.clone()))
            }
        }
    }
}

/// The newest answer of the turn that answered a prompt: to itself, else to the one that it was answered with.
fn answer_of_turn<'a>(messages: &'a [MessageWithParts], prompt: &MessageId) -> Option<&'a MessageWithParts> {
    let answers = |to: &MessageId| {
        let answers = |message: &&MessageWithParts| message.info.assistant().is_some_and(|info| info.parent_id == *to);
        messages.iter().rev().find(answers)
    };
    answers(prompt).or_else(|| {
        let at = messages.iter().position(|message| message.info.id() == prompt)?;
        let next = messages[at..].iter().find_map(|message| message.info.assistant())?;
        answers(&next.parent_id)
    })
}

/// What is left of prompts whose replica died before it had given out their tickets, but for one that is stored again: the
/// messages that are there, and how all of it is removed. They were never acknowledged, and their numbers will be others'.
pub(crate) fn never_given_out(
    at: &Under<'_>,
    issued: u64,
    but: Option<&MessageId>,
) -> Result<(Vec<MessageId>, Vec<Write>), EngineError> {
    let (mut messages, mut writes) = (Vec::new(), Vec::new());
    let tickets = at.store.tickets(at.id)?.into_iter();
    for (id, _) in tickets.filter(|(id, ticket)| ticket.k > issued && Some(id) != but) {
        let message = Record::Message { session: at.id.clone(), id: id.clone() };
        if at.store.read(&message)?.is_some() {
            messages.push(id.clone());
        }
        writes.push(Write::Remove(message));
        for part in at.store.parts(&id)?.into_iter().filter(|part| part.session_id == *at.id) {
            writes.push(Write::Remove(Record::Part { message: id.clone(), id: part.id }));
        }
        // Last: by it the rest is found.
        writes.push(Write::Remove(Record::Ticket { session: at.id.clone(), message: id }));
    }
    Ok((messages, writes))
}

/// The hash that stands for a prompt's name, or for the id that its client gave it.
fn name_of(prompt: &Prompt) -> Option<String> {
    match (&prompt.name, &prompt.message_id) {
        (Some(name), _) => Some(name.hash.clone()),
        (None, Some(id)) => Some(hash_of(&["message", id.as_str()])),
        (None, None) => None,
    }
}

/// The variant that an agent names for its own model, if that model is the one and has such a variant.
fn variant_of(instance: &agents::Instance, agent: &agents::Agent, model: &UserModel) -> Option<String> {
    let (variant, own) = (agent.variant.as_ref()?, agent.model.as_ref()?);
    let is_own = own.provider_id == model.provider_id && own.model_id == model.model_id;
    let known = instance.model(&own.provider_id, &own.model_id).ok()?;
    (is_own && known.variants.contains_key(variant)).then(|| variant.clone())
}
