//! What a prompt asks of Redis.

use std::time::{Duration, Instant};
use suite::figures::rounds;
use testkit::{Answer, Mode, World, WorldSpec};

/// How many commands a prompt of one step may cost, those about locks apart.
const BUDGET: f64 = 12.0;
/// How many prompts are counted at least: timers fall into one window or another, and among few they would weigh more than
/// a prompt.
const AT_LEAST: usize = 20;

#[tokio::test]
async fn a_prompt_of_one_step_costs_at_most_twelve_round_trips_to_redis() {
    if !Mode::is_fleet_or_skip() {
        return;
    }
    let world = World::start_with(WorldSpec { counted: true, ..WorldSpec::default() }).await;
    world.model.respond_with(|_| Answer::say("answered"));
    let id = world.session().await;
    world.prompt(&id, "the first").await;
    // What replicas ask of Redis when nothing is asked of them is taken off.
    let (before, idle_for) = (world.redis_counts(), Duration::from_secs(3));
    tokio::time::sleep(idle_for).await;
    let idle = world.redis_counts().since(&before).total() as f64 / idle_for.as_secs_f64();
    let (before, began, count) = (world.redis_counts(), Instant::now(), rounds(AT_LEAST).max(AT_LEAST));
    for _ in 0..count {
        world.prompt(&id, "another").await;
    }
    let asked = world.redis_counts().since(&before);
    let per = |total: f64| total / count as f64;
    let commands = per(asked.total() as f64 - idle * began.elapsed().as_secs_f64());
    let locks = per(asked.locks() as f64);
    println!(
        "figure Redis commands per prompt: {commands:.1}, and {locks:.1} about locks, of {count}; idle {idle:.1} per second"
    );
    assert!((1.0..=BUDGET).contains(&commands), "{commands} per prompt");
}
