//! What is done to the fleet, drawn from the seed.

use crate::dice::Dice;
use crate::fleet::{Fleet, Replica, TTL};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::sleep;

/// The task `faults`: strikes until its time is over.
pub(crate) async fn strike(fleet: Arc<Fleet>, dice: Dice, time: Duration) {
    let until = tokio::time::Instant::now() + time;
    loop {
        sleep(dice.ms(200, 6_000)).await;
        if tokio::time::Instant::now() >= until {
            return;
        }
        let one = fleet.replica(dice.below(fleet.size() as u64) as usize);
        match (dice.below(100), one) {
            (0..25, Some(Replica { who, .. })) => {
                struck(&fleet, "replica killed", &who.name);
                who.end();
            }
            (25..50, Some(Replica { who, .. })) => {
                struck(&fleet, "replica killed in a write", &who.name);
                who.end_after(dice.below(60));
            }
            (50..65, Some(Replica { who, .. })) => {
                struck(&fleet, "replica stopped", &who.name);
                who.stop_for(dice.ms(100, 4 * TTL.as_millis() as u64));
            }
            (65..75, Some(Replica { who, .. })) => {
                struck(&fleet, "replica cut off", &who.name);
                who.cut_for(dice.ms(500, 3 * TTL.as_millis() as u64));
            }
            (75..82, Some(replica)) => {
                struck(&fleet, "replica drained", &replica.who.name);
                tokio::spawn(engine::on_strand(replica.who.clone(), replica.end()));
            }
            (82..92, _) => {
                struck(&fleet, "storm", "all");
                fleet.weather.storm(dice.ms(500, 4_000));
            }
            (92..96, _) => {
                struck(&fleet, "coordination emptied", "all");
                fleet.empty_coordination();
            }
            (96..100, _) => {
                struck(&fleet, "power cut", "all");
                fleet.cut_power();
            }
            _ => {}
        }
    }
}

fn struck(fleet: &Fleet, fault: &'static str, whom: &str) {
    fleet.weather.strike(fault);
    fleet.trace.note(format_args!("{fault}: {whom}"));
}
