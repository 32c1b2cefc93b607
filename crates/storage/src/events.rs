//! The bodies of events that are too large for the event log, which only names them.
//!
//! They need no guard, as nobody changes them, and no fsync: the log, which alone names them, survives no power cut either.

use crate::error::{At, Result, if_there};
use crate::record::name;
use crate::store::TenantStore;
use std::path::PathBuf;
use wire::ids::SessionId;

/// Stands behind a session's id in the names of its bodies.
const OF: &str = "-of-";

impl TenantStore {
    /// Keeps a body, until [`TenantStore::remove_old`] finds that no log can name it any more; one `of` a session for as long
    /// as that is at work. Returns its name.
    pub fn keep_event(&self, body: &[u8], of: Option<&SessionId>) -> Result<String> {
        self.make_directories()?;
        let random = self.inner.random_name();
        let name = of.map_or_else(|| random.clone(), |session| format!("{session}{OF}{random}"));
        let path = self.event(&name)?;
        // Written in place: nobody knows the name before this returns.
        self.inner.disk.create(&path, body).at(&path)?;
        Ok(name)
    }

    /// Up to `most` bytes of a body, from one place on; fewer only at its end. None if it is no longer kept.
    pub fn event_piece(&self, name: &str, from: u64, most: usize) -> Result<Option<Vec<u8>>> {
        let path = self.event(name)?;
        if_there(self.inner.disk.read_piece(&path, from, most), &path)
    }

    /// Removes the bodies that were written before a moment of the file system's clock. Returns how many there were.
    pub(crate) fn remove_events(&self, before: i128) -> Result<usize> {
        let mut removed = 0;
        for (path, stamp) in self.entries(&self.directory("flotilla/event"))? {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let session = name.rsplit_once(OF).and_then(|(session, _)| SessionId::parse(session).ok());
            let is_asked = || session.is_some_and(|session| self.is_at_work(&session));
            removed += usize::from(stamp.modified < before && !is_asked() && self.remove_old_file(&path)?);
        }
        Ok(removed)
    }

    fn event(&self, text: &str) -> Result<PathBuf> {
        Ok(self.directory("flotilla/event").join(format!("{}.json", name(text)?)))
    }
}
