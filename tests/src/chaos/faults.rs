//! Faults where they hurt most, one or two at a time.

use std::time::{Duration, Instant};

use testkit::{BOUND, CuttingProxy, Failpoint, World};

use super::history::{Fault, Harm, Kind, Link};
use crate::figures::Draws;

/// The longest delay of each piece on a slow connection, in milliseconds.
const SLOWEST_MS: usize = 400;

/// What the faults strike.
pub struct Struck<'a> {
    /// The fleet.
    pub world: &'a mut World,
    /// Between clients, those that read events among them, and nginx.
    pub clients: &'a CuttingProxy,
    /// Between nginx and each replica.
    pub replicas: &'a [CuttingProxy],
    /// When the run began.
    pub start: Instant,
}

impl Struck<'_> {
    /// Does a fault, to a replica if it is one of those, and waits until it is over. Beside it another one, on connections,
    /// lasts as long.
    pub async fn strike(&mut self, kind: Kind, beside: Option<(Link, Harm)>, draws: &mut Draws) -> Vec<Fault> {
        let mut runs = Vec::new();
        for number in 0..3 {
            runs.push(self.runs_of(number).await);
        }
        let began = self.start.elapsed();
        let second = beside.map(|(link, harm)| {
            let (number, hit) = struck(Kind::Between(link, harm), &runs, draws);
            self.harm(link, harm, number, draws);
            (link, harm, number, hit)
        });
        let (number, hit) = struck(kind, &runs, draws);
        self.strike_alone(kind, number, draws).await;
        if let Some((link, _, number, _)) = second {
            self.link(link, number).heal();
        }
        // A replica refuses to start where Redis does not answer.
        if self.world.replica(number).has_ended() {
            self.world.replica(number).start_again().await;
        }
        let ended = self.start.elapsed();
        let beside = second.map(|(link, harm, _, hit)| Fault { kind: Kind::Between(link, harm), began, ended, hit });
        [Fault { kind, began, ended, hit }].into_iter().chain(beside).collect()
    }

    /// Does a fault; what it ended is still down afterwards.
    async fn strike_alone(&mut self, kind: Kind, number: usize, draws: &mut Draws) {
        let mut some = |least: usize, most: usize| Duration::from_millis((least + draws.below(most - least)) as u64);
        match kind {
            Kind::Kill => {
                self.world.replica(number).kill9();
                tokio::time::sleep(some(200, 3_000)).await;
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
            }
            Kind::RedisEmpty => self.world.redis().restart_empty().await,
            Kind::RedisPause => {
                self.world.redis().pause();
                tokio::time::sleep(some(300, 5_000)).await;
                self.world.redis().resume();
            }
            Kind::DiskFull => {
                let armed = ["storage/", "flotilla/"]
                    .map(|path| self.world.replica(number).full_at(&Failpoint::before("create", path)));
                tokio::time::sleep(some(200, 2_000)).await;
                armed.into_iter().for_each(testkit::failpoint::Armed::disarm);
            }
            Kind::Between(link, harm) => {
                let lasts = some(300, 5_000);
                self.harm(link, harm, number, draws);
                if harm != Harm::Cut {
                    tokio::time::sleep(lasts).await;
                }
                self.link(link, number).heal();
            }
        }
    }

    /// Does harm to connections; it lasts until they are healed.
    fn harm(&self, link: Link, harm: Harm, number: usize, draws: &mut Draws) {
        let proxy = self.link(link, number);
        match harm {
            Harm::Cut => proxy.cut(),
            Harm::Hold => proxy.hold(),
            Harm::Slow => proxy.slow(Duration::from_millis(1 + draws.below(SLOWEST_MS) as u64)),
            Harm::HalfOpen => proxy.half_open(),
        }
    }

    /// What is between two parties, one of them the replica of this number where it is a replica.
    fn link(&self, link: Link, number: usize) -> &CuttingProxy {
        match link {
            Link::ReplicaAndRedis => self.world.redis_proxy(number),
            Link::NginxAndReplica => &self.replicas[number],
            Link::ClientsAndNginx => self.clients,
            Link::ReplicasAndModel => self.world.model_proxy(),
        }
    }

    /// How many runs are under way on a replica.
    async fn runs_of(&self, number: usize) -> u64 {
        let metrics = self.world.at(number).get("/metrics").await.text();
        let runs = metrics.lines().find_map(|line| line.strip_prefix("flotilla_runs "));
        runs.and_then(|runs| runs.trim().parse().ok()).unwrap_or_default()
    }
}

/// The replica that a fault strikes, one that is at work if there is one, and how many runs it hits.
fn struck(kind: Kind, runs: &[u64], draws: &mut Draws) -> (usize, u64) {
    let busy: Vec<usize> = (0..runs.len()).filter(|number| runs[*number] > 0).collect();
    let number = if busy.is_empty() { draws.below(runs.len()) } else { busy[draws.below(busy.len())] };
    match kind {
        Kind::RedisEmpty | Kind::RedisPause => (number, runs.iter().sum()),
        Kind::Between(Link::ClientsAndNginx | Link::ReplicasAndModel, _) => (number, runs.iter().sum()),
        _ => (number, runs[number]),
    }
}
