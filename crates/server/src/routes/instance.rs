//! Where and what this server is, and what it has none of.

use crate::Shared;
use crate::errors::Error;
use crate::extract::{Name, Scoped};
use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};

pub(crate) async fn health() -> Json<Value> {
    Json(json!({ "healthy": true, "version": wire::OPENCODE_VERSION }))
}

pub(crate) async fn path(State(server): State<Shared>, Scoped(scope): Scoped) -> Result<Json<Value>, Error> {
    let instance = server.app.engine.instance(&scope).await?;
    let around = &server.app.surroundings;
    Ok(Json(json!({
        "home": around.home,
        "state": around.state_dir,
        "config": around.config_dir,
        "worktree": instance.worktree,
        "directory": scope.directory,
    })))
}

pub(crate) async fn vcs(State(server): State<Shared>, Scoped(scope): Scoped) -> Result<Json<Value>, Error> {
    Ok(Json(server.app.engine.vcs(&scope).await?))
}

/// Reads the configuration of a directory anew on every replica, and stops what runs there.
pub(crate) async fn dispose(
    State(server): State<Shared>,
    Scoped(scope): Scoped,
    name: Name,
) -> Result<Json<bool>, Error> {
    Ok(Json(server.app.engine.dispose(&scope, name.of(None).as_ref()).await?))
}

/// The same for all directories.
pub(crate) async fn dispose_all(State(server): State<Shared>, name: Name) -> Result<Json<bool>, Error> {
    Ok(Json(server.app.engine.dispose_all(&server.app.tenant, name.of(None).as_ref()).await?))
}

/// A list with nothing in it.
pub(crate) async fn none() -> Json<Value> {
    Json(json!([]))
}

/// An object with nothing in it.
pub(crate) async fn nothing() -> Json<Value> {
    Json(json!({}))
}

pub(crate) async fn capabilities() -> Json<Value> {
    Json(json!({ "backgroundSubagents": false }))
}

pub(crate) async fn console() -> Json<Value> {
    Json(json!({ "consoleManagedProviders": [], "switchableOrgCount": 0 }))
}
