//! Bodies of requests: read whole, each of them bounded, and all of them together.

use crate::errors::{Error, Kind};
use crate::{Limits, Shared};
use axum::extract::Request;
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Bytes of each body that are not counted: about as many as a connection's buffer may hold in any case. So a request of
/// the usual size is taken even while others leave no room.
const FREE: usize = 64 * 1024;

/// The bytes of bodies that this replica holds.
pub(crate) struct Bodies(Arc<Count>);

struct Count {
    most: usize,
    held: AtomicUsize,
}

/// What one body takes of the room for all; given back when dropped. Handlers keep it for as long as they keep the body.
pub(crate) struct Room {
    count: Arc<Count>,
    bytes: usize,
}

impl Bodies {
    pub(crate) fn new(limits: &Limits) -> Self {
        Self(Arc::new(Count { most: limits.bodies, held: AtomicUsize::new(0) }))
    }

    fn room(&self) -> Room {
        Room { count: self.0.clone(), bytes: 0 }
    }

    /// How many bytes are held.
    pub(crate) fn held(&self) -> usize {
        self.0.held.load(Ordering::Relaxed)
    }
}

impl Room {
    /// Takes room for a body that has so many bytes by now. Whoever finds none is refused, and what it held is there for
    /// those that go on: of many that come at once some are always taken.
    fn grow(&mut self, bytes: usize) -> Result<(), Error> {
        let more = bytes.saturating_sub(FREE + self.bytes);
        let most = self.count.most;
        let fits = |held: usize| Some(held + more).filter(|held| more == 0 || *held <= most);
        if self.count.held.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).is_err() {
            return Err(Error::NoRoom);
        }
        self.bytes += more;
        Ok(())
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.count.held.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// Reads a body whole: at most so many bytes, never waiting long for the next, and only while there is room.
pub(crate) async fn read(request: Request, server: &Shared) -> Result<(Bytes, Room), Error> {
    let limits = &server.app.limits;
    let mut room = server.bodies.room();
    let mut body = request.into_body();
    let announced = axum::body::HttpBody::size_hint(&body).lower();
    if announced > limits.body as u64 {
        return Err(Error::BodyTooLarge(limits.body));
    }
    let mut whole = BytesMut::new();
    let mut first: Option<Bytes> = None;
    loop {
        let frame = match tokio::time::timeout(limits.body_idle, body.frame()).await {
            Ok(Some(Ok(frame))) => frame,
            Ok(Some(Err(error))) => {
                return Err(Error::Invalid { kind: Kind::Payload, message: format!("the body broke off: {error}") });
            }
            Ok(None) => break,
            Err(_) => return Err(Error::BodyTooSlow),
        };
        let Ok(data) = frame.into_data() else { continue };
        let bytes = whole.len() + first.as_ref().map_or(0, Bytes::len) + data.len();
        if bytes > limits.body {
            return Err(Error::BodyTooLarge(limits.body));
        }
        room.grow(bytes)?;
        // Most bodies come in one piece, which needs no copy.
        match first.take() {
            None if whole.is_empty() => first = Some(data),
            held => {
                if let Some(held) = held {
                    whole.extend_from_slice(&held);
                }
                whole.extend_from_slice(&data);
            }
        }
    }
    Ok((first.unwrap_or_else(|| whole.freeze()), room))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_finds_no_room_leaves_its_own_to_others() {
        let bodies = Bodies::new(&Limits { bodies: 1000, ..Limits::default() });
        let (mut one, mut two, mut small) = (bodies.room(), bodies.room(), bodies.room());
        one.grow(FREE + 400).unwrap();
        two.grow(FREE + 500).unwrap();
        assert!(matches!(two.grow(FREE + 601), Err(Error::NoRoom)));
        assert_eq!(bodies.held(), 900);
        drop(two);
        one.grow(FREE + 1000).unwrap();
        assert_eq!(bodies.held(), 1000);
        small.grow(FREE).unwrap();
        assert!(small.grow(FREE + 1).is_err());
        drop((one, small));
        assert_eq!(bodies.held(), 0);
    }
}
