//! Shows that each mutant is caught: `make mutants`, or some of them by ARGS="name name".
//!
//! The work tree is cloned as it is committed. In the clone each mutant is put in, built, and its test must fail; before
//! that the same test must pass there without it.

use anyhow::{Context, ensure};
use std::collections::HashMap;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};
use suite::mutants::{self, Mutant};

/// How long a test may take before it counts as failed: a mutant may make it wait for ever.
const PATIENCE: Duration = Duration::from_secs(300);

fn main() -> anyhow::Result<ExitCode> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("the suite lies in the repository")?;
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    let mutants = Mutant::chosen(root, &wanted)?;
    let target = root.join("target/mutants");
    let tree = mutants::clone(root, &target)?;
    let mut sound: HashMap<Vec<String>, bool> = HashMap::new();
    let mut escaped = 0;
    for mutant in &mutants {
        let is_sound = match sound.get(&mutant.test) {
            Some(known) => *known,
            None => *sound.entry(mutant.test.clone()).or_insert(test(&tree, &target, &mutant.test)? == Outcome::Passed),
        };
        let outcome = mutant.put_in(&tree, || test(&tree, &target, &mutant.test))?;
        let verdict = match (is_sound, outcome) {
            (false, _) => "its test fails without it",
            (true, Outcome::Passed) => "NOT CAUGHT",
            (true, Outcome::Broken) => "does not build",
            (true, Outcome::Failed) => "caught",
        };
        escaped += usize::from(verdict != "caught");
        let by = mutant.test.last().map_or("", String::as_str);
        println!("{verdict:<12} {:<28} {:<16} by {by}: {}", mutant.name, mutant.guarantee, mutant.what);
    }
    println!("{} mutants, {escaped} not caught", mutants.len());
    Ok(if escaped == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Passed,
    Failed,
    Broken,
}

/// Builds the tree and runs one test in it.
fn test(tree: &Path, target: &Path, arguments: &[String]) -> anyhow::Result<Outcome> {
    let (test, selected) = arguments.split_last().context("a mutant names its test")?;
    let cargo = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO"));
        command.args(arguments).current_dir(tree).env("CARGO_TARGET_DIR", target.join("build"));
        command
    };
    let mut builds = vec![{
        let mut build = cargo(&["test", "-q", "--locked", "--no-run"]);
        build.args(selected);
        build
    }];
    if selected.iter().any(|word| word == "suite") {
        // The replicas that the suite starts are no part of its own build.
        builds.insert(0, cargo(&["build", "-q", "--locked", "-p", "flotilla"]));
    }
    for mut build in builds {
        let built = build.stdin(Stdio::null()).output()?;
        if !built.status.success() {
            eprintln!("{}", String::from_utf8_lossy(&built.stderr));
            return Ok(Outcome::Broken);
        }
    }
    let mut run = Command::new("timeout");
    run.arg(PATIENCE.as_secs().to_string()).arg(env!("CARGO")).args(["test", "-q", "--locked"]).args(selected);
    run.args(["--", "--exact", test]).current_dir(tree).env("CARGO_TARGET_DIR", target.join("build"));
    let began = Instant::now();
    let output = run.stdin(Stdio::null()).output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    ensure!(text.contains("1 passed") || !output.status.success(), "no test is called {test}: {text}");
    eprintln!("{test}: {} after {:.0?}", output.status, began.elapsed());
    // What the model found: the property that does not hold, and how that comes about.
    let found = text.lines().skip_while(|line| !line.starts_with("BROKEN"));
    for line in found.take_while(|line| line.starts_with("BROKEN") || line.starts_with("    ")) {
        eprintln!("{line}");
    }
    Ok(if output.status.success() { Outcome::Passed } else { Outcome::Failed })
}
