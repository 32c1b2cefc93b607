//! Model providers: those of the config, those whose key is in the environment, and the demo.

use crate::catalog::{PREFERRED, SMALL, WELL_KNOWN, WellKnown};
use crate::merge;
use crate::model::{Model, ModelNotFound, ModelRef, alike};
use crate::secret::{MASK, Secret};
use crate::surroundings::Surroundings;
use serde::Serialize;
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, HashMap};

/// The provider that has no model behind it, and its only model.
pub const DEMO_PROVIDER: &str = "demo";
/// The demo's model.
pub const DEMO_MODEL: &str = "demo";
/// What a provider speaks unless its config names something else.
const OPENAI_COMPATIBLE: &str = "@ai-sdk/openai-compatible";

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

/// A provider with what must not be seen.
#[derive(Clone, Debug)]
struct Provider {
    info: ProviderInfo,
    base_url: String,
    api_key: Option<Secret>,
    headers: BTreeMap<String, Secret>,
    model_headers: HashMap<String, BTreeMap<String, Secret>>,
    connected: bool,
}

/// The providers of an instance.
#[derive(Clone, Debug)]
pub struct Providers {
    list: Vec<Provider>,
}

impl Providers {
    /// Builds the providers of a merged configuration, secrets unmasked. A provider that cannot be called (no address,
    /// no model) is known but not connected.
    pub(crate) fn new(config: &Map<String, Value>, surroundings: &Surroundings) -> Self {
        let configured = config.get("provider").and_then(Value::as_object);
        let mut list: Vec<Provider> = Vec::new();
        for known in &WELL_KNOWN {
            let own = configured.and_then(|map| map.get(known.id));
            list.push(Provider::new(known.id, Some(known), own, surroundings));
        }
        for (id, own) in configured.into_iter().flatten() {
            if WELL_KNOWN.iter().all(|known| known.id != id) {
                list.push(Provider::new(id, None, Some(own), surroundings));
            }
        }
        let names = |key: &str| config.get(key).and_then(texts);
        if let Some(enabled) = names("enabled_providers") {
            list.retain(|provider| enabled.contains(&provider.info.id));
        }
        if let Some(disabled) = names("disabled_providers") {
            list.retain(|provider| !disabled.contains(&provider.info.id));
        }
        if surroundings.demo {
            list.retain(|provider| provider.info.id != DEMO_PROVIDER);
            list.push(Provider::demo());
        }
        // The default model is looked for in this order: the user's own words first, the demo last.
        list.sort_by_key(|provider| match (provider.info.id.as_str(), provider.info.source) {
            (DEMO_PROVIDER, "custom") => 2,
            (_, "config") => 0,
            _ => 1,
        });
        Self { list }
    }

    fn connected(&self) -> impl Iterator<Item = &Provider> {
        self.list.iter().filter(|provider| provider.connected)
    }

    /// The body of `GET /config/providers`: those that can be called.
    pub fn config_body(&self) -> Value {
        let providers: Vec<_> = self.connected().map(|provider| &provider.info).collect();
        json!({ "providers": providers, "default": defaults(&providers) })
    }

    /// The body of `GET /provider`: all that are known, and which of them can be called.
    pub fn body(&self) -> Value {
        let all: Vec<_> = self.list.iter().map(|provider| &provider.info).collect();
        let connected: Vec<_> = self.connected().map(|provider| &provider.info.id).collect();
        json!({ "all": all, "default": defaults(&all), "connected": connected })
    }

    /// The providers that can be called, as clients see them.
    pub fn list(&self) -> impl Iterator<Item = &ProviderInfo> {
        self.connected().map(|provider| &provider.info)
    }

    /// The best-ranked model of the first provider.
    pub(crate) fn first_model(&self) -> Option<ModelRef> {
        self.connected().find_map(|provider| best(&provider.info.models)).map(reference)
    }

    /// A quick and cheap model of a provider, if one is known by its name.
    pub(crate) fn small_model(&self, provider_id: &str) -> Option<ModelRef> {
        let provider = self.connected().find(|provider| provider.info.id == provider_id)?;
        let of = |part: &&str| provider.info.models.iter().find(|model| model.id.contains(*part));
        SMALL.iter().find_map(of).map(reference)
    }

    /// True if the model can be called.
    pub(crate) fn has(&self, model: &ModelRef) -> bool {
        self.model(model).is_ok()
    }

    /// Everything that a request to a model needs.
    pub(crate) fn model(&self, wanted: &ModelRef) -> Result<Model, ModelNotFound> {
        let missing = |suggestions| ModelNotFound { model: wanted.clone(), suggestions };
        let Some(provider) = self.connected().find(|provider| provider.info.id == wanted.provider_id) else {
            let names = self.connected().map(|provider| provider.info.id.as_str());
            return Err(missing(alike(&wanted.provider_id, names)));
        };
        let Some(model) = provider.info.models.iter().find(|model| model.id == wanted.model_id) else {
            let names = provider.info.models.iter().map(|model| model.id.as_str());
            return Err(missing(alike(&wanted.model_id, names)));
        };
        let mut headers = provider.headers.clone();
        headers.extend(provider.model_headers.get(&model.id).cloned().unwrap_or_default());
        let address = if model.api.url.is_empty() { &provider.base_url } else { &model.api.url };
        Ok(Model {
            provider_id: provider.info.id.clone(),
            id: model.id.clone(),
            api_id: model.api.id.clone(),
            name: model.name.clone(),
            npm: model.api.npm.clone(),
            base_url: address.trim_end_matches('/').to_owned(),
            api_key: provider.api_key.clone(),
            headers,
            options: model.options.clone(),
            limit: model.limit,
            cost: model.cost.clone(),
            capabilities: model.capabilities.clone(),
            variants: model.variants.clone(),
            demo: provider.info.id == DEMO_PROVIDER && provider.info.source == "custom",
        })
    }
}

impl Provider {
    /// A provider from what is known of it and what the config says of it; the config wins.
    fn new(id: &str, known: Option<&WellKnown>, own: Option<&Value>, surroundings: &Surroundings) -> Self {
        let empty = Map::new();
        let config = own.and_then(Value::as_object).unwrap_or(&empty);
        let text = |key: &str| config.get(key).and_then(Value::as_str);
        let env = config.get("env").and_then(texts);
        let env = env.unwrap_or_else(|| known.map(|known| known.key.to_owned()).into_iter().collect());
        let options = config.get("options").and_then(Value::as_object).cloned().unwrap_or_default();
        let option = |key: &str| options.get(key).and_then(Value::as_str).filter(|value| !value.is_empty());
        let from_env = env.iter().find_map(|name| surroundings.env.get(name).filter(|value| !value.is_empty()));
        let npm = text("npm").or(known.map(|known| known.npm)).unwrap_or(OPENAI_COMPATIBLE);
        let usual = WELL_KNOWN.iter().find(|other| other.npm == npm).map(|other| other.base_url);
        let base_url = option("baseURL").or(text("api")).or(usual).unwrap_or_default().to_owned();

        let mut entries = known.map_or_else(|| json!({}), |known| (known.models)());
        merge::deep(&mut entries, config.get("models").cloned().unwrap_or_else(|| json!({})));
        let listed = |key: &str| config.get(key).and_then(texts);
        let (whitelist, blacklist) = (listed("whitelist"), listed("blacklist"));
        let mut models = Vec::new();
        let mut model_headers = HashMap::new();
        for (model_id, entry) in entries.as_object().into_iter().flatten() {
            let allowed = whitelist.as_ref().is_none_or(|list| list.contains(model_id))
                && blacklist.as_ref().is_none_or(|list| !list.contains(model_id));
            let deprecated = entry.get("status").and_then(Value::as_str) == Some("deprecated");
            if allowed && !deprecated {
                models.push(model_info(id, model_id, npm, text("api"), entry));
                model_headers.insert(model_id.clone(), headers(entry.get("headers")));
            }
        }

        let callable =
            !models.is_empty() && models.iter().all(|model| !base_url.is_empty() || !model.api.url.is_empty());
        let has_key = option("apiKey").is_some() || from_env.is_some();
        // At its own address a well-known provider needs a key; what is configured elsewhere may need none.
        let keyless = own.is_some() && known.is_none_or(|known| known.base_url != base_url);
        let connected = callable && (has_key || keyless);
        if own.is_some() && !callable {
            tracing::warn!(
                provider = id,
                "the provider has no address (options.baseURL) or no model; it is not offered"
            );
        }
        let key_from_env = option("apiKey").is_none() && from_env.is_some();
        let source = match (own, from_env) {
            (Some(_), _) => "config",
            (None, Some(_)) => "env",
            (None, None) => "custom",
        };
        Self {
            api_key: option("apiKey").or(from_env.map(String::as_str)).map(Secret::from),
            headers: headers(options.get("headers")),
            info: ProviderInfo {
                id: id.to_owned(),
                name: text("name").or(known.map(|known| known.name)).unwrap_or(id).to_owned(),
                source,
                env,
                key: key_from_env.then_some(MASK),
                options: masked_options(options),
                models,
            },
            base_url,
            model_headers,
            connected,
        }
    }

    fn demo() -> Self {
        let entry = json!({ "name": "Demo", "limit": { "context": 100_000, "output": 4_000 } });
        Self {
            info: ProviderInfo {
                id: DEMO_PROVIDER.into(),
                name: "Demo (no model behind it)".into(),
                source: "custom",
                env: Vec::new(),
                key: None,
                options: Map::new(),
                models: vec![model_info(DEMO_PROVIDER, DEMO_MODEL, DEMO_PROVIDER, None, &entry)],
            },
            base_url: String::new(),
            api_key: None,
            headers: BTreeMap::new(),
            model_headers: HashMap::new(),
            connected: true,
        }
    }
}

fn model_info(provider_id: &str, id: &str, npm: &str, address: Option<&str>, entry: &Value) -> ModelInfo {
    let text = |key: &str| entry.get(key).and_then(Value::as_str);
    let flag = |key: &str, default: bool| entry.get(key).and_then(Value::as_bool).unwrap_or(default);
    let number = |path: &str| entry.pointer(path).and_then(Value::as_f64).map(|number| number as u64);
    let object = |key: &str| entry.get(key).and_then(Value::as_object).cloned().unwrap_or_default();
    let own = |path: &str| entry.pointer(path).and_then(Value::as_str);
    let variants = object("variants").into_iter().filter_map(|(name, value)| {
        let Value::Object(mut options) = value else { return None };
        let off = options.shift_remove("disabled") == Some(Value::Bool(true));
        (!off).then_some((name, options))
    });
    ModelInfo {
        id: id.to_owned(),
        provider_id: provider_id.to_owned(),
        api: Api {
            id: text("id").unwrap_or(id).to_owned(),
            url: own("/provider/api").or(address).unwrap_or_default().to_owned(),
            npm: own("/provider/npm").unwrap_or(npm).to_owned(),
        },
        name: text("name").unwrap_or(id).to_owned(),
        family: text("family").unwrap_or_default().to_owned(),
        capabilities: Capabilities {
            temperature: flag("temperature", false),
            reasoning: flag("reasoning", false),
            attachment: flag("attachment", false),
            toolcall: flag("tool_call", true),
            input: modalities(entry.pointer("/modalities/input")),
            output: modalities(entry.pointer("/modalities/output")),
            interleaved: entry.get("interleaved").cloned().unwrap_or(Value::Bool(false)),
        },
        cost: cost(entry.get("cost").unwrap_or(&Value::Null)),
        limit: Limit {
            context: number("/limit/context").unwrap_or_default(),
            input: number("/limit/input"),
            output: number("/limit/output").unwrap_or_default(),
        },
        status: text("status").unwrap_or("active").to_owned(),
        options: object("options"),
        headers: object("headers").into_iter().map(|(name, _)| (name, MASK.to_owned())).collect(),
        release_date: text("release_date").unwrap_or_default().to_owned(),
        variants: variants.collect(),
    }
}

fn modalities(listed: Option<&Value>) -> Modalities {
    let listed = listed.and_then(texts);
    let has = |kind: &str, default: bool| listed.as_ref().map_or(default, |kinds| kinds.iter().any(|k| k == kind));
    Modalities {
        text: has("text", true),
        audio: has("audio", false),
        image: has("image", false),
        video: has("video", false),
        pdf: has("pdf", false),
    }
}

fn cost(entry: &Value) -> Cost {
    let price = |key: &str| entry.get(key).and_then(Value::as_f64).unwrap_or_default();
    Cost {
        input: price("input"),
        output: price("output"),
        cache: CacheCost { read: price("cache_read"), write: price("cache_write") },
        over_200k: entry.get("context_over_200k").map(|over| Box::new(cost(over))),
    }
}

fn headers(value: Option<&Value>) -> BTreeMap<String, Secret> {
    let map = value.and_then(Value::as_object);
    map.into_iter().flatten().filter_map(|(name, value)| Some((name.clone(), Secret::from(value.as_str()?)))).collect()
}

fn texts(value: &Value) -> Option<Vec<String>> {
    Some(value.as_array()?.iter().filter_map(Value::as_str).map(str::to_owned).collect())
}

fn reference(model: &ModelInfo) -> ModelRef {
    ModelRef { provider_id: model.provider_id.clone(), model_id: model.id.clone() }
}

/// The best model: by [`PREFERRED`], then the name that sorts last, which tends to be the newest.
fn best(models: &[ModelInfo]) -> Option<&ModelInfo> {
    let rank = |model: &ModelInfo| PREFERRED.iter().position(|part| model.id.contains(part)).unwrap_or(PREFERRED.len());
    models.iter().min_by(|a, b| {
        // Of one preference the shorter name is the whole model, the longer a smaller sibling.
        let preferred = rank(a) < PREFERRED.len();
        let length = if preferred { a.id.len().cmp(&b.id.len()) } else { std::cmp::Ordering::Equal };
        rank(a).cmp(&rank(b)).then(length).then(b.id.cmp(&a.id))
    })
}

fn defaults(providers: &[&ProviderInfo]) -> Map<String, Value> {
    let default = |info: &&ProviderInfo| Some((info.id.clone(), best(&info.models)?.id.clone().into()));
    providers.iter().filter_map(default).collect()
}

/// Options of a provider with every secret masked: keys, tokens, and the values of headers.
pub(crate) fn masked_options(mut options: Map<String, Value>) -> Map<String, Value> {
    mask(&mut options);
    options
}

fn mask(map: &mut Map<String, Value>) {
    for (key, value) in map {
        let name = key.to_lowercase().replace(['_', '-'], "");
        let secret = ["apikey", "token", "secret", "password", "authorization", "credential", "credentials"];
        match value {
            Value::Object(headers) if matches!(name.as_str(), "headers" | "environment") => {
                headers.values_mut().for_each(|value| *value = MASK.into());
            }
            Value::Object(inner) => mask(inner),
            // An absent key stays visible as one.
            Value::String(text) if secret.iter().any(|end| name.ends_with(end)) && !text.is_empty() => {
                *value = MASK.into();
            }
            _ => {}
        }
    }
}

/// Masks the secrets of a whole configuration: those of providers and of MCP servers.
pub(crate) fn mask_config(config: &mut Map<String, Value>) {
    for key in ["provider", "mcp"] {
        if let Some(Value::Object(entries)) = config.get_mut(key) {
            mask(entries);
        }
    }
}
