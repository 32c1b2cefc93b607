//! A session's messages, page by page.

use crate::error::{Result, StoreError};
use crate::store::TenantStore;
use crate::sync::lock;
use crate::view::View;
use run_protocol::Head;
use std::sync::Arc;
use wire::ids::{MessageId, SessionId};
use wire::message::MessageWithParts;

/// Some messages of a session.
#[derive(Clone, Debug, PartialEq)]
pub struct Page<T = MessageWithParts> {
    /// The messages, by (created, id).
    pub items: Vec<T>,
    /// Where the page before this one ends: the oldest message here. Nothing if there are no older ones.
    pub next: Option<(u64, MessageId)>,
}

impl TenantStore {
    /// The newest `limit` messages (all, if it is absent or 0) that are older than `before`.
    ///
    /// What was read before is read again only where a commit may have changed it. Cold, every message's record is read
    /// once for its created time (10 microseconds each), and of the page's messages their parts, too.
    pub fn messages(
        &self,
        session: &SessionId,
        limit: Option<usize>,
        before: Option<(u64, MessageId)>,
    ) -> Result<Page> {
        let page = self.shared_messages(session, limit, before)?;
        let items = page.items.into_iter().map(Arc::unwrap_or_clone).collect();
        Ok(Page { items, next: page.next })
    }

    /// As [`TenantStore::messages`], without a copy of each message.
    pub fn shared_messages(
        &self,
        session: &SessionId,
        limit: Option<usize>,
        before: Option<(u64, MessageId)>,
    ) -> Result<Page<Arc<MessageWithParts>>> {
        self.shared_messages_under(session, limit, before, &self.head(session)?)
    }

    /// As [`TenantStore::shared_messages`], for whoever has read the head just before: what is kept is filed under its rev,
    /// which the records are at least as new as.
    pub fn shared_messages_under(
        &self,
        session: &SessionId,
        limit: Option<usize>,
        before: Option<(u64, MessageId)>,
        head: &Head,
    ) -> Result<Page<Arc<MessageWithParts>>> {
        if !head.is_live() {
            return Err(StoreError::Deleted);
        }
        let key = (self.tenant.clone(), session.clone());
        let view = lock(&self.inner.views).get_or_insert_with(&key, Arc::default);
        let mut view = lock(&view);
        view.refresh(self, session, head)?;
        let page = view.page(self, session, limit.filter(|&limit| limit > 0), before.as_ref());
        let bytes = view.trim(self.most_of_a_view());
        drop(view);
        lock(&self.inner.views).weigh(&key, bytes);
        page
    }

    /// Bytes of contents of one session that are kept.
    pub(crate) fn most_of_a_view(&self) -> usize {
        lock(&self.inner.views).room() / 2
    }

    /// When the newest message of a session was created.
    pub(crate) fn newest_created(&self, session: &SessionId) -> Result<Option<u64>> {
        let mut view = View::default();
        view.list(self, session)?;
        Ok(view.newest())
    }

    /// Brings what is kept of a session up to the commit that was just made from `rev`.
    pub(crate) fn apply_to_view(&self, session: &SessionId, rev: u64, writes: &[crate::Write], head: &Head) {
        let view = lock(&self.inner.views).get(&(self.tenant.clone(), session.clone()));
        // Somebody who is reading it now files it under an older rev: the next reader checks it against the files.
        if let Some(view) = view
            && let Ok(mut view) = view.try_lock()
        {
            view.apply(rev, writes, head);
        }
    }
}
