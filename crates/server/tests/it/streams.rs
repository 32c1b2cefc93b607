//! Event streams.

use crate::world::{SOON, World};
use axum::body::Body;
use http::Request;
use http_body_util::BodyExt;
use serde_json::json;

/// Reads a stream until it has sent some text.
async fn until(body: &mut Body, wanted: &str) -> String {
    let mut seen = String::new();
    let reading = async {
        while !seen.contains(wanted) {
            let frame = body.frame().await.expect("the stream goes on").expect("the stream is not cut");
            seen.push_str(std::str::from_utf8(&frame.into_data().unwrap()).unwrap());
        }
    };
    let done = tokio::time::timeout(SOON, reading).await;
    assert!(done.is_ok(), "{wanted} did not come: {seen}");
    seen
}

fn stream(path: &str) -> Request<Body> {
    Request::get(path).header("accept-encoding", "gzip").body(Body::empty()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_shows_its_directory_and_the_global_one_all() {
    let world = World::new().await;
    let router = world.router();
    let open = async |path: &str| {
        let response = tower::ServiceExt::oneshot(router.clone(), stream(path)).await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        assert_eq!(response.headers()["cache-control"], "no-cache, no-transform");
        assert!(response.headers().get("content-encoding").is_none());
        response.into_body()
    };
    let (mut own, mut other) = (open("/event").await, open("/event?directory=/elsewhere").await);
    let mut global = open("/global/event").await;
    let id = world.session().await;
    let seen = until(&mut own, "session.created").await;
    assert!(seen.starts_with("retry: 200\n\ndata: {\"id\":\"evt_"), "{seen}");
    assert!(seen.contains("\n\nid: "), "{seen}");
    let seen = until(&mut global, "session.created").await;
    assert!(seen.contains("\"directory\":") && seen.contains(&id), "{seen}");
    let seen = until(&mut other, "server.heartbeat").await;
    assert!(!seen.contains("session.created"), "{seen}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_comes_back_misses_nothing() {
    let world = World::new().await;
    let mut first = world.send(stream("/event")).await.into_body();
    world.session().await;
    let seen = until(&mut first, "session.created").await;
    let cursor = seen.lines().filter_map(|line| line.strip_prefix("id: ")).next_back().unwrap().to_owned();
    drop(first);
    let missed = world.session().await;
    let request = Request::get("/event").header("last-event-id", cursor).body(Body::empty()).unwrap();
    let seen = until(&mut world.send(request).await.into_body(), "session.created").await;
    assert!(seen.contains(&missed), "{seen}");
    assert_eq!(seen.matches("session.created").count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_cuts_streams_and_opens_no_more() {
    let world = World::new().await;
    let mut body = world.send(stream("/event")).await.into_body();
    until(&mut body, "server.connected").await;
    world.app.drain.cancel();
    let cut = async {
        loop {
            match body.frame().await {
                Some(Ok(_)) => {}
                Some(Err(_)) => return true,
                None => return false,
            }
        }
    };
    assert!(tokio::time::timeout(SOON, cut).await.unwrap(), "the stream ended where it should have been cut");
    let refused = world.get("/event").await;
    assert_eq!((refused.status, refused.header("retry-after")), (503, Some("1")));
    assert_eq!(refused.header("connection"), Some("close"));
    let ready = world.get("/readyz").await;
    assert_eq!((ready.status, ready.json()["reasons"][0].clone()), (503, json!("draining")));
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_have_a_limit() {
    let mut world = World::new().await;
    world.app.limits.tenant_streams = 1;
    let router = world.router();
    let open = || tower::ServiceExt::oneshot(router.clone(), stream("/event"));
    let first = open().await.unwrap();
    let second = open().await.unwrap();
    assert_eq!((second.status().as_u16(), second.headers()["retry-after"].as_bytes()), (503, &b"1"[..]));
    drop(first);
    assert_eq!(open().await.unwrap().status(), 200);
}
