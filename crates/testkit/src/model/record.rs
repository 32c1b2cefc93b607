//! What the scripted model remembers of each request.

use std::collections::BTreeMap;
use std::time::Instant;

use serde_json::Value;

/// One request to the scripted model.
#[derive(Debug, Clone)]
pub struct Recorded {
    /// The model that was asked.
    pub model: String,
    /// The session that asked, by the header `x-opencode-session-id`.
    pub session: Option<String>,
    /// The headers, their names in lower case.
    pub headers: BTreeMap<String, String>,
    /// The body.
    pub body: Value,
    /// When the request had been read.
    pub began: Instant,
    /// When the answer had been said, or the client had gone away; nothing while it goes on.
    pub ended: Option<Instant>,
    /// Whether the client went away before the answer had been said.
    pub disconnected: bool,
}

/// How many of the requests were open at the same time, at most.
pub(super) fn most_at_once(requests: &[&Recorded]) -> usize {
    let open_at = |moment: Instant| {
        requests.iter().filter(|r| r.began <= moment && r.ended.is_none_or(|ended| ended > moment)).count()
    };
    // The number only grows where a request begins.
    requests.iter().map(|r| open_at(r.began)).max().unwrap_or(0)
}
