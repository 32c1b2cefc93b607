//! The coordination ports on Redis.
//!
//! Each operation is one script and one round trip over one multiplexed connection; a second connection carries
//! Pub/Sub, a third beats. Everything is sent at most once: an operation whose answer did not come in time is the caller's to repeat.

mod address;
mod agreement;
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

pub use agreement::Agreement;
pub use settings::RedisSettings;
pub use startup::{RedisPorts, StartError};

use channels::Channels;
use connection::{Link, LinkSettings};
use keys::Keys;
use scripts::Scripts;
use server::Server;
use std::sync::{Arc, OnceLock};
use wire::clock::Entropy;

/// What the ports share.
struct Backend {
    link: Arc<Link>,
    /// For beats alone: see [`Backend::beats`].
    beats: OnceLock<Arc<Link>>,
    /// How `beats` is made.
    beat_settings: (Server, LinkSettings),
    channels: Channels,
    keys: Keys,
    scripts: Arc<Scripts>,
    entropy: Arc<dyn Entropy>,
}

impl Backend {
    /// The connection of beats: it is driven by the runtime of who first asks for it, and nothing else goes over it, so that
    /// neither a busy runtime nor a long answer holds a beat up.
    fn beats(&self) -> &Link {
        let (server, settings) = &self.beat_settings;
        self.beats.get_or_init(|| Link::open(server.clone(), self.scripts.clone(), settings.clone()))
    }

    fn random(&self) -> String {
        format!("{:016x}", self.entropy.bits())
    }
}

/// An answer of a script that this version does not understand.
fn strange() -> coordination::CoordinationError {
    coordination::CoordinationError::Unavailable("Redis gave an answer that is not understood".into())
}
