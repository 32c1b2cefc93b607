//! What a replica demands of its Redis at the start, and the ways to reach one.

#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::time::Duration;
use testkit::client::text_of;
use testkit::process::{Launch, Process};
use testkit::{Answer, BOUND, Certificates, Failover, Mode, RedisServer, World, WorldSpec, flotilla_binary};

/// What a replica says on stderr that refuses to start.
async fn refused(url: &str) -> Vec<String> {
    let folder = tempfile::tempdir().unwrap();
    let home = folder.path().to_string_lossy().into_owned();
    let launch = Launch::new("a replica", flotilla_binary()).args(["serve", "--redis-url", url, "--directory", &home]);
    let finished = launch.env("HOME", home).finish(Duration::from_secs(30)).await;
    assert_eq!(finished.code, Some(1), "{}", finished.stderr);
    finished.stderr.lines().map(str::to_owned).collect()
}

#[tokio::test]
async fn a_redis_that_may_drop_keys_refuses_the_start_with_one_line() {
    let server = RedisServer::start().await;
    for policy in ["allkeys-lru", "volatile-ttl"] {
        assert_eq!(server.command(&["CONFIG", "SET", "maxmemory-policy", policy]), "OK");
        let expected = format!(
            "flotilla: Redis evicts keys when its memory is full (maxmemory-policy {policy}): it must be noeviction"
        );
        assert_eq!(refused(&server.url()).await, [expected]);
    }
}

#[tokio::test]
async fn sentinels_that_know_no_such_service_refuse_the_start_with_one_line_and_no_password() {
    let redis = Failover::start(1).await;
    let lines = refused(&redis.url().replace("/main?", "/other?")).await;
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(lines[0].starts_with("flotilla: the Redis at other behind the sentinels 127.0.0.1:"), "{lines:?}");
    assert!(lines[0].contains("No such master") && !Failover::shows_a_password(&lines[0]), "{lines:?}");
}

/// The same of a replica over this data directory, with a Redis or without, and with more settings.
async fn refused_over(data: &Path, url: Option<&str>, more: &[&str]) -> Vec<String> {
    let folder = tempfile::tempdir().unwrap();
    let finished = replica_over(data, folder.path(), url, more).finish(Duration::from_secs(30)).await;
    assert_eq!(finished.code, Some(1), "{}", finished.stderr);
    finished.stderr.lines().map(str::to_owned).collect()
}

/// Starts it, and waits until it listens.
async fn listening(launch: Launch) -> Process {
    let mut process = launch.start();
    process.wait_line(BOUND, |line| line.starts_with("flotilla listening").then_some(())).await.unwrap();
    process
}

fn replica_over(data: &Path, home: &Path, url: Option<&str>, more: &[&str]) -> Launch {
    let text = |path: &Path| path.to_string_lossy().into_owned();
    let mut launch = Launch::new("a replica", flotilla_binary())
        .args(["serve", "--port", "0", "--data-dir", &text(data), "--directory", &text(home)])
        .args(more.iter().copied())
        .env("HOME", text(home));
    if let Some(url) = url {
        launch = launch.args(["--redis-url", url]);
    }
    launch
}

#[tokio::test]
async fn nobody_serves_alone_what_a_fleet_serves_nor_a_fleet_what_somebody_serves_alone() {
    if !Mode::is_fleet_or_skip() {
        return;
    }
    let fleet = World::start().await;
    let lines = refused_over(fleet.data_dir(), None, &[]).await;
    assert!(lines.len() == 1 && lines[0].contains("is used by another replica"), "{lines:?}");
    let (alone, redis) = (World::start_in(Mode::Embedded, WorldSpec::default()).await, RedisServer::start().await);
    let lines = refused_over(alone.data_dir(), Some(&redis.url()), &[]).await;
    assert!(lines.len() == 1 && lines[0].contains("is used by a replica without --redis-url"), "{lines:?}");
}

#[tokio::test]
async fn a_fleet_works_over_a_redis_with_tls() {
    if !Mode::is_fleet_or_skip() {
        return;
    }
    let certificates = Certificates::make();
    let (_server, port) = RedisServer::start_with_tls(&certificates).await;
    let url = format!("rediss://localhost:{port}");
    let authority = certificates.authority();
    let args = |path: &Path| ["--redis-ca", &path.to_string_lossy(), "--lock-url", &url].map(str::to_owned).to_vec();
    let spec = WorldSpec { redis_url: Some(url.clone()), args: args(&authority), ..WorldSpec::default() };
    let world = World::start_with(spec).await;
    world.model.respond_with(|_| Answer::say("answered"));
    let mut events = world.events(2).await;
    let id = world.session().await;
    assert_eq!(text_of(&world.at(1).prompt(&id, "go").await), "answered");
    events.until_idle(BOUND, &id).await;
}

#[tokio::test]
async fn a_replica_that_has_something_else_than_its_fleet_refuses_the_start_until_the_fleet_is_gone() {
    if !Mode::is_fleet_or_skip() {
        return;
    }
    let (data, other_data, home) =
        (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let redis = RedisServer::start().await;
    let short = ["--lease-ttl", "3s"];
    let fleet = listening(replica_over(data.path(), home.path(), Some(&redis.url()), &short)).await;
    let who_differs = [
        (data.path(), vec!["--lease-ttl", "4s"], "another lease-ttl: 3000ms, here 4000ms"),
        (data.path(), vec!["--lease-ttl", "3s", "--tick", "900ms"], "another tick: 1000ms, here 900ms"),
        (other_data.path(), short.to_vec(), "another data-dir: "),
    ];
    for (data, settings, what) in who_differs {
        let lines = refused_over(data, Some(&redis.url()), &settings).await;
        assert!(lines.len() == 1 && lines[0].contains(what), "{lines:?}");
    }
    // It had agreed with itself all the while: one more of the kind is welcome.
    let another = listening(replica_over(data.path(), home.path(), Some(&redis.url()), &short)).await;
    drop((fleet, another));
    let changed = listening(replica_over(data.path(), home.path(), Some(&redis.url()), &["--lease-ttl", "4s"])).await;
    drop(changed);
}
