//! How long to wait before the next attempt.

use std::sync::Arc;
use std::time::Duration;
use wire::clock::Entropy;

/// A random duration from `low` up to, but not including, `high`.
pub fn between(entropy: &dyn Entropy, low: Duration, high: Duration) -> Duration {
    let span = high.saturating_sub(low).as_nanos().max(1);
    low + Duration::from_nanos((u128::from(entropy.bits()) % span) as u64)
}

/// Delays that double up to a limit, each shortened by up to a half at random so that replicas don't come in step.
pub struct Backoff {
    entropy: Arc<dyn Entropy>,
    next: Duration,
}

impl Backoff {
    const FIRST: Duration = Duration::from_millis(20);
    const LONGEST: Duration = Duration::from_millis(500);

    pub fn new(entropy: Arc<dyn Entropy>) -> Self {
        Self { entropy, next: Self::FIRST }
    }

    /// Waits for the next delay.
    pub async fn wait(&mut self) {
        let delay = between(&*self.entropy, self.next / 2, self.next);
        self.next = (self.next * 2).min(Self::LONGEST);
        tokio::time::sleep(delay).await;
    }

    /// Begins anew after a success.
    pub fn reset(&mut self) {
        self.next = Self::FIRST;
    }
}
