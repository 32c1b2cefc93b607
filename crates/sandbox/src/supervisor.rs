//! The process between a replica and a command.
//!
//! One thread, no runtime: it sleeps in `poll` until the replica says something, the command ends or a deadline passes.
//! It adopts what the command leaves behind (it is a *subreaper*), so that a daemon which left the process group and
//! lost its parent is its child, and can be found and killed.
//!
//! When the command itself ends, what it left running in the background gets [`LEFTOVER_GRACE`] to end, too, and is
//! killed then: no process outlives its tool call.

use crate::Limits;
use crate::family::{below, tasks_of_user};
use crate::lifeline::now_on_this_machine;
use crate::limits::{LOOK_EVERY, Watch};
use crate::report::{Order, Report};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{
    Pid, PidfdFlags, Resource, Rlimit, Signal, WaitOptions, WaitStatus, getpid, getuid, kill_process_group, pidfd_open,
    set_child_subreaper, setpriority_process, setrlimit, setsid, wait,
};
use std::ffi::OsString;
use std::fs;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

/// How long a command has between SIGTERM and SIGKILL.
pub const STOP_GRACE: Duration = Duration::from_secs(3);

/// How long what a command left in the background has to end by itself once the command ended.
pub const LEFTOVER_GRACE: Duration = Duration::from_millis(250);

/// The supervisor's priority (its nice value), where its user may raise it.
const PRIORITY: i32 = -15;

/// Between two rounds of killing, for the kernel to hand over the orphans.
const KILL_PAUSE: Duration = Duration::from_millis(2);

/// The body of the supervisor process. `args` are those behind the word `supervise`.
///
/// Call it before anything else in `main`: it must be the only thread.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let started =
        Settings::parse(args).and_then(|settings| Supervisor::start(&settings).map_err(|error| error.to_string()));
    match started {
        Ok(supervisor) => {
            supervisor.run();
            ExitCode::SUCCESS
        }
        Err(error) => {
            report(&Report::Failed { error });
            ExitCode::FAILURE
        }
    }
}

/// The replica may be gone: then nobody is interested in the report.
fn report(report: &Report) {
    if let Ok(mut line) = serde_json::to_vec(report) {
        line.push(b'\n');
        let _ = io::stderr().write_all(&line);
    }
}

/// What the replica hands over in the arguments.
struct Settings {
    live_until: u64,
    limits: Limits,
    program: OsString,
    args: Vec<OsString>,
}

impl Settings {
    fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Self, String> {
        let mut args = args.into_iter();
        let mut options = Vec::new();
        for arg in args.by_ref() {
            if arg == "--" {
                break;
            }
            options.push(arg.into_string().map_err(|arg| format!("not text: {arg:?}"))?);
        }
        let missing = |name: &str| format!("missing: {name}");
        let option = |name: &str| -> Result<u64, String> {
            let value = options.iter().find_map(|option| option.strip_prefix(name)?.strip_prefix('='));
            let value = value.ok_or_else(|| missing(name))?;
            value.parse().map_err(|_| format!("not a number: {name}={value}"))
        };
        Ok(Self {
            live_until: option("--live-until-ms")?,
            limits: Limits {
                processes: option("--processes")?,
                memory_bytes: option("--memory-bytes")?,
                open_files: option("--open-files")?,
                file_bytes: option("--file-bytes")?,
            },
            program: args.next().ok_or_else(|| missing("a command"))?,
            args: args.collect(),
        })
    }
}

/// A supervisor whose command was started.
struct Supervisor {
    /// When everything is killed, in milliseconds of the monotonic clock.
    live_until: u64,
    /// Keeps the command within its limits.
    watch: Watch,
    /// The command's process and process group.
    command: Pid,
    /// Readable once the command ended.
    command_end: OwnedFd,
    /// How the command ended, once it was reaped.
    status: Option<WaitStatus>,
}

/// Why the supervisor woke.
enum Woken {
    /// The replica wrote something.
    Orders,
    /// The command ended.
    Ended,
    /// Time passed, or a signal came.
    Nothing,
}

impl Supervisor {
    fn start(settings: &Settings) -> io::Result<Self> {
        // Without a terminal: Ctrl-C there is for the replica, and the command cannot ask for passwords on it.
        setsid()?;
        set_child_subreaper(Some(getpid()))?;
        // Set here, where they are inherited from: that needs no code between fork and exec.
        limit(Resource::Core, 0)?;
        limit(Resource::Nofile, settings.limits.open_files)?;
        limit(Resource::Fsize, settings.limits.file_bytes)?;
        if !getuid().is_root() {
            // Far enough above the family's own limit that others of this user do not get in its way.
            limit(Resource::Nproc, tasks_of_user() + settings.limits.processes.saturating_mul(4))?;
        }
        let output = io::stdout().as_fd().try_clone_to_owned()?;
        let nothing = fs::File::open("/dev/null")?;
        let child = Command::new(&settings.program)
            .args(&settings.args)
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()
            .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", settings.program.display())))?;
        // Who watches must not be starved by what it watches. Only some may: others are within the kernel's limit.
        let _ = setpriority_process(None, PRIORITY);
        // Only the command and its children hold the pipe now: its end is theirs.
        rustix::stdio::dup2_stdout(nothing)?;
        let command = Pid::from_child(&child);
        let command_end = pidfd_open(command, PidfdFlags::empty()).inspect_err(|_| {
            let _ = kill_process_group(command, Signal::KILL);
        })?;
        report(&Report::Started { pid: command.as_raw_nonzero().get() });
        let watch = Watch::new(settings.limits, Instant::now());
        Ok(Self { live_until: settings.live_until, watch, command, command_end, status: None })
    }

    /// Watches until the command ended by itself, was stopped, or the replica is gone; then nothing is left of it.
    fn run(mut self) {
        let mut look_at = Instant::now() + LOOK_EVERY;
        let mut kill_at: Option<Instant> = None;
        let mut ended = false;
        let mut exceeded = None;
        loop {
            let now = Instant::now();
            let left = Duration::from_millis(self.live_until.saturating_sub(now_on_this_machine()));
            let next = kill_at.map_or(now + left, |at| at.min(now + left));
            if now >= next || (ended && self.reap()) {
                break;
            }
            if now >= look_at {
                exceeded = self.watch.look(now);
                if exceeded.is_some() {
                    break;
                }
                look_at = Instant::now() + LOOK_EVERY;
            }
            // Leftovers of an ended command are waited for by looking: they are orphans, there is nothing to poll.
            let pause = if ended { Duration::from_millis(5) } else { next.min(look_at).saturating_duration_since(now) };
            match self.sleep(pause, !ended) {
                Woken::Orders => match read_orders() {
                    None => break,
                    Some(orders) => {
                        for order in orders {
                            match order {
                                Order::LiveUntil(moment) => self.live_until = moment,
                                Order::Stop if kill_at.is_none() => {
                                    self.signal_group(Signal::TERM);
                                    kill_at = Some(Instant::now() + STOP_GRACE);
                                }
                                Order::Stop => {}
                            }
                        }
                    }
                },
                Woken::Ended => {
                    ended = true;
                    let grace = Instant::now() + LEFTOVER_GRACE;
                    kill_at = Some(kill_at.map_or(grace, |at| at.min(grace)));
                }
                Woken::Nothing => {}
            }
            if !ended {
                self.reap();
            }
        }
        self.kill_all();
        let status = self.status;
        report(&Report::Exited {
            code: status.and_then(WaitStatus::exit_status),
            signal: status.and_then(WaitStatus::terminating_signal),
            exceeded,
        });
    }

    fn sleep(&self, pause: Duration, watch_command: bool) -> Woken {
        let stdin = rustix::stdio::stdin();
        let mut fds = [PollFd::new(&stdin, PollFlags::IN), PollFd::new(&self.command_end, PollFlags::IN)];
        let watched = if watch_command { 2 } else { 1 };
        // Rounded up, or the last fraction of a millisecond would be spent spinning.
        let pause = Timespec::try_from(pause + Duration::from_millis(1)).ok();
        match poll(&mut fds[..watched], pause.as_ref()) {
            Err(_) => Woken::Nothing,
            Ok(_) if !fds[0].revents().is_empty() => Woken::Orders,
            Ok(_) if !fds[1].revents().is_empty() => Woken::Ended,
            Ok(_) => Woken::Nothing,
        }
    }

    /// The group's number is the command's own until the command is reaped; after that it may be someone else's.
    fn signal_group(&self, signal: Signal) {
        if self.status.is_none() {
            let _ = kill_process_group(self.command, signal);
        }
    }

    /// Reaps what ended; true when no child is left at all.
    fn reap(&mut self) -> bool {
        loop {
            match wait(WaitOptions::NOHANG) {
                Ok(Some((pid, status))) if pid == self.command => self.status = Some(status),
                Ok(Some(_)) | Err(Errno::INTR) => {}
                Ok(None) => return false,
                Err(_) => return true,
            }
        }
    }

    /// Kills everything below this process, round after round, until `wait` tells that no child is left.
    ///
    /// The groups of children are killed, too: at one stroke, however fast they grow. No one else can reap children, so
    /// their numbers, and those of their groups, cannot have passed to strangers.
    fn kill_all(&mut self) {
        self.signal_group(Signal::KILL);
        let own = getpid();
        while !self.reap() {
            for process in below() {
                if let Some(group) = process.group.filter(|group| process.is_child() && *group != own) {
                    let _ = kill_process_group(group, Signal::KILL);
                }
                process.kill();
            }
            std::thread::sleep(KILL_PAUSE);
        }
    }
}

/// Reads what the replica wrote. `None`: the replica is gone.
fn read_orders() -> Option<Vec<Order>> {
    // Whole orders are written at once, and so are they read.
    let mut bytes = [0; 16 * Order::BYTES];
    match rustix::io::read(rustix::stdio::stdin(), &mut bytes) {
        Ok(0) => None,
        Ok(read) => Some(bytes[..read].as_chunks().0.iter().copied().map(Order::decode).collect()),
        Err(Errno::INTR | Errno::AGAIN) => Some(Vec::new()),
        Err(_) => None,
    }
}

fn limit(resource: Resource, value: u64) -> io::Result<()> {
    let highest = rustix::process::getrlimit(resource).maximum.unwrap_or(u64::MAX);
    let value = Some(value.min(highest));
    Ok(setrlimit(resource, Rlimit { current: value, maximum: value })?)
}
