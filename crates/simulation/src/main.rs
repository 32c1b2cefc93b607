//! Runs many seeds and prints what came of them: `--seeds n --first n --threads n`; `--trace 1` prints what happened.

use simulation::Report;
use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

fn main() -> Result<ExitCode, String> {
    let (mut seeds, mut first, mut prints) = (1_000, 1, false);
    let mut threads = std::thread::available_parallelism().map_or(1, |threads| threads.get() as u64);
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let value = words.next().and_then(|value| value.parse::<u64>().ok());
        let value = value.ok_or_else(|| format!("{word} needs a number"))?;
        match word.as_str() {
            "--seeds" => seeds = value,
            "--first" => first = value,
            "--threads" => threads = value.max(1),
            "--trace" => prints = value > 0,
            _ => return Err(format!("{word} is not known")),
        }
    }
    let began = Instant::now();
    let reports = run_all(seeds, first, threads, prints)?;
    let failed: Vec<&Report> = reports.iter().filter(|report| !report.violations.is_empty()).collect();
    for report in &failed {
        println!("seed {}:", report.seed);
        for violation in &report.violations {
            println!("  {violation}");
        }
        println!("  again: make sim SEEDS=1 SEED={} ARGS=\"--trace 1\"", report.seed);
    }
    let mut faults: BTreeMap<&str, u64> = BTreeMap::new();
    for (fault, times) in reports.iter().flat_map(|report| &report.faults) {
        *faults.entry(fault).or_default() += times;
    }
    for (fault, times) in faults {
        println!("{times:>9} {fault}");
    }
    let operations: u64 = reports.iter().map(|report| report.operations).sum();
    let time: Duration = reports.iter().map(|report| report.time).sum();
    let (hours, took) = (time.as_secs_f64() / 3_600.0, began.elapsed().as_secs_f64());
    println!("{} seeds from {first} on, {operations} operations, {hours:.1} hours in {took:.1} s", reports.len());
    println!("{} seeds with a violation", failed.len());
    Ok(if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The reports of so many seeds, in their order.
fn run_all(seeds: u64, first: u64, threads: u64, prints: bool) -> Result<Vec<Report>, String> {
    let next = AtomicU64::new(0);
    let reports = Mutex::new(BTreeMap::new());
    std::thread::scope(|scope| {
        let work = || -> Result<(), String> {
            loop {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                if seed >= seeds {
                    return Ok(());
                }
                let report = simulation::run(first + seed, prints).map_err(|error| error.to_string())?;
                reports.lock().map_err(|error| error.to_string())?.insert(report.seed, report);
            }
        };
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        workers.into_iter().try_for_each(|worker| worker.join().map_err(|_| "a seed panicked".to_owned())?)
    })?;
    Ok(reports.into_inner().map_err(|error| error.to_string())?.into_values().collect())
}
