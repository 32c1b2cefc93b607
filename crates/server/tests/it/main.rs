//! The service as clients see it, on the in-process coordination backend and the demo provider.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod connections;
mod requests;
mod streams;
mod world;
