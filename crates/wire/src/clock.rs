//! Time and randomness, handed in where behaviour depends on them.

/// The wall clock. Only for what people read and what orders a conversation; never to decide who may write.
pub trait Clock: Send + Sync {
    /// Milliseconds since the Unix epoch.
    fn now_ms(&self) -> u64;
}

/// A source of random bits: identifiers, attempts, jitter.
pub trait Entropy: Send + Sync {
    /// 64 random bits.
    fn bits(&self) -> u64;
}
