//! When to try again.

use crate::ModelError;
use std::time::Duration;

/// So many attempts follow the first.
pub const MAX_RETRIES: u32 = 5;

/// The wait before the first retry, where the provider asks for none.
const BASE: Duration = Duration::from_secs(2);
/// The longest wait where the provider gave no headers that could have asked for more.
const CAP_WITHOUT_HEADERS: Duration = Duration::from_secs(30);
/// The longest wait that a provider may ask for.
const CAP: Duration = Duration::from_secs(24 * 60 * 60);

/// How long to wait before retry number `attempt`, which counts from 1.
///
/// What the provider asks for is kept. Else the wait doubles from 2 s on, with up to a quarter of jitter added: `random`
/// is 64 random bits.
pub fn retry_delay(attempt: u32, error: &ModelError, random: u64) -> Duration {
    if let Some(ms) = error.retry_after_ms() {
        return Duration::from_millis(ms).min(CAP);
    }
    let doubled = BASE.saturating_mul(1u32.checked_shl(attempt.saturating_sub(1)).unwrap_or(u32::MAX)).min(CAP);
    let jitter = doubled.mul_f64(0.25 * (random as f64 / u64::MAX as f64));
    let cap = if error.has_response_headers() { CAP } else { CAP_WITHOUT_HEADERS };
    (doubled + jitter).min(cap)
}
