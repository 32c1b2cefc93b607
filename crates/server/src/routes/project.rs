//! Projects.

use crate::Shared;
use crate::errors::Error;
use crate::extract::Scoped;
use axum::Json;
use axum::extract::{Path, State};
use engine::Scope;
use serde_json::{Value, json};

/// The projects, the scope's own first.
async fn all(server: &Shared, scope: &Scope) -> Result<Vec<Value>, Error> {
    let mut projects = server.app.engine.projects(scope).await?;
    for project in &mut projects {
        if let Some(fields) = project.as_object_mut() {
            // Clients read these without looking whether they are there; the time of a project is not recorded.
            fields.entry("time").or_insert_with(|| json!({ "created": 0, "updated": 0 }));
            fields.entry("sandboxes").or_insert_with(|| json!([]));
        }
    }
    Ok(projects)
}

pub(crate) async fn list(State(server): State<Shared>, Scoped(scope): Scoped) -> Result<Json<Vec<Value>>, Error> {
    Ok(Json(all(&server, &scope).await?))
}

pub(crate) async fn current(State(server): State<Shared>, Scoped(scope): Scoped) -> Result<Json<Value>, Error> {
    let first = all(&server, &scope).await?.into_iter().next();
    first.map(Json).ok_or_else(|| Error::Internal("a directory without a project".into()))
}

/// The work trees of a project.
pub(crate) async fn directories(
    State(server): State<Shared>,
    Scoped(scope): Scoped,
    Path(id): Path<String>,
) -> Result<Json<Value>, Error> {
    let project = all(&server, &scope).await?.into_iter().find(|project| project["id"] == id.as_str());
    match project {
        Some(project) => Ok(Json(json!([{ "directory": project["worktree"] }]))),
        None => Err(Error::NoProject(id.chars().take(200).collect())),
    }
}
