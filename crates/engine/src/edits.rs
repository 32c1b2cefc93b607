//! Single messages and parts: changed and removed by clients.

use crate::api::{EngineError, RequestName};
use crate::commit::{Committer, Decision, Under, body};
use crate::engine::Engine;
use crate::run::{message_record, session_record};
use coordination::SessionKey;
use run_protocol::{Head, RecordVersion, Spent};
use std::sync::Arc;
use storage::{Record, Write};
use wire::event::Happened;
use wire::ids::{MessageId, PartId, SessionId};
use wire::message::{Message, MessageWithParts, Tokens};
use wire::part::{Part, PartKind};
use wire::session::Session;
use wire::tenant::Tenant;

impl Engine {
    /// Puts a part into a message: a new one, or in the place of the one with its id, which stays in the message where it is.
    /// Returns the part as it is then.
    ///
    /// Errors: `MessageNotFound`; `Busy` while a run writes the message.
    pub async fn put_part(&self, tenant: &Tenant, part: Part, name: Option<&RequestName>) -> Result<Part, EngineError> {
        let about = async { Ok(self.session(tenant, &part.session_id).await?.id) };
        self.once(tenant, name, about, |acting| async {
            let key = SessionKey::new(tenant.clone(), acting.session);
            let put = part.clone();
            let changed = self.head_commit(&key, Committer::Request, move |head, at| {
                let (mut put, mut session) = (put.clone(), at.session()?);
                let there = at.message(&put.message_id)?;
                let mut there = there.ok_or_else(|| EngineError::MessageNotFound(put.message_id.clone()))?;
                if let Some(elsewhere) = holder_beside(at, head, &there, &put.id)? {
                    put.message_id = elsewhere.info.id().clone();
                    there = elsewhere;
                }
                refuse_unfinished(head, &there.info)?;
                if !head.apply_once(acting.name.as_deref()) {
                    return Ok(Decision::Leave((put, None)));
                }
                let before = there.parts.iter().filter(|part| part.id == put.id);
                recount(head, &mut session, before, [&put]);
                let record = Record::Part { message: put.message_id.clone(), id: put.id.clone() };
                let writes = vec![Write::Put(record, body(&put)?), put_session(&session)?];
                Ok(Decision::Write(writes, (put, Some(session))))
            });
            let (head, (part, session)) = changed.await?;
            let happened = wire::event::part_updated(&part, self.now_ms());
            self.tell(&key, session, &head, part.id.as_str(), happened).await;
            Ok(part)
        })
        .await
    }

    /// Takes a part out of its message. One that is not there is told to be gone, too.
    ///
    /// Errors: `Busy` while a run writes the message.
    pub async fn remove_part(
        &self,
        tenant: &Tenant,
        session: &SessionId,
        message: &MessageId,
        part: &PartId,
        name: Option<&RequestName>,
    ) -> Result<(), EngineError> {
        let about = async { Ok(self.session(tenant, session).await?.id) };
        self.once(tenant, name, about, |acting| async {
            let key = SessionKey::new(tenant.clone(), acting.session);
            let (owner, wanted) = (message.clone(), part.clone());
            let removed = self.head_commit(&key, Committer::Request, move |head, at| {
                let mut session = at.session()?;
                let there = at.message(&owner)?;
                if let Some(there) = &there {
                    refuse_unfinished(head, &there.info)?;
                }
                if !head.apply_once(acting.name.as_deref()) {
                    return Ok(Decision::Leave(None));
                }
                // A part that is not in a message of this session may be another one's.
                let before = there.iter().flat_map(|there| &there.parts).find(|part| part.id == wanted);
                recount(head, &mut session, before, []);
                let record = Record::Part { message: owner.clone(), id: wanted.clone() };
                let mut writes = vec![put_session(&session)?];
                writes.extend(before.map(|_| Write::Remove(record)));
                Ok(Decision::Write(writes, Some(session)))
            });
            let (head, session) = removed.await?;
            let happened = wire::event::part_removed(&key.session, message, part);
            self.tell(&key, session, &head, part.as_str(), happened).await;
            Ok(())
        })
        .await
    }

    /// Removes a message and its parts. One that is not there is told to be gone, too.
    ///
    /// The message goes before its parts: where the remover dies between the two, parts without a message are left that
    /// nobody sees, and the same request takes them away.
    ///
    /// Errors: `Busy` while anything is open in the session.
    pub async fn remove_message(
        &self,
        tenant: &Tenant,
        session: &SessionId,
        message: &MessageId,
        name: Option<&RequestName>,
    ) -> Result<(), EngineError> {
        let about = async { Ok(self.session(tenant, session).await?.id) };
        self.once(tenant, name, about, |acting| async {
            let key = SessionKey::new(tenant.clone(), acting.session);
            let wanted = message.clone();
            let removed = self.head_commit(&key, Committer::Request, move |head, at| {
                let mut session = at.session()?;
                let there = at.message(&wanted)?;
                // Half removed before: what is left is finished, whatever runs by now.
                if there.is_some() && head.is_open() {
                    return Err(EngineError::Busy(at.id.clone()));
                }
                if !head.apply_once(acting.name.as_deref()) {
                    return Ok(Decision::Leave(None));
                }
                let mut writes = Vec::new();
                let parts = match there {
                    Some(there) => {
                        writes.push(Write::Remove(message_record(&there.info)));
                        there.parts
                    }
                    None => orphans(at, &wanted)?,
                };
                recount(head, &mut session, &parts, []);
                for part in parts {
                    writes.push(Write::Remove(Record::Part { message: wanted.clone(), id: part.id }));
                }
                writes.push(put_session(&session)?);
                Ok(Decision::Write(writes, Some(session)))
            });
            let (head, session) = removed.await?;
            let happened = wire::event::message_removed(&key.session, message);
            self.tell(&key, session, &head, message.as_str(), happened).await;
            Ok(())
        })
        .await
    }

    /// Publishes what a head commit did to a record; nothing where it had been done before.
    async fn tell(&self, key: &SessionKey, session: Option<Session>, head: &Head, record: &str, happened: Happened) {
        let Some(session) = session else { return };
        let version = (record.to_owned(), RecordVersion::head(head.rev));
        self.publish(&self.origin(key, &session, None), happened, Some(version)).await;
    }
}

/// An unfinished message belongs to its runner.
fn refuse_unfinished(head: &Head, message: &Message) -> Result<(), EngineError> {
    let unfinished = message.assistant().is_some_and(|message| message.time.completed.is_none());
    if unfinished && head.is_open() { Err(EngineError::Busy(message.session_id().clone())) } else { Ok(()) }
}

/// The message that holds a part which the one that was named does not hold.
fn holder_beside(
    at: &Under<'_>,
    head: &Head,
    named: &MessageWithParts,
    part: &PartId,
) -> Result<Option<MessageWithParts>, EngineError> {
    let holds = |message: &MessageWithParts| message.parts.iter().any(|held| held.id == *part);
    if holds(named) {
        return Ok(None);
    }
    let messages = at.store.shared_messages_under(at.id, None, None, head)?.items;
    Ok(messages.into_iter().find(|message| holds(message)).map(Arc::unwrap_or_clone))
}

/// The parts of a message of this session that is gone itself.
fn orphans(at: &Under<'_>, message: &MessageId) -> Result<Vec<Part>, EngineError> {
    let mut parts = at.store.parts(message)?;
    parts.retain(|part| part.session_id == *at.id);
    Ok(parts)
}

fn put_session(session: &Session) -> Result<Write, EngineError> {
    Ok(Write::Put(session_record(session), body(session)?))
}

/// Mends a session's sums: what steps used is written in their last parts.
pub(crate) fn recount<'a>(
    head: &mut Head,
    session: &mut Session,
    before: impl IntoIterator<Item = &'a Part>,
    after: impl IntoIterator<Item = &'a Part>,
) {
    let (before, after) = (used(before), used(after));
    let known = || Spent { cost: session.cost, tokens: session.tokens.clone() };
    let spent = head.spent.get_or_insert_with(known);
    spent.add(&after);
    spent.take(&before);
    session.cost = spent.cost;
    session.tokens = Tokens { total: None, ..spent.tokens.clone() };
}

/// What the steps used that end with one of these parts.
pub(crate) fn used<'a>(parts: impl IntoIterator<Item = &'a Part>) -> Spent {
    let mut spent = Spent::default();
    for part in parts {
        if let PartKind::StepFinish(step) = &part.kind {
            spent.add(&Spent { cost: step.cost, tokens: step.tokens.clone() });
        }
    }
    spent
}
