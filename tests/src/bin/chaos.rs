//! Everything at once, with faults, for as long as it is told to: `make chaos`, `make chaos SECONDS=3600 SEED=7`.
//!
//! The page goes to `docs/evidence` if the run says something: each kind of fault hit a replica at work often enough, and the
//! tree is as it is committed. Else it is a rehearsal, and goes to `target`.

use std::fmt::Write as _;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use suite::chaos::{self, Plan, run::HITS};
use suite::evidence;

/// How many violations are told in full.
const TOLD: usize = 50;
/// How many lines of each replica's log are shown after a violation.
const LINES: usize = 200;

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("the suite lies in the repository")?;
    let plan = plan(std::env::args().skip(1))?;
    let mut page = evidence::heading(root, &format!("make chaos SECONDS={}", plan.faults_for.as_secs()), plan.seed)?;
    let outcome = chaos::run(plan).await;
    let history = &outcome.history;
    let hits = outcome.hits();
    let violations = chaos::violations(history);
    writeln!(page, "\n| fault | done | hit a replica at work |\n|---|---|---|")?;
    for (kind, (done, hit)) in &hits {
        writeln!(page, "| {kind} | {done} | {hit} |")?;
    }
    let events: usize = history.readers.iter().map(Vec::len).sum();
    writeln!(
        page,
        "\n{} operations, {} faults, {} model requests, {events} events read by {} readers, {} sessions at the end.\n",
        history.deeds.len(),
        history.faults.len(),
        history.asked.len(),
        history.readers.len(),
        history.ends.len()
    )?;
    writeln!(page, "Violations: {}.", violations.len())?;
    for violation in violations.iter().take(TOLD) {
        writeln!(page, "- {}: {}", violation.rule, violation.what)?;
    }
    if !violations.is_empty() {
        for log in &outcome.logs {
            let lines: Vec<&str> = log.lines().filter(|line| !line.contains(" INFO server: request")).collect();
            eprintln!("{}\n---", lines[lines.len().saturating_sub(LINES)..].join("\n"));
        }
        let path = root.join("target/chaos-history.txt");
        std::fs::write(&path, format!("{history:#?}"))?;
        eprintln!("all that was seen is in {}", path.display());
    }
    let rehearsal = hits.values().any(|(_, hit)| *hit < HITS) || !evidence::changes(root)?.is_empty();
    let path = evidence::write(root, "chaos", rehearsal, &page)?;
    println!("{page}\nwritten to {}", path.display());
    Ok(if violations.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn plan(mut words: impl Iterator<Item = String>) -> anyhow::Result<Plan> {
    let mut plan = Plan { faults_for: Duration::from_secs(60), seed: 1 };
    while let Some(word) = words.next() {
        let number = words.next().and_then(|number| number.parse().ok()).with_context(|| format!("{word} N"))?;
        match word.as_str() {
            "--seconds" => plan.faults_for = Duration::from_secs(number),
            "--seed" => plan.seed = number,
            other => bail!("{other} is unknown: --seconds N, --seed N"),
        }
    }
    Ok(plan)
}
