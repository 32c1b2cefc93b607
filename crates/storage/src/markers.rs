//! Markers: empty files that say which sessions have open work, for whoever sweeps after a crash.

use crate::error::{At, Result, if_there};
use crate::store::TenantStore;
use std::io::ErrorKind;
use std::path::PathBuf;
use wire::ids::SessionId;

/// One marker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Marker {
    /// The session.
    pub session: SessionId,
    /// The ticket that is open; nothing for a deletion under way.
    pub ticket: Option<u64>,
}

/// What a deletion's marker has in place of a ticket's number.
pub(crate) const DELETED: &str = "deleted";

impl TenantStore {
    /// Marks ticket `k` as open; durable when this returns. Comes before the ticket is given out. True if it was marked
    /// before: by somebody who was about to give it out and has not.
    pub fn put_marker(&self, session: &SessionId, k: u64) -> Result<bool> {
        self.make_directories()?;
        let path = self.open_path(session, &k.to_string());
        let was_there = match self.inner.disk.create(&path, b"") {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => true,
            result => result.at(&path).map(|()| false)?,
        };
        // It may be there without being durable, so an old one is synced, too. Its contents are nothing.
        self.inner.sync_directories(path.parent())?;
        Ok(was_there)
    }

    /// Removes the marker of ticket `k`. Only for a ticket that is settled: that of one which was never given out is removed
    /// by a commit (`Record::Marker`).
    pub fn remove_marker(&self, session: &SessionId, k: u64) -> Result<()> {
        self.remove_open(session, &k.to_string())
    }

    /// Removes the markers of all tickets up to `k`.
    pub fn remove_markers_upto(&self, session: &SessionId, k: u64) -> Result<()> {
        for marker in self.markers()? {
            if let (true, Some(ticket)) = (marker.session == *session, marker.ticket)
                && ticket <= k
            {
                self.remove_marker(session, ticket)?;
            }
        }
        Ok(())
    }

    /// Removes the marker of a deletion (`Record::Deletion`). Only once the session's records are gone: that of a session
    /// which lives is removed by a commit.
    pub fn remove_deletion_marker(&self, session: &SessionId) -> Result<()> {
        self.remove_open(session, DELETED)
    }

    /// All markers, in no order.
    pub fn markers(&self) -> Result<Vec<Marker>> {
        let open = self.directory("flotilla/open");
        let names = if_there(self.inner.disk.list(&open), &open)?.unwrap_or_default();
        Ok(names.iter().filter_map(|name| parse(name)).collect())
    }

    fn open_path(&self, session: &SessionId, what: &str) -> PathBuf {
        self.directory("flotilla/open").join(format!("{session}.{what}"))
    }

    fn remove_open(&self, session: &SessionId, what: &str) -> Result<()> {
        let path = self.open_path(session, what);
        // Not made durable: a marker that comes back is removed again.
        if_there(self.inner.disk.unlink(&path), &path).map(|_| ())
    }
}

fn parse(name: &str) -> Option<Marker> {
    let (session, what) = name.rsplit_once('.')?;
    let session = SessionId::parse(session).ok()?;
    let ticket = if what == DELETED { None } else { Some(what.parse().ok()?) };
    Some(Marker { session, ticket })
}
