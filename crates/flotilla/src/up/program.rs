//! A program of the fleet: started, watched, started again when it dies, stopped.

use super::tether;
use anyhow::{Context, bail};
use rand::Rng;
use rustix::process::{Pid, Signal, getpid, kill_process};
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWriteExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

/// The first pause before a program that died is started again; it doubles with each death.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// A program that lived as long as this starts over with the first pause.
const GOOD_LIFE: Duration = Duration::from_secs(30);

/// After so many deaths without a good life between them there is no point in going on.
const MOST_DEATHS: u32 = 10;

/// How to start a program.
#[derive(Clone)]
pub struct Program {
    /// What people call it.
    pub name: String,
    /// The file.
    pub file: PathBuf,
    /// Its arguments.
    pub args: Vec<OsString>,
    /// Variables that it gets besides those of this process.
    pub env: Vec<(String, String)>,
    /// Variables of this process that it does not get.
    pub without_env: Vec<String>,
    /// What it reads on stdin.
    pub input: String,
    /// Whether its lines are log lines already. Else they are logged for debugging only.
    pub logs_by_itself: bool,
    /// How long it may take to end when it is asked to.
    pub grace: Duration,
}

/// A program that runs.
pub struct Running {
    program: Program,
    child: Child,
    since: Instant,
}

impl Program {
    /// Starts it and waits until `ready`, which must be bounded, says so. It is an error if the program ends before.
    pub async fn start(self, ready: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<Running> {
        let mut running = Running { child: self.spawn().await?, since: Instant::now(), program: self };
        let name = &running.program.name;
        tokio::select! {
            ended = running.child.wait() => bail!("{name} did not start ({})", ended?),
            answer = ready => answer.with_context(|| format!("{name} did not start"))?,
        }
        Ok(running)
    }

    async fn spawn(&self) -> anyhow::Result<Child> {
        let output = || if self.logs_by_itself { Stdio::null() } else { Stdio::piped() };
        let mut command = Command::new(std::env::current_exe()?);
        command.arg(tether::WORD).arg(getpid().as_raw_nonzero().to_string()).arg(&self.file).args(&self.args);
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        for name in &self.without_env {
            command.env_remove(name);
        }
        command.stdin(Stdio::piped()).stdout(output());
        command.stderr(if self.logs_by_itself { Stdio::inherit() } else { Stdio::piped() });
        // A Ctrl-C in the terminal is for this process only, which stops the others in order.
        command.process_group(0).kill_on_drop(true);
        let mut child = command.spawn().with_context(|| format!("can't start {}", self.name))?;
        if let Some(mut stdin) = child.stdin.take() {
            // A program that ended before it read this is told of by its exit status.
            let _ = stdin.write_all(self.input.as_bytes()).await;
        }
        self.log(child.stdout.take());
        self.log(child.stderr.take());
        Ok(child)
    }

    /// Logs what the program writes, line by line.
    fn log(&self, output: Option<impl AsyncRead + Unpin + Send + 'static>) {
        let Some(output) = output else { return };
        let program = self.name.clone();
        tokio::spawn(async move {
            let mut lines = BufReader::new(output).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                tracing::debug!(program, "{line}");
            }
        });
    }
}

impl Running {
    /// Watches it until `stop`, and starts it again when it dies. At `stop` it is asked to end, and killed when it takes
    /// too long. An error: it dies again and again.
    pub async fn attend(mut self, stop: CancellationToken) -> anyhow::Result<()> {
        let mut deaths = 0;
        loop {
            let status = tokio::select! {
                status = self.child.wait() => status?,
                () = stop.cancelled() => return self.stop().await,
            };
            deaths = if self.since.elapsed() >= GOOD_LIFE { 1 } else { deaths + 1 };
            if deaths >= MOST_DEATHS {
                bail!("{} died {deaths} times in a row ({status})", self.program.name);
            }
            let pause = pause_after(deaths);
            tracing::warn!(program = self.program.name, %status, "a program died; it is started again");
            tokio::select! {
                () = sleep(pause) => {}
                () = stop.cancelled() => return Ok(()),
            }
            self = Self { child: self.program.spawn().await?, since: Instant::now(), program: self.program };
        }
    }

    async fn stop(mut self) -> anyhow::Result<()> {
        let pid = self.child.id().and_then(|pid| Pid::from_raw(pid.try_into().ok()?));
        let asked = pid.is_some_and(|pid| kill_process(pid, Signal::TERM).is_ok());
        let ended: Option<std::io::Result<ExitStatus>> =
            if asked { timeout(self.program.grace, self.child.wait()).await.ok() } else { None };
        if ended.is_none() {
            tracing::warn!(program = self.program.name, "a program did not end when it was asked to; it is killed");
            self.child.kill().await?;
        }
        Ok(())
    }
}

/// Doubles with each death, up to a limit, with up to a quarter more at random so that several don't start in step.
fn pause_after(deaths: u32) -> Duration {
    let pause = FIRST_PAUSE.saturating_mul(1 << (deaths - 1).min(10)).min(LONGEST_PAUSE);
    pause.mul_f64(rand::rng().random_range(1.0..1.25))
}
