//! What other processes of the same user see of a replica.

#![allow(clippy::unwrap_used, reason = "a test that fails says where")]

use std::io::{BufRead, BufReader};
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

/// A user without rights; root sees everything.
const NOBODY: u32 = 65_534;

/// Becomes that user where this is root.
fn as_nobody(command: &mut Command) -> &mut Command {
    if rustix::process::getuid().is_root() {
        command.uid(NOBODY).gid(NOBODY);
    }
    command
}

/// Kills the replica at the end.
struct Replica(std::process::Child);

impl Drop for Replica {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn the_environment_of_a_replica_is_closed_to_other_processes_of_its_user() {
    let folder = tempfile::tempdir().unwrap();
    if rustix::process::getuid().is_root() {
        chown(folder.path(), Some(NOBODY), Some(NOBODY)).unwrap();
    }
    // Where that user can get at it.
    let program = folder.path().join("flotilla");
    std::fs::copy(env!("CARGO_BIN_EXE_flotilla"), &program).unwrap();
    let mut command = Command::new(&program);
    command
        .args(["serve", "--data-dir", "data"])
        .current_dir(folder.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    command.env_clear().env("HOME", folder.path()).env("OPENCODE_SERVER_PASSWORD", "hidden");
    let mut replica = Replica(as_nobody(&mut command).spawn().unwrap());
    let mut line = String::new();
    BufReader::new(replica.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert!(line.contains("listening"), "{line}");
    let environ = format!("/proc/{}/environ", replica.0.id());
    let seen = as_nobody(Command::new("cat").arg(&environ)).output().unwrap();
    assert!(!seen.status.success() && seen.stdout.is_empty(), "{}", String::from_utf8_lossy(&seen.stdout));
    // What everybody may know of a process stays readable.
    let status = format!("/proc/{}/status", replica.0.id());
    assert!(as_nobody(Command::new("cat").arg(&status)).output().unwrap().status.success());
}
