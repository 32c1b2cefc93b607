//! Real `redis-server` processes.

use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::Signal;
use tempfile::TempDir;

use crate::certificate::Certificates;
use crate::polling::{eventually, free_port};
use crate::process::{Launch, Process};

/// How long a server may take to answer its first PING.
const START_BOUND: Duration = Duration::from_secs(10);

/// A Redis server on a loopback port of its own. It keeps nothing on disk unless its options say so.
#[derive(Debug)]
pub struct RedisServer {
    port: u16,
    process: Process,
    directory: TempDir,
    options: Vec<String>,
}

impl RedisServer {
    /// Starts a server and waits until it answers.
    pub async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// The same with more options, which stand over the usual ones: `["--appendonly", "yes"]`.
    pub async fn start_with(options: &[&str]) -> Self {
        // A port may be taken between its choice and its use: then the server ends at once and another port is tried.
        for _ in 0..5 {
            if let Some(server) = Self::try_start(options).await {
                return server;
            }
        }
        panic!("redis-server did not start on any of five ports: {options:?}");
    }

    /// A server that keeps each write on disk: killed and started again it has its data.
    pub async fn start_that_keeps() -> Self {
        Self::start_with(&["--appendonly", "yes"]).await
    }

    /// A server that also speaks TLS, on the second port, with a certificate for `localhost` and `127.0.0.1`.
    pub async fn start_with_tls(certificates: &Certificates) -> (Self, u16) {
        for _ in 0..5 {
            let port = free_port();
            let text = port.to_string();
            let paths = [certificates.certificate(), certificates.key(), certificates.authority()];
            let [certificate, key, authority] = paths.each_ref().map(|path| path.to_string_lossy());
            let options = [
                ["--tls-port", &text],
                ["--tls-cert-file", &certificate],
                ["--tls-key-file", &key],
                ["--tls-ca-cert-file", &authority],
                ["--tls-auth-clients", "no"],
            ];
            if let Some(server) = Self::try_start(options.as_flattened()).await {
                return (server, port);
            }
        }
        panic!("redis-server did not start with TLS on any of five ports");
    }

    async fn try_start(options: &[&str]) -> Option<Self> {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let options: Vec<String> = options.iter().map(|option| (*option).to_owned()).collect();
        let port = free_port();
        let mut process = launch(port, &directory, &options);
        answers(port, &options, &mut process).await.then_some(Self { port, process, directory, options })
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

    /// Starts it again on the same port, after [`kill`](Self::kill): empty, unless it keeps its data.
    pub async fn start_again(&mut self) {
        self.process = launch(self.port, &self.directory, &self.options);
        let is_back = answers(self.port, &self.options, &mut self.process).await;
        assert!(is_back, "redis-server did not start again on port {}", self.port);
    }

    /// Runs one command through `redis-cli` and returns what it prints, without the last newline.
    pub fn command(&self, args: &[&str]) -> String {
        command(self.port, &self.options, args).unwrap_or_else(|| panic!("redis-cli {args:?} failed"))
    }

    /// How many connections it has, the asking one included.
    pub fn connections(&self) -> usize {
        self.command(&["CLIENT", "LIST"]).lines().count()
    }

    /// Starts a killed server again and waits until it has as many connections as before: until then it is missed.
    ///
    /// # Panics
    /// When they do not come back within [`BOUND`](crate::BOUND).
    pub async fn start_again_and_be_found(&mut self, connections: usize) {
        self.start_again().await;
        let all = || async { (self.connections() >= connections).then_some(()) };
        crate::eventually(crate::BOUND, "a server that is back to be found", all).await;
    }
}

fn launch(port: u16, directory: &TempDir, options: &[String]) -> Process {
    let directory = directory.path().to_string_lossy().into_owned();
    Launch::new(format!("redis-server on {port}"), "redis-server")
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--dir", &directory])
        .args(["--save", "", "--appendonly", "no", "--loglevel", "warning"])
        .args(options)
        .start()
}

/// Waits for the first PONG; false if the process ended first.
pub(crate) async fn answers(port: u16, options: &[String], process: &mut Process) -> bool {
    let process = std::sync::Mutex::new(process);
    eventually(START_BOUND, "redis-server to answer", || async {
        if process.lock().unwrap().exit_status().is_some() {
            return Some(false);
        }
        command(port, options, &["PING"]).filter(|answer| answer == "PONG").map(|_| true)
    })
    .await
}

/// Runs one command through `redis-cli`, with the password that the server's options set.
pub(crate) fn command(port: u16, options: &[String], args: &[&str]) -> Option<String> {
    let mut command = Command::new("timeout");
    // A paused server would keep redis-cli waiting for ever.
    command.args(["5", "redis-cli", "-h", "127.0.0.1", "-p", &port.to_string()]).args(args).stderr(Stdio::null());
    if let Some(at) = options.iter().position(|option| option == "--requirepass") {
        command.env("REDISCLI_AUTH", &options[at + 1]);
    }
    let output = command.output().expect("timeout and redis-cli are installed");
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim_end_matches('\n').to_string())
}
