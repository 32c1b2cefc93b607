//! Connecting at the start, and refusing a Redis that would lose what it is given.

use crate::address::Address;
use crate::channels::Channels;
use crate::connection::{Link, LinkSettings};
use crate::keys::{FORMAT, Keys};
use crate::locks::RedisLocks;
use crate::scripts::Scripts;
use crate::server::Server;
use crate::{Agreement, Backend, RedisSettings};
use coordination::{CoordinationError, Ports};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// Between two looks whether a fleet keeps what it agreed on.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// So many of them are not worth a word.
const LOOKS_IN_SILENCE: u64 = 20;

/// Why the Redis backend did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A URL is not one of a Redis. It is not repeated here, since it may hold a password.
    #[error("the {0} is not a valid Redis URL: {1}")]
    Url(&'static str, String),
    /// A lock URL names sentinels. A majority of independent masters outlives one of them; a failover to a copy that lags
    /// would only give a lock out twice.
    #[error("a lock URL names one server: sentinels are for the Redis URL")]
    LockSentinels,
    /// The prefix cannot be part of a name.
    #[error("a Redis prefix has 1 to 100 characters of A-Z a-z 0-9 _ - . :")]
    Prefix,
    /// The server did not answer: try again.
    #[error("the Redis at {address} did not answer: {reason}")]
    Unreachable {
        /// Host and port, or service and sentinels.
        address: String,
        /// Why.
        reason: String,
    },
    /// The server is too old.
    #[error("Redis {0} is too old: 6.2 or newer is needed")]
    TooOld(String),
    /// A later version uses this Redis under this prefix: replicas of the two would not see each other.
    #[error(
        "format {found} is in use in this Redis under this prefix, and this version knows {known}: start a newer one"
    )]
    NewerFormat {
        /// The format that was found.
        found: u32,
        /// The newest that this version knows.
        known: u32,
    },
    /// The fleet that uses this Redis under this prefix lives, and has another value of something that all its replicas must
    /// have alike.
    #[error("the replicas that use this Redis under this prefix have another {name}: {theirs}, here {own}")]
    Disagrees {
        /// What differs.
        name: &'static str,
        /// The fleet's value.
        theirs: String,
        /// This replica's.
        own: String,
    },
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
    /// Takes `answer_within` at most per question, and as long as another agreement outlives its fleet; cancelling is safe.
    pub async fn connect(settings: RedisSettings) -> Result<Ports, StartError> {
        let keys = Keys::new(&settings.prefix).ok_or(StartError::Prefix)?;
        let parse = |what, url: &str| {
            Address::parse(url, settings.authorities.as_deref()).map_err(|why| StartError::Url(what, why))
        };
        let main = parse("Redis URL", &settings.url)?;
        let masters = settings.lock_urls.iter().map(|url| match parse("lock URL", url)? {
            Address::Server(client) => Ok(Server::Fixed(Box::new(client))),
            Address::Service(_) => Err(StartError::LockSentinels),
        });
        let masters = masters.collect::<Result<Vec<_>, _>>()?;
        let scripts = Arc::new(Scripts::new(&keys.prelude(&settings.log, &settings.agreement)));
        let link_settings = LinkSettings {
            answer_within: settings.answer_within,
            connect_within: settings.answer_within,
            heartbeat: settings.heartbeat,
            entropy: settings.entropy.clone(),
            round_trips: settings.round_trips.clone(),
        };
        let address = main.shown();
        let unreachable = |reason: String| StartError::Unreachable { address: address.clone(), reason };
        let main = Server::find(main, &link_settings).await.map_err(|error| unreachable(error.to_string()))?;
        let link = Link::open(main.clone(), scripts.clone(), link_settings.clone());
        let checked = async {
            check(&link, &keys).await?;
            agree(&link, &keys, &scripts, &settings.agreement).await
        };
        checked.await.map_err(|problem| match problem {
            Problem::Start(error) => error,
            Problem::Silent(CoordinationError::Unavailable(reason)) => unreachable(reason),
            Problem::Silent(error) => unreachable(error.to_string()),
        })?;

        let locks = {
            let settings = LinkSettings {
                // Several masters do not wait for one that hangs. A single one has nearly as long as any command: who is
                // refused is to be told so within that time.
                answer_within: if masters.is_empty() {
                    settings.answer_within * 3 / 4
                } else {
                    settings.lock_answer_within
                },
                round_trips: Arc::default(),
                ..link_settings.clone()
            };
            let masters = if masters.is_empty() { vec![main.clone()] } else { masters };
            masters.into_iter().map(|master| Link::open(master, scripts.clone(), settings.clone())).collect()
        };
        let locks = RedisLocks::new(locks, keys.clone(), scripts.clone(), settings.lock_ttl, settings.entropy.clone());
        let beat_settings = (main.clone(), link_settings.clone());
        let channels = Channels::open(main, &link_settings);
        let backend = Arc::new(Backend {
            link,
            beats: OnceLock::new(),
            beat_settings,
            channels,
            keys,
            scripts,
            entropy: settings.entropy,
        });
        Ok(Ports { leases: backend.clone(), registry: backend.clone(), events: backend, locks: Arc::new(locks) })
    }
}

/// What a check ends in.
enum Problem {
    Start(StartError),
    Silent(CoordinationError),
}

/// Looks whether the server will do. `INFO` tells all of it, also where `CONFIG` is forbidden.
async fn check(link: &Link, keys: &Keys) -> Result<(), Problem> {
    let info: String = link.query(&redis::cmd("INFO")).await.map_err(Problem::Silent)?;
    let field = |name: &str| info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim);
    let version = field("redis_version").unwrap_or("of unknown version");
    if !is_new_enough(version) {
        return Err(Problem::Start(StartError::TooOld(version.to_owned())));
    }
    let claim = redis::cmd("SET").arg(keys.format()).arg(FORMAT).arg("NX").to_owned();
    link.query::<Option<String>>(&claim).await.map_err(Problem::Silent)?;
    let found: u32 = link.query(redis::cmd("GET").arg(keys.format())).await.map_err(Problem::Silent)?;
    if found > FORMAT {
        return Err(Problem::Start(StartError::NewerFormat { found, known: FORMAT }));
    }
    match field("maxmemory_policy") {
        Some("noeviction") => {}
        Some(policy) => return Err(Problem::Start(StartError::Evicts(policy.to_owned()))),
        None => tracing::warn!("Redis does not tell its maxmemory-policy; it must be noeviction, or leases may vanish"),
    }
    Ok(())
}

/// Waits until the own agreement is the fleet's. Another one is of a fleet that lives, if it is seen to be kept; of one that
/// is gone it lasts for its age, at most, and the next is made then.
async fn agree(link: &Link, keys: &Keys, scripts: &Scripts, own: &Agreement) -> Result<(), Problem> {
    let mut lasts = i64::MAX;
    for look in 1u64.. {
        let script = scripts.agree.key(keys.fleet());
        let (found, left): (String, i64) = link.invoke(&script).await.map_err(Problem::Silent)?;
        let Some((name, theirs, own)) = own.difference(&found) else { break };
        if left > lasts {
            return Err(Problem::Start(StartError::Disagrees { name, theirs, own }));
        }
        if look == LOOKS_IN_SILENCE {
            tracing::warn!(
                name,
                theirs,
                own,
                "waiting for the end of what a fleet had agreed on that seems to be gone"
            );
        }
        lasts = left;
        tokio::time::sleep(LOOK_AGAIN).await;
    }
    Ok(())
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
}
