//! What handlers take out of a request.

use crate::Shared;
use crate::bodies::{Room, read};
use crate::errors::{Error, Kind};
use crate::hash::hash;
use crate::query;
use axum::extract::{FromRequest, FromRequestParts, RawPathParams, Request};
use engine::{RequestName, Scope};
use http::{HeaderMap, HeaderValue, Uri, header, request::Parts};
use percent_encoding::percent_decode_str;
use serde_json::{Value, json};
use std::path::{Component, Path, PathBuf};
use std::str::FromStr;
use wire::ids::{InvalidId, MessageId, PartId, PermissionId, QuestionId, SessionId};

/// Where the request plays: the tenant, and the directory of the query, else of the header, else the server's.
pub(crate) struct Scoped(pub Scope);

impl FromRequestParts<Shared> for Scoped {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, server: &Shared) -> Result<Self, Error> {
        if let Some(workspace) = query::value(&parts.uri, "workspace") {
            return Err(Error::NoWorkspace(workspace));
        }
        let app = &server.app;
        let directory = directory(&parts.uri, &parts.headers, &app.default_directory, app.limits.directory)?;
        Ok(Self(Scope { tenant: app.tenant.clone(), directory }))
    }
}

/// The directory that the query names, if it names one.
pub(crate) fn asked_directory(uri: &Uri) -> Option<String> {
    query::value(uri, "directory").map(decode_once_more)
}

/// Where a request below `/api` plays: there the query names it as `location[directory]`.
pub(crate) struct Located(pub Scope);

impl FromRequestParts<Shared> for Located {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, server: &Shared) -> Result<Self, Error> {
        if let Some(workspace) = query::value(&parts.uri, "location[workspace]") {
            return Err(Error::NoWorkspace(workspace));
        }
        let app = &server.app;
        let asked = query::value(&parts.uri, "location[directory]");
        let directory = place(asked, &parts.headers, &app.default_directory, app.limits.directory)?;
        Ok(Self(Scope { tenant: app.tenant.clone(), directory }))
    }
}

fn directory(uri: &Uri, headers: &HeaderMap, default: &Path, most: usize) -> Result<PathBuf, Error> {
    place(asked_directory(uri), headers, default, most)
}

fn place(asked: Option<String>, headers: &HeaderMap, default: &Path, most: usize) -> Result<PathBuf, Error> {
    let asked = asked.or_else(|| headers.get("x-opencode-directory").and_then(from_header));
    let Some(asked) = asked else { return Ok(default.to_owned()) };
    if asked.len() > most {
        return Err(Error::at(
            Kind::Query,
            format_args!("Expected at most {most} bytes, got {}", asked.len()),
            "directory",
        ));
    }
    if asked.contains('\0') {
        return Err(Error::at(Kind::Query, "Expected a path without NUL", "directory"));
    }
    Ok(resolve(default, Path::new(&asked)))
}

/// Bytes beyond ASCII are read as Latin-1: clients must encode them.
fn from_header(value: &HeaderValue) -> Option<String> {
    let text: String = value.as_bytes().iter().map(|&byte| char::from(byte)).collect();
    (!text.is_empty()).then(|| decode_once_more(text))
}

/// Percent-decodes; what cannot be decoded is used as it is.
fn decode_once_more(text: String) -> String {
    let bytes = text.as_bytes();
    let whole = bytes
        .iter()
        .enumerate()
        .filter(|&(_, &byte)| byte == b'%')
        .all(|(at, _)| bytes.get(at + 1..at + 3).is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit)));
    if !whole {
        return text;
    }
    match percent_decode_str(&text).decode_utf8() {
        Ok(decoded) => decoded.into_owned(),
        Err(_) => text,
    }
}

/// Makes a path absolute, without dots and without a slash at its end. Links are left as they are.
fn resolve(base: &Path, path: &Path) -> PathBuf {
    let mut resolved = PathBuf::from("/");
    for component in base.join(path).components() {
        match component {
            Component::Normal(name) => resolved.push(name),
            Component::ParentDir => {
                resolved.pop();
            }
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    resolved
}

/// An identifier that addresses have a place for.
pub(crate) trait PathId: FromStr<Err = InvalidId> {
    /// The names of its place; the first that the address has counts.
    const PLACES: &'static [&'static str];
    /// What it names, where nothing being called so is told as of any other unknown one.
    const NAMES: Option<&'static str> = None;
}

impl PathId for SessionId {
    const PLACES: &'static [&'static str] = &["sessionID"];
    const NAMES: Option<&'static str> = Some("Session");
}
impl PathId for MessageId {
    const PLACES: &'static [&'static str] = &["messageID"];
    const NAMES: Option<&'static str> = Some("Message");
}
impl PathId for PartId {
    const PLACES: &'static [&'static str] = &["partID"];
}
impl PathId for PermissionId {
    const PLACES: &'static [&'static str] = &["requestID", "permissionID"];
}
impl PathId for QuestionId {
    const PLACES: &'static [&'static str] = &["requestID"];
}

/// An identifier out of the address.
pub(crate) struct Id<T>(pub T);

impl<T: PathId + Send> FromRequestParts<Shared> for Id<T> {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, server: &Shared) -> Result<Self, Error> {
        let params = RawPathParams::from_request_parts(parts, server).await;
        let params = params.map_err(|error| Error::Invalid { kind: Kind::Params, message: error.to_string() })?;
        let found = T::PLACES.iter().find_map(|&place| params.iter().find(|(name, _)| *name == place));
        let Some((place, text)) = found else {
            return Err(Error::Internal(format!("the route has no place for any of {:?}", T::PLACES)));
        };
        text.parse().map(Self).map_err(|error: InvalidId| match T::NAMES.filter(|_| error.has_prefix()) {
            Some(named) => Error::NotFound(format!("{named} not found: {}", error.got)),
            None => Error::param(&error, place),
        })
    }
}

/// The longest idempotency key.
const LONGEST_KEY: usize = 255;

/// How a request is called that may be sent again: by its client, or by the balancer before this replica.
pub(crate) struct Name {
    route: String,
    name: Option<Given>,
}

/// Who gave the name.
enum Given {
    /// A client: it means one request by it, whatever it says.
    Key(String),
    /// A balancer: an id for each request. Should one come twice, the body tells them apart.
    Id(String),
}

impl Name {
    /// The name, with what is asked under it.
    pub(crate) fn of(self, body: Option<&Value>) -> Option<RequestName> {
        let body_hash = body.map(hash).unwrap_or_default();
        let words = match self.name? {
            Given::Key(key) => json!(["key", self.route, key]),
            Given::Id(id) => json!(["id", self.route, id, body_hash]),
        };
        Some(RequestName { hash: hash(&words), body_hash })
    }
}

impl FromRequestParts<Shared> for Name {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, server: &Shared) -> Result<Self, Error> {
        // The two routes of a prompt differ in how they answer, not in what they do.
        let path = parts.uri.path().trim_end_matches("/prompt_async").trim_end_matches("/message");
        let query = parts.uri.query().unwrap_or_default();
        let route = format!("{} {path}?{query}", parts.method);
        let mut keys = parts.headers.get_all("idempotency-key").iter();
        let key = match (keys.next().map(HeaderValue::to_str), keys.next()) {
            (None, _) => None,
            (Some(Ok(key)), None) if (1..=LONGEST_KEY).contains(&key.len()) => Some(Given::Key(key.to_owned())),
            _ => {
                let message = format!("A request has one Idempotency-Key, of 1 to {LONGEST_KEY} visible characters");
                return Err(Error::Invalid { kind: Kind::Params, message });
            }
        };
        let id = || crate::log::given_id(&parts.headers).filter(|_| server.app.trust_request_id).map(Given::Id);
        Ok(Self { route, name: key.or_else(id) })
    }
}

/// A body of a route that tells what is wrong with it, none if it is empty; and its room.
pub(crate) struct Payload(pub Option<Value>, pub Room);

impl FromRequest<Shared> for Payload {
    type Rejection = Error;

    async fn from_request(request: Request, server: &Shared) -> Result<Self, Error> {
        let kind = request.headers().get(header::CONTENT_TYPE).cloned();
        let (body, room) = read(request, server).await?;
        if let Some(kind) = kind.filter(|kind| !is_json(kind)) {
            return Err(Error::MediaType(String::from_utf8_lossy(kind.as_bytes()).into_owned()));
        }
        Ok(Self(parse(&body, server.app.limits.json_depth)?, room))
    }
}

/// A body of a route that never says what is wrong with it and looks at no content-type, none if it is empty; and its room.
pub(crate) struct LoosePayload(pub Option<Value>, pub Room);

impl FromRequest<Shared> for LoosePayload {
    type Rejection = Error;

    async fn from_request(request: Request, server: &Shared) -> Result<Self, Error> {
        let (body, room) = read(request, server).await?;
        let body = parse(&body, server.app.limits.json_depth).map_err(|_| Error::Bad)?;
        Ok(Self(body, room))
    }
}

fn is_json(kind: &HeaderValue) -> bool {
    let Ok(kind) = kind.to_str() else { return false };
    let essence = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    essence.is_empty() || essence == "application/json" || essence.ends_with("+json")
}

fn parse(body: &[u8], depth: usize) -> Result<Option<Value>, Error> {
    if body.iter().all(u8::is_ascii_whitespace) {
        return Ok(None);
    }
    let payload = |message: String| Error::Invalid { kind: Kind::Payload, message };
    if is_deeper_than(depth, body) {
        return Err(payload(format!("Expected JSON at most {depth} levels deep")));
    }
    serde_json::from_slice(body).map(Some).map_err(|error| payload(format!("Expected JSON: {error}")))
}

/// Counts brackets outside strings; what is no JSON is left to the parser.
fn is_deeper_than(most: usize, body: &[u8]) -> bool {
    let (mut depth, mut in_string, mut escaped) = (0usize, false, false);
    for &byte in body {
        if in_string {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => in_string = false,
                _ => {}
            }
            continue;
        }
        match byte {
            b'"' => in_string = true,
            b'[' | b'{' => {
                depth += 1;
                if depth > most {
                    return true;
                }
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(query: &str, header: Option<&[u8]>) -> Result<String, Error> {
        let uri: Uri = format!("/path{query}").parse().unwrap();
        let mut headers = HeaderMap::new();
        if let Some(value) = header {
            headers.insert("x-opencode-directory", HeaderValue::from_bytes(value).unwrap());
        }
        directory(&uri, &headers, Path::new("/srv/ws"), 4096).map(|path| path.to_str().unwrap().to_owned())
    }

    #[test]
    fn the_query_wins_over_the_header_and_the_header_over_the_default() {
        assert_eq!(found("?directory=/a", Some(b"/b")).unwrap(), "/a");
        assert_eq!(found("", Some(b"/b")).unwrap(), "/b");
        assert_eq!(found("?directory=", Some(b"")).unwrap(), "/srv/ws");
        assert_eq!(found("", None).unwrap(), "/srv/ws");
    }

    #[test]
    fn values_are_decoded_as_recorded() {
        assert_eq!(found("?directory=%2Ftmp%2Fpct%2541", None).unwrap(), "/tmp/pctA");
        assert_eq!(found("?directory=%252Ftmp%252Fpct%252541", None).unwrap(), "/tmp/pct%41");
        assert_eq!(found("", Some(b"/tmp/pct%41")).unwrap(), "/tmp/pctA");
        assert_eq!(found("", Some(b"%2Ftmp%2Fpct%2541")).unwrap(), "/tmp/pct%41");
        assert_eq!(found("", Some(b"%2Fother%20dir%20%C3%A9")).unwrap(), "/other dir é");
        assert_eq!(found("", Some("/other dir é".as_bytes())).unwrap(), "/other dir Ã©");
        assert_eq!(found("", Some(b"%zz")).unwrap(), "/srv/ws/%zz");
        assert_eq!(found("?directory=%2525zz", None).unwrap(), "/srv/ws/%zz");
    }

    #[test]
    fn relative_paths_begin_at_the_default() {
        assert_eq!(found("?directory=src", None).unwrap(), "/srv/ws/src");
        assert_eq!(found("?directory=~", None).unwrap(), "/srv/ws/~");
        assert_eq!(found("?directory=../x/./y/", None).unwrap(), "/srv/x/y");
        assert_eq!(found("?directory=/", None).unwrap(), "/");
        assert_eq!(found("?directory=/../..", None).unwrap(), "/");
    }

    #[test]
    fn a_directory_has_its_limits() {
        assert!(found(&format!("?directory=/{}", "a".repeat(4095)), None).is_ok());
        assert!(found(&format!("?directory=/{}", "a".repeat(4096)), None).is_err());
        assert!(found("?directory=/a%00b", None).is_err());
        assert!(found("?directory=/a%2500b", None).is_err());
    }

    #[test]
    fn depth_is_counted_outside_strings() {
        let nested = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
        assert!(parse(nested(100).as_bytes(), 100).is_ok());
        assert!(parse(nested(101).as_bytes(), 100).is_err());
        assert!(parse(format!("{{\"a\":\"{}\\\"[\"}}", "[".repeat(500)).as_bytes(), 100).is_ok());
        assert!(parse(b"{bad", 100).is_err());
        assert_eq!(parse(b" \n", 100).unwrap(), None);
    }

    #[test]
    fn only_json_is_taken_for_json() {
        for (kind, taken) in [
            ("application/json", true),
            ("Application/JSON; charset=utf-8", true),
            ("application/vnd.x+json", true),
            ("text/plain", false),
            ("application/x-www-form-urlencoded", false),
        ] {
            assert_eq!(is_json(&HeaderValue::from_str(kind).unwrap()), taken, "{kind}");
        }
    }
}
