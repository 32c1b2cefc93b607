//! Questions that runs wait for.

use crate::Shared;
use crate::decode::Node;
use crate::errors::Error;
use crate::extract::{Id, Name, Payload, Scoped};
use axum::Json;
use axum::extract::State;
use wire::ids::QuestionId;
use wire::question::QuestionRequest;

pub(crate) async fn list(
    State(server): State<Shared>,
    Scoped(scope): Scoped,
) -> Result<Json<Vec<QuestionRequest>>, Error> {
    Ok(Json(server.app.engine.questions(&scope).await?))
}

pub(crate) async fn reply(
    State(server): State<Shared>,
    Id(id): Id<QuestionId>,
    name: Name,
    Payload(body, _room): Payload,
) -> Result<Json<bool>, Error> {
    let name = name.of(body.as_ref());
    let body = Node::root(body.as_ref());
    body.object()?;
    let answers = body.field("answers");
    let answers =
        answers.elements()?.map(|answer| answer.elements()?.map(|label| Ok(label.text()?.to_owned())).collect());
    let answers = answers.collect::<Result<_, Error>>()?;
    server.app.engine.reply_question(&server.app.tenant, &id, answers, name.as_ref()).await?;
    Ok(Json(true))
}

pub(crate) async fn reject(
    State(server): State<Shared>,
    Id(id): Id<QuestionId>,
    name: Name,
) -> Result<Json<bool>, Error> {
    server.app.engine.reject_question(&server.app.tenant, &id, name.of(None).as_ref()).await?;
    Ok(Json(true))
}
