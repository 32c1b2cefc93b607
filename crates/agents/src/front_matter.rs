//! Markdown files that begin with a block of YAML.

use serde_json::{Map, Value};
use yaml_rust2::{Yaml, YamlLoader};

/// Longer blocks are taken as text, in bytes.
const LONGEST: usize = 64 * 1024;

/// Splits a file into its fields and its text. A block that is broken counts as text, so that nothing is lost.
pub(crate) fn parse(file: &str) -> (Map<String, Value>, String) {
    match split_fields(file) {
        Some((fields, body)) => (fields, body.trim().to_owned()),
        None => (Map::new(), file.trim().to_owned()),
    }
}

/// The fields of a file that begins with them, and its text as it stands. `None` also if the block is broken.
pub(crate) fn split_fields(file: &str) -> Option<(Map<String, Value>, &str)> {
    let (block, body) = split(file)?;
    Some((fields(block)?, body))
}

fn split(file: &str) -> Option<(&str, &str)> {
    let file = file.strip_prefix('\u{feff}').unwrap_or(file);
    let rest = file.strip_prefix("---\n").or_else(|| file.strip_prefix("---\r\n"))?;
    let mut at = 0;
    for line in rest.split_inclusive('\n') {
        if line.trim_end() == "---" {
            return Some((&rest[..at], &rest[at + line.len()..]));
        }
        at += line.len();
    }
    None
}

fn fields(block: &str) -> Option<Map<String, Value>> {
    if block.len() > LONGEST || block.lines().any(nests_too_deep) {
        return None;
    }
    let documents =
        YamlLoader::load_from_str(block).or_else(|_| YamlLoader::load_from_str(&quote_prose(block))).ok()?;
    match documents.first() {
        None | Some(Yaml::Null) => Some(Map::new()),
        Some(yaml) => match to_json(yaml)? {
            Value::Object(fields) => Some(fields),
            _ => None,
        },
    }
}

/// The YAML reader recurses once for each `- ` of a line; it limits only brackets by itself.
fn nests_too_deep(line: &str) -> bool {
    line.split_whitespace().filter(|word| matches!(*word, "-" | "?")).count() > 64
}

/// People write `description: Use this: always`, which is no YAML. Such values are quoted.
fn quote_prose(block: &str) -> String {
    let quote = |line: &str| match line.split_once(": ") {
        Some((key, value))
            if !line.starts_with([' ', '#', '-'])
                && !value.trim_start().starts_with(['"', '\'', '[', '{', '|', '>'])
                && value.contains(": ") =>
        {
            format!("{key}: {}", Value::from(value.trim()))
        }
        _ => line.to_owned(),
    };
    block.lines().map(quote).collect::<Vec<_>>().join("\n")
}

/// `None` where YAML says what JSON cannot.
fn to_json(yaml: &Yaml) -> Option<Value> {
    Some(match yaml {
        Yaml::Real(_) => yaml.as_f64()?.into(),
        Yaml::Integer(number) => (*number).into(),
        Yaml::String(text) => text.clone().into(),
        Yaml::Boolean(value) => (*value).into(),
        Yaml::Array(entries) => entries.iter().map(to_json).collect::<Option<Vec<_>>>()?.into(),
        Yaml::Hash(entries) => {
            let entry = |(key, value): (&Yaml, &Yaml)| Some((to_key(key)?, to_json(value)?));
            Value::Object(entries.iter().map(entry).collect::<Option<Map<_, _>>>()?)
        }
        Yaml::Null => Value::Null,
        Yaml::Alias(_) | Yaml::BadValue => return None,
    })
}

fn to_key(yaml: &Yaml) -> Option<String> {
    match to_json(yaml)? {
        Value::String(text) => Some(text),
        Value::Object(_) | Value::Array(_) => None,
        other => Some(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::parse;
    use serde_json::{Value, json};

    #[test]
    fn fields_and_text_are_told_apart() {
        let (fields, body) = parse(
            "---\ndescription: A helper\ntools:\n  bash: false\npermission:\n  bash:\n    \"git *\": allow\n    \"*\": ask\ntemperature: 0.5\nsteps: 3\n---\n\nYou help.\n",
        );
        assert_eq!(
            Value::Object(fields),
            json!({"description": "A helper", "tools": {"bash": false}, "temperature": 0.5, "steps": 3,
                   "permission": {"bash": {"git *": "allow", "*": "ask"}}})
        );
        assert_eq!(body, "You help.");
    }

    #[test]
    fn a_value_with_a_colon_is_prose() {
        let (fields, _) = parse("---\ndescription: Use this: always\nmode: subagent\n---\nx");
        assert_eq!(fields["description"], "Use this: always");
        assert_eq!(fields["mode"], "subagent");
    }

    #[test]
    fn a_broken_block_is_text() {
        for text in ["---\nmode: [\n---\nx", "---\nnever closed", "no block at all", "---\n- a\n- b\n---\nx"] {
            let (fields, body) = parse(text);
            assert!(fields.is_empty(), "{text}");
            assert_eq!(body, text);
        }
        let deep = format!("---\n{}x\n---\nbody", "- ".repeat(30_000));
        assert!(parse(&deep).0.is_empty());
    }
}
