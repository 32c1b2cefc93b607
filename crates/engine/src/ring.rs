//! The newest events of a tenant, shared by all readers on this replica. What they take together is bounded: a reader that
//! lags behind the oldest of them is cut.

use crate::feed::FeedItem;
use coordination::Cursor;
use std::collections::VecDeque;
use std::sync::Arc;

/// Events that are kept.
const MOST: usize = 8192;
/// Bytes that the kept events take, about.
const MOST_BYTES: usize = 32 << 20;
/// What an event costs beside its bodies.
const OVERHEAD: usize = 512;
/// Events that a reader takes at once.
const TAKEN: usize = 64;

/// Counts all events that this replica has told: where a reader is.
pub(crate) type Place = u64;

/// What a reader finds at its place.
pub(crate) enum Found {
    /// The next events; none: they are yet to come.
    Next(Vec<Arc<FeedItem>>),
    /// It lags too far behind.
    Gone,
}

#[derive(Default)]
pub(crate) struct Ring {
    items: VecDeque<Arc<FeedItem>>,
    bytes: usize,
    /// The place of the oldest one.
    first: Place,
}

impl Ring {
    /// The place of what comes next.
    pub(crate) fn end(&self) -> Place {
        self.first + self.items.len() as u64
    }

    pub(crate) fn push(&mut self, item: Arc<FeedItem>) {
        self.bytes += cost(&item);
        self.items.push_back(item);
        while self.items.len() > MOST || (self.bytes > MOST_BYTES && self.items.len() > 1) {
            self.pop();
        }
    }

    fn pop(&mut self) {
        if let Some(item) = self.items.pop_front() {
            self.bytes -= cost(&item);
            self.first += 1;
        }
    }

    /// Forgets all events: every reader is cut, those that wait for the next one, too.
    pub(crate) fn cut(&mut self) {
        *self = Self { first: self.end() + 1, ..Self::default() };
    }

    /// What comes at a place.
    pub(crate) fn at(&self, place: Place) -> Found {
        match place.checked_sub(self.first).and_then(|skipped| usize::try_from(skipped).ok()) {
            Some(skipped) => Found::Next(self.items.iter().skip(skipped).take(TAKEN).cloned().collect()),
            None => Found::Gone,
        }
    }

    /// True while a reader at this place is not cut.
    pub(crate) fn holds(&self, place: Place) -> bool {
        place >= self.first
    }

    /// The place after the event of a cursor, if it is here.
    pub(crate) fn after(&self, cursor: &Cursor) -> Option<Place> {
        let back = self.items.iter().rev().position(|item| item.cursor.as_ref() == Some(&cursor.0))?;
        Some(self.end() - back as u64)
    }
}

/// A body, and the frames that streams make of it.
fn cost(item: &FeedItem) -> usize {
    3 * item.envelope.len() + OVERHEAD
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn item(name: &str, size: usize) -> Arc<FeedItem> {
        Arc::new(FeedItem::whole(Some(name.into()), None, None, Bytes::new(), vec![b'x'; size].into()))
    }

    fn names(found: Found) -> Option<Vec<String>> {
        match found {
            Found::Next(items) => Some(items.iter().filter_map(|item| item.cursor.clone()).collect()),
            Found::Gone => None,
        }
    }

    #[test]
    fn a_reader_reads_on_from_its_place() {
        let mut ring = Ring::default();
        let place = ring.end();
        assert_eq!(names(ring.at(place)), Some(vec![]));
        ring.push(item("a", 1));
        ring.push(item("b", 1));
        assert_eq!(names(ring.at(place)), Some(vec!["a".into(), "b".into()]));
        assert_eq!(ring.after(&Cursor("a".into())), Some(place + 1));
        assert_eq!(ring.after(&Cursor("x".into())), None);
    }

    #[test]
    fn who_lags_too_far_is_cut() {
        let mut ring = Ring::default();
        let place = ring.end();
        for _ in 0..=MOST {
            ring.push(item("a", 1));
        }
        assert!(!ring.holds(place) && names(ring.at(place)).is_none());
        assert!(ring.holds(place + 1));
    }

    #[test]
    fn large_events_leave_room_for_fewer() {
        let mut ring = Ring::default();
        for _ in 0..MOST {
            ring.push(item("a", 64 << 10));
        }
        assert!(ring.bytes <= MOST_BYTES, "{}", ring.bytes);
        assert!(ring.items.len() > 100);
    }

    #[test]
    fn a_cut_is_for_everybody() {
        let mut ring = Ring::default();
        ring.push(item("a", 1));
        let place = ring.end();
        ring.cut();
        assert!(!ring.holds(place));
        assert_eq!(ring.bytes, 0);
        assert!(ring.holds(ring.end()));
    }
}
