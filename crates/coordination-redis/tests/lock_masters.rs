//! Redlock over several masters, and what one lock is worth.
#![allow(clippy::unwrap_used, reason = "a test")]

mod support;

use coordination::conformance::{World, within};
use coordination::{CoordinationError, LockGuard, Locks};
use std::sync::Arc;
use std::time::{Duration, Instant};
use support::Redis;
use testkit::RedisServer;

const PATIENCE: Duration = Duration::from_secs(5);
const IMPATIENCE: Duration = Duration::from_millis(150);

/// Three masters beside the main server.
struct Masters {
    redis: Redis,
    masters: Vec<RedisServer>,
}

impl Masters {
    async fn start() -> Self {
        let mut redis = Redis::start().await;
        let mut masters = Vec::new();
        for _ in 0..3 {
            masters.push(RedisServer::start().await);
        }
        redis.settings.lock_urls = masters.iter().map(RedisServer::url).collect();
        Self { redis, masters }
    }

    /// The locks of another replica, once all its connections stand.
    async fn locks(&self) -> Arc<dyn Locks> {
        let locks = self.redis.ports().await.locks;
        drop(taken(&*locks, "warm-up").await);
        locks
    }
}

async fn taken(locks: &dyn Locks, name: &str) -> Box<dyn LockGuard> {
    let began = Instant::now();
    loop {
        match locks.lock(name, PATIENCE).await {
            Ok(guard) => return guard,
            Err(error) => assert!(began.elapsed() < PATIENCE, "{error}"),
        }
    }
}

#[tokio::test]
async fn a_majority_is_enough() {
    let mut world = Masters::start().await;
    let (a, b) = (world.locks().await, world.locks().await);
    world.masters[1].kill();
    let held = taken(&*a, "x").await;
    assert!(matches!(b.lock("x", IMPATIENCE).await.map(drop), Err(CoordinationError::Contended(_))));
    drop(held);
    drop(taken(&*b, "x").await);
}

#[tokio::test]
async fn a_master_that_hangs_does_not_hold_up_the_others() {
    let mut world = Masters::start().await;
    world.redis.settings.lock_answer_within = Duration::from_millis(50);
    let a = world.locks().await;
    world.masters[2].pause();
    let began = Instant::now();
    for _ in 0..50 {
        drop(taken(&*a, "x").await);
    }
    assert!(began.elapsed() < Duration::from_millis(50 * 50), "it took {:?}", began.elapsed());
    world.masters[2].resume();
}

#[tokio::test]
async fn a_minority_is_unavailable_quickly() {
    let mut world = Masters::start().await;
    world.redis.settings.lock_answer_within = Duration::from_millis(50);
    let a = world.locks().await;
    world.masters[0].kill();
    world.masters[1].pause();
    for _ in 0..3 {
        let began = Instant::now();
        let refused = a.lock("x", PATIENCE).await.map(drop);
        assert!(matches!(refused, Err(CoordinationError::Unavailable(_))), "{refused:?}");
        assert!(began.elapsed() < Duration::from_millis(500), "it took {:?}", began.elapsed());
    }
    world.masters[1].resume();
    drop(taken(&*a, "x").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_master_that_comes_back_keeps_no_lock_that_was_given_back_meanwhile() {
    const LOCKS: u64 = 100;
    let mut world = Masters::start().await;
    world.redis.settings.lock_answer_within = Duration::from_secs(60);
    world.redis.settings.lock_ttl = Duration::from_secs(60);
    let a = world.locks().await;
    world.masters[0].kill();
    // The first of them find that it is gone, the others wait for it.
    for number in 0..LOCKS {
        drop(taken(&*a, &format!("x{number}")).await);
    }
    world.masters[0].start_again().await;
    let calls = |command: &str| {
        let stats = world.masters[0].command(&["INFO", "commandstats"]);
        let line = stats.lines().find_map(|line| line.strip_prefix(&format!("cmdstat_{command}:calls=")));
        line.and_then(|line| line.split(',').next()?.parse::<u64>().ok()).unwrap_or(0)
    };
    within("all to be given back", async {
        while calls("set").min(calls("evalsha")) < LOCKS / 2 || world.masters[0].command(&["DBSIZE"]) != "0" {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_lock_is_in_the_way_of_whoever_comes_by_another_path() {
    let redis = Redis::start().await;
    let locks = redis.ports().await.locks;
    assert_eq!(redis.server.command(&["SET", "flotilla:1:{0}:lock:x", "the test's"]), "OK");
    assert!(matches!(locks.lock("x", IMPATIENCE).await.map(drop), Err(CoordinationError::Contended(_))));
    assert_eq!(redis.server.command(&["GET", "flotilla:1:{0}:lock:x"]), "the test's", "only its token releases a lock");
    assert_eq!(redis.server.command(&["DEL", "flotilla:1:{0}:lock:x"]), "1");
    drop(taken(&*locks, "x").await);
}

#[tokio::test]
async fn a_lock_ends_with_its_time_unless_it_is_extended() {
    let mut redis = Redis::start().await;
    redis.settings.lock_ttl = Duration::from_millis(300);
    let (a, b) = (redis.ports().await.locks, redis.ports().await.locks);
    let late = taken(&*a, "x").await;
    let began = Instant::now();
    let mine = taken(&*b, "x").await;
    assert!(began.elapsed() < Duration::from_secs(2), "it took {:?}", began.elapsed());
    // Who is late neither prolongs nor releases what is another's now.
    late.extend();
    drop(late);
    for _ in 0..10 {
        mine.extend();
        assert!(a.lock("x", Duration::from_millis(100)).await.is_err());
    }
}
