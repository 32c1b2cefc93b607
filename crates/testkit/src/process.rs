//! Child processes that end with the test.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::process::{Pid, Signal};

use crate::polling::eventually;

/// How many bytes of a process's output are kept: the newest.
const OUTPUT_KEPT: usize = 512 * 1024;

/// What to start, and how.
#[derive(Debug, Clone)]
pub struct Launch {
    /// How messages call the process.
    pub name: String,
    /// The program: a path, or a name that is looked up in `PATH`.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<OsString>,
    /// Its whole environment, except `PATH` and `LANG`, which are passed on.
    pub env: Vec<(String, String)>,
    /// Its working directory; by default the test's own.
    pub directory: Option<PathBuf>,
    /// The signal that the kernel sends to it when the thread that started it is gone (`KILL`, `TERM`).
    pub death_signal: &'static str,
}

impl Launch {
    /// A launch of `program` without arguments, killed when the test ends.
    pub fn new(name: impl Into<String>, program: impl Into<PathBuf>) -> Self {
        Self {
            name: name.into(),
            program: program.into(),
            args: Vec::new(),
            env: Vec::new(),
            directory: None,
            death_signal: "KILL",
        }
    }

    /// Adds arguments.
    pub fn args<S: Into<OsString>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Adds a variable to the environment.
    pub fn env(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.env.push((key.into(), value.into()));
        self
    }

    /// Sets the working directory.
    pub fn directory(mut self, directory: impl Into<PathBuf>) -> Self {
        self.directory = Some(directory.into());
        self
    }

    /// Starts it and waits for its end.
    ///
    /// # Panics
    /// When it has not ended within `bound`.
    pub async fn finish(self, bound: Duration) -> Finished {
        let mut process = self.start();
        let status = process.wait_exit(bound).await;
        process.stdout.join();
        process.stderr.join();
        Finished { code: status.code(), stdout: process.stdout(), stderr: process.stderr() }
    }

    /// Starts it in a process group of its own. To be called from a thread that lives as long as the test, not from a
    /// blocking pool: the death signal is tied to the thread.
    pub fn start(self) -> Process {
        // setpriv sets the death signal and then becomes the program: same process id, no unsafe code here.
        let mut command = Command::new("setpriv");
        command.arg("--pdeathsig").arg(self.death_signal).arg("--").arg(&self.program).args(&self.args);
        command.env_clear().envs(self.env.iter().map(|(k, v)| (k, v)));
        for key in ["PATH", "LANG"] {
            if let Some(value) = std::env::var_os(key)
                && !self.env.iter().any(|(k, _)| k == key)
            {
                command.env(key, value);
            }
        }
        if let Some(directory) = &self.directory {
            command.current_dir(directory);
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        let mut child = command.spawn().unwrap_or_else(|e| panic!("{} did not start: {e}", self.name));
        let stdout = Output::follow(child.stdout.take().expect("stdout is piped"));
        let stderr = Output::follow(child.stderr.take().expect("stderr is piped"));
        Process { name: self.name, child, ended: None, stdout, stderr }
    }
}

/// What a process left that has ended.
#[derive(Debug, Clone)]
pub struct Finished {
    /// Its exit code; nothing if a signal ended it.
    pub code: Option<i32>,
    /// What it wrote to stdout (the newest half megabyte).
    pub stdout: String,
    /// What it wrote to stderr (the newest half megabyte).
    pub stderr: String,
}

/// A running child process. Dropping it kills its whole group and, if the test is failing, prints what it wrote.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    ended: Option<ExitStatus>,
    stdout: Output,
    stderr: Output,
}

impl Process {
    /// The process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it wrote to stdout so far (the newest half megabyte).
    pub fn stdout(&self) -> String {
        self.stdout.text()
    }

    /// What it wrote to stderr so far (the newest half megabyte).
    pub fn stderr(&self) -> String {
        self.stderr.text()
    }

    /// Its exit status, if it has ended.
    pub fn exit_status(&mut self) -> Option<ExitStatus> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().expect("the child can be waited for");
        }
        self.ended
    }

    /// Waits until it has ended.
    ///
    /// # Panics
    /// When it has not ended within `bound`.
    pub async fn wait_exit(&mut self, bound: Duration) -> ExitStatus {
        let what = format!("{} to end", self.name);
        let process = Mutex::new(self);
        eventually(bound, &what, || async { process.lock().unwrap().exit_status() }).await
    }

    /// Waits for a line on stdout for which `pick` returns a value.
    ///
    /// # Errors
    /// The process ended, or `bound` passed; the text holds what the process wrote.
    pub async fn wait_line<T>(&mut self, bound: Duration, pick: impl Fn(&str) -> Option<T>) -> anyhow::Result<T> {
        let began = std::time::Instant::now();
        loop {
            let ended = self.exit_status();
            if let Some(found) = self.stdout().lines().find_map(&pick) {
                return Ok(found);
            }
            if let Some(status) = ended {
                let how = status.signal().map_or_else(|| status.to_string(), |s| format!("signal {s}"));
                anyhow::bail!("{} ended ({how}):\n{}{}", self.name, self.stdout(), self.stderr());
            }
            if began.elapsed() > bound {
                anyhow::bail!("{} said nothing of it in {bound:?}:\n{}{}", self.name, self.stdout(), self.stderr());
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Sends a signal to the process alone. A process that has ended already is left in peace.
    pub fn signal(&mut self, signal: Signal) {
        if self.exit_status().is_none() {
            let _already_gone = rustix::process::kill_process(self.pid(), signal);
        }
    }

    /// Kills the process alone, as by `kill -9`, and waits until it is gone.
    pub fn kill(&mut self) {
        self.signal(Signal::KILL);
        if self.ended.is_none() {
            self.ended = self.child.wait().ok();
        }
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).expect("a process id")).expect("a process id is not 0")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // The group may outlive its leader (workers of nginx), so that the group is what is killed.
        let _already_gone = rustix::process::kill_process_group(self.pid(), Signal::KILL);
        if self.ended.is_none() {
            let _ = self.child.wait();
        }
        if std::thread::panicking() {
            eprintln!("--- {} wrote:\n{}{}---", self.name, self.stdout(), self.stderr());
        }
    }
}

/// The newest bytes of a stream, collected by a thread.
#[derive(Debug)]
struct Output {
    kept: Arc<Mutex<VecDeque<u8>>>,
    reader: Option<std::thread::JoinHandle<()>>,
}

impl Output {
    fn follow(stream: impl Read + Send + 'static) -> Self {
        let kept = Arc::<Mutex<VecDeque<u8>>>::default();
        let newest = kept.clone();
        let reader = std::thread::spawn(move || {
            let mut reader = BufReader::new(stream);
            while let Ok(bytes) = reader.fill_buf() {
                if bytes.is_empty() {
                    break;
                }
                let count = bytes.len();
                let mut kept = newest.lock().unwrap();
                kept.extend(bytes);
                let excess = kept.len().saturating_sub(OUTPUT_KEPT);
                kept.drain(..excess);
                drop(kept);
                reader.consume(count);
            }
        });
        Self { kept, reader: Some(reader) }
    }

    /// Waits until the stream has ended.
    fn join(&mut self) {
        let _panicked = self.reader.take().map(std::thread::JoinHandle::join);
    }

    fn text(&self) -> String {
        let kept: Vec<u8> = self.kept.lock().unwrap().iter().copied().collect();
        String::from_utf8_lossy(&kept).into_owned()
    }
}
