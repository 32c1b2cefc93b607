//! What processes use, as Linux counts it.

use anyhow::{Context, Result};

/// How many clock ticks `/proc` counts in a second: 100 on every Linux that matters.
const TICKS: f64 = 100.0;

/// The CPU seconds, user and system, that a process has used.
pub fn cpu(id: u32) -> Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat"))?;
    // The name stands in brackets and may hold anything.
    let fields: Vec<&str> = stat.rsplit_once(')').context("a process has a name")?.1.split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|text| text.parse::<f64>().ok()).context("CPU time");
    Ok((ticks(11)? + ticks(12)?) / TICKS)
}

/// The CPU seconds of several processes together.
pub fn cpu_of(ids: &[u32]) -> Result<f64> {
    ids.iter().map(|&id| cpu(id)).sum()
}

/// The CPU seconds of the whole machine.
pub fn cpu_of_machine() -> Result<f64> {
    let stat = std::fs::read_to_string("/proc/stat")?;
    let fields: Vec<f64> =
        stat.lines().next().unwrap_or_default().split_whitespace().filter_map(|text| text.parse().ok()).collect();
    // All but idle and waiting for I/O.
    let busy: f64 =
        fields.iter().take(8).enumerate().filter(|(at, _)| !matches!(at, 3 | 4)).map(|(_, ticks)| ticks).sum();
    Ok(busy / TICKS)
}

/// The resident memory of the largest of these processes in MB.
pub fn resident(ids: &[u32]) -> Result<f64> {
    let mut most = 0.0_f64;
    for id in ids {
        let status = std::fs::read_to_string(format!("/proc/{id}/status"))?;
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).context("resident memory")?;
        let kilobytes: f64 = line.split_whitespace().nth(1).context("resident memory")?.parse()?;
        most = most.max(kilobytes / 1024.0);
    }
    Ok(most)
}
