//! Counts for Prometheus. They tell how much is done, never for which session.

use crate::Shared;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use engine::Stats;
use http::{Method, header};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Mutex;
use std::time::Duration;

/// Upper bounds of the latency buckets, in seconds.
const BUCKETS: [f64; 12] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0, 120.0];

/// What is there at the moment.
#[derive(Debug, Clone, Copy)]
struct Gauges {
    /// Open event streams.
    streams: usize,
    /// Bytes of large requests.
    bodies: usize,
    /// Tasks of the runtime that serves.
    tasks: usize,
}

/// What was served.
#[derive(Default)]
pub(crate) struct Metrics(Mutex<Served>);

#[derive(Default)]
struct Served {
    /// By route, method and status.
    requests: BTreeMap<(String, &'static str, u16), u64>,
    /// By route.
    latency: BTreeMap<String, Histogram>,
}

#[derive(Default)]
struct Histogram {
    buckets: [u64; BUCKETS.len()],
    count: u64,
    sum: f64,
}

/// Methods that have a name here: a client must not be able to make up new series.
fn method_name(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "HEAD" => "HEAD",
        "POST" => "POST",
        "PUT" => "PUT",
        "PATCH" => "PATCH",
        "DELETE" => "DELETE",
        "OPTIONS" => "OPTIONS",
        _ => "other",
    }
}

impl Metrics {
    fn served(&self) -> std::sync::MutexGuard<'_, Served> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Counts one answer; `route` is the pattern, not the address.
    pub(crate) fn count(&self, route: &str, method: &Method, status: u16, took: Duration) {
        let mut served = self.served();
        *served.requests.entry((route.to_owned(), method_name(method), status)).or_default() += 1;
        let histogram = served.latency.entry(route.to_owned()).or_default();
        let seconds = took.as_secs_f64();
        if let Some(at) = BUCKETS.iter().position(|&bound| seconds <= bound) {
            histogram.buckets[at] += 1;
        }
        histogram.count += 1;
        histogram.sum += seconds;
    }

    fn render(&self, gauges: Gauges, stats: &Stats) -> String {
        let mut text = String::with_capacity(16 * 1024);
        // Writing to a string cannot fail.
        let _ = self.write(&mut text, gauges, stats);
        text
    }

    fn write(&self, out: &mut String, gauges: Gauges, stats: &Stats) -> std::fmt::Result {
        let served = self.served();
        head(out, "flotilla_http_requests_total", "counter", "Answers by route, method and status.")?;
        for ((route, method, status), count) in &served.requests {
            writeln!(
                out,
                "flotilla_http_requests_total{{route=\"{route}\",method=\"{method}\",status=\"{status}\"}} {count}"
            )?;
        }
        head(out, "flotilla_http_request_seconds", "histogram", "Time until the answer's head, by route.")?;
        for (route, histogram) in &served.latency {
            let mut below = 0;
            for (bound, count) in BUCKETS.iter().zip(histogram.buckets) {
                below += count;
                writeln!(out, "flotilla_http_request_seconds_bucket{{route=\"{route}\",le=\"{bound}\"}} {below}")?;
            }
            let Histogram { count, sum, .. } = histogram;
            writeln!(out, "flotilla_http_request_seconds_bucket{{route=\"{route}\",le=\"+Inf\"}} {count}")?;
            writeln!(out, "flotilla_http_request_seconds_sum{{route=\"{route}\"}} {sum}")?;
            writeln!(out, "flotilla_http_request_seconds_count{{route=\"{route}\"}} {count}")?;
        }
        drop(served);
        let Gauges { streams, bodies, tasks } = gauges;
        let Stats { runs, runs_begun, taken_over, lost, buried, steps, tool_calls, events, kept_bytes, frozen } =
            *stats;
        for (name, kind, help, value) in [
            ("flotilla_event_streams", "gauge", "Open event streams.", streams as u64),
            ("flotilla_body_bytes", "gauge", "Bytes of large requests that are held.", bodies as u64),
            ("flotilla_tasks", "gauge", "Tasks that are alive.", tasks as u64),
            ("flotilla_runs", "gauge", "Runs under way here.", runs),
            ("flotilla_runs_begun_total", "counter", "Runs begun here.", runs_begun),
            ("flotilla_runs_taken_over_total", "counter", "Runs taken over from another replica.", taken_over),
            ("flotilla_runs_lost_total", "counter", "Runs lost to another replica.", lost),
            ("flotilla_replicas_buried_total", "counter", "Replicas that this one found dead.", buried),
            ("flotilla_steps_total", "counter", "Steps completed.", steps),
            ("flotilla_tool_calls_total", "counter", "Tool calls run.", tool_calls),
            ("flotilla_events_total", "counter", "Events published.", events),
            ("flotilla_kept_bytes", "gauge", "Bytes of the store that are kept in memory.", kept_bytes),
            ("flotilla_frozen", "gauge", "1 while ownership cannot be proven.", u64::from(frozen)),
        ] {
            head(out, name, kind, help)?;
            writeln!(out, "{name} {value}")?;
        }
        Ok(())
    }
}

fn head(out: &mut String, name: &str, kind: &str, help: &str) -> std::fmt::Result {
    writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}")
}

/// All counts, in Prometheus' text format.
pub(crate) async fn show(State(server): State<Shared>) -> Response {
    let gauges = Gauges {
        streams: server.streams.open(),
        bodies: server.bodies.held(),
        tasks: tokio::runtime::Handle::current().metrics().num_alive_tasks(),
    };
    let text = server.metrics.render(gauges, &server.app.engine.stats());
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_cumulative() {
        let metrics = Metrics::default();
        let route = "/session/{sessionID}";
        for millis in [2, 2, 40, 200_000] {
            metrics.count(route, &Method::GET, 200, Duration::from_millis(millis));
        }
        metrics.count(route, &Method::from_bytes(b"BREW").unwrap(), 405, Duration::ZERO);
        let text = metrics.render(Gauges { streams: 7, bodies: 5, tasks: 9 }, &Stats { runs: 3, ..Stats::default() });
        for line in [
            r#"flotilla_http_requests_total{route="/session/{sessionID}",method="GET",status="200"} 4"#,
            r#"flotilla_http_requests_total{route="/session/{sessionID}",method="other",status="405"} 1"#,
            r#"flotilla_http_request_seconds_bucket{route="/session/{sessionID}",le="0.001"} 1"#,
            r#"flotilla_http_request_seconds_bucket{route="/session/{sessionID}",le="0.0025"} 3"#,
            r#"flotilla_http_request_seconds_bucket{route="/session/{sessionID}",le="0.05"} 4"#,
            r#"flotilla_http_request_seconds_bucket{route="/session/{sessionID}",le="+Inf"} 5"#,
            "flotilla_event_streams 7",
            "flotilla_body_bytes 5",
            "flotilla_tasks 9",
            "flotilla_runs 3",
            "flotilla_frozen 0",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
    }
}
