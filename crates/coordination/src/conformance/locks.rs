//! Locks.

use super::{World, within};
use crate::{CoordinationError, LogLimits};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// Nothing is trimmed here.
pub const LIMITS: LogLimits = LogLimits { age: Duration::from_secs(600), bytes: 64 << 20 };

const PATIENCE: Duration = Duration::from_secs(10);
const IMPATIENCE: Duration = Duration::from_millis(100);

pub async fn a_lock_keeps_others_out(world: &dyn World) {
    let (a, b) = (world.ports().await.locks, world.ports().await.locks);
    let held = a.lock("x", PATIENCE).await.unwrap();
    let waiting = tokio::spawn(async move { b.lock("x", PATIENCE).await.map(drop) });
    assert!(a.lock("x", IMPATIENCE).await.is_err());
    assert!(!waiting.is_finished());
    drop(held);
    within("the lock", waiting).await.unwrap().unwrap();
    within("the lock", a.lock("x", PATIENCE)).await.unwrap();
}

pub async fn impatience_is_contended(world: &dyn World) {
    let (a, b) = (world.ports().await.locks, world.ports().await.locks);
    let _held = a.lock("x", PATIENCE).await.unwrap();
    for locks in [&a, &b] {
        let refused = within("the refusal", locks.lock("x", IMPATIENCE)).await.map(drop);
        assert!(matches!(refused, Err(CoordinationError::Contended(name)) if name == "x"));
    }
}

pub async fn locks_of_other_names_are_free(world: &dyn World) {
    let locks = world.ports().await.locks;
    let _x = locks.lock("x", PATIENCE).await.unwrap();
    let _y = locks.lock("y", IMPATIENCE).await.unwrap();
}

pub async fn extending_keeps_the_lock(world: &dyn World) {
    let (a, b) = (world.ports().await.locks, world.ports().await.locks);
    let held = a.lock("x", PATIENCE).await.unwrap();
    held.extend();
    assert!(b.lock("x", IMPATIENCE).await.is_err());
    drop(held);
    within("the lock", b.lock("x", PATIENCE)).await.unwrap();
}

pub async fn many_contenders_all_get_it(world: &dyn World) {
    let replicas = [world.ports().await.locks, world.ports().await.locks, world.ports().await.locks];
    let inside = Arc::new(AtomicU32::new(0));
    let contenders: Vec<_> = (0..30)
        .map(|number| {
            let (locks, inside) = (replicas[number % 3].clone(), inside.clone());
            tokio::spawn(async move {
                let _held = locks.lock("x", PATIENCE).await.unwrap();
                assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0, "two are inside");
                tokio::task::yield_now().await;
                inside.fetch_sub(1, Ordering::SeqCst);
            })
        })
        .collect();
    for contender in contenders {
        within("every contender", contender).await.unwrap();
    }
}
