//! What the tests of this crate have in common.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};
use wire::clock::{Clock, Entropy};

/// The time of day.
pub struct Wall;
impl Clock for Wall {
    fn now_ms(&self) -> u64 {
        SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64
    }
}

/// Counts and scrambles: good enough for names in one process.
pub struct Scrambled(pub AtomicU64);
impl Entropy for Scrambled {
    fn bits(&self) -> u64 {
        self.0.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed).wrapping_mul(0xbf58_476d_1ce4_e5b9)
    }
}
