//! Forks: a new session that begins with a copy of another's messages.

use crate::api::{EngineError, RequestName};
use crate::asks::found;
use crate::commit::{Committer, Decision, body};
use crate::edits::used;
use crate::engine::{Engine, blocking};
use crate::named::Acting;
use crate::run::{message_record, session_record};
use crate::sessions::slug;
use coordination::SessionKey;
use run_protocol::{Head, RecordVersion};
use serde_json::json;
use std::collections::HashMap;
use storage::{Record, StoreError, Write};
use wire::ids::{MessageId, SessionId};
use wire::message::{Message, MessageWithParts, Tokens};
use wire::part::PartKind;
use wire::session::{Session, SessionTime};
use wire::tenant::Tenant;

impl Engine {
    /// Makes a session that begins with the messages of another before `upto`; with all of them if there is no such
    /// message.
    ///
    /// Nobody sees the new session before all of it is there. Of a message that a run still writes the copy is closed.
    pub async fn fork_session(
        &self,
        tenant: &Tenant,
        id: &SessionId,
        upto: Option<&MessageId>,
        name: Option<&RequestName>,
    ) -> Result<Session, EngineError> {
        self.is_coordinated()?;
        let about = async {
            self.session(tenant, id).await?;
            Ok(self.0.ids.session())
        };
        self.once(tenant, name, about, |acting| self.copy_session(tenant, id, upto, acting)).await
    }

    async fn copy_session(
        &self,
        tenant: &Tenant,
        id: &SessionId,
        upto: Option<&MessageId>,
        acting: Acting,
    ) -> Result<Session, EngineError> {
        let source = self.session(tenant, id).await?;
        let mut messages = self.messages(tenant, id, None, None).await?.items;
        if let Some(end) = messages.iter().position(|message| Some(message.info.id()) == upto) {
            messages.truncate(end);
        }
        let now = self.now_ms();
        let fork = Session {
            slug: slug(self.0.ids.bits()),
            title: fork_title(&source.title),
            parent_id: None,
            summary: None,
            cost: 0.0,
            tokens: Tokens::default(),
            share: None,
            agent: None,
            model: None,
            version: wire::OPENCODE_VERSION.into(),
            time: SessionTime { created: now, updated: now, compacting: None, archived: None },
            revert: None,
            extra: wire::Extra::new(),
            id: acting.session,
            ..source
        };
        let copies = self.copies(messages, &fork.id, now);
        let mut head = Head::new(fork.project_id.clone());
        head.clock = copies.last().map_or(0, |message| message.info.created());
        let (store, made) = (self.tenant_store(tenant), fork.id.clone());
        blocking(move || match store.create_guard(&made, &head) {
            Ok(()) | Err(StoreError::Exists) => Ok(()),
            Err(error) => Err(error.into()),
        })
        .await?;
        let key = SessionKey::new(tenant.clone(), fork.id.clone());
        let (new, written) = (fork.clone(), copies.clone());
        let (head, earlier) = self
            .head_commit(&key, Committer::Request, move |_, at| {
                if let Some(earlier) = found(at.store.session(at.id))? {
                    return Ok(Decision::Leave(Some(earlier)));
                }
                let mut writes = Vec::new();
                // What an earlier sending of the same request had copied when its replica died.
                for left in at.store.messages(at.id, None, None)?.items {
                    writes.push(Write::Remove(message_record(&left.info)));
                    let message = left.info.id();
                    let parts = left.parts.iter();
                    writes.extend(
                        parts.map(|part| Write::Remove(Record::Part { message: message.clone(), id: part.id.clone() })),
                    );
                }
                for copy in &written {
                    for part in &copy.parts {
                        let record = Record::Part { message: part.message_id.clone(), id: part.id.clone() };
                        writes.push(Write::Put(record, body(part)?));
                    }
                    writes.push(Write::Put(message_record(&copy.info), body(&copy.info)?));
                }
                // The copied steps count in the copy, too; OpenCode tells that with the next change of the session.
                let spent = used(written.iter().flat_map(|copy| &copy.parts));
                let mut stored = new.clone();
                (stored.cost, stored.tokens) = (spent.cost, spent.tokens);
                writes.push(Write::Reveal(session_record(&stored), body(&stored)?));
                Ok(Decision::Write(writes, None))
            })
            .await?;
        if let Some(earlier) = earlier {
            return Ok(earlier);
        }
        let origin = self.origin(&key, &fork, None);
        let version = |record: &str| Some((record.to_owned(), RecordVersion::head(head.rev)));
        self.publish(&origin, wire::event::session_created(&fork), None).await;
        for copy in &copies {
            let id = copy.info.id().as_str();
            self.publish(&origin, wire::event::message_updated(&copy.info), version(id)).await;
            for part in &copy.parts {
                let happened = wire::event::part_updated(part, now);
                self.publish(&origin, happened, version(part.id.as_str())).await;
            }
        }
        Ok(fork)
    }

    /// The messages under new ids, of another session. They refer to one another as before.
    fn copies(&self, messages: Vec<MessageWithParts>, session: &SessionId, now: u64) -> Vec<MessageWithParts> {
        let mut new_ids: HashMap<MessageId, MessageId> = HashMap::new();
        let mut copies = Vec::with_capacity(messages.len());
        for mut message in messages {
            let id = self.0.ids.message();
            new_ids.insert(message.info.id().clone(), id.clone());
            let mut unfinished = false;
            match &mut message.info {
                Message::User(user) => {
                    user.id = id.clone();
                    user.session_id = session.clone();
                }
                Message::Assistant(answer) => {
                    answer.id = id.clone();
                    answer.session_id = session.clone();
                    if let Some(parent) = new_ids.get(&answer.parent_id) {
                        answer.parent_id = parent.clone();
                    }
                    unfinished = answer.time.completed.is_none();
                    if unfinished {
                        answer.time.completed = Some(now);
                        answer.finish = Some("unknown".into());
                    }
                }
            }
            for part in &mut message.parts {
                part.id = self.0.ids.part();
                part.session_id = session.clone();
                part.message_id = id.clone();
                if unfinished {
                    crate::turn::close_part(&mut part.kind, now);
                }
                if let PartKind::Other(fields) = &mut part.kind
                    && let Some(tail) = fields.get("tail_start_id").and_then(|tail| tail.as_str())
                    && let Some(new) = MessageId::parse(tail).ok().and_then(|tail| new_ids.get(&tail))
                {
                    fields.insert("tail_start_id".into(), json!(new));
                }
            }
            copies.push(message);
        }
        copies
    }
}

/// The title of a fork says which one it is.
fn fork_title(title: &str) -> String {
    let numbered = title.strip_suffix(')').and_then(|rest| rest.rsplit_once(" (fork #"));
    match numbered.and_then(|(rest, number)| Some((rest, number.parse::<u64>().ok()?))) {
        Some((rest, number)) => format!("{rest} (fork #{})", number.saturating_add(1)),
        None => format!("{title} (fork #1)"),
    }
}

#[cfg(test)]
mod tests {
    use super::fork_title;

    #[test]
    fn a_fork_of_a_fork_is_the_next_one() {
        assert_eq!(fork_title("A title"), "A title (fork #1)");
        assert_eq!(fork_title("A title (fork #1)"), "A title (fork #2)");
        assert_eq!(fork_title("A (fork #x)"), "A (fork #x) (fork #1)");
    }
}
