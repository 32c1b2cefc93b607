//! `flotilla up` as a process: real Redis, real nginx, real replicas, and nothing left behind.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use rustix::process::Signal;
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tempfile::TempDir;
use testkit::eventually;
use testkit::polling::free_port;
use testkit::process::{Launch, Process};

const BOUND: Duration = Duration::from_secs(60);

/// A fleet with a data directory of its own.
struct Up {
    folder: TempDir,
    port: u16,
    process: Process,
}

impl Up {
    fn launch(folder: &Path, port: u16, more: &[&str]) -> Process {
        Launch::new("flotilla up", env!("CARGO_BIN_EXE_flotilla"))
            .args(["up", "--replicas", "2", "--port", &port.to_string(), "--data-dir"])
            .args([folder.join("data")])
            .args(more)
            .env("HOME", folder.to_str().unwrap())
            .directory(folder)
            .start()
    }

    /// Starts a fleet and waits until it says that it is up.
    async fn start() -> Self {
        let (folder, port) = (tempfile::tempdir().unwrap(), free_port());
        let process = Self::launch(folder.path(), port, &["--demo"]);
        let mut up = Self { folder, port, process };
        up.is_up().await;
        up
    }

    /// Waits for the last line that it prints when all answers.
    async fn is_up(&mut self) {
        self.process.wait_line(BOUND, |line| line.starts_with("Ctrl-C").then_some(())).await.unwrap();
    }

    /// An answer of the fleet.
    async fn ask(&self, path: &str, body: Option<&'static str>) -> reqwest::Result<String> {
        let _installed_before = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(5)).build()?;
        let url = format!("http://127.0.0.1:{}{path}", self.port);
        let request = match body {
            None => client.get(url),
            Some(body) => client.post(url).header("content-type", "application/json").body(body),
        };
        request.send().await?.error_for_status()?.text().await
    }

    fn run_dir(&self) -> PathBuf {
        self.folder.path().join("data/flotilla/up")
    }

    /// Whether the balancer answers, with a replica behind it.
    async fn answers(&self) -> bool {
        self.ask("/livez", None).await.is_ok()
    }

    /// Waits until no process of `family` lives and the directory is gone.
    async fn is_gone(&self, family: &[u32]) {
        eventually(BOUND, "the processes and files of the fleet to be gone", || async {
            (!family.iter().any(|pid| lives(*pid)) && !self.run_dir().exists()).then_some(())
        })
        .await;
    }
}

/// Parent and state of a process.
fn stat(pid: u32) -> Option<(u32, char)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name of the program stands in brackets and may hold anything.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?.chars().next()?;
    Some((fields.next()?.parse().ok()?, state))
}

/// A zombie is dead: it waits for its parent only.
fn lives(pid: u32) -> bool {
    stat(pid).is_some_and(|(_, state)| state != 'Z')
}

/// The living children of a process with their command lines.
fn children(parent: u32) -> Vec<(u32, String)> {
    let pids = fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let ours = pids.filter(|pid| lives(*pid) && stat(*pid).is_some_and(|(its, _)| its == parent));
    ours.map(|pid| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        (pid, String::from_utf8_lossy(&line).replace('\0', " "))
    })
    .collect()
}

fn family(up: &Up) -> Vec<u32> {
    let children = children(up.process.id());
    for (word, count) in [("redis-server", 1), ("nginx", 1), (" serve ", 2), (" caretaker ", 1)] {
        assert_eq!(children.iter().filter(|(_, line)| line.contains(word)).count(), count, "{word}: {children:?}");
    }
    children.into_iter().map(|(pid, _)| pid).collect()
}

/// Waits until the program is gone, and checks that it ended with 1 and one line that holds `words`.
async fn is_refused(mut process: Process, words: &str) {
    assert_eq!(process.wait_exit(BOUND).await.code(), Some(1));
    let line =
        eventually(BOUND, "a line on stderr", || async { Some(process.stderr()).filter(|text| text.ends_with('\n')) })
            .await;
    assert!(line.lines().count() == 1 && line.contains(words), "{line}");
}

#[tokio::test]
async fn one_command_starts_it_and_one_ctrl_c_ends_it() {
    let mut up = Up::start().await;
    assert!(up.answers().await);
    let said = up.process.stdout();
    let url = format!("http://127.0.0.1:{}", up.port);
    assert!(said.contains(&format!("  opencode attach {url}\n")), "{said}");
    assert!(said.contains(&format!("  curl -s {url}/global/health\n")), "{said}");
    assert!(said.contains(up.folder.path().join("data").to_str().unwrap()), "{said}");
    assert!(!said.contains("No model provider"), "there is the demo: {said}");
    let family = family(&up);
    up.process.signal(Signal::INT);
    assert!(up.process.wait_exit(BOUND).await.success());
    assert!(!family.iter().any(|pid| lives(*pid)), "a process is left");
    assert!(!up.run_dir().exists(), "files are left");
    TcpListener::bind(("127.0.0.1", up.port)).expect("the port is free again");
}

#[tokio::test]
async fn a_killed_fleet_leaves_nothing() {
    let mut up = Up::start().await;
    let family = family(&up);
    up.process.kill();
    up.is_gone(&family).await;
    // The next fleet on the same data directory starts as if nothing had been.
    up.process = Up::launch(up.folder.path(), up.port, &[]);
    up.is_up().await;
    assert!(up.answers().await);
}

#[tokio::test]
async fn sessions_stay() {
    let mut up = Up::start().await;
    up.ask("/session", Some(r#"{"title":"a session that stays"}"#)).await.unwrap();
    up.process.signal(Signal::TERM);
    assert!(up.process.wait_exit(BOUND).await.success());
    up.process = Up::launch(up.folder.path(), up.port, &[]);
    up.is_up().await;
    assert!(up.ask("/session", None).await.unwrap().contains("a session that stays"));
    assert!(up.process.stdout().contains("No model provider is configured"), "{}", up.process.stdout());
}

#[tokio::test]
async fn a_fleet_that_is_stopped_while_it_starts_leaves_nothing() {
    let (folder, port) = (tempfile::tempdir().unwrap(), free_port());
    let mut up = Up { process: Up::launch(folder.path(), port, &[]), folder, port };
    eventually(BOUND, "the first program", || async {
        children(up.process.id()).iter().any(|(_, line)| line.contains("redis-server")).then_some(())
    })
    .await;
    let family: Vec<u32> = children(up.process.id()).into_iter().map(|(pid, _)| pid).collect();
    up.process.signal(Signal::TERM);
    assert!(up.process.wait_exit(BOUND).await.success());
    up.is_gone(&family).await;
}

#[tokio::test]
async fn a_program_that_dies_is_started_again() {
    let up = Up::start().await;
    for word in [" serve ", "redis-server", "nginx"] {
        let (victim, line) = children(up.process.id()).into_iter().find(|(_, line)| line.contains(word)).unwrap();
        let pid = rustix::process::Pid::from_raw(victim.try_into().unwrap()).unwrap();
        rustix::process::kill_process(pid, Signal::KILL).unwrap();
        eventually(BOUND, &format!("{word} to be started again"), || async {
            let children = children(up.process.id());
            children.iter().any(|(pid, its)| *pid != victim && *its == line).then_some(())
        })
        .await;
        eventually(BOUND, "the fleet to answer", || async { up.answers().await.then_some(()) }).await;
    }
    assert!(up.process.stderr().contains("a program died"), "{}", up.process.stderr());
}

#[tokio::test]
async fn what_is_taken_is_told_in_one_line() {
    let up = Up::start().await;
    is_refused(Up::launch(up.folder.path(), free_port(), &[]), "another `flotilla up` runs on").await;
    let folder = tempfile::tempdir().unwrap();
    is_refused(Up::launch(folder.path(), up.port, &[]), &format!("port {} on 127.0.0.1 is taken", up.port)).await;
    assert!(!folder.path().join("data").exists());
    assert!(up.answers().await, "the first fleet is in peace");
}
