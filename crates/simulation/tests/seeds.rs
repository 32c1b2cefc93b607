//! Seeds that are run with each test run, those that once failed, and that a seed decides everything.

use simulation::{Report, run};
use std::collections::BTreeMap;

/// How many seeds are run. More by `make sim SEEDS=n`.
const SEEDS: u64 = 1_000;

/// Seeds beyond those that have failed once.
const ONCE_FAILED: [u64; 15] =
    [1_051, 1_185, 1_259, 1_497, 2_389, 2_483, 2_629, 2_964, 3_741, 5_184, 5_664, 9_471, 9_725, 12_758, 13_713];

fn violations(reports: &[Report]) -> Vec<String> {
    let of = |report: &Report| {
        let seed = report.seed;
        report.violations.iter().map(move |violation| format!("seed {seed}: {violation}")).collect::<Vec<_>>()
    };
    reports.iter().flat_map(of).collect()
}

#[test]
fn the_same_seed_twice_gives_the_same_trace() {
    for seed in 1..=5 {
        let (once, again) = (run(seed, false).unwrap(), run(seed, false).unwrap());
        assert_eq!(once, again);
    }
    assert_ne!(run(1, false).unwrap().hash, run(2, false).unwrap().hash);
}

#[test]
fn what_clients_were_told_is_so_after_any_faults() {
    let seeds: Vec<u64> = (1..=SEEDS).chain(ONCE_FAILED).collect();
    let run_all = |seeds: &[u64]| seeds.iter().map(|seed| run(*seed, false).unwrap()).collect::<Vec<_>>();
    let reports: Vec<Report> = std::thread::scope(|scope| {
        let halves = seeds.chunks(seeds.len().div_ceil(2)).map(|half| scope.spawn(move || run_all(half)));
        let halves: Vec<_> = halves.collect();
        halves.into_iter().flat_map(|half| half.join().unwrap()).collect()
    });
    assert_eq!(violations(&reports), Vec::<String>::new());
    let mut faults: BTreeMap<&str, u64> = BTreeMap::new();
    for (fault, times) in reports.iter().flat_map(|report| &report.faults) {
        *faults.entry(fault).or_default() += times;
    }
    println!("figure: {SEEDS} seeds of the simulation: {faults:?}");
    assert_eq!(faults.len(), 14, "a fault never struck: {faults:?}");
}
