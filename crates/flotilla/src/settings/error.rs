//! What is wrong with a setting.

/// A wrong or unknown setting: one line that names it. It never holds the value of a secret.
#[derive(Debug, thiserror::Error)]
#[error("{place}: {reason}")]
pub struct SettingError {
    /// The flag, the variable, or the key and its file.
    pub place: String,
    /// What is wrong.
    pub reason: String,
}

impl SettingError {
    /// `place` is wrong for this `reason`.
    pub fn new(place: impl ToString, reason: impl ToString) -> Self {
        Self { place: place.to_string(), reason: reason.to_string() }
    }
}
