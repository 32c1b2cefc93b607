//! Comparing texts in which names stand for what differs from run to run.
//!
//! | name | stands for |
//! |---|---|
//! | `<ses 1>`, `<msg 1>`, `<prt 1>`, `<per 1>`, `<que 1>`, `<tool 1>` | an id with that prefix |
//! | `<hash 1>` | 40 hexadecimal digits |
//! | `<ulid 1>` | the id of a call that the server made |
//! | `<cursor 1>` | a place in a list |
//! | `<err 1>` | the reference of an error |
//! | `<iso>` | a moment such as `2026-01-31T12:00:00.000Z` |
//! | `<slug>` | two words joined by a hyphen |
//! | `<text>` | any text |
//! | `<and 100 more>`, at the end | so many more characters |
//!
//! A name with a number stands for the same thing wherever it occurs, and another name for another thing.

use std::collections::HashMap;
use std::sync::LazyLock;

use regex::Regex;

#[allow(clippy::expect_used, reason = "the patterns are constants")]
fn pattern(text: &str) -> Regex {
    Regex::new(text).expect("a pattern that is a constant")
}

static NAME: LazyLock<Regex> = LazyLock::new(|| {
    pattern(r"<(?:(ses|msg|prt|per|que|tool|hash|ulid|cursor|err) \d+|(iso|slug|text)|and (\d+) more)>")
});

static SHAPES: LazyLock<HashMap<&'static str, Regex>> = LazyLock::new(|| {
    let ids = ["ses", "msg", "prt", "per", "que", "tool"];
    let ids = ids.map(|kind| (kind, pattern(&format!("^(?:{kind}_[0-9a-f]{{12}}[0-9A-Za-z]{{14}}|<{kind} \\d+>)"))));
    let others = [
        ("hash", pattern(r"^(?:[0-9a-f]{40}|<hash \d+>)")),
        ("ulid", pattern(r"^(?:[0-9A-HJKMNP-TV-Z]{26}|<ulid \d+>)")),
        ("cursor", pattern(r"^(?:[0-9A-Za-z_-]{20,}|<cursor \d+>)")),
        ("err", pattern(r"^(?:err_[0-9a-f]{8}|<err \d+>)")),
        ("iso", pattern(r"^(?:\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z|<iso>)")),
        ("slug", pattern(r"^(?:[a-z]+-[a-z]+|<slug>)$")),
    ];
    ids.into_iter().chain(others).collect()
});

/// Which name of the recording stands for which value here.
#[derive(Debug, Clone, Default)]
pub struct Names {
    here: HashMap<String, String>,
    recorded: HashMap<String, String>,
}

impl Names {
    /// The same text with each name that is known put as its value. Nothing, where a name is not known.
    pub fn put_into(&self, text: &str) -> Option<String> {
        let mut put = String::new();
        let mut end = 0;
        for found in NAME.find_iter(text) {
            put.push_str(&text[end..found.start()]);
            put.push_str(self.here.get(found.as_str())?);
            end = found.end();
        }
        put.push_str(&text[end..]);
        Some(put)
    }

    /// The name of a value, if it has one.
    pub fn of(&self, value: &str) -> Option<&str> {
        self.recorded.get(value).map(String::as_str)
    }

    /// Whether a name stands, or may from now on stand, for a value.
    fn agree(&mut self, name: &str, value: &str) -> bool {
        match (self.here.get(name), self.recorded.get(value)) {
            (None, None) => {
                self.here.insert(name.to_owned(), value.to_owned());
                self.recorded.insert(value.to_owned(), name.to_owned());
                true
            }
            (known, _) => known.is_some_and(|known| known == value),
        }
    }

    /// Whether a text here is what was recorded.
    pub fn matches(&mut self, recorded: &str, here: &str) -> bool {
        if !recorded.contains('<') {
            return recorded == here;
        }
        if let Some(known) = self.here.get(recorded) {
            return known == here;
        }
        let mut rest = here;
        let mut end = 0;
        let mut anything = false;
        for found in NAME.captures_iter(recorded) {
            let Some(whole) = found.get(0) else { return false };
            let Some(after) = past(rest, &recorded[end..whole.start()], anything) else { return false };
            rest = after;
            end = whole.end();
            anything = whole.as_str() == "<text>";
            if anything {
                continue;
            }
            if let Some(count) = found.get(3) {
                let more = rest.chars().count() == count.as_str().parse().unwrap_or(usize::MAX);
                return end == recorded.len() && (more || rest == whole.as_str());
            }
            let kind = found.get(1).or(found.get(2)).map_or("", |kind| kind.as_str());
            let Some(value) = SHAPES.get(kind).and_then(|shape| shape.find(rest)) else { return false };
            if found.get(1).is_some() && !self.agree(whole.as_str(), value.as_str()) {
                return false;
            }
            rest = &rest[value.end()..];
        }
        let tail = &recorded[end..];
        if anything { rest.ends_with(tail) } else { rest == tail }
    }
}

/// What follows `wanted`, which stands at the beginning of the text, or after anything.
fn past<'a>(text: &'a str, wanted: &str, anything: bool) -> Option<&'a str> {
    if anything {
        let at = text.find(wanted)?;
        return Some(&text[at + wanted.len()..]);
    }
    text.strip_prefix(wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "ses_dfc90be49ffeGdkJYCzARU6Gnw";
    const TWO: &str = "ses_dfc90be49ffeGdkJYCzARU6Gnx";

    #[test]
    fn a_name_stands_for_one_value_and_a_value_for_one_name() {
        let mut names = Names::default();
        assert!(names.matches("in <ses 1>:", &format!("in {ONE}:")));
        assert!(names.matches("<ses 1>", ONE));
        assert!(!names.matches("<ses 1>", TWO));
        assert!(!names.matches("<ses 2>", ONE));
        assert!(names.matches("<ses 2>", TWO));
        assert!(!names.matches("<msg 1>", ONE), "an id of another kind");
        assert_eq!(names.put_into("/session/<ses 2>/x"), Some(format!("/session/{TWO}/x")));
        assert_eq!(names.put_into("<msg 7>"), None);
    }

    #[test]
    fn texts_are_the_same_but_for_what_names_stand_for() {
        let mut names = Names::default();
        assert!(names.matches("New session - <iso>", "New session - 2026-01-31T12:00:00.000Z"));
        assert!(!names.matches("New session - <iso>", "New session - today"));
        assert!(names.matches("a<text>b", "a, then b"));
        assert!(!names.matches("a<text>b", "a, then c"));
        assert!(names.matches("row<and 3 more>", "row 12"));
        assert!(!names.matches("row<and 3 more>", "row 123"));
        assert!(!names.matches("plain", "plainer"));
        assert!(!names.matches("plainer", "plain"));
    }
}
