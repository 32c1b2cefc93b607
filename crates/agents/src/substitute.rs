//! `{env:NAME}` and `{file:path}` in the text of a configuration, before it is parsed.

use crate::error::ConfigError;
use crate::files::Files;
use crate::surroundings::Surroundings;
use std::path::Path;

/// Replaces both. An unknown variable is empty text; the content of a file is trimmed and escaped as in a JSON string.
/// A file that is missing is an error, unless the reference stands in a `//` line.
///
/// `source` names the configuration in errors, `base` is what relative paths are relative to.
pub(crate) fn substitute(
    text: &str,
    source: &Path,
    base: &Path,
    surroundings: &Surroundings,
    files: &mut Files,
) -> Result<String, ConfigError> {
    let text = replace(text, "{env:", |name, _| Ok(surroundings.env.get(name).cloned().unwrap_or_default()))?;
    replace(&text, "{file:", |reference, before| {
        let line = before.rsplit('\n').next().unwrap_or_default();
        if line.trim_start().starts_with("//") {
            return Ok(format!("{{file:{reference}}}"));
        }
        let path = base.join(surroundings.expand_home(reference));
        // `./x` is shown as the path that it means.
        let path: std::path::PathBuf = path.components().collect();
        let bad =
            |why: String| ConfigError::whole(source, format!("bad file reference: \"{{file:{reference}}}\" {why}"));
        let content = files.read(&path).map_err(|error| bad(format!("{}: {error}", path.display())))?;
        let content = content.ok_or_else(|| bad(format!("{} does not exist", path.display())))?;
        let quoted = serde_json::Value::from(content.trim()).to_string();
        Ok(quoted[1..quoted.len() - 1].to_owned())
    })
}

/// Replaces each `open...}`; the function gets what stands between, and all the text before it.
fn replace(
    text: &str,
    open: &str,
    mut with: impl FnMut(&str, &str) -> Result<String, ConfigError>,
) -> Result<String, ConfigError> {
    let mut result = String::with_capacity(text.len());
    let mut at = 0;
    while let Some(start) = text[at..].find(open).map(|found| at + found) {
        let inner = start + open.len();
        let Some(end) = text[inner..].find('}').map(|found| inner + found) else { break };
        result.push_str(&text[at..start]);
        result.push_str(&with(&text[inner..end], &text[..start])?);
        at = end + 1;
    }
    result.push_str(&text[at..]);
    Ok(result)
}
