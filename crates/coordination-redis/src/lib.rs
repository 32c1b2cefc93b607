//! The coordination ports on Redis.
