//! The master is where the sentinels say.
#![allow(clippy::unwrap_used, reason = "a test")]

mod support;

use coordination::conformance::{Replica, entry, key, within};
use coordination::{Entered, LockGuard, Ports, Signal, Tick, Ticked};
use coordination_redis::{RedisPorts, RedisSettings, StartError};
use std::sync::Arc;
use std::time::Duration;
use support::Different;
use testkit::Failover;
use wire::tenant::Tenant;

async fn connect(url: String) -> Result<Ports, StartError> {
    RedisPorts::connect(RedisSettings::new(url, Arc::new(Different::default()))).await
}

async fn ports(url: String) -> Ports {
    connect(url).await.unwrap_or_else(|error| panic!("{error}"))
}

#[tokio::test]
async fn a_failover_is_followed_by_all_connections() {
    let mut redis = Failover::start(1).await;
    let a = Replica::join_by(ports(redis.url()).await, "a").await;
    let mut subscription = a.ports.events.subscribe(&Tenant::default()).await.unwrap();
    let mut signals = a.ports.registry.listen(&a.id).await.unwrap();
    a.ports.events.publish(&Tenant::default(), &a.id, 1, &[entry("x")]).await.unwrap();
    assert!(within("an event", subscription.recv()).await.is_some());
    within("the copy to know the fleet", async {
        while redis.copy.command(&["HGET", "flotilla:1:{0}:alive", "a"]).is_empty() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    redis.fail_over().await;
    within("the new master", async {
        while a.ports.registry.ping().await.is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    assert!(matches!(a.tick().await, Ticked::Alive { .. }), "the copy knows the fleet");
    assert_eq!(a.enter(&key("s"), "1").await, Entered::Won);
    let lock: Box<dyn LockGuard> = a.ports.locks.lock("x", Duration::from_secs(5)).await.unwrap();
    drop(lock);
    // Over the new master's Pub/Sub.
    within("the subscription to be back", async {
        for batch in 2.. {
            let _ = a.ports.events.publish(&Tenant::default(), &a.id, batch, &[entry("x")]).await;
            if let Ok(Some(_)) = tokio::time::timeout(Duration::from_millis(50), subscription.recv()).await {
                return;
            }
        }
    })
    .await;
    a.ports.leases.poke(&key("s"), false).await.unwrap();
    assert!(matches!(within("the poke", signals.recv()).await, Some(Signal::Poke(..))));
}

/// The old master goes on answering: nothing but the word of the sentinels tells.
#[tokio::test]
async fn a_master_that_lives_on_after_a_failover_is_left() {
    let redis = Failover::start(1).await;
    let a = Replica::join_by(ports(redis.url()).await, "a").await;
    redis.name_the_copy();
    within("the word of the sentinels", async {
        let beat = || redis.copy.command(&["HGET", "flotilla:1:{0}:alive", "a"]);
        let before = beat();
        while beat() == before {
            let tick = Tick { replica: a.id.clone(), born: a.born.clone(), acknowledged: vec![], watched: vec![] };
            let _ = a.ports.registry.tick(&tick).await;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn one_sentinel_of_several_is_enough() {
    let mut redis = Failover::start(3).await;
    let (hung, well) = (redis.sentinel(0).port(), redis.sentinel(2).port());
    redis.sentinel(0).pause();
    let dead = testkit::polling::free_port();
    let a = Replica::join_by(ports(redis.url_of(&[hung, dead, well])).await, "a").await;
    assert_eq!(a.enter(&key("s"), "1").await, Entered::Won);
}

#[tokio::test]
async fn a_start_without_a_word_of_sentinels_says_why_and_no_password() {
    let redis = Failover::start(1).await;
    let (port, dead) = (redis.url().replace("/main?", "/other?"), testkit::polling::free_port());
    let wrong = redis.url().replace("of-sentinels", "wrong");
    for (url, why) in [(port, "No such master"), (redis.url_of(&[dead]), "refused"), (wrong, "")] {
        let refused = connect(url).await.err().unwrap();
        let told = format!("{refused} {refused:?}");
        assert!(matches!(refused, StartError::Unreachable { .. }) && told.contains(why), "{told}");
        assert!(!Failover::shows_a_password(&told), "{told}");
    }
}

#[tokio::test]
async fn lock_masters_are_servers() {
    let redis = Failover::start(1).await;
    let mut settings = RedisSettings::new(redis.url(), Arc::new(Different::default()));
    settings.lock_urls = vec![redis.url()];
    let refused = RedisPorts::connect(settings).await.err().unwrap();
    assert!(matches!(refused, StartError::LockSentinels), "{refused}");
}
