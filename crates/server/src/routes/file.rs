//! Files of the directory, for people.

use crate::Shared;
use crate::errors::{Error, Kind};
use crate::extract::{Located, Scoped};
use crate::query;
use axum::Json;
use axum::extract::State;
use engine::{EngineError, FileContent, FileNode, LineMatch, Names};
use http::Uri;
use serde_json::{Value, json};

/// How many names are found where no limit is given, and at most.
const FOUND: usize = 10;
const MOST_FOUND: i64 = 200;

/// The same below `/api`, where a larger limit is taken for this one.
const FOUND_LOCATED: usize = 100;
const MOST_FOUND_LOCATED: usize = 1000;

/// Files and folders whose names resemble what somebody types.
pub(crate) async fn find(
    State(server): State<Shared>,
    Scoped(scope): Scoped,
    uri: Uri,
) -> Result<Json<Vec<String>>, Error> {
    let wanted = wanted(&uri)?;
    let found = server.app.engine.find_files(&scope, wanted).await;
    found.map(Json).map_err(|error| refused(error, "directory"))
}

fn wanted(uri: &Uri) -> Result<Names, Error> {
    let query = query::needed(uri, "query")?;
    let folders = query::one_of(uri, "dirs", &["true", "false"])? != Some("false");
    let (files, folders) = match query::one_of(uri, "type", &["file", "directory"])? {
        None => (true, folders),
        Some(kind) => (kind == "file", kind == "directory"),
    };
    let limit = match query::once(uri, "limit", "number")? {
        None => FOUND,
        Some(limit) => match query::whole(query::number(&limit), "limit")? {
            few if few < 1 => return Err(out_of_bounds("greater", 1, few)),
            many if many > MOST_FOUND => return Err(out_of_bounds("less", MOST_FOUND, many)),
            limit => usize::try_from(limit).unwrap_or(FOUND),
        },
    };
    Ok(Names { query, files, folders, limit })
}

/// The same in the form of OpenCode's second API: the TUI asks so for what it offers after an `@`.
pub(crate) async fn find_located(
    State(server): State<Shared>,
    Located(scope): Located,
    uri: Uri,
) -> Result<Json<Value>, Error> {
    let engine = &server.app.engine;
    let found = match wanted_located(&uri) {
        Ok(wanted) => engine.find_files(&scope, wanted).await.map_err(|error| refused(error, "location")),
        Err(error) => Err(error),
    };
    let found = found.map_err(|error| match error {
        Error::Invalid { kind, message } => Error::InvalidRequest { kind, message },
        error => error,
    })?;
    let instance = engine.instance(&scope).await?;
    let entry = |path: String| {
        let kind = if path.ends_with('/') { "directory" } else { "file" };
        json!({ "path": path, "type": kind })
    };
    Ok(Json(json!({
        "location": {
            "directory": scope.directory,
            "project": { "id": instance.project.id, "directory": instance.worktree },
        },
        "data": found.into_iter().map(entry).collect::<Vec<_>>(),
    })))
}

fn wanted_located(uri: &Uri) -> Result<Names, Error> {
    let query = query::needed(uri, "query")?;
    let kind = query::one_of(uri, "type", &["file", "directory"])?;
    let limit = match query::once(uri, "limit", "string")? {
        None => FOUND_LOCATED,
        Some(limit) => match query::whole(query::number(&limit), "limit")? {
            few if few < 1 => {
                let message = format_args!("Expected a value greater than 0, got {few}");
                return Err(Error::at(Kind::Query, message, "limit"));
            }
            limit => usize::try_from(limit).unwrap_or(MOST_FOUND_LOCATED).min(MOST_FOUND_LOCATED),
        },
    };
    Ok(Names { query, files: kind != Some("directory"), folders: kind != Some("file"), limit })
}

fn out_of_bounds(side: &str, bound: i64, got: i64) -> Error {
    Error::at(Kind::Query, format_args!("Expected a value {side} than or equal to {bound}, got {got}"), "limit")
}

/// The files and folders in a folder.
pub(crate) async fn list(
    State(server): State<Shared>,
    Scoped(scope): Scoped,
    uri: Uri,
) -> Result<Json<Vec<FileNode>>, Error> {
    let listed = server.app.engine.list_files(&scope, query::needed(&uri, "path")?).await;
    listed.map(Json).map_err(|error| refused(error, "path"))
}

/// The content of a file.
pub(crate) async fn read(
    State(server): State<Shared>,
    Scoped(scope): Scoped,
    uri: Uri,
) -> Result<Json<FileContent>, Error> {
    let content = server.app.engine.read_file(&scope, query::needed(&uri, "path")?).await;
    content.map(Json).map_err(|error| refused(error, "path"))
}

/// Lines that fit a regular expression.
pub(crate) async fn text(
    State(server): State<Shared>,
    Scoped(scope): Scoped,
    uri: Uri,
) -> Result<Json<Vec<LineMatch>>, Error> {
    let found = server.app.engine.find_lines(&scope, query::needed(&uri, "pattern")?).await;
    found.map(Json).map_err(|error| refused(error, "pattern"))
}

/// Names of what programs consist of: there is no language server that would know them.
pub(crate) async fn symbols(Scoped(_): Scoped, uri: Uri) -> Result<Json<Value>, Error> {
    query::needed(&uri, "query")?;
    Ok(Json(json!([])))
}

/// What is wrong with a request is in its query.
fn refused(error: EngineError, key: &str) -> Error {
    match error {
        EngineError::BadRequest(reason) => Error::at(Kind::Query, reason, key),
        error => error.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(query: &str) -> Result<Names, String> {
        wanted(&format!("/find/file?{query}").parse().unwrap()).map_err(|error| match error {
            Error::Invalid { kind: Kind::Query, message } => message,
            other => panic!("{other:?}"),
        })
    }

    #[test]
    fn a_query_is_read_as_recorded() {
        let all = Names { query: "a b".into(), files: true, folders: true, limit: 10 };
        assert_eq!(asked("query=a+b"), Ok(all.clone()));
        assert_eq!(asked("query=a+b&dirs=false&limit=200"), Ok(Names { folders: false, limit: 200, ..all.clone() }));
        assert_eq!(asked("query=a+b&dirs=false&type=directory"), Ok(Names { files: false, ..all.clone() }));
        assert_eq!(asked("query=&type=file"), Ok(Names { query: String::new(), folders: false, ..all }));
        for (query, message) in [
            ("", "Missing key\n  at [\"query\"]"),
            ("query=a&query=b", "Expected string, got [\"a\",\"b\"]\n  at [\"query\"]"),
            ("query=s&limit=0", "Expected a value greater than or equal to 1, got 0\n  at [\"limit\"]"),
            ("query=s&limit=500", "Expected a value less than or equal to 200, got 500\n  at [\"limit\"]"),
            ("query=s&limit=abc", "Expected an integer, got NaN\n  at [\"limit\"]"),
            ("query=s&dirs=maybe", "Expected \"true\" | \"false\", got \"maybe\"\n  at [\"dirs\"]"),
            ("query=s&type=", "Expected \"file\" | \"directory\", got \"\"\n  at [\"type\"]"),
        ] {
            assert_eq!(asked(query), Err(message.into()), "{query}");
        }
    }
}
