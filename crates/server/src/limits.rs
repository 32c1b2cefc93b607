//! How much is taken of anything.

use crate::Shared;
use crate::errors::Error;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::{Extensions, HeaderMap, StatusCode, Version, header};
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use wire::tenant::Tenant;

/// How much is taken of anything. The defaults are the documented ones.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Bytes of a body.
    pub body: usize,
    /// Bytes of all bodies that are held at the same time, but for the first of each.
    pub bodies: usize,
    /// How long the next bytes of a body may take, and how long a client may take none of an answer.
    pub body_idle: Duration,
    /// Levels of a JSON body.
    pub json_depth: usize,
    /// Bytes of path and query.
    pub uri: usize,
    /// Bytes of all headers.
    pub headers: usize,
    /// How long the headers may take; a kept-alive connection that is idle for so long is closed, too.
    pub header_timeout: Duration,
    /// Bytes of a directory's name.
    pub directory: usize,
    /// Characters of a title.
    pub title: usize,
    /// Parts of a prompt.
    pub parts: usize,
    /// Event streams of this replica.
    pub streams: usize,
    /// Event streams of one tenant on this replica.
    pub tenant_streams: usize,
    /// Connections of this replica; more wait in the kernel's queue.
    pub connections: usize,
    /// How long requests under way may go on after the shutdown began.
    pub shutdown: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body: 64 * 1024 * 1024,
            bodies: 256 * 1024 * 1024,
            body_idle: Duration::from_secs(60),
            json_depth: 100,
            uri: 16 * 1024,
            headers: 64 * 1024,
            header_timeout: Duration::from_secs(10),
            directory: 4096,
            title: 1000,
            parts: 1000,
            streams: 10_000,
            tenant_streams: 1000,
            connections: 16_384,
            shutdown: Duration::from_secs(20),
        }
    }
}

/// Refuses addresses and headers that are too long.
pub(crate) async fn check(State(server): State<Shared>, request: Request, next: Next) -> Response {
    let limits = &server.app.limits;
    let uri = request.uri();
    if uri.path().len() + uri.query().map_or(0, |query| query.len() + 1) > limits.uri {
        return Error::UriTooLong(limits.uri).into_response();
    }
    let headers: usize = request.headers().iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    if headers > limits.headers {
        return Error::HeadersTooLarge(limits.headers).into_response();
    }
    next.run(request).await
}

/// Marks an answer that is sent as it is.
#[derive(Clone, Copy)]
pub(crate) struct Uncompressed;

/// False for event streams, whose events must not wait in a compressor, and for what is marked.
pub(crate) fn may_compress(_: StatusCode, _: Version, headers: &HeaderMap, extensions: &Extensions) -> bool {
    let stream =
        headers.get(header::CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream"));
    !stream && extensions.get::<Uncompressed>().is_none()
}

/// Counts open event streams.
pub(crate) struct Streams(Arc<Places>);

struct Places {
    most: usize,
    most_of_one: usize,
    taken: Mutex<Taken>,
}

#[derive(Default)]
struct Taken {
    all: usize,
    by_tenant: HashMap<Tenant, usize>,
}

/// The place of one open stream; given back when dropped.
pub(crate) struct Place {
    places: Arc<Places>,
    tenant: Tenant,
}

impl Places {
    fn taken(&self) -> std::sync::MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Streams {
    pub(crate) fn new(limits: &Limits) -> Self {
        let Limits { streams: most, tenant_streams: most_of_one, .. } = *limits;
        Self(Arc::new(Places { most, most_of_one, taken: Mutex::default() }))
    }

    /// Takes a place for one more stream of the tenant.
    pub(crate) fn enter(&self, tenant: &Tenant) -> Result<Place, Error> {
        let mut taken = self.0.taken();
        let own = taken.by_tenant.get(tenant).copied().unwrap_or_default();
        if taken.all >= self.0.most || own >= self.0.most_of_one {
            return Err(Error::TooManyStreams);
        }
        taken.all += 1;
        taken.by_tenant.insert(tenant.clone(), own + 1);
        Ok(Place { places: self.0.clone(), tenant: tenant.clone() })
    }

    /// How many are open.
    pub(crate) fn open(&self) -> usize {
        self.0.taken().all
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.taken();
        taken.all -= 1;
        if let Some(own) = taken.by_tenant.get_mut(&self.tenant) {
            *own -= 1;
            if *own == 0 {
                taken.by_tenant.remove(&self.tenant);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_are_counted_for_all_and_for_each() {
        let streams = Streams::new(&Limits { streams: 3, tenant_streams: 2, ..Limits::default() });
        let (a, b) = (Tenant::parse("a").unwrap(), Tenant::parse("b").unwrap());
        let first = streams.enter(&a).ok();
        let _second = streams.enter(&a).ok();
        assert!(streams.enter(&a).is_err());
        let _third = streams.enter(&b).ok();
        assert!(streams.enter(&b).is_err());
        assert_eq!(streams.open(), 3);
        drop(first);
        assert!(streams.enter(&b).is_ok());
        assert_eq!(streams.open(), 2);
    }

    #[test]
    fn event_streams_are_not_compressed() {
        let mut headers = HeaderMap::new();
        let may =
            |headers: &HeaderMap, marks: &Extensions| may_compress(StatusCode::OK, Version::HTTP_11, headers, marks);
        let mut marks = Extensions::new();
        assert!(may(&headers, &marks));
        headers.insert(header::CONTENT_TYPE, "text/event-stream".parse().unwrap());
        assert!(!may(&headers, &marks));
        headers.insert(header::CONTENT_TYPE, "application/json".parse().unwrap());
        marks.insert(Uncompressed);
        assert!(!may(&headers, &marks));
    }
}
