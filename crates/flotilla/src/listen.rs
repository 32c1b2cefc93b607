//! The socket that a server listens on.

use crate::settings::Port;
use socket2::SockRef;
use std::io;
use tokio::net::TcpListener;

/// The port of OpenCode servers.
const USUAL_PORT: u16 = 4096;

/// Bytes that the kernel keeps of what is sent on a connection, and inherits from here. Left to itself it keeps megabytes
/// for a reader that reads nothing, of which there may be thousands.
const SEND_BUFFER: usize = 128 * 1024;

/// Listens. [`Port::Any`] is 4096 if it is free, else a free one.
///
/// The error is one line that names the address.
pub async fn listen(hostname: &str, port: Port) -> anyhow::Result<TcpListener> {
    let bound = match port {
        Port::Exactly(port) => TcpListener::bind((hostname, port)).await,
        Port::Any => match TcpListener::bind((hostname, USUAL_PORT)).await {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => TcpListener::bind((hostname, 0)).await,
            bound => bound,
        },
    };
    let bound = bound.and_then(|listener| {
        SockRef::from(&listener).set_send_buffer_size(SEND_BUFFER)?;
        Ok(listener)
    });
    bound.map_err(|error| match (error.kind(), port) {
        (io::ErrorKind::AddrInUse, Port::Exactly(port)) => anyhow::anyhow!("port {port} on {hostname} is taken"),
        (_, Port::Exactly(port)) => anyhow::anyhow!("can't listen on {hostname}:{port}: {error}"),
        (_, Port::Any) => anyhow::anyhow!("can't listen on {hostname}: {error}"),
    })
}
