//! How a guard is taken without a lock around it: one whose holder is at work is left alone until it has stood still for a
//! while, so that contenders do not depose each other for ever.

/// The patience of one contender for one guard.
#[derive(Debug)]
pub struct Patience {
    still_ms: u64,
    seen: Option<(u64, u64)>,
}

impl Patience {
    /// The longest that a guard must stand still.
    const LONGEST_MS: u64 = 5_000;

    /// A new contender's. `random`: any number.
    pub fn new(random: u64) -> Self {
        Self { still_ms: 50 + random % 51, seen: None }
    }

    /// Looks at the guard at `now_ms` of the own monotonic clock: its number, and whether its holder has nothing under way.
    /// True if it may be taken from this number.
    pub fn may_take(&mut self, number: u64, is_empty: bool, now_ms: u64) -> bool {
        if is_empty {
            return true;
        }
        match self.seen {
            Some((seen, since)) if seen == number => now_ms.saturating_sub(since) >= self.still_ms,
            _ => {
                self.seen = Some((number, now_ms));
                false
            }
        }
    }

    /// Somebody else was faster, or took the guard away: it must stand still for twice as long.
    pub fn was_fenced(&mut self) {
        self.still_ms = (self.still_ms * 2).min(Self::LONGEST_MS);
        self.seen = None;
    }

    /// How long to wait before the next look, in milliseconds.
    pub fn pause_ms(&self) -> u64 {
        self.still_ms / 4
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guard_at_work_is_taken_once_it_has_stood_still() {
        let mut own = Patience::new(0);
        assert!(own.may_take(7, true, 0), "nobody is at work");
        assert!(!own.may_take(7, false, 0));
        assert!(!own.may_take(7, false, 49));
        assert!(!own.may_take(8, false, 60), "another is at work");
        assert!(!own.may_take(8, false, 109));
        assert!(own.may_take(8, false, 110));
    }

    #[test]
    fn each_defeat_doubles_the_patience_up_to_a_limit() {
        let mut own = Patience::new(50);
        own.was_fenced();
        assert!(!own.may_take(1, false, 0));
        assert!(!own.may_take(1, false, 199));
        assert!(own.may_take(1, false, 200));
        (0..20).for_each(|_| own.was_fenced());
        assert!(!own.may_take(1, false, 0));
        assert!(own.may_take(1, false, 5_000));
    }
}
