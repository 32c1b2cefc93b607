//! What the Redis backend is told.

use crate::Agreement;
use coordination::LogLimits;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;
use wire::clock::Entropy;

/// The settings of the Redis backend.
#[derive(Clone)]
pub struct RedisSettings {
    /// The Redis that leases, registry and event logs are on: `redis://[user:password@]host[:port][/db]`, `rediss://`
    /// for TLS, or sentinels that know where it is:
    /// `redis+sentinel://[user:password@]host[:port][,...]/service[?db=N]`.
    pub url: String,
    /// The independent masters that locks are taken on; none: the one above. No sentinels.
    pub lock_urls: Vec<String>,
    /// The certificates, in PEM, that servers with TLS are checked against; none: those of the system.
    pub authorities: Option<String>,
    /// What every name begins with.
    pub prefix: String,
    /// Tokens, cursors, jitter.
    pub entropy: Arc<dyn Entropy>,
    /// How long one command may take, the wait for a connection included.
    pub answer_within: Duration,
    /// The same for one lock master: one that hangs costs no more than this.
    pub lock_answer_within: Duration,
    /// How long a lock holds unless it is extended.
    pub lock_ttl: Duration,
    /// How often a connection is tried. One that gives no answer is replaced.
    pub heartbeat: Duration,
    /// What event logs keep.
    pub log: LogLimits,
    /// What all replicas must have alike; nothing if it is empty.
    pub agreement: Agreement,
    /// Counts the commands that are sent, but for those of locks: a script is one.
    pub round_trips: Arc<AtomicU64>,
}

impl RedisSettings {
    /// The usual settings for a Redis.
    pub fn new(url: impl Into<String>, entropy: Arc<dyn Entropy>) -> Self {
        Self {
            url: url.into(),
            lock_urls: Vec::new(),
            authorities: None,
            prefix: "flotilla".into(),
            entropy,
            answer_within: Duration::from_secs(1),
            lock_answer_within: Duration::from_millis(50),
            lock_ttl: Duration::from_secs(2),
            heartbeat: Duration::from_secs(1),
            log: LogLimits::default(),
            agreement: Agreement::default(),
            round_trips: Arc::default(),
        }
    }
}
