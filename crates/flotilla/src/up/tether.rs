//! A process that dies with the one that started it.
//!
//! `up` starts each program as `flotilla tethered PARENT PROGRAM ARGS...`. That asks the kernel for a SIGKILL when the
//! parent dies, and becomes the program; the request survives that. So nothing outlives `up`, however it ends, and no
//! code runs between fork and exec.

use rustix::process::{Pid, Signal, getppid, set_parent_process_death_signal};
use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

/// The word that stands in front of the arguments.
pub const WORD: &str = "tethered";

/// Becomes the program. Comes back only if it could not.
pub fn main(mut args: impl Iterator<Item = OsString>) -> ExitCode {
    let parent = args.next().and_then(|text| text.to_str()?.parse().ok()).and_then(Pid::from_raw);
    let Some(program) = args.next() else { return ExitCode::FAILURE };
    if let Err(error) = set_parent_process_death_signal(Some(Signal::KILL)) {
        eprintln!("flotilla: can't be bound to the parent process: {error}");
        return ExitCode::FAILURE;
    }
    // A parent that died before the request was made will send no signal.
    if getppid() != parent {
        return ExitCode::FAILURE;
    }
    let error = Command::new(&program).args(args).exec();
    eprintln!("flotilla: {}: {error}", program.display());
    ExitCode::FAILURE
}
