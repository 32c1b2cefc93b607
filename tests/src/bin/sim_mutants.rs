//! Shows which mutants the simulation finds: `make sim-mutants`, or some of them by ARGS="name name".
//!
//! The work tree is cloned as it is committed. In the clone each mutant is put in, the simulation is built, and its first seeds
//! are run: without a mutant they show no violation. The page goes to `docs/evidence` if the tree is as it is committed.

use anyhow::{Context, bail, ensure};
use std::fmt::Write as _;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use suite::evidence;
use suite::mutants::{self, Mutant};

/// How many seeds are run with each mutant.
const SEEDS: u64 = 1_000;
/// How long they may take before the mutant counts as found: it may make a seed go on for ever.
const PATIENCE: &str = "1800";

/// What is in the simulation.
const CRATES: [&str; 6] = ["engine", "run-protocol", "coordination", "storage", "tools", "wire"];

fn main() -> anyhow::Result<ExitCode> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("the suite lies in the repository")?;
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    let mut mutants = Mutant::chosen(root, &wanted)?;
    mutants.retain(is_simulated);
    if let Some(other) = wanted.iter().find(|name| !mutants.iter().any(|mutant| mutant.name == **name)) {
        bail!("the simulation does not consist of what {other} changes");
    }
    let mut page = evidence::title(root, "make sim-mutants")?;
    writeln!(page, "- the first {SEEDS} seeds with each, which show no violation without one\n")?;
    writeln!(page, "Which faults of `tests/mutants` the simulation finds, of those in what it is made of")?;
    writeln!(
        page,
        "({}). Each has a test of its own that finds it.\n",
        CRATES.map(|name| format!("`{name}`")).join(", ")
    )?;
    writeln!(page, "| Mutant | Seeds that show it | The first | What it says first |\n|---|---|---|---|")?;
    let target = root.join("target/mutants");
    let tree = mutants::clone(root, &target)?;
    ensure!(simulate(&tree, &target)?.seeds == 0, "without a mutant there are violations");
    let mut found = 0;
    for mutant in &mutants {
        let shown = mutant.put_in(&tree, || simulate(&tree, &target))?;
        found += usize::from(shown.seeds > 0);
        let Shown { seeds, first, says } = shown;
        println!("{:<40} {seeds:>4} {first:>5} {says}", mutant.name);
        writeln!(page, "| `{}` | {seeds} | {first} | {} |", mutant.name, says.replace('|', "\\|"))?;
    }
    writeln!(page, "\n{found} of {} are found.", mutants.len())?;
    let rehearsal = !evidence::changes(root)?.is_empty();
    let path = evidence::write(root, "simulation-mutants", rehearsal, &page)?;
    println!("{found} of {} mutants are found: {}", mutants.len(), path.display());
    Ok(ExitCode::SUCCESS)
}

fn is_simulated(mutant: &Mutant) -> bool {
    CRATES.iter().any(|name| mutant.file.starts_with(format!("crates/{name}/src")))
}

/// What the seeds of a mutant show.
struct Shown {
    seeds: usize,
    /// The first of them; empty if there is none.
    first: String,
    /// Its first violation.
    says: String,
}

/// Builds the simulation of a tree and runs its seeds.
fn simulate(tree: &Path, target: &Path) -> anyhow::Result<Shown> {
    let build = target.join("build");
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "-q", "--release", "--locked", "-p", "simulation"]).current_dir(tree);
    let built = cargo.env("CARGO_TARGET_DIR", &build).stdin(Stdio::null()).output()?;
    if !built.status.success() {
        bail!("it does not build: {}", String::from_utf8_lossy(&built.stderr));
    }
    let mut run = Command::new("timeout");
    run.arg(PATIENCE).arg(build.join("release/simulation")).args(["--seeds", &SEEDS.to_string()]);
    let output = run.stdin(Stdio::null()).output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let mut lines = text.lines().skip_while(|line| !is_seed(line));
    let first = lines.next().and_then(|line| line.strip_prefix("seed ")).unwrap_or_default();
    let says = lines.next().unwrap_or_default().trim().chars().take(200).collect();
    let seeds = text.lines().filter(|line| is_seed(line)).count();
    if seeds == 0 && !output.status.success() {
        let says = String::from_utf8_lossy(&output.stderr).lines().take(2).collect::<Vec<_>>().join(" ");
        return Ok(Shown { seeds: 1, first: "?".into(), says: format!("it did not end well: {says}") });
    }
    Ok(Shown { seeds, first: first.trim_end_matches(':').to_owned(), says })
}

/// Whether the violations of a seed follow.
fn is_seed(line: &str) -> bool {
    line.starts_with("seed ") && line.ends_with(':')
}
