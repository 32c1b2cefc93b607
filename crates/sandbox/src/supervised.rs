//! A command under a supervisor, seen from the replica.

use crate::report::{Order, Report};
use crate::{ChildEnv, Exceeded, Lifeline, Limits};
use bytes::Bytes;
use rustix::process::{Pid, Signal, kill_process_group};
use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::{Child, ChildStderr, ChildStdout, Command};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;

/// One chunk of output holds at most this many bytes.
const CHUNK: usize = 32 * 1024;

/// So many chunks wait for their reader; then the command itself waits in its write.
const CHUNKS: usize = 16;

/// A supervisor must say within this time whether the command started.
const START_WAIT: Duration = Duration::from_secs(10);

/// A line of a report is never longer than this.
const REPORT_BYTES: u64 = 64 * 1024;

/// On whose behalf a command runs. It stands in the supervisor's arguments, where operators see it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// The session.
    pub session: String,
    /// The attempt.
    pub attempt: String,
    /// The attempt's fence.
    pub fence: u64,
}

/// What to run, and how.
#[derive(Clone, Debug)]
pub struct SpawnSpec {
    /// The program; looked up in the `PATH` of `env` when it is a bare name.
    pub program: OsString,
    /// Its arguments.
    pub args: Vec<OsString>,
    /// Its working directory.
    pub cwd: PathBuf,
    /// Its whole environment.
    pub env: ChildEnv,
    /// What it may use.
    pub limits: Limits,
    /// When it ends, everything is killed.
    pub lifeline: Lifeline,
    /// The command line that becomes the supervisor: an executable which, with `supervise` as its first argument, calls
    /// [`crate::supervisor::main`] with the rest.
    pub supervisor_exe: PathBuf,
    /// On whose behalf.
    pub identity: Identity,
}

/// A command could not be started.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    /// The supervisor itself did not start.
    #[error("the supervisor did not start: {0}")]
    Supervisor(#[from] std::io::Error),
    /// The supervisor started, the command did not.
    #[error("{0}")]
    Command(String),
    /// The supervisor said nothing in time, or ended.
    #[error("the supervisor did not answer")]
    Silent,
}

/// How a command ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Exit {
    /// Its exit code, unless a signal ended it.
    pub code: Option<i32>,
    /// The signal that ended it. Both are `None` when the supervisor vanished without a report.
    pub signal: Option<i32>,
    /// The limit that it was killed for.
    pub exceeded: Option<Exceeded>,
}

/// A running command. Dropping it kills the command and everything that it started.
pub struct Supervised {
    output: mpsc::Receiver<Bytes>,
    /// The supervisor's standard input: when it is closed, everything is killed.
    supervisor: Arc<OwnedFd>,
    exit: watch::Receiver<Option<Exit>>,
}

impl Supervised {
    /// Starts a command and waits until it runs.
    ///
    /// # Errors
    /// See [`SpawnError`]; nothing is left running then.
    ///
    /// # Cancellation
    /// Dropping the future kills what was started.
    pub async fn spawn(spec: SpawnSpec) -> Result<Self, SpawnError> {
        let mut child = supervisor_command(&spec).spawn()?;
        let (Some(stdin), Some(stdout), Some(stderr)) = (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            return Err(SpawnError::Silent);
        };
        let supervisor = Arc::new(stdin.into_owned_fd()?);
        rustix::io::ioctl_fionbio(&supervisor, true).map_err(std::io::Error::from)?;
        spec.lifeline.tell(&supervisor);
        let (chunks, output) = mpsc::channel(CHUNKS);
        let (exit_sender, exit) = watch::channel(None);
        let (started_sender, started) = oneshot::channel();
        tokio::spawn(pump(stdout, chunks));
        tokio::spawn(follow(child, stderr, started_sender, exit_sender));
        match timeout(START_WAIT, started).await {
            Ok(Ok(Ok(()))) => Ok(Self { output, supervisor, exit }),
            Ok(Ok(Err(error))) => Err(SpawnError::Command(error)),
            Ok(Err(_)) | Err(_) => Err(SpawnError::Silent),
        }
    }

    /// The next piece of output, standard output and error merged; `None` when there will be no more.
    ///
    /// A command that writes faster than this is called waits in its write: the memory used here is bounded.
    ///
    /// # Cancellation
    /// Nothing is lost.
    pub async fn output(&mut self) -> Option<Bytes> {
        self.output.recv().await
    }

    /// Asks the command to end: SIGTERM to its group, and SIGKILL to everything after three seconds. Does not wait.
    pub fn stop(&self) {
        Order::Stop.send(&self.supervisor);
    }

    /// Waits until the command and everything that it started is gone.
    ///
    /// Output that nobody reads can keep a command from ending: read it until `None`, or call [`Supervised::stop`].
    ///
    /// # Cancellation
    /// May be called again.
    pub async fn wait(&mut self) -> Exit {
        match self.exit.wait_for(Option::is_some).await {
            Ok(exit) => exit.unwrap_or_default(),
            Err(_) => Exit::default(),
        }
    }
}

fn supervisor_command(spec: &SpawnSpec) -> Command {
    let mut command = Command::new(&spec.supervisor_exe);
    command
        .arg("supervise")
        .arg(format!("--session={}", spec.identity.session))
        .arg(format!("--attempt={}", spec.identity.attempt))
        .arg(format!("--fence={}", spec.identity.fence))
        .arg(format!("--live-until-ms={}", spec.lifeline.until()))
        .arg(format!("--processes={}", spec.limits.processes))
        .arg(format!("--memory-bytes={}", spec.limits.memory_bytes))
        .arg(format!("--open-files={}", spec.limits.open_files))
        .arg(format!("--file-bytes={}", spec.limits.file_bytes));
    command.arg("--").arg(&spec.program).args(&spec.args);
    command
        .env_clear()
        .envs(spec.env.iter())
        .current_dir(&spec.cwd)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

async fn pump(mut stdout: ChildStdout, chunks: mpsc::Sender<Bytes>) {
    loop {
        let mut chunk = Vec::with_capacity(CHUNK);
        match (&mut stdout).take(CHUNK as u64).read_buf(&mut chunk).await {
            Ok(read) if read > 0 => {}
            _ => return,
        }
        if chunks.send(chunk.into()).await.is_err() {
            return;
        }
    }
}

/// Reads the supervisor's reports to their end, then reaps it.
async fn follow(
    mut child: Child,
    stderr: ChildStderr,
    started: oneshot::Sender<Result<(), String>>,
    exit: watch::Sender<Option<Exit>>,
) {
    let mut lines = BufReader::new(stderr.take(REPORT_BYTES)).lines();
    let mut started = Some(started);
    let mut group = None;
    let mut end = None;
    while let Ok(Some(line)) = lines.next_line().await {
        match serde_json::from_str(&line) {
            Ok(Report::Started { pid }) => {
                group = Pid::from_raw(pid);
                started.take().map(|sender| sender.send(Ok(())));
            }
            Ok(Report::Failed { error }) => {
                started.take().map(|sender| sender.send(Err(error)));
            }
            Ok(Report::Exited { code, signal, exceeded }) => end = Some(Exit { code, signal, exceeded }),
            Err(_) => tracing::warn!(line, "a supervisor said something else than a report"),
        }
    }
    if let (None, Some(group)) = (end, group) {
        // Something killed the supervisor. What is left of the command is in its group, as far as we can still know it.
        tracing::warn!(%group, "a supervisor ended without a report; killing the command's group");
        let _ = kill_process_group(group, Signal::KILL);
    }
    let _ = child.wait().await;
    let _ = exit.send(Some(end.unwrap_or_default()));
}
