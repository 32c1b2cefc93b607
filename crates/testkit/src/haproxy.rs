//! HAProxy in front of replicas, with the configuration that deployments use.

use std::time::Duration;

use tempfile::TempDir;

use crate::install::repository;
use crate::nginx::accepts;
use crate::polling::free_port;
use crate::process::{Launch, Process};

/// A running HAProxy that takes turns among replicas.
#[derive(Debug)]
pub struct Haproxy {
    port: u16,
    process: Process,
    _directory: TempDir,
}

impl Haproxy {
    /// Renders `deploy/haproxy.cfg` for these replicas (their ports on loopback), starts HAProxy with it on a free port and
    /// waits until it accepts connections.
    pub async fn start(replica_ports: impl IntoIterator<Item = u16>) -> Self {
        Self::start_edited(replica_ports, str::to_owned).await
    }

    /// As [`start`](Self::start), with a change of the configuration.
    pub async fn start_edited(replica_ports: impl IntoIterator<Item = u16>, edit: impl Fn(&str) -> String) -> Self {
        let template = repository().join("deploy/haproxy.cfg");
        let template = std::fs::read_to_string(&template).expect("deploy/haproxy.cfg can be read");
        let servers: Vec<String> = replica_ports
            .into_iter()
            .enumerate()
            .map(|(number, port)| format!("    server replica-{number} 127.0.0.1:{port}"))
            .collect();
        // The port may be taken between its choice and its use: a few are tried.
        for _ in 0..3 {
            let port = free_port();
            let directory = tempfile::tempdir().expect("a temporary directory");
            let text = template
                .replace("${FLOTILLA_LISTEN}", &format!("127.0.0.1:{port}"))
                .replace("    ${FLOTILLA_SERVERS}", &servers.join("\n"));
            let file = directory.path().join("haproxy.cfg");
            std::fs::write(&file, edit(&text)).expect("the configuration can be written");
            // Debian keeps it where only root's PATH leads.
            let path = std::env::var("PATH").unwrap_or_default();
            let launch = Launch::new(format!("haproxy on {port}"), "haproxy")
                .args(["-db", "-f"])
                .args([&file])
                .env("PATH", format!("{path}:/usr/sbin:/sbin"));
            let mut process = launch.start();
            if accepts(port, &mut process).await {
                return Self { port, process, _directory: directory };
            }
            assert!(process.stderr().contains("in use"), "haproxy did not start:\n{}", process.stderr());
        }
        panic!("haproxy did not start on any of three ports");
    }

    /// The address: `http://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Kills it and waits until it is gone.
    pub async fn stop(&mut self) {
        self.process.kill();
        self.process.wait_exit(Duration::from_secs(10)).await;
    }
}
