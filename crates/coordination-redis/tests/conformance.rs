//! The Redis backend does what every backend must, against a real server.

mod support;

coordination::conformance_tests!(crate::support::world);
