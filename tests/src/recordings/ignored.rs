//! The one list of what is not compared, with reasons, and of how much must be compared.

use std::collections::BTreeMap;

use serde::Deserialize;

/// The list.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ignored {
    /// Values that are not compared.
    pub ignored: Vec<Place>,
    /// Events whose order among others is not compared, only that among themselves.
    pub apart: Vec<Apart>,
    /// How many fields of each recording are compared at least.
    pub compared: BTreeMap<String, usize>,
}

/// A place in answers and events.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Place {
    /// The paths: `*` stands for one name (or the rest of one), `**` for any number of them.
    pub at: Vec<String>,
    /// The recordings that it holds for, by the beginnings of their names; all if there is none.
    #[serde(default, rename = "in")]
    pub within: Vec<String>,
    /// Why.
    pub reason: String,
    #[serde(skip)]
    names: Vec<Vec<String>>,
}

/// Events that are ordered among themselves only.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Apart {
    /// Their kind, which may end in `*`.
    pub kind: String,
    /// Why.
    pub reason: String,
}

impl Ignored {
    /// The list of the fixtures.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn read() -> anyhow::Result<Self> {
        let mut list: Self = toml::from_str(&std::fs::read_to_string(super::fixture::directory().join("list.toml"))?)?;
        for place in &mut list.ignored {
            place.names = place.at.iter().map(|path| path.split('/').map(str::to_owned).collect()).collect();
        }
        Ok(list)
    }

    /// Whether what is at this place of a recording is ignored.
    pub fn holds(&self, recording: &str, path: &[String]) -> bool {
        let in_it =
            |place: &&Place| place.within.is_empty() || place.within.iter().any(|name| recording.starts_with(name));
        self.ignored.iter().filter(in_it).flat_map(|place| &place.names).any(|names| covers(names, path))
    }

    /// The place among others of events of this kind: none for those that keep their order with all.
    pub fn lane(&self, kind: &str) -> Option<&str> {
        self.apart.iter().map(|apart| apart.kind.as_str()).find(|pattern| name_matches(pattern, kind))
    }
}

fn covers(pattern: &[String], path: &[String]) -> bool {
    // Nearly all patterns end otherwise than nearly all paths.
    if let (Some(wanted), Some(last)) = (pattern.last(), path.last())
        && wanted != "**"
        && !name_matches(wanted, last)
    {
        return false;
    }
    match pattern.split_first() {
        None => path.is_empty(),
        Some((name, rest)) if name == "**" => (0..=path.len()).any(|from| covers(rest, &path[from..])),
        Some((name, rest)) => {
            path.split_first().is_some_and(|(first, others)| name_matches(name, first) && covers(rest, others))
        }
    }
}

fn name_matches(pattern: &str, name: &str) -> bool {
    pattern.strip_suffix('*').map_or(pattern == name, |beginning| name.starts_with(beginning))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> Vec<String> {
        text.split('/').map(str::to_owned).collect()
    }

    #[test]
    fn a_pattern_covers_what_it_says_and_nothing_else() {
        for (pattern, covered, not) in [
            ("**/slug", "answers/0/body/slug", "answers/0/body/slug/x"),
            (
                "events/session.*/info/*",
                "events/session.updated/info/title",
                "events/session.updated/info/time/created",
            ),
            ("answers/3/status", "answers/3/status", "answers/4/status"),
            ("**/a/**/b", "a/b", "a/c"),
        ] {
            assert!(covers(&path(pattern), &path(covered)), "{pattern} {covered}");
            assert!(!covers(&path(pattern), &path(not)), "{pattern} {not}");
        }
    }
}
