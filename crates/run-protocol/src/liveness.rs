//! Whether this replica may go on with what it owns.

/// The own deadline: the moment the last successful tick was *sent*, plus the TTL, less a margin.
///
/// Past it the replica is frozen: others may take its runs over, so it starts no tool and no model request.
#[derive(Clone, Copy, Debug)]
pub struct Liveness {
    allowance_ms: u64,
    sent_ms: Option<u64>,
}

impl Liveness {
    /// `ttl_ms` is what other replicas wait for; `margin_ms` is what stopping takes.
    pub fn new(ttl_ms: u64, margin_ms: u64) -> Self {
        Self { allowance_ms: ttl_ms.saturating_sub(margin_ms), sent_ms: None }
    }

    /// A tick that was sent at `sent_ms` of the own monotonic clock was answered.
    pub fn answered(&mut self, sent_ms: u64) {
        self.sent_ms = Some(self.sent_ms.map_or(sent_ms, |before| before.max(sent_ms)));
    }

    /// True when ownership can no longer be proven.
    pub fn is_frozen(&self, now_ms: u64) -> bool {
        self.age_ms(now_ms).is_none_or(|age| age >= self.allowance_ms)
    }

    /// How long ownership can still be proven, in milliseconds; 0 once it cannot.
    pub fn left_ms(&self, now_ms: u64) -> u64 {
        self.age_ms(now_ms).map_or(0, |age| self.allowance_ms.saturating_sub(age))
    }

    /// How long ago the last answered tick was sent.
    pub fn age_ms(&self, now_ms: u64) -> Option<u64> {
        self.sent_ms.map(|sent| now_ms.saturating_sub(sent))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_deadline_counts_from_the_sending() {
        let mut own = Liveness::new(10_000, 2_000);
        assert!(own.is_frozen(0));
        own.answered(1_000);
        assert!(!own.is_frozen(8_999));
        assert_eq!((own.left_ms(8_999), own.left_ms(9_000)), (1, 0));
        assert!(own.is_frozen(9_000));
        own.answered(500);
        assert!(own.is_frozen(9_000));
    }
}
