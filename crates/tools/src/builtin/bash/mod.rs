//! `bash`: runs a command in a shell.

mod kept_output;
mod permissions;

use crate::{Call, Output, Tool, ToolError, arguments, paths};
use async_trait::async_trait;
use kept_output::KeptOutput;
use sandbox::{Exceeded, Exit, SpawnSpec, Supervised, supervisor::STOP_GRACE};
use serde::Deserialize;
use serde_json::{Value, json};
use std::num::NonZeroU64;
use std::path::PathBuf;
use std::time::Duration;
use tokio::time::{Instant, sleep_until};

/// Between two updates of a running command's output.
const UPDATE_EVERY: Duration = Duration::from_millis(200);

/// A timeout is never longer than this.
const MAX_TIMEOUT: Duration = Duration::from_secs(24 * 3600);

/// A stopped command that is not gone by then is given up; dropping it kills it.
const GIVE_UP: Duration = Duration::from_secs(STOP_GRACE.as_secs() + 5);

/// The tool `bash`.
pub(crate) struct Bash;

#[derive(Deserialize)]
struct Arguments {
    command: String,
    /// Milliseconds.
    timeout: Option<NonZeroU64>,
    workdir: Option<String>,
}

#[async_trait]
impl Tool for Bash {
    fn name(&self) -> &'static str {
        "bash"
    }

    fn description(&self) -> String {
        "Runs a command in a shell and returns what it prints, standard output and errors together.\n\
         Each call is a shell of its own: set `workdir` instead of using `cd`, and do not count on variables of earlier \
         calls. Nothing can be typed into the command. It is stopped after `timeout` milliseconds (two minutes unless \
         given), and whatever it leaves running in the background ends with it.\n\
         Of a long output the end is returned; the whole of it is in a file that is named then, so there is no need to \
         shorten it with head or tail. To look into files, to search and to change them use the tools made for that; they \
         are faster and safer than cat, grep or sed. Quote paths with spaces. Commands that do not depend on one another \
         can be called at the same time; chain those that do with `&&`."
            .into()
    }

    fn parameters(&self) -> Value {
        json!({
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "type": "object",
            "properties": {
                "command": { "type": "string", "description": "What to run" },
                "timeout": {
                    "minimum": -9_007_199_254_740_991_i64,
                    "exclusiveMinimum": 0,
                    "type": "integer",
                    "maximum": 9_007_199_254_740_991_i64,
                    "description": "Milliseconds until it is stopped",
                },
                "workdir": { "type": "string", "description": "The directory to run it in, if not the current one" },
            },
            "required": ["command"],
        })
    }

    async fn run(&self, input: Value, call: &Call) -> Result<Output, ToolError> {
        let Arguments { command, timeout, workdir } = arguments::parse(self.name(), input)?;
        let timeout = timeout.map_or(call.settings.bash_timeout, |ms| Duration::from_millis(ms.get()));
        let cwd = match &workdir {
            Some(workdir) => paths::normalized(&call.directory.join(workdir)),
            None => call.directory.clone(),
        };
        permissions::ask(call, &command, &cwd).await?;
        if !tokio::fs::metadata(&cwd).await.is_ok_and(|metadata| metadata.is_dir()) {
            return Err(ToolError::Failed(format!("The working directory is no directory: {}", cwd.display())));
        }
        if call.cancel.is_cancelled() {
            return Err(ToolError::Aborted);
        }
        call.host.begin().await?;
        let mut running = Running::start(call, &command, cwd).await?;
        let (exit, cut_off) = running.watch(timeout.min(MAX_TIMEOUT)).await;
        if cut_off == Some(CutOff::Abort) && !call.host.aborted_by_user() {
            running.show().await;
            return Err(ToolError::Aborted);
        }
        Ok(running.result(command, exit, cut_off).await)
    }
}

/// Why a command did not come to its own end.
#[derive(Clone, Copy, PartialEq, Eq)]
enum CutOff {
    Timeout(Duration),
    Abort,
}

impl CutOff {
    fn explanation(self) -> String {
        match self {
            Self::Abort => "User aborted the command".into(),
            Self::Timeout(after) => format!(
                "The command was stopped at its timeout of {} ms. If it only needs longer, and waits for no input, call \
                 it again with a larger timeout.",
                after.as_millis()
            ),
        }
    }
}

/// A command at work.
struct Running<'a> {
    call: &'a Call,
    process: Supervised,
    kept: KeptOutput,
}

/// What a command did next.
enum Step {
    Printed(Vec<u8>),
    Closed,
    Ended(Exit),
}

impl<'a> Running<'a> {
    async fn start(call: &'a Call, command: &str, cwd: PathBuf) -> Result<Self, ToolError> {
        let settings = &call.settings;
        let path = settings.output_dir.join(call.host.new_output_id().as_str());
        let kept = KeptOutput::new(settings, path);
        call.host.progress(None, json!({ "output": "" })).await;
        let spec = SpawnSpec {
            program: settings.shell.clone().into(),
            args: vec!["-c".into(), command.into()],
            cwd,
            env: settings.env.clone(),
            limits: settings.limits,
            lifeline: call.lifeline.clone(),
            supervisor_exe: settings.supervisor_exe.clone(),
            identity: call.identity.clone(),
        };
        let process = Supervised::spawn(spec).await;
        let process = process.map_err(|error| ToolError::Failed(format!("The command did not start: {error}")))?;
        Ok(Self { call, process, kept })
    }

    async fn step(process: &mut Supervised, closed: bool) -> Step {
        match closed {
            true => Step::Ended(process.wait().await),
            false => match process.output().await {
                Some(chunk) => Step::Printed(chunk.into()),
                None => Step::Closed,
            },
        }
    }

    /// Follows the command to its end.
    async fn watch(&mut self, timeout: Duration) -> (Exit, Option<CutOff>) {
        let mut deadline = Instant::now() + timeout;
        let mut cut_off = None;
        let mut closed = false;
        let mut update_at = Instant::now();
        let mut stale = false;
        loop {
            tokio::select! {
                biased;
                () = self.call.cancel.cancelled(), if cut_off.is_none() => {
                    cut_off = Some(CutOff::Abort);
                    deadline = self.stop();
                }
                () = sleep_until(deadline) => {
                    if cut_off.is_some() {
                        tracing::warn!(session = %self.call.session, "a stopped command did not end in time");
                        return (Exit::default(), cut_off);
                    }
                    cut_off = Some(CutOff::Timeout(timeout));
                    deadline = self.stop();
                }
                () = sleep_until(update_at), if stale => {
                    stale = false;
                    self.show().await;
                    update_at = Instant::now() + UPDATE_EVERY;
                }
                step = Self::step(&mut self.process, closed) => match step {
                    Step::Printed(bytes) => {
                        self.kept.push(&bytes).await;
                        stale = true;
                    }
                    Step::Closed => closed = true,
                    Step::Ended(exit) => return (exit, cut_off),
                },
            }
        }
    }

    /// Shows what it printed so far.
    async fn show(&mut self) {
        self.call.host.progress(None, json!({ "output": self.kept.preview() })).await;
    }

    /// Asks the command to end; tells when to give it up.
    fn stop(&self) -> Instant {
        self.process.stop();
        Instant::now() + GIVE_UP
    }

    fn killed(&self, exceeded: Exceeded) -> String {
        let limits = self.call.settings.limits;
        let what = match exceeded {
            Exceeded::Processes => format!("had more than {} processes at the same time", limits.processes),
            Exceeded::Memory => format!("used more than {} MiB of memory", limits.memory_bytes >> 20),
        };
        format!("The command and all that it started were killed: together they {what}, which is the limit here.")
    }

    async fn result(mut self, command: String, exit: Exit, cut_off: Option<CutOff>) -> Output {
        let finished = self.kept.finish().await;
        let mut output = finished.text;
        let mut metadata = json!({
            "output": self.kept.preview_or_nothing(),
            // Only a command that ended by itself has an exit code.
            "exit": exit.code.filter(|_| cut_off.is_none()),
            "truncated": finished.truncated,
        });
        if let Some(path) = finished.path {
            metadata["outputPath"] = json!(path);
        }
        let exceeded = exit.exceeded.map(|exceeded| self.killed(exceeded));
        if let Some(why) = cut_off.map(CutOff::explanation).or(exceeded) {
            output.push_str(&format!("\n\n<shell_metadata>\n{why}\n</shell_metadata>"));
        }
        Output { title: command, output, metadata, attachments: None }
    }
}
