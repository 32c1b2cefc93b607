//! Providers and models, as clients see them.

use serde::Serialize;
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// A provider, as clients see it.
///
/// OpenCode shows `options.apiKey` (and `key`) as they are. Here the shape is kept and the value is masked: whoever may
/// read the configuration of a fleet need not be the one who pays for its models.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ProviderInfo {
    /// Its name in `provider/model`.
    pub id: String,
    /// Its name for people.
    pub name: String,
    /// Where it comes from: `config`, `env` or `custom`.
    pub source: &'static str,
    /// The variables that may hold its key.
    pub env: Vec<String>,
    /// Present, and masked, if the key comes from the environment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<&'static str>,
    /// Its options, secrets masked.
    pub options: Map<String, Value>,
    /// Its models by name, in the order of the config.
    #[serde(serialize_with = "by_id")]
    pub models: Vec<ModelInfo>,
}

fn by_id<S: serde::Serializer>(models: &[ModelInfo], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(models.iter().map(|model| (&model.id, model)))
}

/// A model, as clients see it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ModelInfo {
    /// Its name in `provider/model`.
    pub id: String,
    /// Its provider.
    #[serde(rename = "providerID")]
    pub provider_id: String,
    /// How it is called.
    pub api: Api,
    /// Its name for people.
    pub name: String,
    /// The family it belongs to; may be empty.
    pub family: String,
    /// What it understands.
    pub capabilities: Capabilities,
    /// Dollars for a million tokens.
    pub cost: Cost,
    /// Sizes in tokens.
    pub limit: Limit,
    /// `active`, `alpha`, `beta`.
    pub status: String,
    /// More fields for the request.
    pub options: Map<String, Value>,
    /// More headers, values masked.
    pub headers: BTreeMap<String, String>,
    /// Since when it exists; may be empty.
    pub release_date: String,
    /// Named sets of options.
    pub variants: BTreeMap<String, Map<String, Value>>,
}

/// How a model is called.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Api {
    /// Its name at the provider.
    pub id: String,
    /// An address of its own; empty if it has the provider's.
    pub url: String,
    /// The wire format, by the name of OpenCode's package for it.
    pub npm: String,
}

/// What a model understands.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Capabilities {
    /// It takes `temperature` and `top_p`.
    pub temperature: bool,
    /// It thinks before it answers.
    pub reasoning: bool,
    /// Files may be attached.
    pub attachment: bool,
    /// It calls tools.
    pub toolcall: bool,
    /// What it reads.
    pub input: Modalities,
    /// What it writes.
    pub output: Modalities,
    /// Whether, or in which field, reasoning stands between the text: `true`, `false` or `{"field": name}`.
    pub interleaved: Value,
}

/// Kinds of content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Modalities {
    /// Text.
    pub text: bool,
    /// Sound.
    pub audio: bool,
    /// Images.
    pub image: bool,
    /// Films.
    pub video: bool,
    /// PDF files.
    pub pdf: bool,
}

/// Dollars for a million tokens. Reasoning costs what output costs.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Cost {
    /// Read.
    #[serde(serialize_with = "short")]
    pub input: f64,
    /// Written.
    #[serde(serialize_with = "short")]
    pub output: f64,
    /// Read from, and written to, the provider's cache.
    pub cache: CacheCost,
    /// The prices beyond a context of 200,000 tokens, if they differ.
    #[serde(rename = "experimentalOver200K", skip_serializing_if = "Option::is_none")]
    pub over_200k: Option<Box<Cost>>,
}

/// Dollars for a million cached tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct CacheCost {
    /// Read.
    #[serde(serialize_with = "short")]
    pub read: f64,
    /// Written.
    #[serde(serialize_with = "short")]
    pub write: f64,
}

/// Whole numbers without a fraction: `3`, not `3.0`.
fn short<S: serde::Serializer>(number: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    if number.fract() == 0.0 && (0.0..1e15).contains(number) {
        serializer.serialize_u64(*number as u64)
    } else {
        serializer.serialize_f64(*number)
    }
}

/// Sizes in tokens; 0 is unknown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Limit {
    /// Everything together.
    pub context: u64,
    /// What may be sent, if that is limited by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input: Option<u64>,
    /// What may be answered.
    pub output: u64,
}
