//! The records, and where they lie.

use crate::error::{Result, StoreError};
use crate::markers::DELETED;
use std::path::{Path, PathBuf};
use wire::ids::{MessageId, PartId, SessionId};

/// A record's name. The first five and `Diff` lie where OpenCode keeps them, the others in a directory of our own.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Record {
    /// A session.
    Session {
        /// The project that it is filed under.
        project: String,
        /// The session.
        id: SessionId,
    },
    /// A message without its parts.
    Message {
        /// Its session.
        session: SessionId,
        /// The message.
        id: MessageId,
    },
    /// A part of a message.
    Part {
        /// Its message.
        message: MessageId,
        /// The part.
        id: PartId,
    },
    /// A session's list of things to do.
    Todo {
        /// The session.
        session: SessionId,
    },
    /// What a session's revert changed.
    Diff {
        /// The session.
        session: SessionId,
    },
    /// The plan of a session's revert.
    Revert {
        /// The session.
        session: SessionId,
    },
    /// The ticket of the work that a message asks for.
    Ticket {
        /// The session.
        session: SessionId,
        /// The message.
        message: MessageId,
    },
    /// A permission or a question that was asked.
    Ask {
        /// The session.
        session: SessionId,
        /// A `per_` or `que_` identifier.
        id: String,
    },
    /// The marker of a ticket: says, as an empty record, that it is open.
    Marker {
        /// The session.
        session: SessionId,
        /// The ticket.
        k: u64,
    },
    /// The marker of a deletion: says, as an empty record, that the session is being deleted.
    Deletion {
        /// The session.
        session: SessionId,
    },
    /// What a project's users allowed for good.
    Approvals {
        /// The project.
        project: String,
    },
    /// What the name of a request stands for.
    Key {
        /// The hash that stands for the name: at least two hex digits.
        hash: String,
    },
    /// What a request with a name was answered.
    Answer {
        /// The hash that stands for the name.
        hash: String,
    },
}

/// One change of a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Write {
    /// Writes a record, whatever was there.
    Put(Record, Vec<u8>),
    /// Writes a record, whatever was there, that makes those before it visible: they are durable before it.
    Reveal(Record, Vec<u8>),
    /// Writes a record that must not be there: else the commit ends in `Exists`.
    PutNew(Record, Vec<u8>),
    /// Removes a record. One that is gone already is no error.
    Remove(Record),
}

impl Write {
    /// The record that it changes.
    pub fn record(&self) -> &Record {
        match self {
            Self::Put(record, _) | Self::Reveal(record, _) | Self::PutNew(record, _) | Self::Remove(record) => record,
        }
    }
}

impl Record {
    /// The record's path under a tenant's directory. Only names that can't leave their directory are joined.
    pub(crate) fn path(&self, root: &Path) -> Result<PathBuf> {
        let tail = match self {
            Self::Session { project, id } => format!("storage/session/{}/{id}.json", name(project)?),
            Self::Message { session, id } => format!("storage/message/{session}/{id}.json"),
            Self::Part { message, id } => format!("storage/part/{message}/{id}.json"),
            Self::Todo { session } => format!("storage/todo/{session}.json"),
            Self::Diff { session } => format!("storage/session_diff/{session}.json"),
            Self::Revert { session } => format!("flotilla/revert/{session}.json"),
            Self::Ticket { session, message } => format!("flotilla/ticket/{session}/{message}.json"),
            Self::Ask { session, id } => format!("flotilla/ask/{session}/{}.json", name(id)?),
            Self::Marker { session, k } => format!("flotilla/open/{session}.{k}"),
            Self::Deletion { session } => format!("flotilla/open/{session}.{DELETED}"),
            Self::Approvals { project } => format!("flotilla/approvals/{}.json", name(project)?),
            Self::Key { hash } | Self::Answer { hash } => {
                let hash = name(hash)?;
                let what = if matches!(self, Self::Key { .. }) { "" } else { ".answer" };
                format!("flotilla/key/{}/{hash}{what}.json", &hash[..hash.len().min(2)])
            }
        };
        Ok(root.join(tail))
    }
}

impl Record {
    /// The message that it is, or is a part of.
    pub(crate) fn message(&self) -> Option<&MessageId> {
        match self {
            Self::Message { id, .. } | Self::Part { message: id, .. } => Some(id),
            _ => None,
        }
    }

    /// The name of the guard of a record outside any session; none for those that a session's guards cover.
    pub(crate) fn shared_name(&self) -> Option<String> {
        match self {
            Self::Approvals { project } => Some(format!("approvals.{project}")),
            _ => None,
        }
    }
}

/// The directories that a tenant's directory has from the start; a record's own directory is made with its first record.
pub(crate) const DIRECTORIES: [&str; 20] = [
    "storage",
    "storage/session",
    "storage/message",
    "storage/part",
    "storage/todo",
    "storage/session_diff",
    "flotilla",
    "flotilla/guard",
    "flotilla/new",
    "flotilla/open",
    "flotilla/ticket",
    "flotilla/ask",
    "flotilla/approvals",
    "flotilla/key",
    "flotilla/event",
    "flotilla/shared",
    "flotilla/probe",
    "flotilla/revert",
    "flotilla/snapshot",
    "flotilla/snapshot-of",
];

/// A name from outside that is safe to join to a path.
pub(crate) fn name(text: &str) -> Result<&str> {
    let known = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
    if (1..=128).contains(&text.len()) && text.bytes().all(known) {
        Ok(text)
    } else {
        let shown: String = text.chars().take(100).collect();
        Err(StoreError::corrupt(Path::new(&shown), "this is no name for a record"))
    }
}

/// The identifier in a record's file name, if it is one.
pub(crate) fn stem(file: &str) -> Option<&str> {
    file.strip_suffix(".json")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_could_leave_its_directory_is_refused() {
        for bad in ["", "..", "a/b", "a.b", "a\0b"] {
            assert!(Record::Approvals { project: bad.into() }.path(Path::new("/r")).is_err(), "{bad:?}");
        }
        let key = Record::Key { hash: "abcd".into() }.path(Path::new("/r")).unwrap();
        assert_eq!(key, Path::new("/r/flotilla/key/ab/abcd.json"));
    }
}
