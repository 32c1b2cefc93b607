//! Redis over TLS: the certificate is checked against the given authority.
#![allow(clippy::unwrap_used, reason = "a test")]

mod support;

use coordination::conformance::{Replica, entry, key, within};
use coordination::{Entered, LockGuard, Ports};
use coordination_redis::{RedisPorts, RedisSettings, StartError};
use std::sync::Arc;
use std::time::Duration;
use support::Different;
use testkit::{Certificates, RedisServer};
use wire::tenant::Tenant;

async fn connect(url: String, authority: Option<&Certificates>) -> Result<Ports, StartError> {
    support::install_crypto();
    let mut settings = RedisSettings::new(url.clone(), Arc::new(Different::default()));
    settings.lock_urls = vec![url];
    settings.lock_answer_within = Duration::from_millis(500);
    settings.authorities = authority.map(|made| std::fs::read_to_string(made.authority()).unwrap());
    RedisPorts::connect(settings).await
}

#[tokio::test]
async fn all_connections_may_be_encrypted() {
    let certificates = Certificates::make();
    let (mut server, port) = RedisServer::start_with_tls(&certificates).await;
    for (number, host) in ["localhost", "127.0.0.1"].into_iter().enumerate() {
        let ports =
            connect(format!("rediss://{host}:{port}"), Some(&certificates)).await.unwrap_or_else(|e| panic!("{e}"));
        let a = Replica::join_by(ports, &number.to_string()).await;
        assert_eq!(a.enter(&key(&number.to_string()), "1").await, Entered::Won);
        let mut subscription = a.ports.events.subscribe(&Tenant::default()).await.unwrap();
        a.ports.events.publish(&Tenant::default(), &a.id, 1, &[entry("x")]).await.unwrap();
        assert!(within("an event", subscription.recv()).await.is_some());
        let lock: Box<dyn LockGuard> = a.ports.locks.lock("x", Duration::from_secs(5)).await.unwrap();
        drop(lock);
        // Killed and started again it is found again.
        server.kill();
        assert!(a.ports.registry.ping().await.is_err());
        server.start_again().await;
        within("Redis to be back", async {
            while a.ports.registry.ping().await.is_err() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await;
    }
}

#[tokio::test]
async fn a_certificate_of_another_authority_is_refused() {
    let (certificates, others) = (Certificates::make(), Certificates::make());
    let (_server, port) = RedisServer::start_with_tls(&certificates).await;
    // None given: those of the system, which do not know it either.
    for authority in [Some(&others), None] {
        let refused = connect(format!("rediss://:s3cret@localhost:{port}"), authority).await.err().unwrap();
        assert!(matches!(refused, StartError::Unreachable { .. }), "{refused}");
        let told = format!("{refused} {refused:?}");
        assert!(told.to_lowercase().contains("certificate") && !told.contains("s3cret"), "{told}");
    }
}

#[tokio::test]
async fn a_name_that_the_certificate_does_not_bear_is_refused() {
    let certificates = Certificates::make();
    let (_server, port) = RedisServer::start_with_tls(&certificates).await;
    let refused = connect(format!("rediss://127.0.0.2:{port}"), Some(&certificates)).await.err().unwrap();
    assert!(matches!(refused, StartError::Unreachable { .. }), "{refused}");
}
