//! Faults, one after the other, where they hurt most.

use std::time::{Duration, Instant};

use testkit::{BOUND, CuttingProxy, Failpoint, World};

use super::history::{Fault, Kind};
use crate::figures::Draws;

/// What the faults strike.
pub struct Struck<'a> {
    /// The fleet.
    pub world: &'a mut World,
    /// Between the readers and nginx.
    pub readers: &'a CuttingProxy,
    /// Between nginx and each replica.
    pub replicas: &'a [CuttingProxy],
    /// When the run began.
    pub start: Instant,
}

impl Struck<'_> {
    /// Does a fault to a replica, if it is one of those, and waits until it is over.
    pub async fn strike(&mut self, kind: Kind, draws: &mut Draws) -> Fault {
        let mut runs = Vec::new();
        for number in 0..3 {
            runs.push(self.runs_of(number).await);
        }
        // One that is at work, if there is one.
        let busy: Vec<usize> = (0..3).filter(|number| runs[*number] > 0).collect();
        let number = if busy.is_empty() { draws.below(3) } else { busy[draws.below(busy.len())] };
        let hit = match kind {
            Kind::RedisEmpty | Kind::RedisPause | Kind::ReadersCut => runs.iter().sum(),
            _ => runs[number],
        };
        let mut some = |least: usize, most: usize| Duration::from_millis((least + draws.below(most - least)) as u64);
        let began = self.start.elapsed();
        match kind {
            Kind::Kill => {
                self.world.replica(number).kill9();
                tokio::time::sleep(some(200, 3_000)).await;
                self.world.replica(number).start_again().await;
            }
            Kind::Stop => {
                self.world.replica(number).stop();
                tokio::time::sleep(some(300, 6_000)).await;
                self.world.replica(number).cont();
            }
            Kind::Term => {
                let replica = self.world.replica(number);
                replica.term();
                replica.wait_exit(BOUND).await;
                replica.start_again().await;
            }
            Kind::RedisEmpty => self.world.redis().restart_empty().await,
            Kind::RedisPause => {
                self.world.redis().pause();
                tokio::time::sleep(some(300, 5_000)).await;
                self.world.redis().resume();
            }
            Kind::RedisCut => self.world.redis_proxy(number).cut(),
            Kind::RedisHold | Kind::RedisHalfOpen => {
                let proxy = self.world.redis_proxy(number);
                if kind == Kind::RedisHold {
                    proxy.hold()
                } else {
                    proxy.half_open()
                }
                tokio::time::sleep(some(300, 5_000)).await;
                proxy.heal();
            }
            Kind::DiskFull => {
                let armed = ["storage/", "flotilla/"]
                    .map(|path| self.world.replica(number).full_at(&Failpoint::before("create", path)));
                tokio::time::sleep(some(200, 2_000)).await;
                armed.into_iter().for_each(testkit::failpoint::Armed::disarm);
            }
            Kind::ReadersCut => self.readers.cut(),
            Kind::BalancerCut => self.replicas[number].cut(),
        }
        Fault { kind, began, ended: self.start.elapsed(), hit }
    }

    /// How many runs are under way on a replica.
    async fn runs_of(&self, number: usize) -> u64 {
        let metrics = self.world.at(number).get("/metrics").await.text();
        let runs = metrics.lines().find_map(|line| line.strip_prefix("flotilla_runs "));
        runs.and_then(|runs| runs.trim().parse().ok()).unwrap_or_default()
    }
}
