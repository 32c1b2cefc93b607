//! Runs the tests of `tests/prove.toml` with many rounds and writes down what came of them: `make prove`.
//!
//! The tree must be as it is committed. `--quick` does two rounds of each, of any tree, as a rehearsal: its page goes to
//! `target`. `--seed N` repeats what was drawn; names of tests choose some of them, as a rehearsal, too.

use anyhow::{Context, bail, ensure};
use std::fmt::Write as _;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use suite::prove::Proof;
use suite::{evidence, figures};

/// How long one test may take before it counts as failed.
const PATIENCE: Duration = Duration::from_secs(900);
/// How many rounds a rehearsal does at most.
const FEW: usize = 2;

fn main() -> anyhow::Result<ExitCode> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("the suite lies in the repository")?;
    let asked = Asked::parse(std::env::args().skip(1))?;
    let mut proofs = Proof::all(root)?;
    if let Some(unknown) = asked.names.iter().find(|name| !proofs.iter().any(|proof| proof.test[1] == **name)) {
        bail!("tests/prove.toml has no test {unknown}");
    }
    proofs.retain(|proof| asked.names.is_empty() || asked.names.contains(&proof.test[1]));
    let rehearsal = asked.quick || !asked.names.is_empty();
    let changed = evidence::changes(root)?;
    ensure!(rehearsal || changed.is_empty(), "the tree is not as it is committed:\n{changed}");

    let mut page = evidence::heading(root, "make prove", asked.seed)?;
    let (mut table, mut lines, mut failures) = (String::new(), String::new(), 0);
    let began = Instant::now();
    for proof in &proofs {
        let few = |count: usize| if asked.quick { count.min(FEW) } else { count };
        let (rounds, times) = (few(proof.rounds), few(proof.times));
        eprintln!("{} ({})", proof.what, rounds * times);
        let outcome = repeat(root, proof, rounds, times, asked.seed)?;
        let rounds = rounds * times;
        failures += usize::from(!outcome.passed);
        let verdict = if outcome.passed { "holds" } else { "FAILED" };
        let (what, [_, name]) = (&proof.what, &proof.test);
        writeln!(table, "| {what} | {rounds} | {verdict} | {:.0} s | `{name}` |", outcome.took.as_secs_f64())?;
        if !outcome.figures.is_empty() {
            writeln!(lines, "\n{what}:\n")?;
        }
        for figure in &outcome.figures {
            println!("{figure}");
            writeln!(lines, "- {figure}")?;
        }
        if !outcome.passed {
            eprintln!("{}", outcome.text);
        }
    }
    write!(page, "\n| what | rounds | verdict | took | test |\n|---|---|---|---|---|\n{table}")?;
    write!(page, "\n## Figures\n{lines}")?;
    let path = evidence::write(root, "prove", rehearsal, &page)?;
    let (count, minutes) = (proofs.len(), began.elapsed().as_secs_f64() / 60.0);
    println!("{count} proofs, {failures} failed, {minutes:.1} minutes; written to {}", path.display());
    Ok(if failures == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What the command line asks for.
struct Asked {
    quick: bool,
    seed: u64,
    names: Vec<String>,
}

impl Asked {
    fn parse(mut words: impl Iterator<Item = String>) -> anyhow::Result<Self> {
        let mut asked = Self { quick: false, seed: seconds_since_1970()?, names: Vec::new() };
        while let Some(word) = words.next() {
            match word.as_str() {
                "--quick" => asked.quick = true,
                "--seed" => asked.seed = words.next().context("--seed N")?.parse().context("--seed N")?,
                name => asked.names.push(name.to_owned()),
            }
        }
        Ok(asked)
    }
}

fn seconds_since_1970() -> anyhow::Result<u64> {
    Ok(SystemTime::now().duration_since(UNIX_EPOCH).context("the clock stands before 1970")?.as_secs())
}

struct Outcome {
    passed: bool,
    took: Duration,
    figures: Vec<String>,
    text: String,
}

/// Runs a test so many times, until it fails.
fn repeat(root: &Path, proof: &Proof, rounds: usize, times: usize, seed: u64) -> anyhow::Result<Outcome> {
    let mut all = run(root, proof, rounds, seed)?;
    for _ in 1..times {
        if !all.passed {
            break;
        }
        let next = run(root, proof, rounds, seed)?;
        all.figures.extend(next.figures);
        all = Outcome { took: all.took + next.took, figures: all.figures, ..next };
    }
    Ok(all)
}

fn run(root: &Path, proof: &Proof, rounds: usize, seed: u64) -> anyhow::Result<Outcome> {
    let [file, name] = &proof.test;
    let mut command = Command::new("timeout");
    command.arg(PATIENCE.as_secs().to_string()).arg(env!("CARGO"));
    command.args(["test", "-q", "--locked", "-p", "suite", "--test", file]);
    command.args(["--", "--exact", "--nocapture", name]).current_dir(root).stdin(Stdio::null());
    command.env(figures::ROUNDS, rounds.to_string()).env(figures::SEED, seed.to_string());
    let began = Instant::now();
    let output = command.output()?;
    let took = began.elapsed();
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    let passed = output.status.success() && text.contains("1 passed");
    // The harness may have written the test's name before, on the same line.
    let figures = text.lines().filter_map(|line| Some(line.split_once("figure ")?.1.to_owned())).collect();
    Ok(Outcome { passed, took, figures, text })
}
