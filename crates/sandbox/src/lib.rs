//! How a child process is confined, and how it ends when its replica does.
//!
//! A command never runs directly under a replica. The replica's own executable is started again as a *supervisor*
//! ([`supervisor::main`]), which starts the command in a process group of its own and lives as long as the command
//! does. It kills everything that the command started, also what left the process group, when the replica is gone (the pipe
//! between them ends) and when the command's [`Lifeline`] does: a replica that is stopped cannot move it on, one that is cut
//! off must not. So a take-over never meets the tools of the runner before it.
//!
//! Linux only. This crate knows nothing of sessions or HTTP.

mod child_env;
mod family;
mod lifeline;
mod limits;
mod report;
mod supervised;
pub mod supervisor;

pub use child_env::ChildEnv;
pub use lifeline::Lifeline;
pub use limits::{Exceeded, Limits};
pub use supervised::{Exit, Identity, SpawnError, SpawnSpec, Supervised};
