//! Runs: acquire, step, hand over, take over; permissions; sessions and their records; the event feed.
//!
//! The engine knows neither HTTP nor Redis nor the environment: ports, store, providers, clock and randomness are handed
//! in, and every method may be called on any replica at any time.

mod abort;
mod api;
mod aside;
mod asks;
mod attachments;
mod beat;
mod by_user;
mod call;
mod child;
mod command;
mod commit;
mod compaction;
mod dispose;
mod edits;
mod engine;
mod feed;
mod files;
mod fold;
mod fork;
mod images;
mod instances;
mod life;
mod named;
mod prompt;
mod prune;
mod publish;
mod replica;
mod request;
mod revert;
mod ring;
mod run;
mod runs;
mod sessions;
mod settle;
mod shell;
mod snapshots;
mod step;
mod strand;
mod structured;
mod subtask;
mod sweep;
mod time;
mod title;
mod todos;
mod trace;
mod trial;
mod turn;

pub use api::*;
pub use aside::Aside;
pub use engine::{Engine, Parts, Settings};
pub use feed::{FeedItem, Follower, From};
pub use storage::Page;
pub use strand::{Strand, on_strand, stay};
pub use tools::browse::{FileContent, FileNode, LineMatch, Names};
