//! The coordination ports with their contracts, and the in-process backend.
