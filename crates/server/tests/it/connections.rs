//! Real connections.

use crate::world::{SOON, World};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

struct Served {
    address: SocketAddr,
    shutdown: CancellationToken,
    serving: JoinHandle<()>,
}

async fn serve(world: &World) -> Served {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let shutdown = CancellationToken::new();
    let serving = tokio::spawn(server::serve(listener, world.app.clone(), shutdown.clone()));
    Served { address, shutdown, serving }
}

async fn connect(served: &Served, request: &str) -> TcpStream {
    let mut stream = TcpStream::connect(served.address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    stream
}

/// Everything until the peer closes.
async fn rest(stream: &mut TcpStream) -> String {
    let mut seen = Vec::new();
    let reading = stream.read_to_end(&mut seen);
    // A connection that is reset has ended, too.
    let _ = tokio::time::timeout(SOON, reading).await.expect("the peer closes");
    String::from_utf8_lossy(&seen).into_owned()
}

async fn until(stream: &mut TcpStream, wanted: &str) -> String {
    let mut seen = String::new();
    let mut buffer = [0; 4096];
    while !seen.contains(wanted) {
        let count = tokio::time::timeout(SOON, stream.read(&mut buffer)).await.expect("more comes").unwrap();
        assert_ne!(count, 0, "closed before {wanted}: {seen}");
        seen.push_str(&String::from_utf8_lossy(&buffer[..count]));
    }
    seen
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_is_cut_without_its_final_chunk() {
    let world = World::new().await;
    let served = serve(&world).await;
    let mut stream = connect(&served, "GET /event HTTP/1.1\r\nhost: x\r\n\r\n").await;
    let head = until(&mut stream, "server.connected").await;
    assert!(head.contains("transfer-encoding: chunked"), "{head}");
    world.app.drain.cancel();
    let tail = rest(&mut stream).await;
    assert!(!tail.ends_with("0\r\n\r\n"), "{tail:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shutdown_ends_idle_connections_and_itself() {
    let world = World::new().await;
    let served = serve(&world).await;
    let mut idle = connect(&served, "GET /livez HTTP/1.1\r\nhost: x\r\n\r\n").await;
    until(&mut idle, "ok").await;
    served.shutdown.cancel();
    rest(&mut idle).await;
    tokio::time::timeout(SOON, served.serving).await.unwrap().unwrap();
    assert!(TcpStream::connect(served.address).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shutdown_does_not_wait_for_ever() {
    let mut world = World::new().await;
    world.app.limits.shutdown = Duration::from_millis(100);
    let served = serve(&world).await;
    let mut stream = connect(&served, "GET /event HTTP/1.1\r\nhost: x\r\n\r\n").await;
    until(&mut stream, "server.connected").await;
    served.shutdown.cancel();
    tokio::time::timeout(SOON, served.serving).await.unwrap().unwrap();
    assert!(!rest(&mut stream).await.ends_with("0\r\n\r\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_slow_with_headers_is_disconnected() {
    let mut world = World::new().await;
    world.app.limits.header_timeout = Duration::from_millis(100);
    let served = serve(&world).await;
    let mut stream = connect(&served, "GET /livez HTTP/1.1\r\nhost:").await;
    assert!(!rest(&mut stream).await.contains("200 OK"));
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_are_counted() {
    let mut world = World::new().await;
    world.app.limits.connections = 1;
    let served = serve(&world).await;
    let request = "GET /livez HTTP/1.1\r\nhost: x\r\n\r\n";
    let mut first = connect(&served, request).await;
    until(&mut first, "ok").await;
    let mut second = connect(&served, request).await;
    let mut byte = [0];
    let early = tokio::time::timeout(Duration::from_millis(100), second.read(&mut byte)).await;
    assert!(early.is_err(), "served beyond the limit");
    drop(first);
    until(&mut second, "ok").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn giant_heads_are_refused() {
    let world = World::new().await;
    let served = serve(&world).await;
    let head = format!("GET /livez HTTP/1.1\r\nhost: x\r\nx-wide: {}\r\n\r\n", "a".repeat(200 * 1024));
    let mut stream = TcpStream::connect(served.address).await.unwrap();
    // The peer may refuse before all is sent.
    let _ = stream.write_all(head.as_bytes()).await;
    assert!(until(&mut stream, "\r\n").await.starts_with("HTTP/1.1 431"));
}
