//! Model providers: those of the config, those whose key is in the environment, and the demo.

use crate::catalog::{PREFERRED, SMALL, WELL_KNOWN, WellKnown};
use crate::mask::masked_options;
use crate::merge;
use crate::model::{Model, ModelNotFound, ModelRef, Timeouts, alike};
use crate::secret::{MASK, Secret};
use crate::surroundings::Surroundings;
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, HashMap};

pub use crate::provider_info::{Api, CacheCost, Capabilities, Cost, Limit, Modalities, ModelInfo, ProviderInfo};

/// The provider that has no model behind it, and its only model.
pub const DEMO_PROVIDER: &str = "demo";
/// The demo's model.
pub const DEMO_MODEL: &str = "demo";
/// What a provider speaks unless its config names something else.
const OPENAI_COMPATIBLE: &str = "@ai-sdk/openai-compatible";

/// A provider with what must not be seen.
#[derive(Clone, Debug)]
struct Provider {
    info: ProviderInfo,
    base_url: String,
    api_key: Option<Secret>,
    headers: BTreeMap<String, Secret>,
    model_headers: HashMap<String, BTreeMap<String, Secret>>,
    timeouts: Timeouts,
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

    /// The keys of all providers.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &Secret> {
        self.list.iter().filter_map(|provider| provider.api_key.as_ref())
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
            timeouts: provider.timeouts,
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
            timeouts: Timeouts::of(&options),
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
            timeouts: Timeouts::default(),
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
