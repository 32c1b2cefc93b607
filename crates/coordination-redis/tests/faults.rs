//! What becomes of the Redis backend when its server dies, hangs, forgets or is unfit.
#![allow(clippy::unwrap_used, reason = "a test")]

mod support;

use coordination::conformance::{Replica, World, attempt, entry, key, record_entry, within};
use coordination::{Adopted, CoordinationError, Entered, Ports, Signal, Ticked};
use coordination_redis::{RedisPorts, StartError};
use run_protocol::{Fence, RecordVersion};
use std::time::{Duration, Instant};
use support::Redis;
use testkit::CuttingProxy;
use wire::tenant::Tenant;

/// The time-out of a second, and what a busy machine adds.
const IN_TIME: Duration = Duration::from_millis(1_500);

/// Waits until the backend answers again.
async fn back(ports: &Ports) {
    within("Redis to be back", async {
        while ports.registry.ping().await.is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}

async fn is_unavailable_in_time(replica: &Replica) {
    let began = Instant::now();
    let refused = replica.ports.leases.enter(&replica.wish(&key("s"), "unavailable")).await;
    assert!(matches!(refused, Err(CoordinationError::Unavailable(_))), "{refused:?}");
    assert!(began.elapsed() < IN_TIME, "it took {:?}", began.elapsed());
}

/// Publishes until the subscription, which has to be made anew first, hears of it.
async fn is_heard(replica: &Replica, subscription: &mut coordination::Subscription) {
    within("the subscription to be back", async {
        for batch in 1_000.. {
            let _ = replica.ports.events.publish(&Tenant::default(), &replica.id, batch, &[entry("x")]).await;
            if let Ok(Some(_)) = tokio::time::timeout(Duration::from_millis(50), subscription.recv()).await {
                return;
            }
        }
    })
    .await;
}

#[tokio::test]
async fn a_server_that_is_killed_and_started_again_is_found() {
    let mut redis = Redis::start().await;
    let mut a = Replica::join(&redis, "a").await;
    let mut subscription = a.ports.events.subscribe(&Tenant::default()).await.unwrap();
    let mut signals = a.ports.registry.listen(&a.id).await.unwrap();
    a.run(&key("s"), "1", 7).await;
    redis.server.kill();
    for _ in 0..3 {
        is_unavailable_in_time(&a).await;
    }
    redis.server.start_again().await;
    back(&a.ports).await;
    let Ticked::Reborn(born) = a.tick().await else { panic!("an empty server is another one") };
    a.born = born;
    let adopted = a.ports.leases.adopt(&key("s"), &a.id, &attempt("1"), Fence(7)).await.unwrap();
    assert_eq!(adopted, Adopted::Mine);
    assert_eq!(a.owned().await, 1);
    is_heard(&a, &mut subscription).await;
    a.ports.leases.poke(&key("s"), true).await.unwrap();
    assert_eq!(within("the poke", signals.recv()).await, Some(Signal::Poke(key("s"), Some(Fence(7)))));
}

#[tokio::test]
async fn a_server_that_hangs_is_unavailable_and_comes_back() {
    let mut redis = Redis::start().await;
    let a = Replica::join(&redis, "a").await;
    let mut subscription = a.ports.events.subscribe(&Tenant::default()).await.unwrap();
    redis.server.pause();
    for _ in 0..4 {
        is_unavailable_in_time(&a).await;
    }
    let began = Instant::now();
    assert!(a.ports.events.subscribe(&Tenant::default()).await.is_err());
    assert!(began.elapsed() < IN_TIME, "it took {:?}", began.elapsed());
    let began = Instant::now();
    assert!(a.ports.locks.lock("x", Duration::from_secs(5)).await.is_err());
    assert!(began.elapsed() < IN_TIME, "it took {:?}", began.elapsed());
    redis.server.resume();
    back(&a.ports).await;
    assert!(matches!(a.tick().await, Ticked::Alive { .. }), "nothing was forgotten");
    is_heard(&a, &mut subscription).await;
}

/// The server's end is gone while ours stays open and silent, as after a failover behind a load balancer.
#[tokio::test]
async fn a_connection_that_nobody_answers_is_replaced() {
    let mut redis = Redis::start().await;
    let proxy = CuttingProxy::start(redis.server.port());
    redis.settings.url = format!("redis://127.0.0.1:{}", proxy.port());
    let a = Replica::join(&redis, "a").await;
    let mut subscription = a.ports.events.subscribe(&Tenant::default()).await.unwrap();
    proxy.half_open();
    is_unavailable_in_time(&a).await;
    proxy.heal();
    back(&a.ports).await;
    assert!(matches!(a.tick().await, Ticked::Alive { .. }));
    is_heard(&a, &mut subscription).await;
}

#[tokio::test]
async fn cut_connections_are_made_anew() {
    let mut redis = Redis::start().await;
    let proxy = CuttingProxy::start(redis.server.port());
    redis.settings.url = format!("redis://127.0.0.1:{}", proxy.port());
    let a = Replica::join(&redis, "a").await;
    let mut subscription = a.ports.events.subscribe(&Tenant::default()).await.unwrap();
    for _ in 0..3 {
        proxy.cut();
        back(&a.ports).await;
        is_heard(&a, &mut subscription).await;
    }
}

#[tokio::test]
async fn scripts_that_the_server_forgot_are_loaded_again() {
    let redis = Redis::start().await;
    let a = Replica::join(&redis, "a").await;
    assert_eq!(redis.server.command(&["SCRIPT", "FLUSH"]), "OK");
    assert_eq!(a.enter(&key("s"), "1").await, Entered::Won);
}

#[tokio::test]
async fn a_burial_that_broke_off_is_finished_by_the_next() {
    let redis = Redis::start().await;
    let (a, b) = (Replica::join(&redis, "a").await, Replica::join(&redis, "b").await);
    a.run(&key("s"), "1", 1).await;
    a.tick().await;
    // What a burial leaves that ends after its first script.
    assert_eq!(redis.server.command(&["HSET", "flotilla:1:{0}:alive", "a", "x1"]), "0");
    assert_eq!(a.tick().await, Ticked::Buried);
    assert_eq!(a.enter(&key("t"), "2").await, Entered::Waiting);
    let Ticked::Alive { beats, .. } = b.tick().await else { panic!("not alive") };
    assert_eq!(beats[&a.id], 1, "others see it until it is buried");
    assert_eq!(b.ports.registry.bury(&a.id, 1).await.unwrap(), Some(1));
    let Ticked::Alive { beats, due, .. } = b.tick().await else { panic!("not alive") };
    assert_eq!((beats.contains_key(&a.id), due), (false, 2));
}

#[tokio::test]
async fn a_server_that_evicts_is_refused() {
    let redis = Redis::start().await;
    assert_eq!(redis.server.command(&["CONFIG", "SET", "maxmemory-policy", "volatile-ttl"]), "OK");
    let refused = RedisPorts::connect(redis.settings.clone()).await.err().unwrap();
    assert!(matches!(&refused, StartError::Evicts(policy) if policy == "volatile-ttl"), "{refused}");
}

#[tokio::test]
async fn a_server_that_does_not_tell_its_settings_will_do() {
    let mut redis = Redis::start().await;
    redis.server.command(&["ACL", "SETUSER", "limited", "on", ">secret", "~*", "&*", "+@all", "-config"]);
    redis.settings.url = redis.server.url().replace("redis://", "redis://limited:secret@");
    redis.ports().await.registry.ping().await.unwrap();
}

#[tokio::test]
async fn no_error_tells_the_password() {
    let mut redis = Redis::start().await;
    redis.settings.url = redis.server.url().replace("redis://", "redis://nobody:s3cret@");
    let refused = RedisPorts::connect(redis.settings.clone()).await.err().unwrap();
    assert!(matches!(refused, StartError::Unreachable { .. }), "{refused}");
    assert!(!format!("{refused} {refused:?}").contains("s3cret"), "{refused}");
    redis.server.kill();
    let refused = RedisPorts::connect(redis.settings.clone()).await.err().unwrap();
    assert!(!format!("{refused} {refused:?}").contains("s3cret"), "{refused}");
}

#[tokio::test]
async fn each_operation_is_one_round_trip() {
    let redis = Redis::start().await;
    let a = Replica::join(&redis, "a").await;
    let scripts_run = || {
        let info = redis.server.command(&["INFO", "commandstats"]);
        let line = info.lines().find(|line| line.starts_with("cmdstat_evalsha:")).map(str::to_owned);
        let calls =
            line.and_then(|line| line.split([':', ',', '=']).nth(2).and_then(|calls| calls.parse::<u64>().ok()));
        (calls.unwrap_or(0), redis.settings.round_trips.load(std::sync::atomic::Ordering::Relaxed))
    };
    let before = scripts_run();
    a.run(&key("s"), "1", 1).await;
    let batch: Vec<_> = (0..50).map(|_| entry("x")).collect();
    a.ports.events.publish(&Tenant::default(), &a.id, 1, &batch).await.unwrap();
    a.tick_with(vec![(key("s"), 1)], vec![Tenant::default()]).await;
    a.ports.leases.release(&key("s"), &attempt("1"), 1, &batch).await.unwrap();
    let after = scripts_run();
    assert_eq!((after.0 - before.0, after.1 - before.1), (5, 5), "enter, begin, publish, tick, release");
}

#[tokio::test]
async fn a_log_that_somebody_follows_does_not_expire() {
    let redis = Redis::start().await;
    let a = Replica::join(&redis, "a").await;
    let tenant = Tenant::default();
    a.ports.events.publish(&tenant, &a.id, 1, &[entry("x")]).await.unwrap();
    let keys = redis.server.command(&["KEYS", "*"]);
    let keys: Vec<_> = keys.lines().filter(|key| key.contains(":log:") || key.contains(":meta:")).collect();
    assert_eq!(keys.len(), 2, "{keys:?}");
    let left = |key: &str| redis.server.command(&["PTTL", key]).parse::<u64>().unwrap();
    for key in &keys {
        assert_eq!(redis.server.command(&["PEXPIRE", key, "100000"]), "1");
    }
    a.tick_with(Vec::new(), vec![tenant]).await;
    for key in keys {
        assert!(left(key) > 100_000, "{key} expires in {} ms", left(key));
    }
}

#[tokio::test]
async fn what_a_session_has_told_takes_a_bounded_place_however_much_it_is() {
    let redis = Redis::start().await;
    let a = Replica::join(&redis, "a").await;
    let (tenant, events) = (Tenant::default(), &a.ports.events);
    a.run(&key("s"), "1", 7).await;
    let told = |record: u64, sequence| {
        record_entry(&key("s"), &format!("record {record}"), RecordVersion::run(Fence(7), sequence), "x")
    };
    for batch in 1..=10 {
        let entries: Vec<_> = (batch * 1_000..(batch + 1) * 1_000).map(|record| told(record, 2)).collect();
        events.publish(&tenant, &a.id, batch, &entries).await.unwrap();
    }
    let keys = redis.server.command(&["KEYS", "*revs:*"]);
    let (mut records, mut count) = (0, 0);
    for key in keys.lines() {
        records += redis.server.command(&["HLEN", key]).parse::<u64>().unwrap();
        count += 1;
        assert!(redis.server.command(&["PTTL", key]).parse::<u64>().is_ok(), "{key} never expires");
    }
    assert_eq!(count, 2, "{keys}");
    assert!((4_096..=2 * 4_096).contains(&records), "{records} records");

    // Of the records of both generations what is old is left out, and what is new is not.
    let newest = events.newest(&tenant).await.unwrap();
    let late: Vec<_> = (11_000 - 4_095..11_000).map(|record| told(record, 1)).collect();
    events.publish(&tenant, &a.id, 11, &late).await.unwrap();
    assert_eq!(events.newest(&tenant).await.unwrap(), newest);
    events.publish(&tenant, &a.id, 12, &[told(7_000, 3)]).await.unwrap();
    let after = events.newest(&tenant).await.unwrap();
    assert_ne!(after, newest);
    events.publish(&tenant, &a.id, 13, &[told(7_000, 2)]).await.unwrap();
    assert_eq!(events.newest(&tenant).await.unwrap(), after);

    // No older fence begins.
    a.ports.leases.forget(&key("s")).await.unwrap();
    a.enter(&key("s"), "2").await;
    assert!(!a.ports.leases.begin(&key("s"), &attempt("2"), Fence(6), &[]).await.unwrap());
    assert!(a.ports.leases.begin(&key("s"), &attempt("2"), Fence(8), &[]).await.unwrap());
}
