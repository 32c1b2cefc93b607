//! Values that must not be seen.

use std::sync::Arc;

/// What a client sees in the place of a secret.
pub const MASK: &str = "********";

/// A value that `Debug` doesn't show and that cannot be serialized by accident.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Arc<str>);

impl Secret {
    /// The value itself: for the header of a model request, never for a log.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<&str> for Secret {
    fn from(value: &str) -> Self {
        Self(value.into())
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(MASK)
    }
}
