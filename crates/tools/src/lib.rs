//! The tool trait, the registry and the built-in tools.
