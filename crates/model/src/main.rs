//! Explores the large bounds, then what is wrong on purpose, and writes what came of it to `docs/evidence/model.md`. A bound of
//! one's own, by `--prompts n --kinds Crash,Late ...`, is explored and printed, no more; for `--seconds n` at most, and beyond what
//! `--accepts` names as broken.

use model::bound::{Bound, Fault, Flaw};
use model::properties::Broken;
use model::{Explored, explore};
use std::fmt::Write as _;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::Duration;

fn main() -> Result<ExitCode, String> {
    let mut threads = std::thread::available_parallelism().map_or(1, usize::from);
    let (mut bound, mut is_own, mut limit) = (Bound::small(), false, None);
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let value = words.next().unwrap_or_default();
        if word == "--kinds" {
            let fault = |name: &str| Fault::ALL.into_iter().find(|fault| format!("{fault:?}") == name);
            let kinds: Option<Vec<_>> = value.split(',').map(fault).collect();
            bound.kinds = kinds.ok_or_else(|| format!("{word} needs some of {:?}", Fault::ALL))?.leak();
            is_own = true;
            continue;
        }
        if word == "--seconds" {
            let seconds = value.parse().map_err(|_| format!("{word} needs a number"))?;
            (limit, is_own) = (Some(Duration::from_secs(seconds)), true);
            continue;
        }
        if word == "--accepts" {
            let broken = Broken::ALL.into_iter().find(|broken| format!("{broken:?}") == value);
            let broken = broken.ok_or_else(|| format!("{word} needs one of {:?}", Broken::ALL))?;
            (bound.accepts, is_own) = (vec![broken].leak(), true);
            continue;
        }
        let value = value.parse::<u8>().map_err(|_| format!("{word} needs a number"))?;
        let part = match word.as_str() {
            "--threads" => {
                threads = value.into();
                continue;
            }
            "--replicas" => &mut bound.replicas,
            "--prompts" => &mut bound.prompts,
            "--retries" => &mut bound.retries,
            "--aborts" => &mut bound.aborts,
            "--deletions" => &mut bound.deletions,
            "--readers" => &mut bound.readers,
            "--faults" => &mut bound.faults,
            "--of-a-kind" => &mut bound.of_a_kind,
            _ => return Err(format!("{word} is not known")),
        };
        (*part, is_own) = (value, true);
    }
    if is_own {
        let explored = explore(bound, threads, limit);
        print!("{explored}");
        return Ok(exit(explored.is_sound()));
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let said = |program: &str, arguments: &[&str]| {
        let output = Command::new(program).args(arguments).current_dir(&root).output();
        let output = output.map_err(|error| format!("{program} cannot be run: {error}"))?;
        Ok::<_, String>(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let but = match said("git", &["status", "--porcelain"])?.is_empty() {
        true => "",
        false => ", with changes that are not committed",
    };
    let mut page = format!(
        "# What `make model` found\n\n- commit {}{but}\n- date {}\n- {threads} threads, release build\n",
        said("git", &["rev-parse", "HEAD"])?,
        said("date", &["-u", "+%F %H:%M UTC"])?,
    );
    let mut is_sound = true;
    let mut note = |heading: &str, explored: &Explored| {
        print!("{explored}");
        let _ = write!(page, "\n## {heading}\n\n```text\n{explored}```\n");
    };
    for bound in Bound::large() {
        let explored = explore(bound, threads, None);
        is_sound &= explored.is_sound();
        note("As it is", &explored);
    }
    for flaw in Flaw::ALL {
        // In one thread what is found is the shortest way there.
        let explored = explore(flaw.bound(), 1, None);
        is_sound &= !explored.broken.is_empty();
        note(&format!("With a flaw, found: {flaw:?}"), &explored);
    }
    std::fs::write(root.join("docs/evidence/model.md"), page).map_err(|error| error.to_string())?;
    Ok(exit(is_sound))
}

fn exit(is_sound: bool) -> ExitCode {
    if is_sound { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
