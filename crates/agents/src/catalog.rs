//! Providers that need nothing but a key: a small table, enough to begin with. Anything else goes in the config.

use serde_json::{Value, json};

/// A provider that is known without configuration.
pub(crate) struct WellKnown {
    pub id: &'static str,
    pub name: &'static str,
    /// The variable that holds its key.
    pub key: &'static str,
    /// The package by which OpenCode speaks with it; the same name in a config means the same address.
    pub npm: &'static str,
    pub base_url: &'static str,
    /// In the form of a config's `models`.
    pub models: fn() -> Value,
}

/// All of them.
pub(crate) const WELL_KNOWN: [WellKnown; 2] = [
    WellKnown {
        id: "openai",
        name: "OpenAI",
        key: "OPENAI_API_KEY",
        npm: "@ai-sdk/openai",
        base_url: "https://api.openai.com/v1",
        models: openai,
    },
    WellKnown {
        id: "openrouter",
        name: "OpenRouter",
        key: "OPENROUTER_API_KEY",
        npm: "@openrouter/ai-sdk-provider",
        base_url: "https://openrouter.ai/api/v1",
        models: openrouter,
    },
];

/// Parts of the names of models that are good to begin with, best first.
pub(crate) const PREFERRED: [&str; 3] = ["gpt-5", "claude-sonnet-4", "gemini-3-pro"];

/// Parts of the names of models that are quick and cheap, best first: for titles.
pub(crate) const SMALL: [&str; 4] = ["gpt-5-nano", "gpt-5-mini", "claude-haiku-4", "gemini-3-flash"];

fn model(name: &str, context: u64, output: u64, cost: [f64; 3]) -> Value {
    let efforts = ["low", "medium", "high"].map(|effort| (effort.to_owned(), json!({ "reasoningEffort": effort })));
    json!({
        "name": name,
        "reasoning": true,
        "attachment": true,
        "modalities": { "input": ["text", "image"], "output": ["text"] },
        "limit": { "context": context, "output": output },
        "cost": { "input": cost[0], "output": cost[1], "cache_read": cost[2] },
        "variants": serde_json::Map::from_iter(efforts),
    })
}

fn openai() -> Value {
    json!({
        "gpt-5": model("GPT-5", 400_000, 128_000, [1.25, 10.0, 0.125]),
        "gpt-5-mini": model("GPT-5 Mini", 400_000, 128_000, [0.25, 2.0, 0.025]),
        "gpt-5-nano": model("GPT-5 Nano", 400_000, 128_000, [0.05, 0.4, 0.005]),
    })
}

fn openrouter() -> Value {
    json!({
        "anthropic/claude-sonnet-4.5": model("Claude Sonnet 4.5", 1_000_000, 64_000, [3.0, 15.0, 0.3]),
        "openai/gpt-5": model("GPT-5", 400_000, 128_000, [1.25, 10.0, 0.125]),
        "openai/gpt-5-mini": model("GPT-5 Mini", 400_000, 128_000, [0.25, 2.0, 0.025]),
    })
}
