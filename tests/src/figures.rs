//! Figures that fault tests print, one line each, and how often they do what they do.

use std::time::Duration;

/// How often a fault test does its fault: `FLOTILLA_TEST_ROUNDS`, by default few.
pub fn rounds(few: usize) -> usize {
    std::env::var("FLOTILLA_TEST_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(few)
}

/// Prints `figure <what>: ...` with the median, the 99th percentile and the longest.
pub fn print(what: &str, times: &mut [Duration]) {
    times.sort_unstable();
    let at = |share: f64| {
        let place = (share * times.len() as f64).ceil() as usize;
        times.get(place.saturating_sub(1)).copied().unwrap_or_default().as_secs_f64() * 1000.0
    };
    println!("figure {what}: p50 {:.0} ms, p99 {:.0} ms, max {:.0} ms of {}", at(0.5), at(0.99), at(1.0), times.len());
}
