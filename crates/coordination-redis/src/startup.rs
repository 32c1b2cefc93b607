//! Connecting at the start, and refusing a Redis that would lose what it is given.

use crate::channels::Channels;
use crate::connection::{Link, LinkSettings, client};
use crate::keys::Keys;
use crate::locks::RedisLocks;
use crate::scripts::Scripts;
use crate::{Backend, RedisSettings};
use coordination::{CoordinationError, Ports};
use redis::Client;
use std::sync::Arc;

/// Why the Redis backend did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A URL is not one of a Redis. It is not repeated here, since it may hold a password.
    #[error("the {0} is not a valid Redis URL: {1}")]
    Url(&'static str, String),
    /// The prefix cannot be part of a name.
    #[error("a Redis prefix has 1 to 100 characters of A-Z a-z 0-9 _ - . :")]
    Prefix,
    /// The server did not answer: try again.
    #[error("the Redis at {address} did not answer: {reason}")]
    Unreachable {
        /// Host and port.
        address: String,
        /// Why.
        reason: String,
    },
    /// The server is too old.
    #[error("Redis {0} is too old: 6.2 or newer is needed")]
    TooOld(String),
    /// The server may drop keys when its memory is full, among them leases.
    #[error("Redis evicts keys when its memory is full (maxmemory-policy {0}): it must be noeviction")]
    Evicts(String),
}

/// The Redis backend.
pub struct RedisPorts;

impl RedisPorts {
    /// Connects, looks whether the server will do, and gives the ports. Connections are kept, and replaced, until the
    /// last port is dropped. Lock masters may be down. Must be called within a Tokio runtime.
    ///
    /// Takes `answer_within` at most per question; cancelling is safe.
    pub async fn connect(settings: RedisSettings) -> Result<Ports, StartError> {
        let keys = Keys::new(&settings.prefix).ok_or(StartError::Prefix)?;
        let main = open("Redis URL", &settings.url)?;
        let masters = settings.lock_urls.iter().map(|url| open("lock URL", url)).collect::<Result<Vec<_>, _>>()?;
        let scripts = Arc::new(Scripts::new(&keys.prelude(&settings.log)));
        let link_settings = LinkSettings {
            answer_within: settings.answer_within,
            heartbeat: settings.heartbeat,
            entropy: settings.entropy.clone(),
            round_trips: settings.round_trips.clone(),
        };
        let address = main.get_connection_info().addr().to_string();
        let link = Link::open(main.clone(), scripts.clone(), link_settings.clone());
        check(&link).await.map_err(|problem| match problem {
            Problem::Start(error) => error,
            Problem::Silent(CoordinationError::Unavailable(reason)) => StartError::Unreachable { address, reason },
            Problem::Silent(error) => StartError::Unreachable { address, reason: error.to_string() },
        })?;

        let locks = {
            let settings = LinkSettings {
                // Several masters do not wait for one that hangs; a single one has as long as any command.
                answer_within: if masters.is_empty() { settings.answer_within } else { settings.lock_answer_within },
                round_trips: Arc::default(),
                ..link_settings.clone()
            };
            let masters = if masters.is_empty() { vec![main.clone()] } else { masters };
            masters.into_iter().map(|master| Link::open(master, scripts.clone(), settings.clone())).collect()
        };
        let locks = RedisLocks::new(locks, keys.clone(), scripts.clone(), settings.lock_ttl, settings.entropy.clone());
        let channels = Channels::open(main, &link_settings);
        let backend = Arc::new(Backend { link, channels, keys, scripts, entropy: settings.entropy });
        Ok(Ports { leases: backend.clone(), registry: backend.clone(), events: backend, locks: Arc::new(locks) })
    }
}

fn open(what: &'static str, url: &str) -> Result<Client, StartError> {
    client(url).map_err(|error| StartError::Url(what, error.category().to_owned()))
}

/// What a check ends in.
enum Problem {
    Start(StartError),
    Silent(CoordinationError),
}

async fn check(link: &Link) -> Result<(), Problem> {
    let info: String = link.query(redis::cmd("INFO").arg("server")).await.map_err(Problem::Silent)?;
    let version = info.lines().find_map(|line| line.strip_prefix("redis_version:")).unwrap_or("of unknown version");
    if !is_new_enough(version) {
        return Err(Problem::Start(StartError::TooOld(version.to_owned())));
    }
    let policy = link.query::<Vec<String>>(redis::cmd("CONFIG").arg("GET").arg("maxmemory-policy")).await;
    match policy.as_deref() {
        Ok([_, policy]) if policy != "noeviction" => Err(Problem::Start(StartError::Evicts(policy.clone()))),
        Ok([_, _]) => Ok(()),
        _ => {
            tracing::warn!("Redis does not tell its maxmemory-policy; it must be noeviction, or leases may vanish");
            Ok(())
        }
    }
}

fn is_new_enough(version: &str) -> bool {
    let mut numbers = version.split('.').map(|number| number.parse::<u32>().ok());
    let (major, minor) = (numbers.next().flatten(), numbers.next().flatten());
    (major, minor) >= (Some(6), Some(2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_by_number() {
        for (version, fits) in [("6.2.0", true), ("7.0.15", true), ("10.0", true), ("6.0.16", false), ("?", false)] {
            assert_eq!(is_new_enough(version), fits, "{version}");
        }
    }

    #[test]
    fn an_error_about_a_url_keeps_its_password() {
        for url in ["redis://:s3cret@host:port", "http://:s3cret@host", "redis://u:s3cret@host/nodb"] {
            let error = open("Redis URL", url).err().unwrap();
            assert!(!format!("{error} {error:?}").contains("s3cret"), "{error}");
        }
    }
}
