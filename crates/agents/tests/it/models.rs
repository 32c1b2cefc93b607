use crate::world::{World, recorded, recorded_and};
use agents::ModelRef;
use agents::secret::MASK;
use serde_json::{Value, json};

/// R01.
#[test]
fn providers_have_the_recorded_shape() {
    let instance = World::with(recorded()).load();
    let mut expected: Value = serde_json::from_str(include_str!("fixtures/providers.json")).unwrap();
    // Our deviation: keys are masked.
    expected["providers"][0]["options"]["apiKey"] = MASK.into();
    assert_eq!(instance.providers.config_body(), expected);
    assert_eq!(
        instance.providers.body(),
        json!({"all": expected["providers"], "default": expected["default"], "connected": ["fake"]})
    );
}

#[test]
fn a_model_has_all_that_a_request_needs_and_shows_no_secret() {
    let mut config = recorded();
    config["provider"]["fake"]["options"] = json!({"baseURL": "http://127.0.0.1:4310/v1/", "apiKey": "sk-s3cr3t", "headers": {"x-a": "s3cr3t-a", "x-b": "b"}});
    config["provider"]["fake"]["models"]["m"] = json!({
        "id": "real-name", "limit": {"context": 20000, "input": 15000, "output": 4000}, "reasoning": true,
        "cost": {"input": 3, "output": 15, "cache_read": 0.3, "cache_write": 3.75},
        "headers": {"x-b": "s3cr3t-b"}, "options": {"seed": 1}, "attachment": true,
        "modalities": {"input": ["text", "image"], "output": ["text"]},
        "variants": {"high": {"reasoningEffort": "high"}, "off": {"disabled": true}},
    });
    config["mcp"] = json!({"m": {"type": "local", "command": ["x"], "environment": {"KEY": "s3cr3t-env"}}});
    let mut world = World::with(config);
    world.set("OTHER_KEY", "s3cr3t-other");
    let instance = world.load();
    let model = instance.model("fake", "m").unwrap();
    assert_eq!((model.api_id.as_str(), model.base_url.as_str()), ("real-name", "http://127.0.0.1:4310/v1"));
    assert_eq!(model.api_key.as_ref().unwrap().expose(), "sk-s3cr3t");
    let headers: Vec<_> = model.headers.iter().map(|(name, value)| (name.as_str(), value.expose())).collect();
    assert_eq!(headers, [("x-a", "s3cr3t-a"), ("x-b", "s3cr3t-b")]);
    assert_eq!((model.limit.context, model.limit.input, model.limit.output), (20000, Some(15000), 4000));
    assert_eq!((model.cost.input, model.cost.cache.write), (3.0, 3.75));
    assert!(model.capabilities.reasoning && model.capabilities.input.image && !model.capabilities.input.pdf);
    assert_eq!(model.options["seed"], 1);
    assert_eq!(model.variants.keys().collect::<Vec<_>>(), ["high"]);
    assert!(!model.demo);
    for shown in [
        format!("{model:?}{instance:?}{:?}", world.surroundings),
        instance.config.to_string(),
        instance.providers.config_body().to_string(),
        instance.providers.body().to_string(),
    ] {
        assert!(!shown.contains("s3cr3t"), "{shown}");
    }
}

#[test]
fn an_unknown_model_is_named_with_what_is_like_it() {
    let instance = World::with(recorded()).load();
    let error = |provider, model| instance.model(provider, model).unwrap_err().to_string();
    assert_eq!(error("fake", "nope"), "Model not found: fake/nope.");
    assert_eq!(error("fake", "smal"), "Model not found: fake/smal. Did you mean: small?");
    assert_eq!(error("fakes", "m"), "Model not found: fakes/m. Did you mean: fake?");
}

#[test]
fn keys_in_the_environment_bring_the_well_known_providers() {
    let mut world = World::new();
    assert_eq!(world.load().providers.list().count(), 0);
    assert_eq!(world.load().default_model, None);
    world.set("OPENAI_API_KEY", "hidden");
    let instance = world.load();
    let body = instance.providers.config_body();
    assert_eq!(body["providers"][0]["id"], "openai");
    assert_eq!((&body["providers"][0]["source"], &body["providers"][0]["key"]), (&json!("env"), &json!(MASK)));
    assert_eq!(body["default"], json!({"openai": "gpt-5"}));
    let all = instance.providers.body();
    assert_eq!((all["all"].as_array().unwrap().len(), &all["connected"]), (2, &json!(["openai"])));
    let default = instance.default_model.clone().unwrap();
    assert_eq!(default.to_string(), "openai/gpt-5");
    assert_eq!(instance.small_model_for(&default).to_string(), "openai/gpt-5-nano");
    let model = instance.model("openai", "gpt-5").unwrap();
    assert_eq!((model.base_url.as_str(), model.api_key.unwrap().expose()), ("https://api.openai.com/v1", "hidden"));

    world.write("ws/opencode.json", &json!({"disabled_providers": ["openai"]}).to_string());
    assert_eq!(world.load().providers.list().count(), 0);
    world.write(
        "ws/opencode.json",
        &json!({"provider": {"openai": {"whitelist": ["gpt-5-mini", "own"],
        "models": {"own": {}}, "options": {"baseURL": "http://127.0.0.1:1/v1"}}}})
        .to_string(),
    );
    let instance = world.load();
    let ids: Vec<_> = instance.providers.list().flat_map(|info| info.models.iter().map(|m| m.id.clone())).collect();
    assert_eq!(ids, ["gpt-5-mini", "own"]);
    assert_eq!(instance.model("openai", "own").unwrap().base_url, "http://127.0.0.1:1/v1");
}

#[test]
fn a_provider_without_an_address_is_not_offered() {
    let world = World::with(json!({"provider": {"lost": {"models": {"m": {}}}, "openai": {"name": "Mine"}}}));
    let instance = world.load();
    assert_eq!(instance.providers.list().count(), 0);
    assert!(instance.model("lost", "m").is_err());
}

#[test]
fn the_demo_is_the_default_only_where_nothing_else_is() {
    let mut world = World::new();
    world.surroundings.demo = true;
    let instance = world.load();
    assert_eq!(instance.default_model, Some(ModelRef::parse("demo/demo")));
    let model = instance.model("demo", "demo").unwrap();
    assert!(model.demo && model.api_key.is_none());
    let body = instance.providers.config_body();
    assert_eq!(body["providers"][0]["name"], "Demo (no model behind it)");

    let mut config = recorded();
    config.as_object_mut().unwrap().shift_remove("model");
    world.write("ws/opencode.json", &config.to_string());
    let instance = world.load();
    assert_eq!(instance.default_model, Some(ModelRef::parse("fake/small")));
    assert!(instance.model("demo", "demo").is_ok());
}

#[test]
fn the_default_model_is_the_configs_then_the_last_used_one() {
    let world = World::with(recorded());
    world.write(
        "home/.local/state/opencode/model.json",
        &json!({"recent": [{"providerID": "gone", "modelID": "x"}, {"providerID": "fake", "modelID": "m"}]})
            .to_string(),
    );
    assert_eq!(world.load().default_model, Some(ModelRef::parse("fake/m")));
    let instance = world.load();
    assert_eq!(instance.small_model_for(&ModelRef::parse("fake/m")), ModelRef::parse("fake/small"));

    let mut config = recorded_and(json!({"model": "fake/nope"}));
    world.write("ws/opencode.json", &config.to_string());
    assert_eq!(world.load().default_model, Some(ModelRef::parse("fake/nope")));
    let fields = config.as_object_mut().unwrap();
    fields.shift_remove("model");
    fields.shift_remove("small_model");
    world.write("ws/opencode.json", &config.to_string());
    let instance = world.load();
    assert_eq!(instance.default_model, Some(ModelRef::parse("fake/m")));
    assert_eq!(instance.small_model_for(&ModelRef::parse("fake/m")), ModelRef::parse("fake/m"));
}
