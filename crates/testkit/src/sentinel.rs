//! A Redis with a copy, and sentinels that make the copy the master when the first one dies.

use std::time::Duration;

use rustix::process::Signal;
use tempfile::TempDir;

use crate::polling::{eventually, free_port};
use crate::process::{Launch, Process};
use crate::proxy::CuttingProxy;
use crate::redis::{RedisServer, answers, command};

/// What the sentinels call the service.
const SERVICE: &str = "main";
/// The passwords of the servers and of the sentinels.
const PASSWORDS: [&str; 2] = ["pass/of-servers", "pass/of-sentinels"];
/// How long sentinels take to see all, or to fail over.
const BOUND: Duration = Duration::from_secs(60);

/// A master, its copy, and sentinels. Servers and sentinels have passwords of their own.
#[derive(Debug)]
pub struct Failover {
    /// The first master.
    pub master: RedisServer,
    /// The copy.
    pub copy: RedisServer,
    replication: CuttingProxy,
    sentinels: Vec<Sentinel>,
}

/// A sentinel.
#[derive(Debug)]
pub struct Sentinel {
    port: u16,
    process: Process,
    options: Vec<String>,
    _directory: TempDir,
}

impl Failover {
    /// Starts all of it with so many sentinels, and waits until each knows the copy. One of them is enough to fail over.
    pub async fn start(sentinels: usize) -> Self {
        let both = ["--requirepass", PASSWORDS[0], "--masterauth", PASSWORDS[0], "--repl-diskless-sync-delay", "0"];
        let master = RedisServer::start_with(&both).await;
        let replication = CuttingProxy::start(master.port());
        let source = format!("127.0.0.1 {}", replication.port());
        let options = [&both[..], &["--replicaof", &source]].concat();
        let copy = RedisServer::start_with(&options).await;
        eventually(BOUND, "the copy to be one", || async {
            copy.command(&["INFO", "replication"]).contains("master_link_status:up").then_some(())
        })
        .await;
        let mut failover = Self { master, copy, replication, sentinels: Vec::new() };
        for _ in 0..sentinels {
            failover.sentinels.push(Sentinel::start(failover.master.port()).await);
        }
        for sentinel in &failover.sentinels {
            eventually(BOUND, "a sentinel to know the copy", || async {
                sentinel.command(&["SENTINEL", "REPLICAS", SERVICE]).contains("master-link-status\nok").then_some(())
            })
            .await;
        }
        failover
    }

    /// The address of the service, by these ports of sentinels.
    pub fn url_of(&self, sentinels: &[u16]) -> String {
        let [servers, of_sentinels] = PASSWORDS.map(|password| password.replace('/', "%2F"));
        let hosts: Vec<_> = sentinels.iter().map(|port| format!("127.0.0.1:{port}")).collect();
        format!("redis+sentinel://:{servers}@{}/{SERVICE}?sentinel_password={of_sentinels}", hosts.join(","))
    }

    /// The address of the service.
    pub fn url(&self) -> String {
        self.url_of(&self.sentinels.iter().map(Sentinel::port).collect::<Vec<_>>())
    }

    /// Whether one of the passwords stands in a text.
    pub fn shows_a_password(text: &str) -> bool {
        PASSWORDS.iter().any(|password| text.contains(password) || text.contains(&password.replace('/', "%2F")))
    }

    /// From now on nothing more reaches the copy: it lags behind.
    pub fn lag(&self) {
        self.replication.hold();
    }

    /// Kills the master, and waits until the sentinels name the copy.
    pub async fn fail_over(&mut self) {
        self.master.kill();
        let copy = self.copy.port().to_string();
        for sentinel in &self.sentinels {
            eventually(BOUND, "the failover", || async {
                sentinel.command(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", SERVICE]).ends_with(&copy).then_some(())
            })
            .await;
        }
    }

    /// Makes the copy a master of its own and tells the sentinels that it is the one, while the first one lives on.
    pub fn name_the_copy(&self) {
        assert_eq!(self.copy.command(&["REPLICAOF", "NO", "ONE"]), "OK");
        let copy = self.copy.port().to_string();
        for sentinel in &self.sentinels {
            for order in [
                &["REMOVE", SERVICE][..],
                &["MONITOR", SERVICE, "127.0.0.1", &copy, "1"],
                &["SET", SERVICE, "auth-pass", PASSWORDS[0]],
            ] {
                assert_eq!(sentinel.command(&[&["SENTINEL"], order].concat()), "OK");
            }
        }
    }

    /// A sentinel.
    pub fn sentinel(&mut self, number: usize) -> &mut Sentinel {
        &mut self.sentinels[number]
    }
}

impl Sentinel {
    async fn start(master: u16) -> Self {
        for _ in 0..5 {
            let (port, directory) = (free_port(), tempfile::tempdir().expect("a temporary directory"));
            let [servers, of_sentinels] = PASSWORDS;
            let file = directory.path().join("sentinel.conf");
            let lines = [
                format!("port {port}\nbind 127.0.0.1\ndir {}", directory.path().display()),
                format!("requirepass {of_sentinels}\nsentinel sentinel-pass {of_sentinels}"),
                // One is enough to see that the master is gone. They must not put the copy's own way to it right.
                format!("sentinel monitor {SERVICE} 127.0.0.1 {master} 1\nsentinel auth-pass {SERVICE} {servers}"),
                format!("sentinel down-after-milliseconds {SERVICE} 2000\nsentinel failover-timeout {SERVICE} 600000"),
            ];
            std::fs::write(&file, lines.join("\n")).expect("a temporary directory can be written to");
            let launch = Launch::new(format!("sentinel on {port}"), "redis-server");
            let mut process = launch.args([file.as_os_str(), "--sentinel".as_ref()]).start();
            let options = ["--requirepass", of_sentinels].map(str::to_owned).to_vec();
            if answers(port, &options, &mut process).await {
                let sentinel = Self { port, process, options, _directory: directory };
                // It looks at each server every ten seconds otherwise.
                sentinel.command(&["SENTINEL", "DEBUG", "INFO-PERIOD", "200"]);
                return sentinel;
            }
        }
        panic!("no sentinel started on any of five ports");
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Stops it in its tracks (SIGSTOP).
    pub fn pause(&mut self) {
        self.process.signal(Signal::STOP);
    }

    fn command(&self, args: &[&str]) -> String {
        command(self.port, &self.options, args).unwrap_or_default()
    }
}
