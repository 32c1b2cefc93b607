//! The in-process backend: the embedded default.
