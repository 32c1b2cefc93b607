//! A terminal that a test types into and reads the screen of: tmux.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::polling::eventually;
use crate::process::{Launch, Process};

/// How long tmux may take until it listens.
const START_BOUND: Duration = Duration::from_secs(10);

/// A program in a terminal of 140 columns and 45 lines.
#[derive(Debug)]
pub struct Terminal {
    socket: PathBuf,
    _server: Process,
    home: TempDir,
}

impl Terminal {
    /// Starts a program in a terminal of its own, in an empty home directory, with this environment besides `PATH`.
    pub async fn start(program: &Path, args: &[&str], env: &[(&str, &str)]) -> Self {
        let home = tempfile::tempdir().expect("a temporary directory");
        let socket = home.path().join("tmux");
        // The server stays in the foreground, so that it is a child that ends with the test.
        let mut launch = Launch::new("tmux", "tmux")
            .args(["-D", "-f", "/dev/null", "-S"])
            .args([&socket])
            .env("HOME", home.path().to_string_lossy())
            .env("TERM", "xterm-256color")
            .env("LANG", "C.UTF-8");
        launch.death_signal = "TERM";
        let server = launch.start();
        eventually(START_BOUND, "tmux to listen", || async { socket.exists().then_some(()) }).await;
        let terminal = Self { socket, _server: server, home };
        let mut command = terminal.tmux();
        command.args(["new-session", "-d", "-x", "140", "-y", "45", "-c"]).arg(terminal.home.path());
        for (key, value) in env {
            command.arg("-e").arg(format!("{key}={value}"));
        }
        let started = command.arg(program).args(args).status().expect("tmux is installed");
        assert!(started.success(), "{} did not start in tmux", program.display());
        terminal
    }

    /// What the screen shows, line by line, without colours.
    pub fn screen(&self) -> String {
        let output = self.tmux().args(["capture-pane", "-p"]).output().expect("tmux is installed");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Types a text.
    pub fn type_text(&self, text: &str) {
        self.send(&["-l", text]);
    }

    /// Presses a key by its tmux name: `Enter`, `Escape`, `Right`.
    pub fn press(&self, key: &str) {
        self.send(&[key]);
    }

    /// Waits until the screen satisfies the predicate, and returns it.
    ///
    /// # Panics
    /// When it does not within `bound`; the message shows the screen.
    pub async fn until(&self, bound: Duration, what: &str, predicate: impl Fn(&str) -> bool) -> String {
        let began = Instant::now();
        loop {
            let screen = self.screen();
            if predicate(&screen) {
                return screen;
            }
            assert!(began.elapsed() < bound, "no {what} on the screen within {bound:?}:\n{screen}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits until the screen shows a text.
    pub async fn until_shows(&self, bound: Duration, text: &str) -> String {
        self.until(bound, text, |screen| screen.contains(text)).await
    }

    fn send(&self, keys: &[&str]) {
        let sent = self.tmux().arg("send-keys").args(keys).status().expect("tmux is installed");
        assert!(sent.success(), "the program in the terminal has ended");
    }

    fn tmux(&self) -> Command {
        let mut command = Command::new("tmux");
        command.arg("-S").arg(&self.socket).env("LANG", "C.UTF-8").env_remove("TMUX");
        command
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- the screen:\n{}---", self.screen());
        }
        // The programs in the terminal are hung up with it; killed outright it would leave them.
        let _already_ended = self.tmux().arg("kill-server").output();
    }
}
