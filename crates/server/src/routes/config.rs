//! What a directory's configuration says.

use crate::Shared;
use crate::errors::Error;
use crate::extract::Scoped;
use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};

pub(crate) async fn get(State(server): State<Shared>, Scoped(scope): Scoped) -> Result<Json<Value>, Error> {
    Ok(Json(server.app.engine.instance(&scope).await?.config.clone()))
}

/// The user's own configuration.
pub(crate) async fn global(State(server): State<Shared>) -> Result<Json<Value>, Error> {
    let read = tokio::task::spawn_blocking(move || agents::global_config(&server.app.surroundings)).await;
    let read = read.map_err(|error| Error::Internal(format!("the configuration was not read: {error}")))?;
    Ok(Json(read.map_err(|error| Error::Config(error.body()))?))
}

pub(crate) async fn providers(State(server): State<Shared>, Scoped(scope): Scoped) -> Result<Json<Value>, Error> {
    Ok(Json(server.app.engine.instance(&scope).await?.providers.config_body()))
}

pub(crate) async fn all_providers(State(server): State<Shared>, Scoped(scope): Scoped) -> Result<Json<Value>, Error> {
    Ok(Json(server.app.engine.instance(&scope).await?.providers.body()))
}

pub(crate) async fn agents(State(server): State<Shared>, Scoped(scope): Scoped) -> Result<Json<Value>, Error> {
    Ok(Json(json!(server.app.engine.instance(&scope).await?.agents)))
}

pub(crate) async fn commands(State(server): State<Shared>, Scoped(scope): Scoped) -> Result<Json<Value>, Error> {
    Ok(Json(json!(server.app.engine.instance(&scope).await?.commands)))
}

pub(crate) async fn skills(State(server): State<Shared>, Scoped(scope): Scoped) -> Result<Json<Value>, Error> {
    Ok(Json(json!(&*server.app.engine.instance(&scope).await?.skills)))
}
