//! The proxy: what passes, and what does not.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::time::Duration;

use testkit::CuttingProxy;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const BOUND: Duration = Duration::from_secs(5);
const SILENCE: Duration = Duration::from_millis(150);

/// A server that sends back what it gets; returns its port.
async fn echo() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut read, mut write) = socket.split();
                let _ = tokio::io::copy(&mut read, &mut write).await;
            });
        }
    });
    port
}

async fn connect(proxy: &CuttingProxy) -> TcpStream {
    TcpStream::connect(("127.0.0.1", proxy.port())).await.unwrap()
}

/// Sends a text and reads as many bytes back.
async fn round(socket: &mut TcpStream, text: &str) -> std::io::Result<String> {
    socket.write_all(text.as_bytes()).await?;
    let mut back = vec![0; text.len()];
    tokio::time::timeout(BOUND, socket.read_exact(&mut back)).await.expect("an answer in time")?;
    Ok(String::from_utf8(back).unwrap())
}

/// Reads until the connection ends; returns what came.
async fn rest(socket: &mut TcpStream) -> Vec<u8> {
    let mut all = Vec::new();
    let _cut_or_ended = tokio::time::timeout(BOUND, socket.read_to_end(&mut all)).await.expect("an end in time");
    all
}

#[tokio::test]
async fn a_cut_ends_open_connections_and_spares_later_ones() {
    let proxy = CuttingProxy::start(echo().await);
    let mut socket = connect(&proxy).await;
    assert_eq!(round(&mut socket, "hello").await.unwrap(), "hello");
    proxy.cut();
    assert_eq!(rest(&mut socket).await, b"");
    assert_eq!(round(&mut connect(&proxy).await, "again").await.unwrap(), "again");
}

#[tokio::test]
async fn a_budget_cuts_after_exactly_so_many_bytes() {
    let proxy = CuttingProxy::start(echo().await);
    let mut socket = connect(&proxy).await;
    proxy.cut_after(7);
    socket.write_all(b"0123456789").await.unwrap();
    assert_eq!(rest(&mut socket).await, b"0123456");
    proxy.heal();
    assert_eq!(round(&mut connect(&proxy).await, "whole again").await.unwrap(), "whole again");
}

#[tokio::test]
async fn held_bytes_go_on_afterwards() {
    let proxy = CuttingProxy::start(echo().await);
    let mut socket = connect(&proxy).await;
    round(&mut socket, "warm").await.unwrap();
    proxy.hold();
    socket.write_all(b"later").await.unwrap();
    let mut back = [0; 5];
    assert!(tokio::time::timeout(SILENCE, socket.read_exact(&mut back)).await.is_err(), "bytes are held back");
    proxy.heal();
    tokio::time::timeout(BOUND, socket.read_exact(&mut back)).await.unwrap().unwrap();
    assert_eq!(&back, b"later");
}

#[tokio::test]
async fn a_half_open_connection_is_silent_and_does_not_end() {
    let proxy = CuttingProxy::start(echo().await);
    let mut socket = connect(&proxy).await;
    round(&mut socket, "warm").await.unwrap();
    proxy.half_open();
    socket.write_all(b"into the void").await.unwrap();
    assert!(tokio::time::timeout(SILENCE, socket.read_u8()).await.is_err(), "neither bytes nor an end");
}

#[tokio::test]
async fn refused_connections_end_at_once() {
    let proxy = CuttingProxy::start(echo().await);
    proxy.refuse();
    assert_eq!(rest(&mut connect(&proxy).await).await, b"");
    proxy.heal();
    assert_eq!(round(&mut connect(&proxy).await, "x").await.unwrap(), "x");
}
