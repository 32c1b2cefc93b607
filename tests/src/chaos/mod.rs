//! Chaos: clients at work on many sessions behind nginx, faults drawn by a seed, and a checker that sees the whole history
//! from outside: `make chaos`.
//!
//! A run says something only if its faults hit runs that were under way. What the checker can see is shown by damage: each
//! of its rules has a doctored history that it must report (`tests/tests/chaos.rs`).

pub mod check;
pub mod clients;
pub mod faults;
pub mod history;
pub mod model;
pub mod readers;
pub mod run;

pub use check::{RULES, Violation, violations};
pub use history::History;
pub use run::{Outcome, Plan, run};
