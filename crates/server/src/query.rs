//! Query strings and paths, as lenient as OpenCode's.

use crate::errors::{Error, Kind};
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

/// The value of a key as it stands, also an empty one. Twice is once too often.
pub(crate) fn once(uri: &Uri, key: &str, expected: &str) -> Result<Option<String>, Error> {
    let mut values: Vec<String> =
        pairs(uri.query().unwrap_or_default()).filter(|(name, _)| name == key).map(|(_, value)| value).collect();
    if values.len() > 1 {
        let got = serde_json::json!(values);
        return Err(Error::at(Kind::Query, format_args!("Expected {expected} | undefined, got {got}"), key));
    }
    Ok(values.pop())
}

/// The value of a key that must be there, once.
pub(crate) fn needed(uri: &Uri, key: &str) -> Result<String, Error> {
    match once(uri, key, "string") {
        Ok(Some(value)) => Ok(value),
        Ok(None) => Err(Error::at(Kind::Query, "Missing key", key)),
        // It cannot be absent.
        Err(Error::Invalid { kind, message }) => {
            Err(Error::Invalid { kind, message: message.replacen(" | undefined", "", 1) })
        }
        Err(error) => Err(error),
    }
}

/// The value of a key that is one of these.
pub(crate) fn one_of(uri: &Uri, key: &str, these: &[&'static str]) -> Result<Option<&'static str>, Error> {
    let expected = these.iter().map(|value| format!("{value:?}")).collect::<Vec<_>>().join(" | ");
    let Some(got) = once(uri, key, &expected)? else { return Ok(None) };
    match these.iter().find(|&&value| value == got) {
        Some(value) => Ok(Some(value)),
        None => Err(Error::at(Kind::Query, format_args!("Expected {expected}, got {}", serde_json::json!(got)), key)),
    }
}

/// A number as JavaScript reads it: nothing is zero. Not a number where it is none.
pub(crate) fn number(text: &str) -> f64 {
    let text = text.trim();
    match text.strip_prefix("0x") {
        _ if text.is_empty() => 0.0,
        Some(digits) => u64::from_str_radix(digits, 16).map_or(f64::NAN, |number| number as f64),
        None => text.parse().unwrap_or(f64::NAN),
    }
}

/// The largest whole number that is known exactly.
const MOST: f64 = 9_007_199_254_740_991.0;

/// A whole number that a parameter stands for.
pub(crate) fn whole(number: f64, key: &str) -> Result<i64, Error> {
    if number.fract() != 0.0 || number.abs() > MOST || number.is_nan() {
        let number = if number.is_infinite() { "Infinity".to_owned() } else { number.to_string() };
        return Err(Error::at(Kind::Query, format_args!("Expected an integer, got {number}"), key));
    }
    Ok(number as i64)
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

    #[test]
    fn a_number_is_what_javascript_takes_for_one() {
        for (text, expected) in [("", 0.0), (" 7 ", 7.0), ("1e1", 10.0), ("0x2", 2.0), ("-1", -1.0)] {
            assert_eq!(number(text), expected, "{text}");
        }
        assert!(["abc", "1,5", "0x", "1 2"].iter().all(|text| number(text).is_nan()));
        assert!(
            whole(1.5, "limit").is_err() && whole(1e20, "limit").is_err() && whole(f64::INFINITY, "limit").is_err()
        );
        assert_eq!(whole(number("1e1"), "limit").unwrap(), 10);
    }
}
