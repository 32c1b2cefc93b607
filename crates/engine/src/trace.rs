//! The spans of a run, and the trace that they are part of.
//!
//! What a run does bears its identity (session, attempt, fence) in every span. A run, and what may outlive it, is part
//! of its cause's trace without being a child of its cause's span: a span ends only after its children.

use coordination::{Attempt, ReplicaId, SessionKey};
use models::ChatRequest;
use opentelemetry::{Context, global};
use run_protocol::Fence;
use sandbox::Identity;
use std::collections::HashMap;
use tools::{Output, ToolError};
use tracing::field::Empty;
use tracing::{Span, debug_span, info_span};
use tracing_opentelemetry::OpenTelemetrySpanExt;

/// The span of a run, from its lease to its release. The fence comes with [`fenced`].
pub(crate) fn run(key: &SessionKey, attempt: &Attempt, replica: &ReplicaId, took_over: bool) -> Span {
    caused(info_span!(
        parent: None, "run", otel.status_code = Empty, tenant = %key.tenant, session = %key.session, %attempt,
        fence = Empty, %replica, took_over, status = Empty
    ))
}

/// Notes the fence of the run whose span this is in.
pub(crate) fn fenced(fence: Fence) {
    Span::current().record("fence", fence.0);
}

/// Notes how the span's work ended.
pub(crate) fn end(span: &Span, status: &str) {
    span.record("status", status);
}

/// Notes that the span's work failed, and what with.
pub(crate) fn fail(span: &Span, status: &str) {
    span.record("status", status);
    span.record("otel.status_code", "ERROR");
}

/// The span of a step: one model call, or several attempts at it, and its tools.
pub(crate) fn step(identity: &Identity) -> Span {
    let Identity { session, attempt, fence } = identity;
    info_span!("step", otel.status_code = Empty, session, attempt, fence, status = Empty)
}

/// The span of a tool call.
pub(crate) fn tool(identity: &Identity, tool: &str, call: &str) -> Span {
    let Identity { session, attempt, fence } = identity;
    info_span!("tool", otel.status_code = Empty, session, attempt, fence, tool, call, status = Empty)
}

/// The span of a model call; the request bears it in its headers.
pub(crate) fn model(identity: &Identity, request: &mut ChatRequest) -> Span {
    let Identity { session, attempt, fence } = identity;
    let model = &request.model;
    let span = caused(info_span!(
        parent: None, "model", otel.kind = "client", otel.status_code = Empty, session, attempt, fence, model,
        status = Empty
    ));
    let mut carrier = HashMap::new();
    global::get_text_map_propagator(|propagator| propagator.inject_context(&span.context(), &mut carrier));
    request.headers.extend(carrier.into_iter().filter(|(_, value)| !value.is_empty()));
    span
}

/// Notes how the tool call whose span this is in ended.
pub(crate) fn tool_ended(result: &Result<Output, ToolError>) {
    let span = Span::current();
    match result {
        Ok(_) => end(&span, "completed"),
        Err(ToolError::Rejected { .. }) => end(&span, "rejected"),
        Err(ToolError::Aborted) => end(&span, "aborted"),
        Err(ToolError::Lost) => end(&span, "lost"),
        Err(_) => fail(&span, "error"),
    }
}

/// The span of a lock, from the wish to the answer.
pub(crate) fn lock(name: &str) -> Span {
    debug_span!("lock", lock = name)
}

/// The span of an operation on a lease.
pub(crate) fn lease(operation: &'static str, key: &SessionKey, attempt: &Attempt) -> Span {
    debug_span!("lease", operation, session = %key.session, %attempt)
}

/// Makes what is current the cause of a span.
fn caused(span: Span) -> Span {
    // Refused where nothing is traced, which is no loss.
    let _ = span.set_parent(Context::current());
    span
}
