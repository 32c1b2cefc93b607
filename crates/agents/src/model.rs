//! A model, ready to be called.

use crate::providers::{Capabilities, Cost, Limit};
use crate::secret::Secret;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::time::Duration;

/// Which model, by name: `provider/model`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ModelRef {
    /// The provider.
    #[serde(rename = "providerID")]
    pub provider_id: String,
    /// The model.
    #[serde(rename = "modelID")]
    pub model_id: String,
}

impl ModelRef {
    /// Splits `provider/model` at the first slash; the model's own name may hold more of them. Without a slash the
    /// model's name is empty, and nothing is found by it.
    pub fn parse(text: &str) -> Self {
        let (provider, model) = text.split_once('/').unwrap_or((text, ""));
        Self { provider_id: provider.to_owned(), model_id: model.to_owned() }
    }
}

impl std::fmt::Display for ModelRef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.provider_id, self.model_id)
    }
}

/// A model with all that a request to it needs. `Debug` shows neither the key nor the values of headers.
#[derive(Clone, Debug)]
pub struct Model {
    /// Its provider.
    pub provider_id: String,
    /// Its name here.
    pub id: String,
    /// Its name at the provider.
    pub api_id: String,
    /// Its name for people.
    pub name: String,
    /// Which wire format the provider speaks, by the name of the package that OpenCode would use for it.
    pub npm: String,
    /// What the paths of the API are appended to, without a slash at its end. Empty for the demo.
    pub base_url: String,
    /// The key, if the provider wants one.
    pub api_key: Option<Secret>,
    /// More headers: the provider's, then the model's.
    pub headers: BTreeMap<String, Secret>,
    /// The provider's own time-outs.
    pub timeouts: Timeouts,
    /// More fields for the request.
    pub options: Map<String, Value>,
    /// Sizes in tokens.
    pub limit: Limit,
    /// Dollars for a million tokens.
    pub cost: Cost,
    /// What it understands.
    pub capabilities: Capabilities,
    /// Named sets of options, to be laid over [`Model::options`].
    pub variants: BTreeMap<String, Map<String, Value>>,
    /// There is no model: answers are made up by the server.
    pub demo: bool,
}

/// How long a provider may take, where its options say so: `headerTimeout`, `chunkTimeout` and `timeout`, in milliseconds.
/// `false` stands for a day: no wait is without an end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timeouts {
    /// Until its answer begins.
    pub headers: Option<Duration>,
    /// Between two pieces of its answer.
    pub chunk: Option<Duration>,
    /// For a whole request.
    pub whole: Option<Duration>,
}

impl Timeouts {
    pub(crate) fn of(options: &Map<String, Value>) -> Self {
        let timeout = |key: &str| match options.get(key)? {
            Value::Bool(false) => Some(Duration::from_secs(24 * 60 * 60)),
            value => value.as_u64().map(Duration::from_millis),
        };
        Self { headers: timeout("headerTimeout"), chunk: timeout("chunkTimeout"), whole: timeout("timeout") }
    }
}

/// A model that nobody provides.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("Model not found: {model}.{}", hint(suggestions))]
pub struct ModelNotFound {
    /// What was asked for.
    pub model: ModelRef,
    /// Names that are alike, at most three: of models, or of providers if the provider is unknown.
    pub suggestions: Vec<String>,
}

fn hint(suggestions: &[String]) -> String {
    if suggestions.is_empty() { String::new() } else { format!(" Did you mean: {}?", suggestions.join(", ")) }
}

/// The names most like the wanted one, at most three; none that has little in common with it.
pub(crate) fn alike<'a>(wanted: &str, names: impl Iterator<Item = &'a str>) -> Vec<String> {
    let wanted = wanted.to_lowercase();
    let mut scored: Vec<(usize, &str)> = names
        .map(|name| (distance(&wanted, &name.to_lowercase()), name))
        .filter(|(distance, name)| *distance <= wanted.len().max(name.len()) / 2)
        .collect();
    scored.sort();
    scored.into_iter().take(3).map(|(_, name)| name.to_owned()).collect()
}

/// How many characters must change (Levenshtein); of long names only the beginnings are compared.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().take(100).collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().take(100).enumerate() {
        let mut corner = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.iter().enumerate() {
            let cost = if x == *y { corner } else { 1 + corner.min(row[j]).min(row[j + 1]) };
            corner = std::mem::replace(&mut row[j + 1], cost);
        }
    }
    row[b.len()]
}
