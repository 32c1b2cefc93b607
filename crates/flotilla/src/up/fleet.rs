//! The programs of a fleet, together.

use super::program::{Program, Running};
use super::redis::Redis;
use super::{balancer, ports, replica};
use crate::settings::FleetSettings;
use anyhow::bail;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

/// How long a program may take until it answers.
const PATIENCE: Duration = Duration::from_secs(30);

/// Between two questions whether it does.
const PAUSE: Duration = Duration::from_millis(20);

/// Programs that are stopped together.
struct Rank {
    stop: CancellationToken,
    attendants: JoinSet<anyhow::Result<()>>,
}

impl Rank {
    fn new() -> Self {
        Self { stop: CancellationToken::new(), attendants: JoinSet::new() }
    }

    fn add(&mut self, running: Running) {
        self.attendants.spawn(running.attend(self.stop.clone()));
    }

    /// The error of a program that dies again and again. Never comes back if there are none.
    async fn failure(&mut self) -> anyhow::Result<()> {
        match self.attendants.join_next().await {
            Some(ended) => ended?,
            None => std::future::pending().await,
        }
    }

    async fn stop(&mut self) {
        self.stop.cancel();
        while let Some(ended) = self.attendants.join_next().await {
            if let Ok(Err(error)) = ended {
                tracing::warn!("{error:#}");
            }
        }
    }
}

/// A fleet that starts, runs or stops.
pub struct Fleet {
    redis: Rank,
    replicas: Rank,
    balancer: Rank,
}

impl Fleet {
    /// No program yet.
    pub fn new() -> Self {
        Self { redis: Rank::new(), replicas: Rank::new(), balancer: Rank::new() }
    }

    /// Starts Redis, the replicas, nginx on `port`. Comes back when all of them answer.
    pub async fn start(
        &mut self,
        settings: &FleetSettings,
        redis_file: PathBuf,
        nginx_file: PathBuf,
        run_dir: &Path,
        port: u16,
    ) -> anyhow::Result<()> {
        let mut ports = ports::free(settings.replicas + 1)?;
        let redis = Redis::new(ports.pop().unwrap_or_default());
        let redis_program = redis.program(redis_file, run_dir);
        self.redis.add(redis_program.start(until(|| redis.answers())).await?);

        let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(5)).build()?;
        let mut starting = JoinSet::new();
        for (number, replica_port) in (1..).zip(&ports) {
            let program = replica::program(number, *replica_port, &redis, settings)?;
            starting.spawn(start_server(program, client.clone(), *replica_port));
        }
        while let Some(started) = starting.join_next().await {
            self.replicas.add(started??);
        }

        let nginx = balancer::program(nginx_file, run_dir, port, &ports)?;
        self.balancer.add(start_server(nginx, client, port).await?);
        Ok(())
    }

    /// Waits until a program of the fleet can't be kept alive.
    pub async fn attend(&mut self) -> anyhow::Result<()> {
        tokio::select! {
            failed = self.redis.failure() => failed,
            failed = self.replicas.failure() => failed,
            failed = self.balancer.failure() => failed,
        }
    }

    /// Stops the replicas, which may still answer whom they owe an answer, then nginx, then Redis.
    pub async fn stop(&mut self) {
        self.replicas.stop().await;
        self.balancer.stop().await;
        self.redis.stop().await;
    }

    /// Kills all of them.
    pub async fn kill(&mut self) {
        for rank in [&mut self.replicas, &mut self.balancer, &mut self.redis] {
            rank.attendants.shutdown().await;
        }
    }
}

/// Starts a program that speaks HTTP on this port and waits until it is ready.
async fn start_server(program: Program, client: reqwest::Client, port: u16) -> anyhow::Result<Running> {
    let url = format!("http://127.0.0.1:{port}/readyz");
    let ready = until(|| async {
        let answer = client.get(&url).send().await;
        answer.is_ok_and(|response| response.status().is_success())
    });
    program.start(ready).await
}

/// Asks until the answer is yes.
async fn until<F: Future<Output = bool>>(mut ask: impl FnMut() -> F) -> anyhow::Result<()> {
    let asking = async {
        while !ask().await {
            sleep(PAUSE).await;
        }
    };
    if timeout(PATIENCE, asking).await.is_err() {
        bail!("it does not answer");
    }
    Ok(())
}
