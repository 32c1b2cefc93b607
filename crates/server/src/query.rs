//! Query strings and paths, as lenient as OpenCode's.

use axum::extract::Request;
use http::Uri;
use percent_encoding::percent_decode_str;

/// The pairs of a query, decoded; what isn't UTF-8 is replaced.
pub(crate) fn pairs(query: &str) -> impl Iterator<Item = (String, String)> {
    query.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decode(key), decode(value))
    })
}

/// The first value of a key; an empty one counts as absent.
pub(crate) fn value(uri: &Uri, key: &str) -> Option<String> {
    pairs(uri.query()?).find(|(name, _)| name == key).map(|(_, value)| value).filter(|value| !value.is_empty())
}

fn decode(text: &str) -> String {
    percent_decode_str(&text.replace('+', " ")).decode_utf8_lossy().into_owned()
}

/// Drops a trailing slash and doubled ones.
pub(crate) fn squeeze_path(mut request: Request) -> Request {
    let path = request.uri().path();
    if path.len() < 2 || !(path.ends_with('/') || path.contains("//")) {
        return request;
    }
    let mut squeezed = String::with_capacity(path.len());
    for segment in path.split('/').filter(|segment| !segment.is_empty()) {
        squeezed.push('/');
        squeezed.push_str(segment);
    }
    if squeezed.is_empty() {
        squeezed.push('/');
    }
    if let Some(query) = request.uri().query() {
        squeezed.push('?');
        squeezed.push_str(query);
    }
    // What was a part of a valid address is one.
    if let Ok(uri) = squeezed.parse() {
        *request.uri_mut() = uri;
    }
    request
}

#[cfg(test)]
mod tests {
    use super::*;

    fn squeezed(uri: &str) -> String {
        let request = Request::builder().uri(uri).body(axum::body::Body::empty()).unwrap();
        squeeze_path(request).uri().to_string()
    }

    #[test]
    fn slashes_too_many_do_not_matter() {
        assert_eq!(squeezed("/session/"), "/session");
        assert_eq!(squeezed("//session?a=b//c"), "/session?a=b//c");
        assert_eq!(squeezed("/"), "/");
        assert_eq!(squeezed("//"), "/");
        assert_eq!(squeezed("/a/b?x=/"), "/a/b?x=/");
    }

    #[test]
    fn a_query_is_decoded_once() {
        let uri: Uri = "/path?a=%2541&b=x+y&c=&d".parse().unwrap();
        assert_eq!(value(&uri, "a").unwrap(), "%41");
        assert_eq!(value(&uri, "b").unwrap(), "x y");
        assert_eq!(value(&uri, "c"), None);
        assert_eq!(value(&uri, "d"), None);
    }
}
