//! Permissions that runs wait for.

use crate::Shared;
use crate::decode::Node;
use crate::errors::Error;
use crate::extract::{Id, Name, Payload, Scoped};
use axum::Json;
use axum::extract::State;
use wire::ids::{PermissionId, SessionId};
use wire::permission::{PermissionRequest, Reply};

const REPLIES: [(&str, Reply); 3] = [("once", Reply::Once), ("always", Reply::Always), ("reject", Reply::Reject)];

pub(crate) async fn list(
    State(server): State<Shared>,
    Scoped(scope): Scoped,
) -> Result<Json<Vec<PermissionRequest>>, Error> {
    Ok(Json(server.app.engine.permissions(&scope).await?))
}

pub(crate) async fn reply(
    State(server): State<Shared>,
    Id(id): Id<PermissionId>,
    name: Name,
    Payload(body, _room): Payload,
) -> Result<Json<bool>, Error> {
    let name = name.of(body.as_ref());
    let body = Node::root(body.as_ref());
    body.object()?;
    let reply = body.field("reply").word(&REPLIES)?;
    let message = body.field("message").maybe_string()?;
    server.app.engine.reply_permission(&server.app.tenant, &id, reply, message, name.as_ref()).await?;
    Ok(Json(true))
}

/// The older form; the session in the address may be any that there is.
pub(crate) async fn respond(
    State(server): State<Shared>,
    Id(session): Id<SessionId>,
    Id(id): Id<PermissionId>,
    name: Name,
    Payload(body, _room): Payload,
) -> Result<Json<bool>, Error> {
    let name = name.of(body.as_ref());
    let body = Node::root(body.as_ref());
    body.object()?;
    let reply = body.field("response").word(&REPLIES)?;
    server.app.engine.session(&server.app.tenant, &session).await?;
    server.app.engine.reply_permission(&server.app.tenant, &id, reply, None, name.as_ref()).await?;
    Ok(Json(true))
}
