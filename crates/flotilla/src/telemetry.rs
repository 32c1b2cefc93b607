//! Spans go to an OpenTelemetry collector, by OTLP over HTTP.

use crate::settings::Environment;
use anyhow::Context;
use opentelemetry::trace::TracerProvider;
use opentelemetry::{Key, KeyValue, global};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{Sampler, SdkTracer, SdkTracerProvider};
use std::time::Duration;

/// How long the last spans may take on their way out when the process ends.
const FAREWELL: Duration = Duration::from_secs(3);

/// The variables that name a collector, as OpenTelemetry has them. What else it has is read by its SDK.
const ENDPOINTS: [&str; 2] = ["OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"];

/// The traces of this process. They are followed, and passed on to whoever is called, also where nothing is exported.
pub struct Telemetry(SdkTracerProvider);

impl Telemetry {
    /// Starts it, with the export if the environment names a collector. To be called outside of an async runtime: the
    /// export has a thread and a client of its own, so that it works to the last.
    ///
    /// Errors: the collector's address is not one.
    pub fn start(environment: &Environment) -> anyhow::Result<Self> {
        global::set_text_map_propagator(TraceContextPropagator::new());
        let provider = SdkTracerProvider::builder().with_resource(resource());
        let provider = if is_wanted(environment) {
            let exporter = SpanExporter::builder().with_http().with_protocol(Protocol::HttpBinary).build();
            provider.with_batch_exporter(exporter.with_context(|| format!("{} cannot be used", ENDPOINTS[0]))?)
        } else {
            // Nobody reads what is recorded here; a caller that records gets its mark passed on.
            provider.with_sampler(Sampler::ParentBased(Box::new(Sampler::AlwaysOff)))
        };
        Ok(Self(provider.build()))
    }

    /// What makes spans of ours spans of OpenTelemetry.
    pub fn tracer(&self) -> SdkTracer {
        self.0.tracer("flotilla")
    }

    /// Sends what is left, and waits a few seconds for it at most.
    pub fn end(self) {
        if let Err(error) = self.0.shutdown_with_timeout(FAREWELL) {
            tracing::warn!(%error, "the last spans were not exported");
        }
    }
}

fn is_wanted(environment: &Environment) -> bool {
    let given = |name: &str| environment.get(name).is_some_and(|value| !value.trim().is_empty());
    let disabled = environment.get("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true"));
    ENDPOINTS.into_iter().any(given) && !disabled
}

/// Who exports: what the environment says, and our name where it says none.
fn resource() -> Resource {
    let version = KeyValue::new("service.version", env!("CARGO_PKG_VERSION"));
    let given = Resource::builder().build().get(&Key::new("service.name"));
    let is_named = given.is_some_and(|name| !name.as_str().starts_with("unknown_service"));
    let resource = Resource::builder().with_attribute(version);
    if is_named { resource.build() } else { resource.with_service_name("flotilla").build() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(pairs: &[(&str, &str)]) -> Environment {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn export_is_wanted_only_with_a_collector() {
        assert!(!is_wanted(&environment(&[])));
        assert!(!is_wanted(&environment(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "")])));
        let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318");
        assert!(is_wanted(&environment(&[endpoint])));
        assert!(!is_wanted(&environment(&[endpoint, ("OTEL_SDK_DISABLED", "true")])));
        assert!(is_wanted(&environment(&[("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://127.0.0.1:4318/v1/traces")])));
    }
}
