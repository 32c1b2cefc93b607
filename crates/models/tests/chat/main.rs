//! Chat completions against a real server on loopback.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may fail where it stands")]

mod answers;
mod bounds;
mod errors;
mod scripted;
