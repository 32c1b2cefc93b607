//! drain: a rolling restart of the whole fleet fails no request, and no event is lost or doubled.

use std::time::Duration;
use suite::figures::rounds;
use suite::load::{self, Load};
use testkit::{BOUND, Mode, World};

#[tokio::test]
async fn a_rolling_restart_under_load_fails_no_request() {
    if !Mode::is_fleet_or_skip() {
        return;
    }
    let mut world = World::start().await;
    let nginx = world.nginx().await;
    load::answer(&world, Duration::from_millis(15));
    let load = Load::start(&nginx.url(), 5);
    let mut took = Vec::new();
    for _ in 0..rounds(1) {
        for number in 0..3 {
            load.goes_on(5).await;
            let began = std::time::Instant::now();
            world.replica(number).term();
            let ended = world.replica(number).wait_exit(BOUND).await;
            assert!(ended.success(), "the replica ends in order: {ended}");
            took.push(began.elapsed());
            world.replica(number).start_again().await;
        }
    }
    let prompts = load.finish(&world).await;
    suite::figures::print("drain", &mut took);
    println!("figure rolling restarts: {}, {prompts} prompts, no failure", rounds(1));
}
