//! A replica that is killed or paused leaves no process of its tools behind.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that fails says where")]

mod support;

use rustix::process::{Pid, Signal, kill_process};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use support::{alive, eventually, example};

/// The command, a child of it, a daemon in a session of its own, and that one's orphan; each writes down its number.
const FAMILY: &str = r#"
    sleep 600 & echo $! > child
    setsid bash -c '(setsid sleep 600 & echo $! > orphan); echo $$ > daemon; sleep 600' &
    echo $$ > command
    sleep 600
"#;

/// A process that holds a supervised command; killed when the test ends, however it ends.
struct Holder(Child);

impl Holder {
    fn start(ttl: Duration, cwd: &Path) -> Self {
        let mut command = Command::new(example("sandbox-hold"));
        command.arg(example("sandbox-supervise")).arg(ttl.as_millis().to_string()).args(["bash", "-c", FAMILY]);
        Self(command.current_dir(cwd).stdin(Stdio::null()).spawn().unwrap())
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.0), signal).unwrap();
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

async fn family(dir: &Path) -> Vec<String> {
    let mut pids = Vec::new();
    for name in ["command", "child", "daemon", "orphan"] {
        let read = || std::fs::read_to_string(dir.join(name)).unwrap_or_default().trim().to_owned();
        eventually(name, Duration::from_secs(10), || !read().is_empty()).await;
        pids.push(read());
    }
    assert!(pids.iter().all(|pid| alive(pid)));
    pids
}

#[tokio::test]
async fn a_killed_replica_leaves_no_process() {
    let dir = tempfile::tempdir().unwrap();
    let holder = Holder::start(Duration::from_secs(60), dir.path());
    let pids = family(dir.path()).await;
    holder.signal(Signal::KILL);
    eventually("all are gone", Duration::from_secs(2), || !pids.iter().any(|pid| alive(pid))).await;
}

#[tokio::test]
async fn a_paused_replica_leaves_no_process_for_longer_than_its_ttl() {
    let dir = tempfile::tempdir().unwrap();
    let ttl = Duration::from_millis(1000);
    let holder = Holder::start(ttl, dir.path());
    let pids = family(dir.path()).await;
    holder.signal(Signal::STOP);
    eventually("all are gone", ttl + Duration::from_secs(1), || !pids.iter().any(|pid| alive(pid))).await;
}

#[tokio::test]
async fn beats_keep_a_command_alive_beyond_the_ttl() {
    let dir = tempfile::tempdir().unwrap();
    let ttl = Duration::from_millis(400);
    let _holder = Holder::start(ttl, dir.path());
    let pids = family(dir.path()).await;
    tokio::time::sleep(ttl * 3).await;
    assert!(pids.iter().all(|pid| alive(pid)));
}
