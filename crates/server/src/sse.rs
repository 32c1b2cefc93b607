//! Event streams.
//!
//! A stream never ends of itself: the official client takes a clean end for the end of all events and doesn't come
//! back. It is cut instead, without the final chunk, and the client comes back, to whatever replica, with the id of the
//! last event that it has.

use crate::limits::Place;
use axum::body::Body;
use axum::response::{IntoResponse, Response};
use bytes::{BufMut, Bytes, BytesMut};
use engine::{FeedItem, Follower, From};
use futures_util::stream;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use serde_json::{Value, json};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};
use tokio_util::sync::CancellationToken;
use wire::event::Event;

/// Clients wait so long before they come back, in milliseconds, doubled each time.
const RETRY: &[u8] = b"retry: 200\n\n";
/// Bytes of a cursor; a longer one was not made here.
const LONGEST_CURSOR: usize = 256;

/// Why the connection is broken off.
#[derive(Debug, thiserror::Error)]
#[error("the event stream is cut: the client comes back elsewhere")]
pub(crate) struct Cut;

/// What a stream shows of an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum View {
    /// The events of one directory, bare.
    Directory(String),
    /// All events, with where they happened.
    Global,
}

impl View {
    fn shows(&self, item: &FeedItem) -> bool {
        match (self, &item.directory) {
            (Self::Directory(own), Some(directory)) => own == directory,
            _ => true,
        }
    }

    /// What is sent for an event: the same bytes to every reader.
    fn frame(&self, item: &FeedItem) -> Bytes {
        let [of_directory, global] = &item.frames;
        let (made, body) = match self {
            Self::Directory(_) => (of_directory, &item.payload),
            Self::Global => (global, &item.envelope),
        };
        made.get_or_init(|| frame(item.cursor.as_deref(), body)).clone()
    }

    /// What only this reader gets: it bears no id, so that it never becomes the last one that a client has.
    fn own(&self, event: &Event) -> Value {
        match self {
            Self::Directory(_) => json!(event),
            Self::Global => json!({ "payload": event }),
        }
    }

    /// Where a reader begins, by the id of the last event that it has.
    pub(crate) fn begin(&self, headers: &HeaderMap) -> From {
        let last = headers.get("last-event-id").and_then(|id| id.to_str().ok());
        match (last.filter(|id| (1..=LONGEST_CURSOR).contains(&id.len())), self) {
            (Some(id), _) => From::Cursor(id.to_owned()),
            (None, Self::Directory(_)) => From::Now,
            (None, Self::Global) => From::Heal,
        }
    }
}

/// Where events come from.
pub(crate) trait Source: Send + 'static {
    /// The next one; none when the stream must be cut. Cancellation-safe.
    fn next(&mut self) -> impl Future<Output = Option<Arc<FeedItem>>> + Send;
    /// The next one if it is there already.
    fn try_next(&mut self) -> Option<Arc<FeedItem>>;
}

impl Source for Follower {
    fn next(&mut self) -> impl Future<Output = Option<Arc<FeedItem>>> + Send {
        Follower::next(self)
    }

    fn try_next(&mut self) -> Option<Arc<FeedItem>> {
        Follower::try_next(self)
    }
}

/// What a stream is made from.
pub(crate) struct Opening<S, H> {
    /// The events.
    pub source: S,
    /// What of them is shown.
    pub view: View,
    /// The first event.
    pub connected: Event,
    /// Makes the event that shows that the connection lives.
    pub heartbeat: H,
    /// The time between two of those.
    pub every: Duration,
    /// Cancelled when the replica drains.
    pub drain: CancellationToken,
    /// The stream's place among all.
    pub place: Place,
}

struct Stream<S, H> {
    source: S,
    view: View,
    opening: Option<Bytes>,
    /// A large event that is being sent, and how far.
    large: Option<(Arc<FeedItem>, u64)>,
    heartbeat: H,
    beat: Interval,
    drain: CancellationToken,
    _place: Place,
}

/// Answers with a stream of events.
pub(crate) fn answer<S: Source, H: Fn() -> Event + Send + 'static>(opening: Opening<S, H>) -> Response {
    let Opening { source, view, connected, heartbeat, every, drain, place } = opening;
    let first = [RETRY, &frame(None, view.own(&connected).to_string().as_bytes())].concat();
    let mut beat = interval_at(Instant::now() + every, every);
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let stream =
        Stream { source, view, opening: Some(first.into()), large: None, heartbeat, beat, drain, _place: place };
    let chunks = stream::unfold(Some(stream), |stream| async {
        let mut stream = stream?;
        match stream.chunk().await {
            Some(chunk) => Some((Ok(chunk), Some(stream))),
            None => Some((Err(Cut), None)),
        }
    });
    let headers: [(HeaderName, HeaderValue); 4] = [
        (header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream")),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache, no-transform")),
        (HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no")),
        (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    ];
    (headers, Body::from_stream(chunks)).into_response()
}

impl<S: Source, H: Fn() -> Event> Stream<S, H> {
    /// The next bytes to send. None when the stream must be cut.
    async fn chunk(&mut self) -> Option<Bytes> {
        if let Some(opening) = self.opening.take() {
            return Some(opening);
        }
        loop {
            if let Some((item, sent)) = self.large.take() {
                match self.piece(item, sent).await? {
                    Some(piece) => return Some(piece),
                    None => continue,
                }
            }
            let item = tokio::select! {
                biased;
                // What is there already goes out still.
                () = self.drain.cancelled() => self.source.try_next()?,
                item = self.source.next() => item?,
                _ = self.beat.tick() => {
                    return Some(frame(None, self.view.own(&(self.heartbeat)()).to_string().as_bytes()));
                }
            };
            match item.aside {
                _ if !self.view.shows(&item) => {}
                Some(_) => self.large = Some((item, 0)),
                None => return Some(self.view.frame(&item)),
            }
        }
    }

    /// The next piece of a large event; nothing if it is no longer kept. None when the stream must be cut.
    async fn piece(&mut self, item: Arc<FeedItem>, sent: u64) -> Option<Option<Bytes>> {
        let Some(aside) = &item.aside else { return Some(None) };
        let (body, is_last) = match aside.piece(sent).await {
            Ok(Some(piece)) => piece,
            Ok(None) if sent == 0 => return Some(None),
            Ok(None) => return None,
            Err(error) => {
                tracing::warn!(%error, "an event stream is cut");
                return None;
            }
        };
        let mut piece = BytesMut::with_capacity(body.len() + 1024);
        if sent == 0 {
            begin(&mut piece, item.cursor.as_deref());
            piece.put_slice(if self.view == View::Global { &aside.head } else { b"" });
        }
        piece.put_slice(&body);
        if is_last {
            piece.put_slice(if self.view == View::Global { b"}\n\n" } else { b"\n\n" });
        } else {
            self.large = Some((item.clone(), sent + body.len() as u64));
        }
        Some(Some(piece.freeze()))
    }
}

/// One event. Compact JSON has no line break in it.
fn frame(id: Option<&str>, data: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(data.len() + 64);
    begin(&mut out, id);
    out.put_slice(data);
    out.put_slice(b"\n\n");
    out.freeze()
}

fn begin(out: &mut BytesMut, id: Option<&str>) {
    if let Some(id) = id {
        out.put_slice(b"id: ");
        out.put_slice(id.as_bytes());
        out.put_u8(b'\n');
    }
    out.put_slice(b"data: ");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::{Limits, Streams};
    use http_body_util::BodyExt;
    use tokio::sync::mpsc;
    use wire::event;
    use wire::tenant::Tenant;

    struct Channel(mpsc::UnboundedReceiver<Arc<FeedItem>>);
    impl Source for Channel {
        async fn next(&mut self) -> Option<Arc<FeedItem>> {
            self.0.recv().await
        }
        fn try_next(&mut self) -> Option<Arc<FeedItem>> {
            self.0.try_recv().ok()
        }
    }

    fn item(cursor: &str, directory: Option<&str>) -> Arc<FeedItem> {
        let payload = format!("{{\"n\":\"{cursor}\"}}");
        let envelope = format!("{{\"payload\":{payload}}}");
        let directory = directory.map(str::to_owned);
        Arc::new(FeedItem::whole(Some(cursor.into()), directory, None, payload.into(), envelope.into()))
    }

    struct Opened {
        body: Body,
        events: mpsc::UnboundedSender<Arc<FeedItem>>,
        drain: CancellationToken,
        streams: Streams,
    }

    fn open(view: View) -> Opened {
        let streams = Streams::new(&Limits::default());
        let (events, source) = mpsc::unbounded_channel();
        let drain = CancellationToken::new();
        let response = answer(Opening {
            source: Channel(source),
            view,
            connected: event::connected().with_id("evt_c".into()),
            heartbeat: || event::heartbeat().with_id("evt_h".into()),
            every: Duration::from_secs(10),
            drain: drain.clone(),
            place: streams.enter(&Tenant::default()).ok().unwrap(),
        });
        assert_eq!(response.headers()[header::CONTENT_TYPE], "text/event-stream");
        assert_eq!(response.headers()["x-accel-buffering"], "no");
        Opened { body: response.into_body(), events, drain, streams }
    }

    async fn next(body: &mut Body) -> Option<Result<String, axum::Error>> {
        let frame = body.frame().await?;
        Some(frame.map(|frame| String::from_utf8(frame.into_data().unwrap().to_vec()).unwrap()))
    }

    async fn text(body: &mut Body) -> String {
        next(body).await.unwrap().unwrap()
    }

    #[tokio::test]
    async fn a_directory_sees_its_own_events_with_ids() {
        let mut opened = open(View::Directory("/a".into()));
        assert_eq!(
            text(&mut opened.body).await,
            "retry: 200\n\ndata: {\"id\":\"evt_c\",\"type\":\"server.connected\",\"properties\":{}}\n\n"
        );
        for (cursor, directory) in [("1", Some("/a")), ("2", Some("/b")), ("3", None)] {
            opened.events.send(item(cursor, directory)).unwrap();
        }
        assert_eq!(text(&mut opened.body).await, "id: 1\ndata: {\"n\":\"1\"}\n\n");
        assert_eq!(text(&mut opened.body).await, "id: 3\ndata: {\"n\":\"3\"}\n\n");
    }

    #[tokio::test]
    async fn the_global_stream_sees_all_in_envelopes() {
        let mut opened = open(View::Global);
        assert!(
            text(&mut opened.body).await.ends_with(
                "data: {\"payload\":{\"id\":\"evt_c\",\"type\":\"server.connected\",\"properties\":{}}}\n\n"
            )
        );
        opened.events.send(item("1", Some("/b"))).unwrap();
        assert_eq!(text(&mut opened.body).await, "id: 1\ndata: {\"payload\":{\"n\":\"1\"}}\n\n");
    }

    #[tokio::test(start_paused = true)]
    async fn silence_is_broken_by_heartbeats_without_id() {
        let mut opened = open(View::Global);
        text(&mut opened.body).await;
        let begun = Instant::now();
        let heartbeat = "data: {\"payload\":{\"id\":\"evt_h\",\"type\":\"server.heartbeat\",\"properties\":{}}}\n\n";
        assert_eq!(text(&mut opened.body).await, heartbeat);
        assert_eq!(begun.elapsed().as_secs(), 10);
        assert_eq!(text(&mut opened.body).await, heartbeat);
        assert_eq!(begun.elapsed().as_secs(), 20);
    }

    #[tokio::test]
    async fn the_end_is_a_cut() {
        let mut opened = open(View::Global);
        text(&mut opened.body).await;
        drop(opened.events);
        assert!(next(&mut opened.body).await.unwrap().is_err());
        assert!(next(&mut opened.body).await.is_none());
        assert_eq!(opened.streams.open(), 0);
    }

    #[tokio::test]
    async fn a_drain_cuts() {
        let mut opened = open(View::Global);
        text(&mut opened.body).await;
        opened.drain.cancel();
        assert!(next(&mut opened.body).await.unwrap().is_err());
    }

    #[tokio::test]
    async fn what_is_there_goes_out_before_a_drain_cuts() {
        let mut opened = open(View::Global);
        text(&mut opened.body).await;
        opened.events.send(item("1", None)).unwrap();
        opened.drain.cancel();
        assert_eq!(text(&mut opened.body).await, "id: 1\ndata: {\"payload\":{\"n\":\"1\"}}\n\n");
        assert!(next(&mut opened.body).await.unwrap().is_err());
    }

    #[tokio::test]
    async fn a_stream_gives_its_place_back() {
        let opened = open(View::Global);
        assert_eq!(opened.streams.open(), 1);
        drop(opened.body);
        assert_eq!(opened.streams.open(), 0);
    }

    #[test]
    fn a_reader_begins_where_it_was() {
        let mut headers = HeaderMap::new();
        let directory = View::Directory("/a".into());
        assert_eq!(directory.begin(&headers), From::Now);
        assert_eq!(View::Global.begin(&headers), From::Heal);
        headers.insert("last-event-id", HeaderValue::from_static("1-abc"));
        assert_eq!(directory.begin(&headers), From::Cursor("1-abc".into()));
        assert_eq!(View::Global.begin(&headers), From::Cursor("1-abc".into()));
        headers.insert("last-event-id", HeaderValue::from_str(&"x".repeat(257)).unwrap());
        assert_eq!(directory.begin(&headers), From::Now);
    }
}
