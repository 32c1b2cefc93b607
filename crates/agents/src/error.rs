//! A configuration that cannot be used.

use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// What is wrong with a directory's configuration.
///
/// Every request to that directory answers 400 with [`ConfigError::body`], until the file is mended.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ConfigError {
    /// A file is not JSON, with comments and trailing commas allowed.
    #[error("{}: {message}", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// What stands where. Never the text itself: substituted secrets may stand in it.
        message: String,
    },
    /// A file says something that means nothing.
    #[error("{}: {}", path.display(), first_words(message, issues))]
    Invalid {
        /// The file, or the name of the variable that holds the configuration.
        path: PathBuf,
        /// What is wrong with the whole; absent where single fields are wrong.
        message: Option<String>,
        /// The fields that are wrong.
        issues: Vec<Issue>,
    },
}

/// One field that is wrong.
#[derive(Clone, Debug, PartialEq)]
pub struct Issue {
    /// Where it stands, from the root.
    pub path: Vec<String>,
    /// What was expected, and what was found.
    pub message: String,
}

impl ConfigError {
    /// An error that no single field is to blame for.
    pub(crate) fn whole(path: &Path, message: impl Into<String>) -> Self {
        Self::Invalid { path: path.to_owned(), message: Some(message.into()), issues: Vec::new() }
    }

    /// The name that clients know the error by.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Json { .. } => "ConfigJsonError",
            Self::Invalid { .. } => "ConfigInvalidError",
        }
    }

    /// The body of the answer: `{name, data}`.
    pub fn body(&self) -> Value {
        let data = match self {
            Self::Json { path, message } => json!({ "path": path, "message": message }),
            Self::Invalid { path, message: Some(message), .. } => json!({ "path": path, "message": message }),
            Self::Invalid { path, message: None, issues } => {
                let issue = |issue: &Issue| json!({ "path": issue.path, "message": issue.message });
                json!({ "path": path, "issues": issues.iter().map(issue).collect::<Vec<_>>() })
            }
        };
        json!({ "name": self.name(), "data": data })
    }
}

fn first_words(message: &Option<String>, issues: &[Issue]) -> String {
    match (message, issues.first()) {
        (Some(message), _) => message.clone(),
        (None, Some(issue)) => format!("{}: {}", issue.path.join("."), issue.message),
        (None, None) => "invalid configuration".into(),
    }
}
