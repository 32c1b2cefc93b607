//! Is this replica alive, and may it get requests?

use crate::Shared;
use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde_json::json;
use std::sync::Mutex;
use std::time::Duration;
use tokio::time::Instant;

/// Looks that must agree before the answer changes: one hiccup moves no traffic.
const AGREEING: u32 = 2;
/// The least time between two looks, however many ask.
const BETWEEN: Duration = Duration::from_millis(500);

/// What `/readyz` said and found last.
#[derive(Default)]
pub(crate) struct Health(Mutex<Looks>);

#[derive(Default)]
struct Looks {
    /// The answer; none before the first look.
    ready: Option<bool>,
    /// Looks in a row that contradict the answer.
    against: u32,
    looked: Option<Instant>,
    reasons: Vec<String>,
}

impl Looks {
    fn observe(&mut self, reasons: Vec<String>) {
        let ready = reasons.is_empty();
        self.against = if self.ready == Some(!ready) { self.against + 1 } else { 0 };
        if self.ready.is_none() || self.against >= AGREEING {
            self.ready = Some(ready);
            self.against = 0;
        }
        self.reasons = reasons;
    }
}

impl Health {
    fn state(&self) -> std::sync::MutexGuard<'_, Looks> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// The process answers; nothing else is asked.
pub(crate) async fn live() -> Response {
    Json(json!({ "status": "ok" })).into_response()
}

/// Whether the replica may get requests, and what speaks against it. A drain counts at once, all else when two looks
/// agree.
pub(crate) async fn ready(State(server): State<Shared>) -> Response {
    let due = {
        let mut state = server.health.state();
        let due = state.looked.is_none_or(|looked| looked.elapsed() >= BETWEEN);
        if due {
            state.looked = Some(Instant::now());
        }
        due
    };
    if due {
        let found = server.app.engine.readiness().await;
        server.health.state().observe(found.reasons);
    }
    let (mut ready, mut reasons) = {
        let state = server.health.state();
        (state.ready == Some(true), state.reasons.clone())
    };
    if server.is_draining() {
        ready = false;
        if !reasons.iter().any(|reason| reason == "draining") {
            reasons.insert(0, "draining".to_owned());
        }
    }
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(json!({ "ready": ready, "reasons": reasons }))).into_response()
}

impl crate::Server {
    /// True once the drain began.
    pub(crate) fn is_draining(&self) -> bool {
        self.app.drain.is_cancelled() || self.app.engine.is_draining()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_hiccup_changes_nothing() {
        let mut state = Looks::default();
        let bad = || vec!["the store does not answer".to_owned()];
        let mut after = |reasons: Vec<String>| {
            state.observe(reasons);
            state.ready == Some(true)
        };
        assert!(after(vec![]));
        assert!(after(bad()));
        assert!(after(vec![]));
        assert!(after(bad()));
        assert!(!after(bad()));
        assert!(!after(vec![]));
        assert!(!after(bad()));
        assert!(!after(vec![]));
        assert!(after(vec![]));
    }

    #[test]
    fn the_first_look_decides_alone() {
        let mut state = Looks::default();
        state.observe(vec!["x".into()]);
        assert_eq!(state.ready, Some(false));
    }
}
