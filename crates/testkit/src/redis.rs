//! Real `redis-server` processes.

use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::Signal;
use tempfile::TempDir;

use crate::polling::{eventually, free_port};
use crate::process::{Launch, Process};

/// How long a server may take to answer its first PING.
const START_BOUND: Duration = Duration::from_secs(10);

/// A Redis server without persistence, on a loopback port of its own.
#[derive(Debug)]
pub struct RedisServer {
    port: u16,
    process: Process,
    directory: TempDir,
}

impl RedisServer {
    /// Starts a server and waits until it answers.
    pub async fn start() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        // A port may be taken between its choice and its use: then the server ends at once and another port is tried.
        for _ in 0..5 {
            let port = free_port();
            let mut process = launch(port, &directory);
            if answers(port, &mut process).await {
                return Self { port, process, directory };
            }
        }
        panic!("redis-server did not start on any of five ports");
    }

    /// The address as a URL: `redis://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Kills it, as by `kill -9`.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Stops it in its tracks (SIGSTOP): connections stay open, nothing answers.
    pub fn pause(&mut self) {
        self.process.signal(Signal::STOP);
    }

    /// Lets a paused server go on.
    pub fn resume(&mut self) {
        self.process.signal(Signal::CONT);
    }

    /// Kills it and starts an empty one on the same port.
    pub async fn restart_empty(&mut self) {
        self.kill();
        self.start_again().await;
    }

    /// Starts an empty server on the same port, after [`kill`](Self::kill).
    pub async fn start_again(&mut self) {
        self.process = launch(self.port, &self.directory);
        assert!(answers(self.port, &mut self.process).await, "redis-server did not start again on port {}", self.port);
    }

    /// Runs one command through `redis-cli` and returns what it prints, without the last newline.
    pub fn command(&self, args: &[&str]) -> String {
        command(self.port, args).unwrap_or_else(|| panic!("redis-cli {args:?} failed"))
    }
}

fn launch(port: u16, directory: &TempDir) -> Process {
    let directory = directory.path().to_string_lossy().into_owned();
    Launch::new(format!("redis-server on {port}"), "redis-server")
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--dir", &directory])
        .args(["--save", "", "--appendonly", "no", "--loglevel", "warning"])
        .start()
}

/// Waits for the first PONG; false if the process ended first.
async fn answers(port: u16, process: &mut Process) -> bool {
    let process = std::sync::Mutex::new(process);
    eventually(START_BOUND, "redis-server to answer", || async {
        if process.lock().unwrap().exit_status().is_some() {
            return Some(false);
        }
        command(port, &["PING"]).filter(|answer| answer == "PONG").map(|_| true)
    })
    .await
}

fn command(port: u16, args: &[&str]) -> Option<String> {
    // A paused server would keep redis-cli waiting for ever.
    let output = Command::new("timeout")
        .args(["5", "redis-cli", "-h", "127.0.0.1", "-p", &port.to_string()])
        .args(args)
        .stderr(Stdio::null())
        .output()
        .expect("timeout and redis-cli are installed");
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim_end_matches('\n').to_string())
}
