//! The configuration of real directories, compared with what OpenCode was recorded to answer.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod agents;
mod config;
mod models;
mod permissions;
mod projects;
mod prompts;
mod skills;
mod world;
