//! Event streams.

use crate::Shared;
use crate::errors::Error;
use crate::extract::Scoped;
use crate::sse::{self, Opening, View};
use axum::extract::State;
use axum::response::Response;
use engine::EngineError;
use http::HeaderMap;
use std::time::Duration;
use wire::event;

/// How long the feed may take to begin.
const BEGIN: Duration = Duration::from_secs(5);

/// The events of one directory.
pub(crate) async fn of_directory(
    State(server): State<Shared>,
    Scoped(scope): Scoped,
    headers: HeaderMap,
) -> Result<Response, Error> {
    // A directory whose configuration is broken says so here, too.
    server.app.engine.instance(&scope).await?;
    open(&server, View::Directory(scope.directory.to_string_lossy().into_owned()), &headers).await
}

/// The events of all directories.
pub(crate) async fn of_all(State(server): State<Shared>, headers: HeaderMap) -> Result<Response, Error> {
    open(&server, View::Global, &headers).await
}

async fn open(server: &Shared, view: View, headers: &HeaderMap) -> Result<Response, Error> {
    let app = &server.app;
    if server.is_draining() {
        return Err(EngineError::Unavailable("this replica stops".into()).into());
    }
    let place = server.streams.enter(&app.tenant)?;
    let source = tokio::time::timeout(BEGIN, app.engine.follow(&app.tenant, view.begin(headers))).await;
    let source = source.map_err(|_| EngineError::Unavailable("the event log does not answer".into()))??;
    let engine = app.engine.clone();
    Ok(sse::answer(Opening {
        source,
        view,
        connected: app.engine.new_event(event::connected()),
        heartbeat: move || engine.new_event(event::heartbeat()),
        every: app.heartbeat,
        drain: app.drain.clone(),
        place,
    }))
}
