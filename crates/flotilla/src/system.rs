//! The machine's clock and randomness, handed to everything that depends on them.

use rand::RngCore;
use std::time::{SystemTime, UNIX_EPOCH};
use wire::clock::{Clock, Entropy};

/// The system's wall clock and a random generator seeded by it.
pub struct System;

impl Clock for System {
    fn now_ms(&self) -> u64 {
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
    }
}

impl Entropy for System {
    fn bits(&self) -> u64 {
        rand::rng().next_u64()
    }
}
