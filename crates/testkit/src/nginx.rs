//! nginx in front of replicas, with the configuration that deployments use.

use std::net::TcpStream;
use std::time::Duration;

use rustix::process::Signal;
use tempfile::TempDir;

use crate::install::repository;
use crate::polling::{eventually, free_port};
use crate::process::{Launch, Process};

/// How long a balancer may take until it accepts connections.
const START_BOUND: Duration = Duration::from_secs(10);

/// A running nginx that takes turns among replicas.
#[derive(Debug)]
pub struct Nginx {
    port: u16,
    process: Process,
    _prefix: TempDir,
}

impl Nginx {
    /// Renders `deploy/nginx.conf` for these replicas (their ports on loopback), starts nginx with it on a free port and
    /// waits until it accepts connections.
    pub async fn start(replica_ports: impl IntoIterator<Item = u16>) -> Self {
        Self::start_edited(replica_ports, str::to_owned).await
    }

    /// As [`start`](Self::start), with a change of the configuration.
    pub async fn start_edited(replica_ports: impl IntoIterator<Item = u16>, edit: impl Fn(&str) -> String) -> Self {
        let template = repository().join("deploy/nginx.conf");
        let template = std::fs::read_to_string(&template).expect("deploy/nginx.conf can be read");
        // On one line, as the file's comment names the placeholder, too.
        let servers: Vec<String> =
            replica_ports.into_iter().map(|port| format!("server 127.0.0.1:{port} max_fails=0;")).collect();
        // The port may be taken between its choice and its use: a few are tried.
        for _ in 0..3 {
            let port = free_port();
            let prefix = tempfile::tempdir().expect("a temporary directory");
            let text = template
                .replace("${FLOTILLA_LISTEN}", &format!("127.0.0.1:{port}"))
                .replace("${FLOTILLA_SERVERS}", &servers.join(" "));
            std::fs::write(prefix.path().join("nginx.conf"), edit(&text)).expect("the configuration can be written");
            let mut process = launch(port, &prefix);
            if accepts(port, &mut process).await {
                return Self { port, process, _prefix: prefix };
            }
            assert!(process.stderr().contains("in use"), "nginx did not start:\n{}", process.stderr());
        }
        panic!("nginx did not start on any of three ports");
    }

    /// The address: `http://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// What it logged so far.
    pub fn stderr(&self) -> String {
        self.process.stderr()
    }

    /// Asks it to end, its workers too, and waits until it has.
    pub async fn stop(&mut self) {
        self.process.signal(Signal::TERM);
        self.process.wait_exit(START_BOUND).await;
    }
}

fn launch(port: u16, prefix: &TempDir) -> Process {
    let mut launch = Launch::new(format!("nginx on {port}"), "nginx");
    // The master ends its workers when it is asked to end; killed outright it would leave them.
    launch.death_signal = "TERM";
    // Debian keeps nginx where only root's PATH leads.
    let path = std::env::var("PATH").unwrap_or_default();
    launch
        .args(["-p", &prefix.path().to_string_lossy(), "-c", "nginx.conf", "-e", "stderr", "-g", "daemon off;"])
        .env("PATH", format!("{path}:/usr/sbin:/sbin"))
        .start()
}

/// Waits for the first connection; false if the balancer ended first.
pub(crate) async fn accepts(port: u16, process: &mut Process) -> bool {
    let process = std::sync::Mutex::new(process);
    eventually(START_BOUND, "the balancer to accept connections", || async {
        if process.lock().unwrap().exit_status().is_some() {
            return Some(false);
        }
        TcpStream::connect(("127.0.0.1", port)).is_ok().then_some(true)
    })
    .await
}
