//! redis-loss: Redis dies, hangs, forgets, is cut off from one replica, or fails over to a copy that lags behind. No
//! acknowledged data goes with it and no run fails; all goes on by itself when it is back.

use serde_json::json;
use std::time::{Duration, Instant};
use suite::figures::{self, rounds};
use suite::outage::AtWork;
use suite::screen::shows_what_is_stored;
use testkit::client::text_of;
use testkit::model::Gate;
use testkit::outline::shown_texts;
use testkit::{Answer, BOUND, Event, Failover, Mode, World, WorldSpec, eventually};

/// Replicas that notice a silence soon.
fn quick() -> WorldSpec {
    let args = ["--lease-ttl", "3s", "--tick", "500ms"].map(str::to_owned).to_vec();
    WorldSpec { args, ..WorldSpec::default() }
}

/// What every replica does while none can reach Redis.
async fn all_are_cut_off(world: &World, work: &mut AtWork) {
    for number in 0..3 {
        work.is_cut_off(world, number).await;
    }
    for number in 0..3 {
        work.knows_it(world, number).await;
    }
    work.streams_are_open();
}

#[tokio::test]
async fn a_redis_that_is_killed_and_comes_back_with_its_data_costs_nothing() {
    if !Mode::is_fleet_or_skip() {
        return;
    }
    let mut back = Vec::new();
    for _ in 0..rounds(1) {
        let mut world = World::start_with(WorldSpec { redis_keeps: true, ..quick() }).await;
        let mut work = AtWork::begin(&world).await;
        world.redis().kill();
        all_are_cut_off(&world, &mut work).await;
        world.redis().start_again().await;
        back.push(work.is_back(&world).await);
        work.streams_are_open();
        work.finish(&world, "redis killed").await;
    }
    figures::print("redis killed, back with its data, to a write taken by each replica", &mut back);
}

#[tokio::test]
async fn a_redis_that_is_killed_and_comes_back_empty_costs_nothing_that_was_acknowledged() {
    if !Mode::is_fleet_or_skip() {
        return;
    }
    let mut back = Vec::new();
    for _ in 0..rounds(1) {
        let mut world = World::start_with(quick()).await;
        let mut work = AtWork::begin(&world).await;
        world.redis().kill();
        all_are_cut_off(&world, &mut work).await;
        world.redis().start_again().await;
        back.push(work.is_back(&world).await);
        work.finish(&world, "redis killed").await;
    }
    figures::print("redis killed, back empty, to a write taken by each replica", &mut back);
}

#[tokio::test]
async fn a_redis_that_hangs_parks_the_runs_and_they_go_on() {
    if !Mode::is_fleet_or_skip() {
        return;
    }
    // With more rounds asked for, as long as the default settings let pass, too: ten seconds.
    let settings = if rounds(0) == 0 { vec![quick()] } else { vec![quick(), WorldSpec::default()] };
    for spec in settings {
        let is_long = spec.args.is_empty();
        let mut world = World::start_with(spec).await;
        let mut work = AtWork::begin(&world).await;
        let began = Instant::now();
        world.redis().pause();
        all_are_cut_off(&world, &mut work).await;
        for number in 0..3 {
            work.parks(&world, number).await;
        }
        if is_long {
            tokio::time::sleep(Duration::from_secs(10).saturating_sub(began.elapsed())).await;
        }
        let hung = began.elapsed().as_millis();
        world.redis().resume();
        let mut back = [work.is_back(&world).await];
        work.streams_are_open();
        work.finish(&world, "redis hung").await;
        figures::print(&format!("redis hung for {hung} ms, to a write taken by each replica"), &mut back);
    }
}

#[tokio::test]
async fn a_replica_that_is_cut_off_from_redis_parks_its_runs_and_they_go_on_elsewhere() {
    if !Mode::is_fleet_or_skip() {
        return;
    }
    let (mut taken, mut back) = (Vec::new(), Vec::new());
    for _ in 0..rounds(1) {
        let world = World::start_with(WorldSpec { proxied: true, ..quick() }).await;
        let mut work = AtWork::begin(&world).await;
        let began = Instant::now();
        world.redis_proxy(0).hold();
        work.is_cut_off(&world, 0).await;
        work.parks(&world, 0).await;
        work.knows_it(&world, 0).await;
        let id = work.session(0).to_owned();
        eventually(BOUND, "the run to go on elsewhere", || async {
            let requests = world.model.main_requests();
            (requests.iter().filter(|request| request.session.as_ref() == Some(&id)).count() == 2).then_some(())
        })
        .await;
        taken.push(began.elapsed());
        // The other two go on as if nothing were, and so does what the cut-off one can read.
        for number in [1, 2] {
            assert_eq!(world.at(number).patch(&format!("/session/{id}"), &json!({})).await.status, 200);
        }
        eventually(BOUND, "the answer on the replica that is cut off", || async {
            let said = world.at(0).messages(&id).await;
            said.last().filter(|last| text_of(last) == "whole").map(drop)
        })
        .await;
        work.reader(0).until_kind(Duration::from_secs(25), "server.heartbeat").await;
        work.streams_are_open();
        world.redis_proxy(0).heal();
        back.push(work.is_back(&world).await);
        work.streams_are_open();
        work.finish(&world, "one replica cut off").await;
        assert!(world.replicas()[0].stderr().contains("joins the fleet again"), "it was buried meanwhile");
    }
    figures::print("one replica cut off, to its run going on elsewhere (TTL 3 s)", &mut taken);
    figures::print("one replica cut off and healed, to a write taken by each replica", &mut back);
}

#[tokio::test]
async fn a_failover_to_a_copy_that_lags_behind_loses_nothing_that_was_acknowledged() {
    if !Mode::is_fleet_or_skip() {
        return;
    }
    let mut back = Vec::new();
    for _ in 0..rounds(1) {
        back.push(fail_over_to_a_lagging_copy().await);
    }
    figures::print("failover to a lagging copy, kill of the master to a write taken by each replica", &mut back);
}

/// Returns how long it took until each replica took writes again.
async fn fail_over_to_a_lagging_copy() -> Duration {
    let mut redis = Failover::start(1).await;
    let world = World::start_with(WorldSpec { redis_url: Some(redis.url()), ..WorldSpec::default() }).await;
    let (first, second) = (Gate::new(), Gate::new());
    let answer = Answer::new().text("half ").wait(&first).text("more ").wait(&second);
    world.model.push(answer.text("rest").stop());
    world.model.respond_with(|_| Answer::say("whole"));
    let mut readers = [world.faithful_events(0).await, world.faithful_events(1).await, world.faithful_events(2).await];
    let (long, lost) = (world.session().await, world.session().await);
    let waiting = world.spawn_prompt(0, &long, "go");
    first.reached().await;
    for reader in &mut readers {
        reader.until(BOUND, "the first word", |event| event.properties()["delta"] == "half ").await;
    }
    // A reader that goes before, and comes back after.
    let mut away = world.events(1).await;
    assert_eq!(world.at(0).patch(&format!("/session/{lost}"), &json!({"title": "seen by all"})).await.status, 200);
    away.until(BOUND, "a title", |event| event.properties()["info"]["title"] == "seen by all").await;
    away.cut();
    eventually(BOUND, "the copy to be level", || async {
        let newest = |server: &testkit::RedisServer| server.command(&["HGET", "flotilla:1:{0}:meta:default", "last"]);
        (newest(&redis.copy) == newest(&redis.master)).then_some(())
    })
    .await;

    // What the copy never hears of: a prompt that is answered, a change, a session, a piece of the long answer.
    redis.lag();
    assert_eq!(text_of(&world.at(1).prompt(&lost, "quick").await), "whole");
    assert_eq!(world.at(2).patch(&format!("/session/{lost}"), &json!({"title": "kept"})).await.status, 200);
    let made = world.session().await;
    first.release();
    second.reached().await;
    for reader in &readers {
        eventually(BOUND, "all of it on each screen", || async {
            let events = reader.collected();
            let has = |what: &dyn Fn(&Event) -> bool| events.iter().any(what);
            let has_word = has(&|event| event.properties()["delta"] == "more ");
            (has_word && has(&|event| event.properties()["info"]["id"] == made.as_str())).then_some(())
        })
        .await;
    }
    let began = Instant::now();
    redis.fail_over().await;
    for number in 0..3 {
        for session in [&long, &lost, &made] {
            eventually(BOUND, "writes to be taken again", || async {
                let reply = world.at(number).patch(&format!("/session/{session}"), &json!({})).await;
                (reply.status == 200).then_some(())
            })
            .await;
        }
    }
    let back = began.elapsed();
    away.resume_again_and_again(&format!("{}{}", world.url(2), world.event_path()));

    // Newcomers are shown what has been said of the long answer, exactly, while it goes on.
    let is_still_running =
        world.model.main_requests().iter().filter(|r| r.session.as_ref() == Some(&long)).count() == 1;
    for number in 0..3 {
        // Its replica may find only now that the log went back, and cut it.
        let newcomer = world.faithful_global_events(number).await;
        eventually(BOUND, "the answer so far, or the whole one", || async {
            let shown = shown_texts(&newcomer.collected());
            let fits = |text: &String| *text == "half more " || !is_still_running && text == "whole";
            shown.values().any(fits).then_some(())
        })
        .await;
    }
    second.release();
    let reply = waiting.await.unwrap_or_else(|error| panic!("a caller broke off: {error}"));
    assert_eq!((&reply["info"]["finish"], &reply["info"]["error"]), (&json!("stop"), &json!(null)), "{reply}");
    assert!(["half more rest", "whole"].contains(&text_of(&reply).as_str()), "{reply}");
    for number in 0..3 {
        let client = world.at(number);
        assert_eq!(client.get(&format!("/session/{lost}")).await.ok()["title"], "kept");
        assert_eq!(client.get(&format!("/session/{made}")).await.status, 200);
        let said = client.conversation(&lost).await;
        assert_eq!(said.iter().map(|(_, text)| text.as_str()).collect::<Vec<_>>(), ["quick", "whole"]);
        eventually(BOUND, "no session to be busy", || async {
            (client.get("/session/status").await.ok() == json!({})).then_some(())
        })
        .await;
    }
    assert_eq!(world.model.concurrent_runs(&long), 1);
    for (number, reader) in readers.iter().chain([&away]).enumerate() {
        for session in [&long, &lost] {
            shows_what_is_stored(reader, &world.at(number % 3), session).await;
        }
    }
    for replica in world.replicas() {
        assert!(!Failover::shows_a_password(&replica.stderr()), "a password in a log");
    }
    back
}
