//! What can go wrong between a provider and us, and how a message shows it.

use serde_json::{Map, Value, json};
use std::time::Duration;
use wire::message::MessageError;

/// Why a model call failed.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ModelError {
    /// The request cannot be sent as it stands: a bad address or header.
    #[error("{message}")]
    Invalid {
        /// What is wrong with it.
        message: String,
    },
    /// The provider answered with a status other than success.
    #[error("{}", .0.message)]
    Api(Box<ApiError>),
    /// The conversation is longer than the model can read.
    #[error("{message}")]
    ContextOverflow {
        /// The provider's words.
        message: String,
        /// The whole answer, or the error object that the stream held.
        response_body: String,
    },
    /// The provider cannot be reached: refused, unresolved, not in time.
    #[error("Cannot connect to API: Unable to connect. Is the computer able to access the url?")]
    Connect {
        /// Where it was to be.
        url: String,
    },
    /// The connection broke, or the answer stopped before its end.
    // The words after the first sentence mean nothing here, but they are what clients are used to see.
    #[error(
        "Cannot connect to API: The socket connection was closed unexpectedly. For more information, pass `verbose: true` in the second argument to fetch()"
    )]
    Cut {
        /// Where it was.
        url: String,
    },
    /// The provider was silent for too long.
    #[error("The model provider {waiting_for} within {} seconds", limit.as_secs_f64())]
    Timeout {
        /// What was waited for, in words: "sent no answer", "sent nothing", "did not end its answer".
        waiting_for: &'static str,
        /// How long.
        limit: Duration,
        /// Where it was.
        url: String,
    },
    /// The stream held an error object instead of an answer.
    #[error("{error}")]
    Stream {
        /// The object, as compact JSON.
        error: String,
        /// Whether another attempt may go better.
        retryable: bool,
    },
    /// The stream held something that cannot be understood.
    #[error("JSON parsing failed: Text: {text}.\nError message: {reason}")]
    Malformed {
        /// What stood there, at most its beginning.
        text: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The provider sent more than is allowed.
    #[error("The model provider sent more than {limit} bytes of {what}")]
    TooLarge {
        /// Of what: "one line", "answer", "arguments for one tool call", "stream".
        what: &'static str,
        /// The bound, in bytes.
        limit: usize,
    },
}

/// An answer with a status other than success.
#[derive(Clone, Debug, PartialEq)]
pub struct ApiError {
    /// The provider's words, or the status in words.
    pub message: String,
    /// The HTTP status.
    pub status: u16,
    /// The answer's headers, names in lower case and in their order; cookies are left out.
    pub headers: Vec<(String, String)>,
    /// The answer's body, at most its first 64 KiB.
    pub body: String,
    /// Where it was, without credentials and query.
    pub url: String,
}

/// What a provider's answer says in so many words when it is only a matter of time.
const TRANSIENT: [&str; 12] = [
    "rate limit",
    "rate_limit",
    "ratelimit",
    "too many requests",
    "overloaded",
    "try again later",
    "temporarily unavailable",
    "service unavailable",
    "connection refused",
    "econnreset",
    "timed out",
    "fetch failed",
];

/// How providers say that a conversation is too long.
const OVERFLOW: [&str; 14] = [
    "context_length_exceeded",
    "context length",
    "context window",
    "context size",
    "model token limit",
    "prompt token count",
    "reduce the length of the messages",
    "input token count",
    "prompt is too long",
    "input is too long",
    "too many input tokens",
    "maximum prompt length",
    "exceeds the maximum number of tokens",
    "exceeds the model's maximum",
];

/// Codes and types of stream errors that no second attempt mends.
const FINAL: [&str; 10] = [
    "invalid_request_error",
    "invalid_prompt",
    "authentication_error",
    "permission_error",
    "permission_denied",
    "not_found_error",
    "model_not_found",
    "insufficient_quota",
    "billing_error",
    "content_filter",
];

fn mentions(text: &str, needles: &[&str]) -> bool {
    let text = text.to_ascii_lowercase();
    needles.iter().any(|needle| text.contains(needle))
}

impl ModelError {
    /// An answer with a status other than success, read as far as its body came.
    pub(crate) fn from_answer(
        status: reqwest::StatusCode,
        headers: Vec<(String, String)>,
        body: String,
        url: String,
    ) -> Self {
        let parsed = serde_json::from_str::<Value>(&body).ok();
        let status_text = status.canonical_reason().unwrap_or("Unknown error");
        let message = match parsed.as_ref().and_then(said) {
            Some(said) => said.to_owned(),
            None if body.trim().is_empty() || body.trim_start().starts_with('<') => status_text.to_owned(),
            None => format!("{status_text}: {body}"),
        };
        // A rate limit may speak of tokens, too, so a mere mention counts only where the request itself is refused.
        let overflow = match status.as_u16() {
            413 => true,
            400 | 422 => mentions(&body, &OVERFLOW),
            429 => false,
            _ => mentions(&body, &OVERFLOW[..1]),
        };
        if overflow {
            return Self::ContextOverflow { message, response_body: body };
        }
        Self::Api(Box::new(ApiError { message, status: status.as_u16(), headers, body, url }))
    }

    /// An error object that stood in the stream.
    pub(crate) fn from_stream(error: &Value) -> Self {
        let text = error.as_str().map_or_else(|| error.to_string(), str::to_owned);
        if mentions(&text, &OVERFLOW) && !mentions(&text, &TRANSIENT) {
            let message = error.get("message").and_then(Value::as_str).unwrap_or(&text).to_owned();
            return Self::ContextOverflow { message, response_body: text };
        }
        let names = [error.get("type"), error.get("code"), error.get("status")];
        let final_name = names.iter().flatten().filter_map(|name| name.as_str()).any(|name| mentions(name, &FINAL));
        let final_code = names
            .iter()
            .flatten()
            .filter_map(|name| name.as_u64())
            .any(|code| matches!(code, 400..=499 if !transient_status(u16::try_from(code).unwrap_or_default())));
        let retryable = mentions(&text, &TRANSIENT) || !(final_name || final_code);
        Self::Stream { error: text, retryable }
    }

    /// Text of the stream that cannot be understood.
    pub(crate) fn malformed(text: &str, reason: impl std::fmt::Display) -> Self {
        Self::Malformed { text: text.chars().take(1000).collect(), reason: reason.to_string() }
    }

    /// Whether another attempt may go better.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Connect { .. } | Self::Cut { .. } | Self::Timeout { .. } => true,
            Self::Api(api) => {
                transient_status(api.status) || mentions(&api.message, &TRANSIENT) || mentions(&api.body, &TRANSIENT)
            }
            Self::Stream { retryable, .. } => *retryable,
            Self::Invalid { .. } | Self::ContextOverflow { .. } | Self::Malformed { .. } | Self::TooLarge { .. } => {
                false
            }
        }
    }

    /// How long the provider asks us to wait, in milliseconds: `retry-after-ms`, else `retry-after` in seconds or as a
    /// date. A date is taken relative to the answer's own `date`, so that no clock but the provider's matters.
    pub fn retry_after_ms(&self) -> Option<u64> {
        let Self::Api(api) = self else { return None };
        let number = |text: &str| text.trim().parse::<f64>().ok().filter(|n| n.is_finite() && *n >= 0.0);
        if let Some(ms) = api.header("retry-after-ms").and_then(number) {
            return Some(ms.ceil() as u64);
        }
        let after = api.header("retry-after")?;
        if let Some(seconds) = number(after) {
            return Some((seconds * 1000.0).ceil() as u64);
        }
        let at = httpdate::parse_http_date(after.trim()).ok()?;
        let now = httpdate::parse_http_date(api.header("date")?.trim()).ok()?;
        let wait = at.duration_since(now).unwrap_or_default();
        Some(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX))
    }

    /// Whether the provider answered with headers that could have asked for a longer wait.
    pub fn has_response_headers(&self) -> bool {
        matches!(self, Self::Api(_))
    }

    /// The HTTP status, where the provider answered with one.
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Api(api) => Some(api.status),
            _ => None,
        }
    }

    /// The error as a message bears it.
    pub fn to_message_error(&self) -> MessageError {
        let message = self.to_string();
        let named = |name: &str, data: Value| MessageError { name: name.into(), data };
        match self {
            Self::Api(api) => {
                let mut headers = Map::new();
                for (name, value) in &api.headers {
                    match headers.get_mut(name) {
                        Some(Value::String(joined)) => *joined = format!("{joined}, {value}"),
                        _ => drop(headers.insert(name.clone(), json!(value))),
                    }
                }
                headers.sort_keys();
                named(
                    "APIError",
                    json!({
                        "message": message,
                        "statusCode": api.status,
                        "isRetryable": transient_status(api.status),
                        "responseHeaders": headers,
                        "responseBody": api.body,
                        "metadata": { "url": api.url },
                    }),
                )
            }
            Self::Connect { url } | Self::Cut { url } | Self::Timeout { url, .. } => {
                named("APIError", json!({ "message": message, "isRetryable": true, "metadata": { "url": url } }))
            }
            Self::ContextOverflow { response_body, .. } => {
                named("ContextOverflowError", json!({ "message": message, "responseBody": response_body }))
            }
            Self::Invalid { .. } | Self::Stream { .. } | Self::Malformed { .. } | Self::TooLarge { .. } => {
                MessageError::unknown(message)
            }
        }
    }
}

impl ApiError {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

/// The error of a message whose answer ended with [`crate::FinishReason::ContentFilter`].
pub fn content_filter_error() -> MessageError {
    MessageError::new("ContentFilterError", "The response was blocked by the provider's content filter")
}

/// What an error body says in words, in the places where providers put it.
fn said(body: &Value) -> Option<&str> {
    let error = body.get("error");
    let places = [error.and_then(|error| error.get("message")), error, body.get("message"), body.get("detail")];
    places.into_iter().flatten().filter_map(Value::as_str).find(|text| !text.is_empty())
}

fn transient_status(status: u16) -> bool {
    matches!(status, 408 | 409 | 429) || status >= 500
}

/// An address without its credentials and query, which may hold keys.
pub(crate) fn public_url(url: &str) -> String {
    match reqwest::Url::parse(url) {
        Ok(mut url) => {
            // Both fail only for addresses that have no host, and those have no credentials.
            let _ = url.set_username("");
            let _ = url.set_password(None);
            url.set_query(None);
            url.set_fragment(None);
            url.to_string()
        }
        Err(_) => "(not an address)".into(),
    }
}
