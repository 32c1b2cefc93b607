//! A Redis server per test, and replicas on it.
#![allow(dead_code, reason = "each test binary uses a part of it")]

use async_trait::async_trait;
use coordination::conformance::World;
use coordination::{LogLimits, Ports};
use coordination_redis::{RedisPorts, RedisSettings};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use testkit::RedisServer;
use wire::clock::Entropy;

/// Numbers that are all different, the same in every run.
#[derive(Default)]
pub struct Different(AtomicU64);

impl Entropy for Different {
    fn bits(&self) -> u64 {
        self.0.fetch_add(1, Ordering::Relaxed).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }
}

/// What encrypts, as the binary installs it.
pub fn install_crypto() {
    let _installed_before = rustls::crypto::ring::default_provider().install_default();
}

/// A server, and what its replicas are told.
pub struct Redis {
    pub server: RedisServer,
    pub settings: RedisSettings,
}

impl Redis {
    pub async fn start() -> Self {
        let server = RedisServer::start().await;
        let mut settings = RedisSettings::new(server.url(), Arc::new(Different::default()));
        // On a machine that is busy with other tests, 50 ms are no sign of a server that hangs.
        settings.lock_answer_within = Duration::from_millis(500);
        Self { server, settings }
    }
}

/// The usual world: one server.
pub async fn world(log: LogLimits) -> Redis {
    let mut redis = Redis::start().await;
    redis.settings.log = log;
    redis
}

#[async_trait]
impl World for Redis {
    async fn ports(&self) -> Ports {
        match RedisPorts::connect(self.settings.clone()).await {
            Ok(ports) => ports,
            Err(error) => panic!("{error}"),
        }
    }

    async fn forget(&self) {
        assert_eq!(self.server.command(&["FLUSHALL"]), "OK");
    }
}
