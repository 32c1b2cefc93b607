//! The bodies of events that are too large for the event log, which only names them.
//!
//! They need no guard, as nobody changes them, and no fsync: the log, which alone names them, survives no power cut either.

use crate::error::{At, Result, if_there};
use crate::record::name;
use crate::store::TenantStore;
use std::path::PathBuf;

impl TenantStore {
    /// Keeps a body, until [`TenantStore::remove_old`] finds that no log can name it any more. Returns its name.
    pub fn keep_event(&self, body: &[u8]) -> Result<String> {
        self.make_directories()?;
        let name = self.inner.random_name();
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

    fn event(&self, text: &str) -> Result<PathBuf> {
        Ok(self.directory("flotilla/event").join(format!("{}.json", name(text)?)))
    }
}
