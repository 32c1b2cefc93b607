//! Listing sessions: what a filter and the order need of each is kept in memory, by the stamp of its file.

use crate::disk::Stamp;
use crate::error::{Result, StoreError, if_there};
use crate::record::{name, stem};
use crate::store::TenantStore;
use crate::sync::lock;
use serde::Deserialize;
use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use wire::ids::SessionId;
use wire::session::Session;

/// Which sessions to list. Nothing set: all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SessionFilter {
    /// Only of this project.
    pub project: Option<String>,
    /// Only of exactly this directory. With `path_prefix` it counts only for sessions that have no path.
    pub directory: Option<String>,
    /// Only with this path, or below it.
    pub path_prefix: Option<String>,
    /// True: only sessions without a parent; false: only those with one.
    pub roots: Option<bool>,
    /// Only with this in the title, in whatever case.
    pub search: Option<String>,
    /// Only updated at this time or later, in milliseconds.
    pub start: Option<u64>,
    /// At most so many, the newest.
    pub limit: Option<usize>,
}

/// What the filter and the order need of a session.
#[derive(Deserialize)]
struct Row {
    id: SessionId,
    #[serde(rename = "parentID", default)]
    parent: Option<SessionId>,
    #[serde(default)]
    directory: String,
    #[serde(default)]
    path: Option<String>,
    #[serde(default)]
    title: String,
    time: RowTime,
}

#[derive(Deserialize)]
struct RowTime {
    #[serde(default)]
    created: u64,
    updated: u64,
}

/// The sessions of one project's directory by file name; nothing for a record that can't be understood.
#[derive(Default)]
pub(crate) struct Rows {
    rows: HashMap<String, Known>,
    /// Counts the listings.
    listing: u64,
}

struct Known {
    stamp: Stamp,
    row: Option<Arc<Row>>,
    /// The listing that it was last seen in.
    seen: u64,
}

impl SessionFilter {
    fn admits(&self, row: &Row, search: Option<&str>) -> bool {
        let here = match (&self.path_prefix, &row.path) {
            (Some(prefix), Some(path)) => is_below(path, prefix),
            _ => self.directory.as_ref().is_none_or(|directory| *directory == row.directory),
        };
        here && self.roots.is_none_or(|roots| roots == row.parent.is_none())
            && self.start.is_none_or(|start| row.time.updated >= start)
            && search.is_none_or(|search| row.title.to_lowercase().contains(search))
    }
}

fn is_below(path: &str, prefix: &str) -> bool {
    path.strip_prefix(prefix).is_some_and(|rest| prefix.is_empty() || rest.is_empty() || rest.starts_with('/'))
}

impl TenantStore {
    /// The sessions that the filter admits, the last updated first. A record that can't be understood is left out.
    ///
    /// Costs one look at each session's file (about a microsecond), and a read of those that changed and of those that
    /// are answered.
    pub fn sessions(&self, filter: &SessionFilter) -> Result<Vec<Session>> {
        let search = filter.search.as_ref().map(|search| search.to_lowercase());
        self.select(filter.project.as_deref(), filter.limit, |row| filter.admits(row, search.as_deref()))
    }

    /// The sessions whose parent this is, the oldest first.
    pub fn children(&self, session: &SessionId) -> Result<Vec<Session>> {
        let project = self.head(session)?.project;
        let mut children = self.select(Some(&project), None, |row| row.parent.as_ref() == Some(session))?;
        // Ids of sessions fall as time goes on.
        children.sort_by(|a, b| (a.time.created, &b.id).cmp(&(b.time.created, &a.id)));
        Ok(children)
    }

    /// The sessions below these that are not among them: parents before their children, of siblings the newest first. `session`
    /// is the topmost.
    pub fn descendants(&self, session: &SessionId, above: &HashSet<SessionId>) -> Result<Vec<SessionId>> {
        let project = self.head(session)?.project;
        let mut children: HashMap<SessionId, Vec<(u64, SessionId)>> = HashMap::new();
        for (_, row) in self.rows(Some(&project), |row| row.parent.is_some() && !above.contains(&row.id))? {
            if let Some(parent) = &row.parent {
                children.entry(parent.clone()).or_default().push((row.time.created, row.id.clone()));
            }
        }
        let oldest_first = |(a, first): &(u64, SessionId), (b, then): &(u64, SessionId)| (a, then).cmp(&(b, first));
        children.values_mut().for_each(|children| children.sort_unstable_by(oldest_first));
        let mut next: Vec<SessionId> =
            above.iter().flat_map(|parent| children.remove(parent).unwrap_or_default()).map(|(_, id)| id).collect();
        let mut found = Vec::new();
        while let Some(id) = next.pop() {
            next.extend(children.remove(&id).unwrap_or_default().into_iter().map(|(_, id)| id));
            found.push(id);
        }
        Ok(found)
    }

    /// The projects that sessions are filed under.
    pub(crate) fn projects(&self) -> Result<Vec<String>> {
        let path = self.directory("storage/session");
        Ok(if_there(self.inner.disk.list(&path), &path)?.unwrap_or_default())
    }

    fn select(
        &self,
        project: Option<&str>,
        limit: Option<usize>,
        admits: impl Fn(&Row) -> bool,
    ) -> Result<Vec<Session>> {
        let mut sessions = Vec::new();
        for (directory, row) in self.rows(project, admits)? {
            if limit.is_some_and(|limit| sessions.len() >= limit) {
                break;
            }
            sessions.extend(self.read_listed(&directory.join(format!("{}.json", row.id)))?);
        }
        Ok(sessions)
    }

    /// The rows of sessions that are not deleted, with the directories of their records: newest first.
    fn rows(&self, project: Option<&str>, admits: impl Fn(&Row) -> bool) -> Result<Vec<(PathBuf, Arc<Row>)>> {
        let projects = match project {
            Some(project) => vec![name(project)?.to_owned()],
            None => self.projects()?,
        };
        let all = self.directory("storage/session");
        let directories: Vec<PathBuf> = projects.into_iter().map(|project| all.join(project)).collect();
        let deleted = self.deleted()?;
        let mut found = Vec::new();
        for directory in &directories {
            let rows = lock(&self.inner.rows).get_or_insert_with(directory, Arc::default);
            let mut rows = lock(&rows);
            let bytes = rows.refresh(self, directory)?;
            let admitted = rows.rows.values().filter_map(|known| known.row.as_ref()).filter(|row| admits(row));
            let admitted = admitted.filter(|row| !deleted.contains(&row.id));
            found.extend(admitted.map(|row| (directory.clone(), Arc::clone(row))));
            drop(rows);
            lock(&self.inner.rows).weigh(directory, bytes);
        }
        // Newest first; of the same millisecond the later made, whose id is the smaller one.
        found.sort_unstable_by(|(_, a), (_, b)| b.time.updated.cmp(&a.time.updated).then_with(|| a.id.cmp(&b.id)));
        Ok(found)
    }

    /// The sessions whose deletion is durable and under way: their records may still be there.
    fn deleted(&self) -> Result<HashSet<SessionId>> {
        let mut deleted = HashSet::new();
        for marker in self.markers()?.into_iter().filter(|marker| marker.ticket.is_none()) {
            match self.head(&marker.session) {
                Ok(head) if head.is_live() => {}
                Ok(_) | Err(StoreError::NotFound) => drop(deleted.insert(marker.session)),
                Err(error) => return Err(error),
            }
        }
        Ok(deleted)
    }

    fn read_listed<T: serde::de::DeserializeOwned>(&self, path: &Path) -> Result<Option<T>> {
        let Some((bytes, _)) = if_there(self.inner.disk.read(path), path)? else { return Ok(None) };
        serde_json::from_slice(&bytes)
            .inspect_err(|error| tracing::warn!(path = %path.display(), %error, "a session's record is damaged"))
            .map_or(Ok(None), |value| Ok(Some(value)))
    }
}

impl Rows {
    /// Reads what changed since the last time. Returns what the rows weigh.
    fn refresh(&mut self, store: &TenantStore, directory: &Path) -> Result<usize> {
        let entries = if_there(store.inner.disk.list_stamped(directory), directory)?.unwrap_or_default();
        self.listing += 1;
        let mut bytes = 512;
        for (name, stamp) in entries {
            match self.rows.get_mut(&name) {
                Some(known) if known.stamp == stamp => known.seen = self.listing,
                _ => {
                    let Some(id) = stem(&name).and_then(|stem| SessionId::parse(stem).ok()) else { continue };
                    let row: Option<Row> = store.read_listed(&directory.join(&name))?;
                    let row = row.filter(|row| row.id == id).map(Arc::new);
                    self.rows.insert(name, Known { stamp, row, seen: self.listing });
                }
            }
        }
        self.rows.retain(|name, known| {
            bytes += 250 + name.len() + known.row.as_ref().map_or(0, |row| row.title.len() + row.directory.len());
            known.seen == self.listing
        });
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_below_whole_components_only() {
        assert!(is_below("a/b", "a"));
        assert!(is_below("a", "a"));
        assert!(is_below("a", ""));
        assert!(!is_below("ab", "a"));
    }
}
