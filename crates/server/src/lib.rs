//! OpenCode's HTTP API on axum: routes, event streams, authentication, tenants, health, metrics.
