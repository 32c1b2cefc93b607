//! The types of OpenCode's V1 API, which are the stored form, too.
//!
//! This crate does no I/O of any kind: it knows shapes, identifiers and the order of things. A field that this
//! version does not know survives a read and a rewrite in the `extra` map of its record.

pub mod clock;
pub mod event;
pub mod ids;
pub mod message;
pub mod part;
pub mod permission;
pub mod question;
pub mod session;
pub mod tenant;

/// The OpenCode version whose API is spoken: `/global/health` and new sessions bear it.
pub const OPENCODE_VERSION: &str = "1.18.34";

/// Fields of a record that this version does not name. They survive a rewrite.
pub type Extra = serde_json::Map<String, serde_json::Value>;
