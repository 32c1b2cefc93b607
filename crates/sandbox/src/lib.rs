//! How a child process is confined, and how it ends when its replica does.
//!
//! A command never runs directly under a replica. The replica's own executable is started again as a *supervisor*
//! ([`supervisor::main`]), which starts the command in a process group of its own and lives as long as the command
//! does. The replica beats on the supervisor's standard input. When the beats stop, because the replica was killed
//! (the pipe ends) or paused (no beat within the TTL), the supervisor kills everything that the command started,
//! also what left the process group. So a take-over never meets the tools of the runner before it.
//!
//! Linux only. This crate knows nothing of sessions or HTTP.

mod child_env;
mod family;
mod limits;
mod report;
mod supervised;
pub mod supervisor;

pub use child_env::ChildEnv;
pub use limits::{Exceeded, Limits};
pub use supervised::{Exit, Identity, SpawnError, SpawnSpec, Supervised};
