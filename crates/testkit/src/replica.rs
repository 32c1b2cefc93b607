//! Replicas as processes: `flotilla serve`.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;

use rustix::process::Signal;
use tempfile::TempDir;

use crate::failpoint::{Armed, Failpoint};
pub use crate::install::flotilla_binary;
use crate::install::next_replica_binary;
use crate::polling::free_port;
use crate::process::{Launch, Process};
use crate::usage::{self, Usage};

/// How long a replica may take until it says that it listens.
const START_BOUND: Duration = Duration::from_secs(30);

/// How a replica is started.
#[derive(Debug, Clone, Default)]
pub struct ReplicaSpec {
    /// How messages call it.
    pub name: String,
    /// `--redis-url`; without it the replica runs on the embedded coordination.
    pub redis_url: Option<String>,
    /// `--data-dir`.
    pub data_dir: PathBuf,
    /// `--directory`, also its working directory.
    pub directory: PathBuf,
    /// More arguments.
    pub args: Vec<String>,
    /// More environment.
    pub env: Vec<(String, String)>,
    /// Whether [`Replica::kill_at`] and the like may be used: it costs a look at each operation of the store.
    pub failpoints: bool,
    /// A program that starts it, with arguments, such as `faketime -f +5m`; none if empty.
    pub wrapper: Vec<String>,
}

/// A running `flotilla serve` with a home directory of its own.
#[derive(Debug)]
pub struct Replica {
    port: u16,
    url: String,
    process: Process,
    spec: ReplicaSpec,
    home: TempDir,
}

impl Replica {
    /// Starts a replica on a free port and waits for the line that says that it listens.
    pub async fn start(spec: ReplicaSpec) -> Self {
        let home = tempfile::tempdir().expect("a temporary directory");
        let mut failure = None;
        // The port may be taken between its choice and its use: a few are tried.
        for _ in 0..3 {
            let port = free_port();
            let mut process = launch(&spec, port, &home);
            match listening(&mut process).await {
                Ok(url) => return Self { port, url, process, spec, home },
                Err(error) if error.to_string().contains("in use") => failure = Some(error),
                Err(error) => panic!("{error}"),
            }
        }
        panic!("no replica on any of three ports: {failure:?}");
    }

    /// The address: `http://127.0.0.1:PORT`.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// What it takes of the machine.
    pub fn usage(&self) -> Usage {
        usage::of(self.process.id())
    }

    /// What it logged so far (the newest half megabyte).
    pub fn stderr(&self) -> String {
        self.process.stderr()
    }

    /// Kills it, as by `kill -9`, and waits until the process is gone. Its tools are left to their supervisor.
    pub fn kill9(&mut self) {
        self.process.kill();
    }

    /// Stops it in its tracks (SIGSTOP).
    pub fn stop(&mut self) {
        self.process.signal(Signal::STOP);
    }

    /// Lets a stopped replica go on (SIGCONT).
    pub fn cont(&mut self) {
        self.process.signal(Signal::CONT);
    }

    /// Asks it to drain and end (SIGTERM).
    pub fn term(&mut self) {
        self.process.signal(Signal::TERM);
    }

    /// Kills it when it comes to this point.
    pub fn kill_at(&self, point: &Failpoint) -> Armed {
        point.arm(&self.failpoints(), "kill")
    }

    /// Stops it (SIGSTOP) when it comes to this point; [`cont`](Self::cont) lets it go on from there.
    pub fn stop_at(&self, point: &Failpoint) -> Armed {
        point.arm(&self.failpoints(), "stop")
    }

    /// Its disk is full at this point until that is disarmed.
    pub fn full_at(&self, point: &Failpoint) -> Armed {
        point.arm(&self.failpoints(), "full")
    }

    /// All threads of its runtime are held for five seconds from this point on.
    pub fn hog_at(&self, point: &Failpoint) -> Armed {
        point.arm(&self.failpoints(), "hog")
    }

    /// True once it has ended by itself, or was killed.
    pub fn has_ended(&mut self) -> bool {
        self.process.exit_status().is_some()
    }

    fn failpoints(&self) -> PathBuf {
        assert!(self.spec.failpoints, "the spec of this replica asks for no failpoints");
        self.home.path().join("failpoints")
    }

    /// Waits until it has ended.
    ///
    /// # Panics
    /// When it has not ended within `bound`.
    pub async fn wait_exit(&mut self, bound: Duration) -> ExitStatus {
        self.process.wait_exit(bound).await
    }

    /// Starts it again on the same port, after it was killed or has ended.
    pub async fn start_again(&mut self) {
        self.process = launch(&self.spec, self.port, &self.home);
        self.url = listening(&mut self.process).await.unwrap_or_else(|error| panic!("{error}"));
    }
}

fn launch(spec: &ReplicaSpec, port: u16, home: &TempDir) -> Process {
    let mut command = spec.wrapper.iter().map(OsString::from).chain([next_replica_binary().into_os_string()]);
    let program = command.next().expect("the binary at least");
    let mut launch = Launch::new(format!("replica {} on {port}", spec.name), program)
        .args(command)
        .args(["serve", "--hostname", "127.0.0.1", "--port", &port.to_string(), "--data-dir"])
        .args([&spec.data_dir])
        .args(["--directory"])
        .args([&spec.directory])
        .directory(&spec.directory)
        .env("HOME", home.path().to_string_lossy())
        .env("SHELL", "/bin/bash")
        .env("RUST_BACKTRACE", "1");
    if let Some(url) = &spec.redis_url {
        launch = launch.args(["--redis-url", url]);
    }
    if spec.failpoints {
        let directory = home.path().join("failpoints");
        std::fs::create_dir_all(&directory).expect("a temporary directory can be written to");
        launch = launch.env("FAILPOINTS", directory.to_string_lossy());
    }
    launch = launch.args(&spec.args);
    launch.env.extend(spec.env.iter().cloned());
    launch.start()
}

async fn listening(process: &mut Process) -> anyhow::Result<String> {
    process
        .wait_line(START_BOUND, |line| line.strip_prefix("flotilla listening on ").map(|url| url.trim().to_string()))
        .await
}
