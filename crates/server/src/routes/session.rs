//! Sessions.

use crate::Shared;
use crate::decode::Node;
use crate::errors::{Error, Kind};
use crate::extract::{Id, LoosePayload, Name, Payload, Scoped, asked_directory};
use crate::query;
use axum::Json;
use axum::extract::State;
use engine::{EngineError, NewSession, SessionPatch, SessionQuery};
use http::Uri;
use serde_json::Value;
use std::collections::BTreeMap;
use wire::ids::{MessageId, SessionId};
use wire::permission::{Action, Rule};
use wire::session::{Session, SessionModel, SessionStatus, Todo};

const ACTIONS: [(&str, Action); 3] = [("allow", Action::Allow), ("ask", Action::Ask), ("deny", Action::Deny)];

pub(crate) async fn list(
    State(server): State<Shared>,
    Scoped(scope): Scoped,
    uri: Uri,
) -> Result<Json<Vec<Session>>, Error> {
    let asked = asked(&uri)?;
    let resolved = scope.directory.to_string_lossy().into_owned();
    let query = SessionQuery { directory: asked.directory.map(|_| resolved), ..asked };
    Ok(Json(server.app.engine.sessions(&scope, query).await?))
}

/// What a query asks for; numbers that are none or negative don't count.
fn asked(uri: &Uri) -> Result<SessionQuery, Error> {
    let text = |key: &str| query::once(uri, key, "string");
    let some = |key: &str| Ok::<_, Error>(text(key)?.filter(|text| !text.is_empty()));
    let whole_project = query::one_of(uri, "scope", &["project"])?.is_some();
    let roots = query::one_of(uri, "roots", &["true", "false"])?.map(|roots| roots == "true");
    text("directory")?;
    let limit = match text("limit")?.map(|limit| query::number(&limit)) {
        Some(limit) if !limit.is_nan() => usize::try_from(query::whole(limit, "limit")?).ok(),
        _ => None,
    };
    let start = text("start")?.map(|start| query::number(&start)).filter(|start| *start > 0.0);
    Ok(SessionQuery {
        directory: asked_directory(uri).filter(|_| !whole_project),
        path: some("path")?,
        // OpenCode's `roots=false` lists all.
        roots: roots.filter(|&roots| roots),
        search: some("search")?,
        start: start.map(|start| start.ceil() as u64),
        limit,
    })
}

pub(crate) async fn create(
    State(server): State<Shared>,
    Scoped(scope): Scoped,
    name: Name,
    LoosePayload(body, _room): LoosePayload,
) -> Result<Json<Session>, Error> {
    let new = match &body {
        Some(body) => {
            let body = Node::root(Some(body));
            body.without_null(&["parentID", "title", "agent", "model", "permission", "metadata", "workspaceID"])?;
            new_session(&body, server.app.limits.title).map_err(|_| Error::Bad)?
        }
        None => NewSession::default(),
    };
    Ok(Json(server.app.engine.create_session(&scope, new, name.of(body.as_ref()).as_ref()).await?))
}

fn new_session(body: &Node<'_>, longest_title: usize) -> Result<NewSession, Error> {
    body.object()?;
    let model = body.field("model");
    let model = match model.maybe_object()? {
        Some(_) => Some(SessionModel {
            id: model.field("id").text()?.to_owned(),
            provider_id: model.field("providerID").text()?.to_owned(),
            variant: model.field("variant").maybe_string()?,
        }),
        None => None,
    };
    Ok(NewSession {
        parent_id: body.field("parentID").maybe_id()?,
        title: title(&body.field("title"), longest_title)?,
        agent: body.field("agent").maybe_string()?,
        model,
        permission: rules(&body.field("permission"))?,
        metadata: body.field("metadata").maybe_object()?.cloned().map(Value::Object),
    })
}

fn title(title: &Node<'_>, longest: usize) -> Result<Option<String>, Error> {
    let text = title.maybe_string()?;
    match &text {
        Some(text) if text.chars().count() > longest => {
            Err(title
                .error(format!("Expected a value with a length of at most {longest}, got {}", text.chars().count())))
        }
        _ => Ok(text),
    }
}

fn rules(rules: &Node<'_>) -> Result<Option<Vec<Rule>>, Error> {
    if !rules.is_some() {
        return Ok(None);
    }
    let rule = |rule: Node<'_>| {
        rule.object()?;
        let (permission, pattern) = (rule.field("permission").text()?, rule.field("pattern").text()?);
        Ok(Rule::new(permission, pattern, rule.field("action").word(&ACTIONS)?))
    };
    rules.elements()?.map(rule).collect::<Result<_, Error>>().map(Some)
}

pub(crate) async fn get(State(server): State<Shared>, Id(id): Id<SessionId>) -> Result<Json<Session>, Error> {
    Ok(Json(server.app.engine.session(&server.app.tenant, &id).await?))
}

pub(crate) async fn update(
    State(server): State<Shared>,
    Id(id): Id<SessionId>,
    name: Name,
    Payload(body, _room): Payload,
) -> Result<Json<Session>, Error> {
    let name = name.of(body.as_ref());
    let body = Node::root(body.as_ref());
    body.object()?;
    let time = body.field("time");
    time.maybe_object()?;
    let patch = SessionPatch {
        title: title(&body.field("title"), server.app.limits.title)?,
        metadata: body.field("metadata").maybe_object()?.cloned().map(Value::Object),
        permission: rules(&body.field("permission"))?,
        archived: time.field("archived").maybe_number()?.cloned(),
    };
    Ok(Json(server.app.engine.patch_session(&server.app.tenant, &id, patch, name.as_ref()).await?))
}

pub(crate) async fn delete(
    State(server): State<Shared>,
    Id(id): Id<SessionId>,
    name: Name,
) -> Result<Json<bool>, Error> {
    server.app.engine.delete_session(&server.app.tenant, &id, name.of(None).as_ref()).await?;
    Ok(Json(true))
}

pub(crate) async fn fork(
    State(server): State<Shared>,
    Id(id): Id<SessionId>,
    name: Name,
    LoosePayload(body, _room): LoosePayload,
) -> Result<Json<Session>, Error> {
    let upto = match &body {
        Some(body) => {
            let body = Node::root(Some(body));
            body.without_null(&["messageID"])?;
            body.field("messageID").maybe_id().map_err(|_| Error::Bad)?
        }
        None => None,
    };
    let name = name.of(body.as_ref());
    Ok(Json(server.app.engine.fork_session(&server.app.tenant, &id, upto.as_ref(), name.as_ref()).await?))
}

pub(crate) async fn revert(
    State(server): State<Shared>,
    Id(id): Id<SessionId>,
    name: Name,
    Payload(body, _room): Payload,
) -> Result<Json<Session>, Error> {
    let name = name.of(body.as_ref());
    let body = Node::root(body.as_ref());
    body.object()?;
    let (message, part) = (body.field("messageID").id()?, body.field("partID").maybe_id()?);
    let engine = &server.app.engine;
    Ok(Json(engine.revert(&server.app.tenant, &id, &message, part.as_ref(), name.as_ref()).await?))
}

pub(crate) async fn unrevert(
    State(server): State<Shared>,
    Id(id): Id<SessionId>,
    name: Name,
) -> Result<Json<Session>, Error> {
    Ok(Json(server.app.engine.unrevert(&server.app.tenant, &id, name.of(None).as_ref()).await?))
}

/// Sessions are not shared here.
pub(crate) async fn share(State(server): State<Shared>, Id(id): Id<SessionId>) -> Result<Json<Session>, Error> {
    server.app.engine.session(&server.app.tenant, &id).await?;
    Err(EngineError::BadRequest("Sharing is not available on this server".into()).into())
}

/// Nothing is shared, so that there is nothing to take back.
pub(crate) async fn unshare(State(server): State<Shared>, Id(id): Id<SessionId>) -> Result<Json<Session>, Error> {
    Ok(Json(server.app.engine.session(&server.app.tenant, &id).await?))
}

pub(crate) async fn children(State(server): State<Shared>, Id(id): Id<SessionId>) -> Result<Json<Vec<Session>>, Error> {
    Ok(Json(server.app.engine.children(&server.app.tenant, &id).await?))
}

pub(crate) async fn todo(State(server): State<Shared>, Id(id): Id<SessionId>) -> Result<Json<Vec<Todo>>, Error> {
    Ok(Json(server.app.engine.todos(&server.app.tenant, &id).await?))
}

pub(crate) async fn diff(State(server): State<Shared>, Id(id): Id<SessionId>, uri: Uri) -> Result<Json<Value>, Error> {
    let message = match query::once(&uri, "messageID", "string")?.map(|id| MessageId::parse(&id)) {
        // It may be called so, and nothing is.
        Some(Err(error)) if error.has_prefix() => return Ok(Json(Value::Array(Vec::new()))),
        message => message.transpose().map_err(|error| Error::at(Kind::Query, error, "messageID"))?,
    };
    Ok(Json(server.app.engine.diff(&server.app.tenant, &id, message.as_ref()).await?))
}

pub(crate) async fn status(
    State(server): State<Shared>,
    Scoped(scope): Scoped,
) -> Result<Json<BTreeMap<SessionId, SessionStatus>>, Error> {
    Ok(Json(server.app.engine.statuses(&scope).await?))
}

pub(crate) async fn abort(
    State(server): State<Shared>,
    Id(id): Id<SessionId>,
    name: Name,
) -> Result<Json<bool>, Error> {
    Ok(Json(server.app.engine.abort(&server.app.tenant, &id, name.of(None).as_ref()).await?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn query(text: &str) -> Result<SessionQuery, Error> {
        asked(&format!("/session?{text}").parse().unwrap())
    }

    #[test]
    fn bad_numbers_do_not_count() {
        for text in ["limit=abc&start=abc", "limit=-1&start=-1", "start=", ""] {
            let query = query(text).unwrap();
            assert_eq!((query.limit, query.start), (None, None), "{text}");
        }
        for (text, limit) in [("limit=", 0), ("limit=1e1", 10), ("limit=0x2", 2), ("limit=%201", 1)] {
            assert_eq!(query(text).unwrap().limit, Some(limit), "{text}");
        }
        let query = query("limit=0&start=17&path=&search=A%20b").unwrap();
        assert_eq!((query.limit, query.start, query.path), (Some(0), Some(17), None));
        assert_eq!(query.search.as_deref(), Some("A b"));
    }

    #[test]
    fn bad_words_are_refused_as_recorded() {
        for (text, expected) in [
            ("scope=bad", "Expected \"project\", got \"bad\"\n  at [\"scope\"]"),
            ("roots=1", "Expected \"true\" | \"false\", got \"1\"\n  at [\"roots\"]"),
            ("roots=", "Expected \"true\" | \"false\", got \"\"\n  at [\"roots\"]"),
            ("scope=", "Expected \"project\", got \"\"\n  at [\"scope\"]"),
            ("limit=1.5", "Expected an integer, got 1.5\n  at [\"limit\"]"),
            ("limit=1&limit=2", "Expected string | undefined, got [\"1\",\"2\"]\n  at [\"limit\"]"),
            ("directory=/a&directory=/b", "Expected string | undefined, got [\"/a\",\"/b\"]\n  at [\"directory\"]"),
            (
                "roots=true&roots=true",
                "Expected \"true\" | \"false\" | undefined, got [\"true\",\"true\"]\n  at [\"roots\"]",
            ),
        ] {
            match query(text).unwrap_err() {
                Error::Invalid { kind: Kind::Query, message } => assert_eq!(message, expected),
                other => panic!("{other:?}"),
            }
        }
        assert!(query("directory=/a&scope=project").unwrap().directory.is_none());
        assert!(query("directory=/a").unwrap().directory.is_some());
    }

    #[test]
    fn a_new_session_takes_what_is_recorded() {
        let body = json!({
            "title": "With all", "agent": "plan", "model": { "providerID": "fake", "id": "m" }, "unknown": 1,
            "permission": [{ "permission": "bash", "pattern": "*", "action": "deny" }], "metadata": { "k": "v" },
        });
        let new = new_session(&Node::root(Some(&body)), 1000).unwrap();
        assert_eq!(new.model.unwrap().id, "m");
        assert_eq!(new.permission.unwrap()[0].action, Action::Deny);
        for bad in
            [json!({ "parentID": "bad" }), json!({ "title": 5 }), json!([]), json!({ "title": "x".repeat(1001) })]
        {
            assert!(new_session(&Node::root(Some(&bad)), 1000).is_err(), "{bad}");
        }
        assert!(new_session(&Node::root(Some(&json!({ "title": "é".repeat(1000) }))), 1000).is_ok());
    }
}
