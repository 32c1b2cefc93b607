//! A replica that is killed or paused leaves no process of its tools behind.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that fails says where")]

mod support;

use rustix::process::{Pid, Signal, kill_process};
use std::os::unix::process::CommandExt;
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

/// The kernel's own limit on processes, which holds for every user but root.
#[tokio::test]
async fn a_user_without_rights_has_a_limit_of_the_kernel_too() {
    const NOBODY: u32 = 65_534;
    let dir = tempfile::tempdir().unwrap();
    // Where that user can get at them.
    let [hold, supervise] = ["sandbox-hold", "sandbox-supervise"].map(|name| {
        let to = dir.path().join(name);
        std::fs::copy(example(name), &to).unwrap();
        to
    });
    let mut command = Command::new(hold);
    command.arg(supervise).args(["60000", "bash", "-c", "ulimit -u"]).current_dir(dir.path()).stdin(Stdio::null());
    if rustix::process::getuid().is_root() {
        std::os::unix::fs::chown(dir.path(), Some(NOBODY), Some(NOBODY)).unwrap();
        command.uid(NOBODY).gid(NOBODY);
    }
    let told = String::from_utf8(command.output().unwrap().stdout).unwrap();
    let limit: u64 = told.trim().parse().unwrap_or_else(|_| panic!("a number, not {told:?}"));
    let least = 4 * sandbox::Limits::default().processes;
    assert!((least..least + 100_000).contains(&limit), "{limit}");
}
