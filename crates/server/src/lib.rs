//! OpenCode's HTTP API on axum: routes, event streams, authentication, limits, health, metrics.
//!
//! Everything that a request needs is in the engine: this crate translates. [`router`] is the whole service, [`serve`]
//! runs it on a listener.

mod auth;
mod bodies;
mod cors;
mod decode;
mod errors;
mod extract;
mod hash;
mod health;
mod limits;
mod log;
mod metrics;
mod openapi;
mod patience;
mod query;
mod routes;
mod serve;
mod sse;

pub use auth::Credentials;
pub use limits::Limits;
pub use serve::serve;

use axum::Router;
use axum::extract::Request;
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use engine::Engine;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tower::util::MapRequest;
use tower_http::compression::CompressionLayer;
use tower_http::compression::predicate::{Predicate, SizeAbove};
use tracing::Instrument;
use wire::clock::Entropy;
use wire::tenant::Tenant;

/// What the server is made from.
#[derive(Clone)]
pub struct App {
    /// The engine, which does everything.
    pub engine: Engine,
    /// Who may come in; nobody is asked if absent.
    pub auth: Option<Credentials>,
    /// Origins of web pages that may call, beside those that OpenCode always allows.
    pub cors: Vec<String>,
    /// The directory of requests that name none; absolute.
    pub default_directory: PathBuf,
    /// The user's folders and configuration, the same that the engine has.
    pub surroundings: agents::Surroundings,
    /// The time between heartbeats of an event stream.
    pub heartbeat: Duration,
    /// How much is taken of anything.
    pub limits: Limits,
    /// Whether `X-Request-ID` comes from a balancer that gives each request one of its own, and sends a request again under
    /// the same one.
    pub trust_request_id: bool,
    /// How long a prompt's answer may be silent before white space tells the balancer that it is still coming. From then on
    /// the death of this replica is the client's to notice.
    pub answer_keepalive: Duration,
    /// Where request ids and error references come from.
    pub entropy: Arc<dyn Entropy>,
    /// Cancelled when the drain begins: event streams are cut, `/readyz` says no, answers close their connections.
    pub drain: CancellationToken,
    /// Who all requests belong to.
    pub tenant: Tenant,
}

/// The application and what the server counts beside it.
pub(crate) struct Server {
    pub app: App,
    pub bodies: bodies::Bodies,
    pub streams: limits::Streams,
    pub metrics: metrics::Metrics,
    pub health: health::Health,
}

/// What every handler gets.
pub(crate) type Shared = Arc<Server>;

/// The whole service.
pub fn router(app: App) -> Router {
    let server = Arc::new(Server {
        bodies: bodies::Bodies::new(&app.limits),
        streams: limits::Streams::new(&app.limits),
        metrics: metrics::Metrics::default(),
        health: health::Health::default(),
        app,
    });
    // The last layer is the outermost. CORS stands before authentication: a preflight bears no credentials, and a
    // browser shows the refusal only if it bears the headers.
    let inner = routes::router()
        .layer(
            CompressionLayer::new()
                .compress_when(SizeAbove::new(1024).and(limits::may_compress as fn(_, _, &_, &_) -> _)),
        )
        .layer(from_fn(finish_writes))
        .layer(from_fn_with_state(server.clone(), auth::check))
        .layer(from_fn_with_state(server.clone(), limits::check))
        .layer(from_fn_with_state(server.clone(), cors::apply))
        .layer(from_fn_with_state(server.clone(), log::record))
        .with_state(server);
    // Paths are mended before they are matched, so this stands around the router and not among its layers.
    Router::new().fallback_service(MapRequest::new(inner, query::squeeze_path))
}

/// Goes on with a request that may write though its client goes away: what it has begun is told, or undone, by it alone.
async fn finish_writes(request: Request, next: Next) -> Response {
    if request.method().is_safe() {
        return next.run(request).await;
    }
    match tokio::spawn(engine::stay(next.run(request)).in_current_span()).await {
        Ok(response) => response,
        Err(error) => errors::Error::Internal(format!("a request's task broke: {error}")).into_response(),
    }
}
