//! Who may be buried: a replica whose beat this one saw unchanged for long enough, by its own clock.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;

/// Watches the beats of other replicas. No machine's clock is compared with another's.
#[derive(Debug)]
pub struct BeatWatch<R> {
    ttl_ms: u64,
    seen: BTreeMap<R, Beat>,
    seen_at_ms: u64,
}

#[derive(Debug)]
struct Beat {
    value: u64,
    since_ms: u64,
}

impl<R: Ord + Hash + Clone> BeatWatch<R> {
    /// A watch that lets a silence of `ttl_ms` pass.
    pub fn new(ttl_ms: u64) -> Self {
        Self { ttl_ms, seen: BTreeMap::new(), seen_at_ms: 0 }
    }

    /// Takes in all beats as just read, at `now_ms` of the own monotonic clock.
    ///
    /// Returns the replicas that were silent for the whole TTL with the beat they stopped at. Who did not look for
    /// three quarters of it may have been stopped together with those that it watches: it begins anew.
    pub fn see(&mut self, now_ms: u64, beats: &HashMap<R, u64>) -> Vec<(R, u64)> {
        if now_ms.saturating_sub(self.seen_at_ms) >= self.ttl_ms - self.ttl_ms / 4 {
            self.reset();
        }
        self.seen_at_ms = now_ms;
        self.seen.retain(|replica, _| beats.contains_key(replica));
        for (replica, &value) in beats {
            let beat = self.seen.entry(replica.clone()).or_insert(Beat { value, since_ms: now_ms });
            if beat.value != value {
                *beat = Beat { value, since_ms: now_ms };
            }
        }
        self.suspects(now_ms, self.ttl_ms)
    }

    /// The replicas that were silent for `short_ms` at least: candidates for an earlier burial if they are also
    /// unreachable on their control channel.
    pub fn suspects(&self, now_ms: u64, short_ms: u64) -> Vec<(R, u64)> {
        let late = |beat: &Beat| now_ms.saturating_sub(beat.since_ms) >= short_ms;
        self.seen.iter().filter(|(_, beat)| late(beat)).map(|(replica, beat)| (replica.clone(), beat.value)).collect()
    }

    /// Forgets everything: after a gap in the own watching, a silence proves nothing.
    pub fn reset(&mut self) {
        self.seen.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_unbroken_silence_buries() {
        let mut watch = BeatWatch::new(100);
        let beats = |value| HashMap::from([("a", value)]);
        for now in [0, 40, 80, 99] {
            assert!(watch.see(now, &beats(1)).is_empty());
        }
        for now in [100, 140, 180, 199] {
            assert!(watch.see(now, &beats(2)).is_empty());
        }
        assert_eq!(watch.suspects(150, 50), vec![("a", 2)]);
        assert_eq!(watch.see(200, &beats(2)), vec![("a", 2)]);
        watch.reset();
        assert!(watch.see(220, &beats(2)).is_empty());
    }

    #[test]
    fn who_did_not_look_for_a_while_begins_anew() {
        let mut watch = BeatWatch::new(100);
        let beats = HashMap::from([("a", 1)]);
        assert!(watch.see(0, &beats).is_empty());
        assert!(watch.see(1_000, &beats).is_empty(), "it may have been stopped as long");
        assert!(watch.suspects(1_000, 50).is_empty());
        assert!(watch.see(1_049, &beats).is_empty());
        assert!(watch.see(1_098, &beats).is_empty());
        assert_eq!(watch.see(1_100, &beats), vec![("a", 1)]);
    }
}
