//! The process that removes the files of a fleet when the fleet is gone, however it ended.
//!
//! It waits for the end of its stdin, a pipe that only `up` holds, and removes the directory. Its stdout is the open
//! directory with the lock of `up` on it: until all is removed no other fleet can begin there.

use std::ffi::OsString;
use std::io::{self, ErrorKind};
use std::path::PathBuf;
use std::process::ExitCode;
use std::thread::sleep;
use std::time::Duration;

/// The word that stands in front of the arguments.
pub const WORD: &str = "caretaker";

/// How often the removal is tried: the programs of a fleet that was killed may be about to die, and still write.
const ATTEMPTS: u32 = 50;

/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(100);

/// The body of the process. Its argument is the directory.
pub fn main(mut args: impl Iterator<Item = OsString>) -> ExitCode {
    let Some(directory) = args.next().map(PathBuf::from) else { return ExitCode::FAILURE };
    // An error means that the pipe is of no more use, as its end does.
    let _ = io::copy(&mut io::stdin().lock(), &mut io::sink());
    for _ in 0..ATTEMPTS {
        match std::fs::remove_dir_all(&directory) {
            Ok(()) => return ExitCode::SUCCESS,
            Err(error) if error.kind() == ErrorKind::NotFound => return ExitCode::SUCCESS,
            Err(_) => sleep(PAUSE),
        }
    }
    ExitCode::FAILURE
}
