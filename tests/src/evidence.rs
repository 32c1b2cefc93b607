//! Pages under `docs/evidence`: what a long run found, of which commit, when, on which machine.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;

/// What of the tree is not as it is committed; empty if nothing is.
///
/// # Errors
/// git cannot be run.
pub fn changes(root: &Path) -> anyhow::Result<String> {
    said(root, "git", &["status", "--porcelain"])
}

/// The beginning of a page about what `command` found.
///
/// # Errors
/// One of the programs that are named cannot be run.
pub fn heading(root: &Path, command: &str, seed: u64) -> anyhow::Result<String> {
    let mut page = title(root, command)?;
    let cores = std::thread::available_parallelism()?;
    let (kernel, data) = (said(root, "uname", &["-sr"])?, std::env::temp_dir());
    let file_system = said(root, "stat", &["-f", "-c", "%T", &data.to_string_lossy()])?;
    writeln!(page, "- seed {seed}")?;
    writeln!(page, "- machine: {cores} cores, {kernel}, data on {file_system}; debug build, `--durability disk`")?;
    for (program, argument) in [("redis-server", "--version"), ("nginx", "-v"), ("haproxy", "-v")] {
        writeln!(page, "- {}", said(root, program, &[argument])?)?;
    }
    Ok(page)
}

/// The title of a page about what `command` found, of which commit and when.
///
/// # Errors
/// git or date cannot be run.
pub fn title(root: &Path, command: &str) -> anyhow::Result<String> {
    let commit = said(root, "git", &["rev-parse", "HEAD"])?;
    let but = if changes(root)?.is_empty() { "" } else { ", with changes that are not committed" };
    let date = said(root, "date", &["-u", "+%F %H:%M UTC"])?;
    Ok(format!("# What `{command}` found\n\n- commit {commit}{but}\n- date {date}\n"))
}

/// Writes a page: a rehearsal's goes to `target`. Returns where it is.
///
/// # Errors
/// It cannot be written.
pub fn write(root: &Path, name: &str, rehearsal: bool, page: &str) -> anyhow::Result<PathBuf> {
    let path = root.join(if rehearsal { "target" } else { "docs/evidence" }).join(format!("{name}.md"));
    std::fs::create_dir_all(path.parent().context("a file is in a directory")?)?;
    std::fs::write(&path, page)?;
    Ok(path)
}

/// The first line that a program says; all of it from git.
fn said(root: &Path, program: &str, arguments: &[&str]) -> anyhow::Result<String> {
    // Debian keeps servers where not every user's PATH looks.
    let path = format!("{}:/usr/local/sbin:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default());
    let output = Command::new(program).args(arguments).current_dir(root).env("PATH", path).output();
    let output = output.with_context(|| format!("{program} cannot be run"))?;
    let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
    text += &String::from_utf8_lossy(&output.stderr);
    Ok(if program == "git" { text.trim().to_owned() } else { text.lines().next().unwrap_or_default().to_owned() })
}
