//! A scripted world for tests: Redis servers, replicas as processes, a scripted model, a cutting proxy, nginx.
//!
//! Everything listens on loopback, on ports that were free a moment ago, and keeps its files in temporary
//! directories. Every process that is started here ends with its test, also when the test panics (it is killed on
//! drop) or is itself killed (the kernel signals the child when the thread that started it is gone).
//!
//! The invariants are built in: [`model::ScriptedModel`] checks the transcript of every request that it receives, and
//! [`world::World`] checks that no process of a tool outlives the replicas, and that whatever its clients were told is as
//! OpenCode's document says ([`Contract`]).
//!
//! This crate is test code, so that a failed expectation panics: that is how a test fails.
#![allow(clippy::unwrap_used, clippy::expect_used)]

pub mod certificate;
pub mod client;
pub mod contract;
pub mod counting;
pub mod events;
pub mod failpoint;
pub mod haproxy;
pub mod install;
pub mod leftovers;
pub mod model;
pub mod nginx;
pub mod opencode;
pub mod outline;
pub mod polling;
pub mod process;
pub mod proxy;
pub mod raw;
pub mod redis;
pub mod replica;
pub mod schema;
pub mod sentinel;
pub mod shape;
pub mod sse;
pub mod terminal;
pub mod transcript;
pub mod usage;
pub mod work_tree;
pub mod world;

pub use certificate::Certificates;
pub use client::{Client, Reply};
pub use contract::Contract;
pub use counting::CountingProxy;
pub use events::{Event, EventReader};
pub use failpoint::Failpoint;
pub use model::{Answer, Gate, ScriptedModel};
pub use opencode::Opencode;
pub use polling::{BOUND, eventually};
pub use proxy::CuttingProxy;
pub use redis::RedisServer;
pub use replica::{Replica, ReplicaSpec, flotilla_binary};
pub use sentinel::Failover;
pub use shape::Shape;
pub use terminal::Terminal;
pub use usage::Usage;
pub use world::{Mode, World, WorldSpec};
