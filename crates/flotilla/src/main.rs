//! The binary: arguments, settings, choice of backends, signals, ordered shutdown.
fn main() {}
