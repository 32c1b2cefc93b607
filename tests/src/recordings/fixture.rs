//! The form of a recording, and where recordings are kept.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Deserialize;
use serde_json::{Map, Value};

/// What OpenCode did, as a fixture.
///
/// Texts name what differs from run to run: `<ses 1>`, `<msg 1>` and their kin an id (the same name, the same id), `<time>`
/// a moment, `<work>` the work tree; see [`text`](super::text).
#[derive(Debug, Clone, Deserialize)]
pub struct Recording {
    /// What it shows.
    pub about: String,
    /// The files of the work tree: a text, JSON, or `{"base64": ..}`.
    pub files: Map<String, Value>,
    /// Whether the work tree is a git repository.
    #[serde(default = "yes")]
    pub repository: bool,
    /// Files of a directory outside of the work tree, which `<outside>` stands for.
    #[serde(default)]
    pub outside: Map<String, Value>,
    /// What the model says.
    pub model: Script,
    /// The requests, in the order in which they were sent.
    pub steps: Vec<Step>,
    /// What `/event` told from the first request on: `{type, properties}`.
    pub events: Vec<Value>,
}

fn yes() -> bool {
    true
}

/// What the model says, in order; see [`script`](super::script).
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Script {
    /// The answers of the model `m`.
    pub main: Vec<Value>,
    /// The answers to requests for a title; where there are none, a title is given.
    #[serde(default)]
    pub small: Vec<Value>,
}

/// A request and its answer.
#[derive(Debug, Clone, Deserialize)]
pub struct Step {
    /// What is sent.
    pub send: Request,
    /// The steps that have no answer yet when this one is sent. All others before it have.
    #[serde(default, rename = "while")]
    pub meanwhile: Vec<usize>,
    /// What must have been told before: kinds of events and what else there is, each with how many.
    #[serde(default)]
    pub after: BTreeMap<String, usize>,
    /// Where the client goes away before the answer: once so many events of these kinds were told.
    #[serde(default)]
    pub left: Option<BTreeMap<String, usize>>,
    /// The answer: `{status, headers, body}`.
    #[serde(default)]
    pub answer: Value,
}

/// A request. Without `body` and `raw` it has no body.
#[derive(Debug, Clone, Deserialize)]
pub struct Request {
    /// The method.
    pub method: String,
    /// The path, with the query.
    pub path: String,
    /// More headers.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// A JSON body.
    #[serde(default)]
    pub body: Option<Value>,
    /// A body that need not be JSON.
    #[serde(default)]
    pub raw: Option<String>,
}

/// What was answered and told, recorded or here.
#[derive(Debug, Clone, Default)]
pub struct Conversation {
    /// The answers, each at the place of its request.
    pub answers: Vec<Value>,
    /// The events, in order.
    pub events: Vec<Value>,
}

impl Recording {
    /// The answers and events that were recorded.
    pub fn conversation(&self) -> Conversation {
        let answers = self.steps.iter().map(|step| step.answer.clone()).collect();
        Conversation { answers, events: self.events.clone() }
    }
}

/// The directory of the recordings.
pub fn directory() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fixtures/recordings")
}

/// All recordings with their names, in the order of the names.
///
/// # Errors
/// When a file cannot be read or is no recording.
pub fn all() -> anyhow::Result<Vec<(String, Recording)>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory())? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "json") {
            let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            let recording = serde_json::from_str(&std::fs::read_to_string(&path)?);
            found.push((name.clone(), recording.map_err(|e| anyhow::anyhow!("{name}: {e}"))?));
        }
    }
    found.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(found)
}
