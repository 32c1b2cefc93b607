//! What is logged on stderr, and what is traced.

use crate::lines::Lines;
use opentelemetry_sdk::trace::SdkTracer;
use std::fmt;
use std::io::{IsTerminal, stderr};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{FilterExt, Targets, filter_fn};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// The form of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// For people; in colour on a terminal.
    Human,
    /// An object a line.
    Json,
}

impl Format {
    /// Each form with its name.
    pub const NAMES: [(&str, Self); 2] = [("human", Self::Human), ("json", Self::Json)];
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Human => "human",
            Self::Json => "json",
        })
    }
}

/// How much is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Level(LevelFilter);

impl Level {
    /// Each level with its name.
    pub const NAMES: [(&str, Self); 5] = [
        ("error", Self(LevelFilter::ERROR)),
        ("warn", Self(LevelFilter::WARN)),
        ("info", Self(LevelFilter::INFO)),
        ("debug", Self(LevelFilter::DEBUG)),
        ("trace", Self(LevelFilter::TRACE)),
    ];
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The crates whose lines follow the level.
const OURS: [&str; 12] = [
    "agents",
    "coordination",
    "coordination_redis",
    "engine",
    "flotilla",
    "models",
    "run_protocol",
    "sandbox",
    "server",
    "storage",
    "tools",
    "wire",
];

/// Starts logging and tracing. Call it once, before anything that may log.
///
/// Libraries that are not ours tell warnings only: what an HTTP client logs in detail may hold keys. Spans are followed
/// from `info` on, however little is logged: without them there is no trace to pass on.
pub fn start(format: Format, Level(level): Level, tracer: SdkTracer) {
    let of_ours = |level| OURS.iter().map(move |name| (*name, level));
    let logged = Targets::new().with_default(level.min(LevelFilter::WARN)).with_targets(of_ours(level));
    let traced = Targets::new().with_targets(of_ours(level.max(LevelFilter::INFO)));
    // What goes well is told by the spans themselves.
    let traced = traced.and(filter_fn(|metadata| metadata.is_span() || *metadata.level() <= tracing::Level::WARN));
    let lines = Lines::new(format, stderr().is_terminal());
    let spans = tracing_opentelemetry::layer().with_tracer(tracer).with_location(false).with_threads(false);
    let spans = spans.with_target(false).with_tracked_inactivity(false);
    tracing_subscriber::registry().with(spans.with_filter(traced)).with(lines.with_filter(logged)).init();
}
