//! What all replicas of a fleet have alike: the first says it, the living keep it, who has something else does not start.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

/// What all replicas of a fleet must have alike, name by name.
#[derive(Clone, Debug, Default)]
pub struct Agreement {
    values: BTreeMap<&'static str, String>,
    /// How long it outlives the last replica that keeps it.
    pub(crate) age: Duration,
}

impl Agreement {
    /// These values, which a fleet is held to until none of it has beaten for `age`. Names and values are of
    /// `A-Z a-z 0-9 - .`; other characters are left out.
    pub fn new(age: Duration, values: impl IntoIterator<Item = (&'static str, String)>) -> Self {
        let plain = |value: String| value.chars().filter(|&c| c.is_ascii_alphanumeric() || "-.".contains(c)).collect();
        Self { values: values.into_iter().map(|(name, value)| (name, plain(value))).collect(), age }
    }

    /// As it stands in Redis.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        for (name, value) in &self.values {
            // Writing to a string cannot fail.
            let _ = write!(text, "{name}={value};");
        }
        text
    }

    /// What a fleet has another value of, with that and the own one. What only one of the two names is of a later version.
    pub(crate) fn difference(&self, text: &str) -> Option<(&'static str, String, String)> {
        let theirs: BTreeMap<&str, &str> = text.split(';').filter_map(|pair| pair.split_once('=')).collect();
        self.values.iter().find_map(|(&name, own)| {
            let found = *theirs.get(name)?;
            (found != own).then(|| (name, found.to_owned(), own.clone()))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_both_name_can_differ() {
        let agreement =
            |tick: &str| Agreement::new(Duration::ZERO, [("tick", tick.to_owned()), ("a", "';--".to_owned())]);
        let text = agreement("1s").text();
        assert_eq!(text, "a=--;tick=1s;");
        assert_eq!(agreement("1s").difference(&text), None);
        assert_eq!(agreement("2s").difference(&text), Some(("tick", "1s".to_owned(), "2s".to_owned())));
        assert_eq!(agreement("2s").difference("a=--;later=x;"), None);
    }
}
