//! What `opencode.json` says: agents, providers, permissions, commands, instructions.
//!
//! [`load`] builds the [`Instance`] of a directory from the files around it and from the [`Surroundings`] that are
//! handed in. This crate never knows HTTP, Redis, the store, or the process's environment, and it never writes a file.
//!
//! All of it is blocking I/O, short and bounded; an async caller runs it on a blocking thread.

mod catalog;
mod files;
mod front_matter;
mod layers;
mod mask;
mod merge;
mod normalize;
mod prompts;
mod provider_info;
mod schema;
mod substitute;
mod wildcard;

pub mod agent;
pub mod commands;
pub mod error;
pub mod instance;
pub mod instructions;
pub mod model;
pub mod permission;
pub mod project;
pub mod providers;
pub mod secret;
pub mod skills;
pub mod surroundings;
pub mod system_prompt;

pub use agent::{Agent, AgentMode};
pub use commands::Command;
pub use error::ConfigError;
pub use files::Fingerprint;
pub use instance::{Instance, load, load_at};
pub use instructions::{Instruction, near};
pub use layers::global_config;
pub use model::{Model, ModelNotFound, ModelRef, Timeouts};
pub use project::{Place, Project, locate};
pub use providers::{Modalities, ProviderInfo, Providers};
pub use secret::Secret;
pub use skills::Skill;
pub use surroundings::Surroundings;
pub use system_prompt::{reminder, system_prompt};
