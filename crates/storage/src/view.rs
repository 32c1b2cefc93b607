//! What is kept in memory of a session's messages, and how it is known to be current.
//!
//! - While the head is closed and its rev is the same, nothing has changed.
//! - While it is open, a runner may add messages and change unfinished ones: the directory is listed, and unfinished
//!   messages are checked. Finished ones change only in head commits.
//! - Head commits made here are applied. Those made elsewhere tell in the head which messages they wrote: these, and those
//!   that a runner may have gone on with, are checked before they are used, by the stamps of their files, which are all new
//!   with every write. Where the head does not tell far enough back, and every so often, all are checked: a commit that broke
//!   off may have changed one without a word.
//!
//! An answer's created time never changes, so its place in the order, once known, stays; a prompt's does until a commit writes
//! it again.

use crate::disk::Stamp;
use crate::error::{Result, StoreError, if_there};
use crate::history::Page;
use crate::record::{Record, Write, stem};
use crate::store::TenantStore;
use run_protocol::Head;
use serde::Deserialize;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use wire::ids::{MessageId, PartId, SessionId};
use wire::message::{Message, MessageTime, MessageWithParts};
use wire::part::Part;

/// So many new messages are read whole when they are found.
const FEW: usize = 16;

/// So often in a row the head's word is taken at least; in a long session more often: then a check of all messages is, shared
/// among the commits before it, one of so many.
const TRUSTED: usize = 16;

type Order = (u64, MessageId);

#[derive(Default)]
pub(crate) struct View {
    rev: u64,
    closed: bool,
    /// Grows when every content must be checked before it is used again. 0: nothing was read yet.
    epoch: u64,
    /// How often the head's word was taken since all contents were checked.
    trusted: usize,
    slots: BTreeMap<Order, Slot>,
    created: HashMap<MessageId, u64>,
    content_bytes: usize,
}

struct Slot {
    finished: bool,
    is_answer: bool,
    content: Option<Content>,
}

/// A message as it was read, and the stamps of its files.
pub(crate) struct Content {
    pub(crate) item: Arc<MessageWithParts>,
    stamp: Stamp,
    parts: Vec<(String, Stamp)>,
    bytes: usize,
    /// The epoch in which it was last known to be current.
    epoch: u64,
}

/// What the order needs of a message's record.
#[derive(Deserialize)]
struct Brief {
    role: String,
    time: MessageTime,
}

impl Brief {
    fn is_answer(&self) -> bool {
        self.role == "assistant"
    }

    fn finished(&self) -> bool {
        !self.is_answer() || self.time.completed.is_some()
    }
}

impl View {
    /// Brings the order up to `head`, which was read before, and marks what must be checked.
    pub(crate) fn refresh(&mut self, store: &TenantStore, session: &SessionId, head: &Head) -> Result<()> {
        let closed = !head.is_open();
        let same_rev = self.epoch > 0 && self.rev == head.rev;
        if same_rev && self.closed && closed {
            return Ok(());
        }
        if !same_rev {
            let trusts = self.epoch > 0 && self.trusted < TRUSTED.max(self.slots.len() / TRUSTED);
            match head.changed_since(self.rev).filter(|_| trusts) {
                Some(changed) => {
                    self.trusted += 1;
                    changed.for_each(|id| self.forget(id));
                    self.doubt_the_newest();
                }
                None => {
                    self.trusted = 0;
                    self.epoch += 1;
                    self.forget_prompts();
                }
            }
        }
        for slot in self.slots.values_mut().filter(|slot| !slot.finished) {
            if let Some(content) = &mut slot.content {
                content.epoch = 0;
            }
        }
        // Not current before the listing below has succeeded.
        self.closed = false;
        self.list(store, session)?;
        self.rev = head.rev;
        self.closed = closed;
        Ok(())
    }

    /// A prompt that was stored again after its replica had died in the midst of it has another place then.
    fn forget_prompts(&mut self) {
        let prompts = self.slots.iter().filter(|(_, slot)| !slot.is_answer);
        let prompts: Vec<MessageId> = prompts.map(|((_, id), _)| id.clone()).collect();
        prompts.iter().for_each(|id| self.forget(id));
    }

    /// Has what a runner may have written since checked before it is used again: nothing before the answer that was the newest.
    /// It makes a head commit before it begins the next.
    fn doubt_the_newest(&mut self) {
        for slot in self.slots.values_mut().rev() {
            if let Some(content) = &mut slot.content {
                content.epoch = 0;
            }
            if slot.is_answer {
                return;
            }
        }
    }

    /// Lists the messages: forgets those that are gone and reads the created times of new ones.
    pub(crate) fn list(&mut self, store: &TenantStore, session: &SessionId) -> Result<()> {
        let directory = store.directory("storage/message").join(session.as_str());
        let names = if_there(store.inner.disk.list(&directory), &directory)?.unwrap_or_default();
        // Most are known: a long session is not gone through by ids that are made for it.
        let (known, new): (Vec<&str>, Vec<&str>) =
            names.iter().filter_map(|name| stem(name)).partition(|id| self.created.contains_key(*id));
        if known.len() < self.created.len() {
            let known: HashSet<&str> = known.into_iter().collect();
            let gone: Vec<_> = self.created.keys().filter(|id| !known.contains(id.as_str())).cloned().collect();
            gone.iter().for_each(|id| self.forget(id));
        }
        let new: Vec<MessageId> = new.into_iter().filter_map(|id| MessageId::parse(id).ok()).collect();
        // A few new ones are what somebody is about to read.
        let whole = self.epoch > 0 && new.len() <= FEW;
        for id in new {
            // One that cannot be read is told of by whoever wants it.
            if whole && let Ok(Some(content)) = read_message(store, session, &id) {
                self.insert_content(id, content);
                continue;
            }
            let path = directory.join(format!("{id}.json"));
            if let Some((bytes, _)) = if_there(store.inner.disk.read(&path), &path)? {
                let brief = serde_json::from_slice(&bytes).map_err(|error| StoreError::corrupt(&path, error))?;
                self.insert(id, &brief);
            }
        }
        Ok(())
    }

    pub(crate) fn newest(&self) -> Option<u64> {
        self.slots.last_key_value().map(|((created, _), _)| *created)
    }

    fn insert(&mut self, id: MessageId, brief: &Brief) {
        self.forget(&id);
        self.created.insert(id.clone(), brief.time.created);
        let slot = Slot { finished: brief.finished(), is_answer: brief.is_answer(), content: None };
        self.slots.insert((brief.time.created, id), slot);
    }

    /// Takes in what was read just now.
    fn insert_content(&mut self, id: MessageId, content: Content) {
        self.forget(&id);
        let info = &content.item.info;
        let created = info.created();
        let (finished, is_answer) = (!is_unfinished(info), info.assistant().is_some());
        self.created.insert(id.clone(), created);
        self.content_bytes += content.bytes;
        let content = Some(Content { epoch: self.epoch, ..content });
        self.slots.insert((created, id), Slot { finished, is_answer, content });
    }

    /// A message, if it is kept here and nothing can have changed since `head`; else read, and kept.
    pub(crate) fn one(
        &mut self,
        store: &TenantStore,
        session: &SessionId,
        id: &MessageId,
        head: &Head,
    ) -> Result<Option<Arc<MessageWithParts>>> {
        let slot = self.created.get(id).and_then(|created| self.slots.get(&(*created, id.clone())));
        if let Some(content) = slot.filter(|slot| slot.finished).and_then(|slot| slot.content.as_ref())
            && (self.rev, self.epoch) == (head.rev, content.epoch)
        {
            return Ok(Some(Arc::clone(&content.item)));
        }
        let Some(content) = read_message(store, session, id)? else { return Ok(None) };
        let item = Arc::clone(&content.item);
        if self.epoch > 0 {
            self.insert_content(id.clone(), content);
        }
        Ok(Some(item))
    }

    fn forget(&mut self, id: &MessageId) {
        if let Some(created) = self.created.remove(id) {
            let slot = self.slots.remove(&(created, id.clone()));
            self.content_bytes -= slot.and_then(|slot| slot.content).map_or(0, |content| content.bytes);
        }
    }

    fn drop_content(&mut self, id: &MessageId) {
        let Some(&created) = self.created.get(id) else { return };
        let content = self.slots.get_mut(&(created, id.clone())).and_then(|slot| slot.content.take());
        self.content_bytes -= content.map_or(0, |content| content.bytes);
    }

    /// The newest `limit` messages before `before`.
    pub(crate) fn page(
        &mut self,
        store: &TenantStore,
        session: &SessionId,
        limit: Option<usize>,
        before: Option<&Order>,
    ) -> Result<Page<Arc<MessageWithParts>>> {
        // A message that is gone when it is read makes room for the next.
        loop {
            let epoch = self.epoch;
            let is_stale = |slot: &Slot| slot.content.as_ref().is_none_or(|content| content.epoch != epoch);
            let page = self.newest_before(before, limit);
            let stale: Vec<Order> = page.filter(|(_, slot)| is_stale(slot)).map(|(order, _)| order.clone()).collect();
            if stale.is_empty() {
                break;
            }
            for order in &stale {
                self.bring_up(store, session, order)?;
            }
        }
        let page = self.newest_before(before, limit);
        let mut items: Vec<_> =
            page.filter_map(|(_, slot)| slot.content.as_ref().map(|content| Arc::clone(&content.item))).collect();
        items.reverse();
        let oldest = self.newest_before(before, limit).last().map(|(order, _)| order);
        let next = oldest.filter(|oldest| self.slots.range(..*oldest).next_back().is_some()).cloned();
        Ok(Page { items, next })
    }

    /// The newest `limit` places in the order before a bound, newest first.
    fn newest_before(&self, bound: Option<&Order>, limit: Option<usize>) -> impl Iterator<Item = (&Order, &Slot)> {
        let range = match bound {
            Some(bound) => self.slots.range(..bound),
            None => self.slots.range::<Order, _>(..),
        };
        range.rev().take(limit.unwrap_or(usize::MAX))
    }

    /// Checks the message at a place in the order, and reads it where that has changed; forgets it where it is gone.
    fn bring_up(&mut self, store: &TenantStore, session: &SessionId, order: &Order) -> Result<()> {
        let epoch = self.epoch;
        if let Some(content) = self.slots.get_mut(order).and_then(|slot| slot.content.as_mut())
            && content.is_current(store, session, &order.1)?
        {
            content.epoch = epoch;
            return Ok(());
        }
        self.drop_content(&order.1);
        let Some(mut content) = read_message(store, session, &order.1)? else {
            self.forget(&order.1);
            return Ok(());
        };
        content.epoch = epoch;
        if let Some(slot) = self.slots.get_mut(order) {
            slot.finished = !is_unfinished(&content.item.info);
            self.content_bytes += content.bytes;
            slot.content = Some(content);
        }
        Ok(())
    }

    /// Applies a head commit that was made here on top of `rev`: what it wrote is read again when it is used.
    pub(crate) fn apply(&mut self, rev: u64, writes: &[Write], head: &Head) {
        if self.epoch == 0 || self.rev != rev {
            return;
        }
        for write in writes {
            match (write, write.record()) {
                (Write::Remove(_), Record::Message { id, .. }) => self.forget(id),
                (
                    Write::Put(_, bytes) | Write::Reveal(_, bytes) | Write::PutNew(_, bytes),
                    Record::Message { id, .. },
                ) => {
                    match serde_json::from_slice(bytes) {
                        Ok(brief) => self.insert(id.clone(), &brief),
                        // The reader of the record will say what is wrong with it.
                        Err(_) => return,
                    }
                }
                (_, Record::Part { message, .. }) => self.drop_content(message),
                _ => {}
            }
        }
        self.rev = head.rev;
        self.closed = self.closed && !head.is_open();
    }

    /// Drops the contents, and keeps only the order, if they are more than `most` bytes. Returns what is left in bytes.
    pub(crate) fn trim(&mut self, most: usize) -> usize {
        if self.content_bytes > most {
            self.slots.values_mut().for_each(|slot| slot.content = None);
            self.content_bytes = 0;
        }
        256 + self.slots.len() * 200 + self.content_bytes
    }
}

impl Content {
    fn is_current(&self, store: &TenantStore, session: &SessionId, id: &MessageId) -> Result<bool> {
        let path = store.path(&Record::Message { session: session.clone(), id: id.clone() })?;
        if if_there(store.inner.disk.stamp(&path), &path)? != Some(self.stamp) {
            return Ok(false);
        }
        let directory = store.directory("storage/part").join(id.as_str());
        let mut parts = if_there(store.inner.disk.list_stamped(&directory), &directory)?.unwrap_or_default();
        parts.retain(|(name, _)| part_id(name).is_some());
        parts.sort_unstable_by(|(a, _), (b, _)| stem(a).cmp(&stem(b)));
        Ok(parts == self.parts)
    }
}

fn part_id(name: &str) -> Option<PartId> {
    PartId::parse(stem(name)?).ok()
}

fn is_unfinished(info: &Message) -> bool {
    info.assistant().is_some_and(|message| message.time.completed.is_none())
}

/// Reads a message and its parts, in the order of the parts' ids.
pub(crate) fn read_message(store: &TenantStore, session: &SessionId, id: &MessageId) -> Result<Option<Content>> {
    let path = store.path(&Record::Message { session: session.clone(), id: id.clone() })?;
    let Some((bytes, stamp)) = if_there(store.inner.disk.read(&path), &path)? else { return Ok(None) };
    let info: Message = serde_json::from_slice(&bytes).map_err(|error| StoreError::corrupt(&path, error))?;
    let directory = store.directory("storage/part").join(id.as_str());
    let mut names = if_there(store.inner.disk.list(&directory), &directory)?.unwrap_or_default();
    names.retain(|name| part_id(name).is_some());
    names.sort_unstable_by(|a, b| stem(a).cmp(&stem(b)));
    let mut size = bytes.len();
    let (mut parts, mut stamps) = (Vec::with_capacity(names.len()), Vec::with_capacity(names.len()));
    for name in names {
        let path = directory.join(&name);
        let Some((bytes, stamp)) = if_there(store.inner.disk.read(&path), &path)? else { continue };
        let part: Part = match serde_json::from_slice(&bytes) {
            Ok(part) => part,
            // Committed lightly and torn by a power cut before its step ended: it was never acknowledged.
            Err(_) if is_unfinished(&info) => continue,
            Err(error) => return Err(StoreError::corrupt(&path, error)),
        };
        size += bytes.len();
        parts.push(part);
        stamps.push((name, stamp));
    }
    let item = Arc::new(MessageWithParts { info, parts });
    // Parsed, a record takes about twice its text, and each its share of maps and allocations.
    Ok(Some(Content { item, stamp, bytes: 2 * size + 400 * (1 + stamps.len()), parts: stamps, epoch: 0 }))
}
