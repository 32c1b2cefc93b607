//! HTTP by hand, for requests that no client would send.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// Sends these bytes to a loopback port and returns what is answered until the connection ends or is silent for a
/// second.
///
/// # Panics
/// When the port refuses the connection.
pub fn exchange(port: u16, request: &[u8]) -> String {
    let mut socket = TcpStream::connect(("127.0.0.1", port)).expect("the port accepts connections");
    socket.set_read_timeout(Some(Duration::from_secs(1))).expect("a socket has time-outs");
    // The server may answer and close before it has read everything.
    let _closed_early = socket.write_all(request);
    let mut answer = Vec::new();
    let mut piece = [0; 4096];
    while let Ok(count) = socket.read(&mut piece) {
        if count == 0 {
            break;
        }
        answer.extend_from_slice(&piece[..count]);
    }
    String::from_utf8_lossy(&answer).into_owned()
}

/// The status of an answer that [`exchange`] returned; 0 if there is none.
pub fn status(answer: &str) -> u16 {
    answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0)
}
