//! The coordination ports on Redis.
//!
//! Each operation is one script and one round trip over one multiplexed connection; a second connection carries
//! Pub/Sub. Everything is sent at most once: an operation whose answer did not come in time is the caller's to repeat.

mod address;
mod backoff;
mod channels;
mod connection;
mod entries;
mod events;
mod keys;
mod leases;
mod locks;
mod registry;
mod scripts;
mod server;
mod settings;
mod startup;

pub use settings::RedisSettings;
pub use startup::{RedisPorts, StartError};

use channels::Channels;
use connection::Link;
use keys::Keys;
use scripts::Scripts;
use std::sync::Arc;
use wire::clock::Entropy;

/// What the ports share.
struct Backend {
    link: Arc<Link>,
    channels: Channels,
    keys: Keys,
    scripts: Arc<Scripts>,
    entropy: Arc<dyn Entropy>,
}

impl Backend {
    fn random(&self) -> String {
        format!("{:016x}", self.entropy.bits())
    }
}

/// An answer of a script that this version does not understand.
fn strange() -> coordination::CoordinationError {
    coordination::CoordinationError::Unavailable("Redis gave an answer that is not understood".into())
}
