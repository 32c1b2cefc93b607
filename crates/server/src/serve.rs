//! Connections: accepting, bounding and ending them.

use crate::patience::Patience;
use crate::{App, Limits, router};
use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How long nothing is accepted after accepting failed: usually there are no file descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Bytes of a request's head that are read before its parts are measured.
const HEAD_SLACK: usize = 16 * 1024;

/// Serves until `shutdown` is cancelled; then accepts no more, lets requests under way end, and closes what is still
/// open after `limits.shutdown`.
///
/// Errors: none while it serves; what fails on a connection ends that connection.
pub async fn serve(listener: TcpListener, app: App, shutdown: CancellationToken) {
    let limits = app.limits.clone();
    let service = router(app);
    let places = Arc::new(Semaphore::new(limits.connections));
    let connections = TaskTracker::new();
    let abandoned = CancellationToken::new();
    loop {
        let place = tokio::select! {
            biased;
            () = shutdown.cancelled() => break,
            place = places.clone().acquire_owned() => place,
        };
        let accepted = tokio::select! {
            biased;
            () = shutdown.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "a connection cannot be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let connection = connection(stream, service.clone(), limits.clone(), shutdown.clone());
        let abandoned = abandoned.clone();
        connections.spawn(async move {
            let _place = place;
            tokio::select! {
                () = connection => {}
                () = abandoned.cancelled() => {}
            }
        });
    }
    drop(listener);
    connections.close();
    if tokio::time::timeout(limits.shutdown, connections.wait()).await.is_err() {
        tracing::warn!(connections = connections.len(), "connections are closed in the middle of a request");
        abandoned.cancel();
        connections.wait().await;
    }
}

/// One connection, until its end.
async fn connection(stream: TcpStream, service: Router, limits: Limits, shutdown: CancellationToken) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "TCP_NODELAY cannot be set");
    }
    let io = TokioIo::new(Patience::new(stream, limits.body_idle));
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_timeout)
        .max_header_size(limits.headers + limits.uri + HEAD_SLACK)
        // What a connection may hold that its peer does not read; a head must fit in.
        .max_buf_size(limits.headers + limits.uri + 2 * HEAD_SLACK);
    let mut connection = pin!(builder.serve_connection(io, TowerToHyperService::new(service)));
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = shutdown.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection broke off");
    }
}
