//! Which project a directory belongs to.

use crate::files::{self, Files};
use crate::surroundings::Surroundings;
use serde::Serialize;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

/// How long `git` may take to name the root commits.
const GIT_TIMEOUT: Duration = Duration::from_secs(10);
/// How much of its answer is read, in bytes: room for some 25,000 root commits.
const GIT_ANSWER: u64 = 1024 * 1024;

/// A project: all the work trees of one repository, or everything that is in none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Project {
    /// The root commit's hash; `global` without a repository, or without a commit in it.
    pub id: String,
    /// The main work tree of the repository; `/` without one.
    pub worktree: PathBuf,
    /// `git`, or nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vcs: Option<&'static str>,
}

/// Where a directory lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The project.
    pub project: Project,
    /// The work tree that holds the directory. It differs from the project's own in a linked work tree.
    pub worktree: PathBuf,
}

/// The identifier of what is in no repository.
pub const GLOBAL: &str = "global";

/// Finds the project of a directory, which need not exist. Runs `git` once if there is a repository (at most 10 s;
/// after that, or without a working `git`, the repository counts as one without commits).
///
/// The answer rarely changes: the caller keeps it for the directory.
pub fn locate(directory: &Path, surroundings: &Surroundings) -> Place {
    let Some(top) = directory.ancestors().find(|at| at.join(".git").exists()) else {
        let root = PathBuf::from("/");
        return Place { project: Project { id: GLOBAL.into(), worktree: root.clone(), vcs: None }, worktree: root };
    };
    let id = root_commit(top, surroundings).unwrap_or_else(|| GLOBAL.into());
    Place { project: Project { id, worktree: main_worktree(top), vcs: Some("git") }, worktree: top.to_owned() }
}

/// Remembers what a place depends on: where a repository begins, and the first commit of one that has none.
pub(crate) fn watch(directory: &Path, place: &Place, files: &mut Files) {
    for at in directory.ancestors() {
        if files.exists(&at.join(".git")) {
            break;
        }
    }
    if place.project.vcs.is_some() && place.project.id == GLOBAL {
        files.watch(&place.project.worktree.join(".git/refs/heads"));
    }
}

/// In a linked work tree `.git` is a file that leads to the main one's; a submodule's leads to a folder without
/// `commondir` and is a work tree of its own.
fn main_worktree(top: &Path) -> PathBuf {
    let linked = || {
        let text = files::text(&top.join(".git"))?;
        let folder = top.join(text.strip_prefix("gitdir:")?.trim());
        let common = files::text(&folder.join("commondir"))?;
        let common = folder.join(common.trim()).canonicalize().ok()?;
        (common.file_name()? == ".git").then(|| common.parent().map(Path::to_owned))?
    };
    linked().unwrap_or_else(|| top.to_owned())
}

/// The root commit of the repository; of several, the one whose hash sorts first.
fn root_commit(top: &Path, surroundings: &Surroundings) -> Option<String> {
    let arguments = ["rev-list", "--max-parents=0", "--all"];
    let answer = match git(top, &arguments, surroundings) {
        Ok(answer) => answer,
        Err(error) => {
            tracing::warn!(worktree = %top.display(), %error, "git does not answer; the project counts as global");
            return None;
        }
    };
    let is_hash = |line: &&str| matches!(line.len(), 40 | 64) && line.bytes().all(|byte| byte.is_ascii_hexdigit());
    answer.lines().map(str::trim).filter(is_hash).min().map(str::to_owned)
}

/// Runs `git` and reads its answer. A thread reads, so that the wait has an end; killing the child ends the thread.
fn git(top: &Path, arguments: &[&str], surroundings: &Surroundings) -> std::io::Result<String> {
    let mut command = Command::new("git");
    // Only these: a GIT_DIR of whoever started the server must not decide about another directory.
    command.env_clear().env("HOME", &surroundings.home).env("LC_ALL", "C");
    // A repository that lacks objects must not make it call somebody: the command for that is the repository's choice.
    command.env("GIT_NO_LAZY_FETCH", "1").env("GIT_TERMINAL_PROMPT", "0");
    if let Some(path) = surroundings.env.get("PATH") {
        command.env("PATH", path);
    }
    command.args(arguments).current_dir(top);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn()?;
    let Some(output) = child.stdout.take() else { return Err(std::io::Error::other("no output")) };
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let mut text = String::new();
        let read = output.take(GIT_ANSWER).read_to_string(&mut text);
        // The receiver is gone only after the time is up; then nobody wants the answer.
        let _ = sender.send(read.map(|_| text));
    });
    let answer = receiver.recv_timeout(GIT_TIMEOUT);
    // After an answer this only reaps; otherwise it ends a child that hangs.
    let _ = child.kill();
    let _ = child.wait();
    answer.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()))
}
