//! `flotilla up`: a whole local fleet. Redis, replicas and nginx, one command, one Ctrl-C.

mod balancer;
pub mod caretaker;
mod fleet;
mod installed;
mod ports;
mod program;
mod redis;
mod replica;
mod run_dir;
pub mod tether;
mod welcome;

use crate::listen::listen;
use crate::settings::FleetSettings;
use fleet::Fleet;
use run_dir::RunDir;
use std::io;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Runs a fleet until Ctrl-C, SIGTERM or SIGHUP, or until a program of it dies again and again. A second signal kills it.
pub async fn run(settings: FleetSettings) -> anyhow::Result<()> {
    let mut signals = Signals::new()?;
    let redis = installed::find("redis-server")?;
    let nginx = installed::find("nginx")?;
    // Only asked for here: nginx takes it in a moment.
    let port = listen("127.0.0.1", settings.port).await?.local_addr()?.port();
    let run_dir = RunDir::claim(&settings.each.data_dir).await?;

    let mut fleet = Fleet::new();
    let outcome = tokio::select! {
        outcome = async {
            fleet.start(&settings, redis, nginx, run_dir.path(), port).await?;
            welcome::print(&settings, port).await?;
            fleet.attend().await
        } => outcome,
        () = signals.next() => Ok(()),
    };
    tokio::select! {
        () = fleet.stop() => {}
        () = signals.next() => fleet.kill().await,
    }
    run_dir.remove().await?;
    outcome
}

/// The signals that end a fleet.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// Waits for one. Cancelling it loses none.
    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hangup.recv() => {}
        }
    }
}
