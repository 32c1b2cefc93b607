//! Reads of single records. A reader sees a record whole, as it was or as it is.

use crate::commit::{Action, Step};
use crate::error::{At, Result, StoreError, if_there};
use crate::record::{Record, Write, stem};
use crate::store::TenantStore;
use crate::sync::lock;
use crate::view::read_message;
use run_protocol::{Head, Ticket};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use wire::ids::{MessageId, PartId, SessionId};
use wire::message::MessageWithParts;
use wire::part::Part;
use wire::session::Session;

impl TenantStore {
    /// A session's record. `Deleted` once its head says so, whatever is left of it.
    pub fn session(&self, session: &SessionId) -> Result<Session> {
        self.session_under(session, &self.head(session)?)
    }

    /// As [`TenantStore::session`], for whoever has read the head.
    pub fn session_under(&self, session: &SessionId, head: &Head) -> Result<Session> {
        if !head.is_live() {
            return Err(StoreError::Deleted);
        }
        let path = self.path(&Record::Session { project: head.project.clone(), id: session.clone() })?;
        self.parse_at(&path)?.ok_or(StoreError::NotFound)
    }

    /// One message with its parts.
    pub fn message(&self, session: &SessionId, message: &MessageId) -> Result<MessageWithParts> {
        self.message_under(session, message, &self.head(session)?)
    }

    /// As [`TenantStore::message`], for whoever has read the head.
    pub fn message_under(&self, session: &SessionId, message: &MessageId, head: &Head) -> Result<MessageWithParts> {
        if !head.is_live() {
            return Err(StoreError::Deleted);
        }
        let content = read_message(self, session, message)?.ok_or(StoreError::NotFound)?;
        Ok(Arc::unwrap_or_clone(content.item))
    }

    /// As [`TenantStore::message`], of what is kept in memory where the head shows that it is current.
    pub fn shared_message_under(
        &self,
        session: &SessionId,
        message: &MessageId,
        head: &Head,
    ) -> Result<Arc<MessageWithParts>> {
        if !head.is_live() {
            return Err(StoreError::Deleted);
        }
        let key = (self.tenant.clone(), session.clone());
        let view = lock(&self.inner.views).get(&key);
        let found = match view {
            Some(view) => {
                let mut view = lock(&view);
                let found = view.one(self, session, message, head)?;
                let bytes = view.trim(self.most_of_a_view());
                drop(view);
                lock(&self.inner.views).weigh(&key, bytes);
                found
            }
            None => read_message(self, session, message)?.map(|content| content.item),
        };
        found.ok_or(StoreError::NotFound)
    }

    /// The session that a message id is in use in, found by the first of its parts, which are written before it.
    ///
    /// A message without parts is not found. Two sessions that take the same id at the very same moment may both be
    /// told that it is free.
    pub fn message_exists(&self, message: &MessageId) -> Result<Option<SessionId>> {
        #[derive(Deserialize)]
        struct Owner {
            #[serde(rename = "sessionID")]
            session: SessionId,
        }
        for path in self.files(&self.directory("storage/part").join(message.as_str()))? {
            if let Some(owner) = self.parse_at::<Owner>(&path)? {
                return Ok(Some(owner.session));
            }
        }
        Ok(None)
    }

    /// The parts that lie under a message's id, by their ids, whether or not the message is there.
    pub fn parts(&self, message: &MessageId) -> Result<Vec<Part>> {
        let mut parts = Vec::new();
        for path in self.files(&self.directory("storage/part").join(message.as_str()))? {
            parts.extend(self.parse_at(&path)?);
        }
        Ok(parts)
    }

    /// The parts of a message that a power cut tore: they were committed lightly, and what is left of them is no record. As
    /// long as the message is not finished its readers pass over them.
    pub fn torn_parts(&self, message: &MessageId) -> Result<Vec<PartId>> {
        let mut torn = Vec::new();
        for path in self.files(&self.directory("storage/part").join(message.as_str()))? {
            if matches!(self.parse_at::<Part>(&path), Err(StoreError::Corrupt { .. })) {
                torn.extend(path.file_stem().and_then(|stem| stem.to_str()).and_then(|stem| PartId::parse(stem).ok()));
            }
        }
        Ok(torn)
    }

    /// A record's bytes, if it is there.
    pub fn read(&self, record: &Record) -> Result<Option<Vec<u8>>> {
        let path = self.path(record)?;
        Ok(if_there(self.inner.disk.read(&path), &path)?.map(|(bytes, _)| bytes))
    }

    /// Writes a record that belongs to no session, unless it is there: of all who try, on all replicas, the first wins.
    /// Returns what stands there. Durable when it returns, whoever wrote it.
    pub fn put_if_absent(&self, record: &Record, bytes: &[u8]) -> Result<Vec<u8>> {
        let (disk, path) = (&self.inner.disk, self.path(record)?);
        if let Some(there) = self.read(record)? {
            self.inner.sync_directories(path.parent())?;
            return Ok(there);
        }
        if let Some(directory) = path.parent() {
            self.inner.make_directory(directory)?;
        }
        let beside = self.directory("flotilla/new").join(self.inner.random_name());
        disk.create(&beside, bytes).at(&beside)?;
        self.inner.sync_files(std::slice::from_ref(&beside))?;
        match disk.rename_new(&beside, &path) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                disk.unlink(&beside).at(&beside)?;
                let there = self.read(record)?.ok_or(StoreError::NotFound)?;
                self.inner.sync_directories(path.parent())?;
                Ok(there)
            }
            result => {
                result.at(&path)?;
                self.inner.sync_directories(path.parent())?;
                Ok(bytes.to_vec())
            }
        }
    }

    /// A session's asks, by id.
    pub fn asks(&self, session: &SessionId) -> Result<Vec<Vec<u8>>> {
        let mut asks = Vec::new();
        for path in self.files(&self.directory("flotilla/ask").join(session.as_str()))? {
            asks.extend(if_there(self.inner.disk.read(&path), &path)?.map(|(bytes, _)| bytes));
        }
        Ok(asks)
    }

    /// A session's tickets and the messages that they are for, in the order of their numbers.
    pub fn tickets(&self, session: &SessionId) -> Result<Vec<(MessageId, Ticket)>> {
        let mut tickets: Vec<(MessageId, Ticket)> = Vec::new();
        for path in self.files(&self.directory("flotilla/ticket").join(session.as_str()))? {
            let id = path.file_stem().and_then(|stem| stem.to_str()).and_then(|stem| MessageId::parse(stem).ok());
            if let (Some(id), Some(ticket)) = (id, self.parse_at(&path)?) {
                tickets.push((id, ticket));
            }
        }
        tickets.sort_by_key(|(_, ticket)| ticket.k);
        Ok(tickets)
    }

    /// The record files in a directory, by name.
    fn files(&self, directory: &Path) -> Result<Vec<PathBuf>> {
        let mut names = if_there(self.inner.disk.list(directory), directory)?.unwrap_or_default();
        names.retain(|name| stem(name).is_some());
        names.sort_unstable();
        Ok(names.into_iter().map(|name| directory.join(name)).collect())
    }

    fn parse_at<T: DeserializeOwned>(&self, path: &Path) -> Result<Option<T>> {
        let Some((bytes, _)) = if_there(self.inner.disk.read(path), path)? else { return Ok(None) };
        serde_json::from_slice(&bytes).map(Some).map_err(|error| StoreError::corrupt(path, error))
    }

    /// The writes of a commit as steps on paths.
    pub(crate) fn steps<'a>(&self, writes: &'a [Write]) -> Result<Vec<Step<'a>>> {
        let step = |write: &'a Write| {
            let action = match write {
                Write::Put(_, bytes) => Action::Put(bytes.into()),
                Write::Reveal(_, bytes) => Action::Reveal(bytes.into()),
                Write::PutNew(_, bytes) => Action::PutNew(bytes.into()),
                Write::Remove(_) => Action::Remove,
            };
            Ok(Step { target: self.path(write.record())?, action })
        };
        writes.iter().map(step).collect()
    }
}
