//! All randomness of a simulation: streams of bits that one seed decides.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use wire::clock::Entropy;

/// A stream of random bits.
pub(crate) struct Dice(Mutex<u64>);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(Mutex::new(seed))
    }

    /// Another stream, which this one decides.
    pub(crate) fn fork(&self) -> Self {
        Self::new(self.bits())
    }

    /// A number below `limit`; 0 for a limit of 0.
    pub(crate) fn below(&self, limit: u64) -> u64 {
        self.bits() % limit.max(1)
    }

    /// True so many times in a thousand.
    pub(crate) fn chance(&self, per_mille: u64) -> bool {
        self.below(1_000) < per_mille
    }

    /// So many milliseconds, at least the first, less than the second.
    pub(crate) fn ms(&self, from: u64, to: u64) -> Duration {
        Duration::from_millis(from + self.below(to.saturating_sub(from)))
    }

    /// One of them.
    pub(crate) fn pick<'a, T>(&self, of: &'a [T]) -> Option<&'a T> {
        of.get(self.below(of.len() as u64) as usize)
    }
}

impl Entropy for Dice {
    /// SplitMix64. Source: Steele, Lea, Flood: "Fast splittable pseudorandom number generators" (2014).
    fn bits(&self) -> u64 {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = *state;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }
}
