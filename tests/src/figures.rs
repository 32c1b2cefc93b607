//! Figures that fault tests print, one line each, and how often they do what they do.

use std::str::FromStr;
use std::time::Duration;

/// The variable that says how often a fault test does its fault.
pub const ROUNDS: &str = "FLOTILLA_TEST_ROUNDS";
/// The variable that says what a test draws.
pub const SEED: &str = "FLOTILLA_TEST_SEED";

/// How often a fault test does its fault: `FLOTILLA_TEST_ROUNDS`, by default few.
pub fn rounds(few: usize) -> usize {
    number(ROUNDS).unwrap_or(few)
}

/// Numbers that look random, the same for the same `FLOTILLA_TEST_SEED` (by default 1): splitmix64.
#[derive(Debug, Clone)]
pub struct Draws(u64);

impl Draws {
    /// Numbers by the seed that the environment asks for.
    pub fn seeded() -> Self {
        Self::from_seed(number(SEED).unwrap_or(1))
    }

    /// Numbers by this seed.
    pub fn from_seed(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number below `bound`.
    pub fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^= bits >> 31;
        usize::try_from(bits % bound as u64).unwrap_or_default()
    }
}

fn number<T: FromStr>(variable: &str) -> Option<T> {
    std::env::var(variable).ok()?.parse().ok()
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
