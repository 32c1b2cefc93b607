//! Agents, titles, models and their variants, what a step costs, and the rules that an agent is shown.

use serde_json::{Value, json};
use testkit::client::{id_of, text_of};
use testkit::model::Usage;
use testkit::{Answer, BOUND, World, WorldSpec, eventually, transcript};

async fn with_config(config: Value) -> World {
    World::start_with(WorldSpec { config, ..WorldSpec::default() }).await
}

async fn prompt_with(world: &World, session: &str, more: Value) -> Value {
    let mut body = json!({"parts": [{"type": "text", "text": "go"}]});
    for (key, value) in more.as_object().into_iter().flatten() {
        body[key] = value.clone();
    }
    world.client().post(&format!("/session/{session}/message"), &body).await.ok()
}

/// R05: thoughts are left out, a long title is cut, a failure is silent, a title that was given stays.
#[tokio::test]
async fn a_title_is_cut_a_failure_is_silent_and_a_given_one_stays() {
    let world = World::start().await;
    world.model.respond_with(|_| Answer::say("fine"));
    let long = "Long title ".repeat(15);
    world.model.title_with(move |body| match transcript::last_user_text(body).as_str() {
        "x" => Answer::say(&format!("<think>hmm</think>\n\n{long}")),
        _ => Answer::status(400, &json!({"error": {"message": "bad"}})),
    });
    let client = world.client();
    let cut = id_of(&client.create_session(&json!({})).await);
    client.prompt(&cut, "x").await;
    let titled = eventually(BOUND, "the title", || async {
        let session = client.get(&format!("/session/{cut}")).await.ok();
        session["title"].as_str().filter(|title| title.starts_with("Long")).map(str::to_owned)
    });
    let expected = format!("{}...", &"Long title ".repeat(15)[..97]);
    assert_eq!(titled.await, expected);
    let failed = id_of(&client.create_session(&json!({})).await);
    client.prompt(&failed, "y").await;
    let given = id_of(&client.create_session(&json!({"title": "Mine"})).await);
    client.prompt(&given, "z").await;
    eventually(BOUND, "both requests for a title", || async {
        (world.model.requests().iter().filter(|r| r.model == "small" && r.ended.is_some()).count() == 2).then_some(())
    })
    .await;
    for number in 0..3 {
        let title = |session: Value| session["title"].as_str().unwrap().to_owned();
        assert!(title(world.at(number).get(&format!("/session/{failed}")).await.ok()).starts_with("New session - "));
        assert_eq!(title(world.at(number).get(&format!("/session/{given}")).await.ok()), "Mine");
    }
    let asked = world.model.requests().into_iter().find(|request| request.model == "small").unwrap();
    let keys: Vec<&String> = asked.body.as_object().unwrap().keys().collect();
    assert!(!keys.iter().any(|key| *key == "tools" || *key == "tool_choice"), "{keys:?}");
    assert_eq!((asked.body["max_tokens"].as_u64(), asked.body["messages"].as_array().unwrap().len()), (Some(4000), 3));
}

/// R28: the planner may not edit, is reminded of it beside its prompt only, and so is who builds after it.
#[tokio::test]
async fn a_planner_changes_nothing_and_a_builder_is_told_that_planning_is_over() {
    let world = World::start().await;
    world.model.script([
        Answer::call("call_1", "write", json!({"filePath": "x.txt", "content": "x"})),
        Answer::call("call_2", "bash", json!({"command": "echo ok", "description": "d"})),
        Answer::say("planned"),
        Answer::say("built"),
        Answer::say("built more"),
    ]);
    let id = world.session().await;
    let answer = prompt_with(&world, &id, json!({"agent": "plan"})).await;
    assert_eq!((&answer["info"]["agent"], &answer["info"]["mode"]), (&json!("plan"), &json!("plan")));
    assert!(!world.file("x.txt").exists());
    let calls = world.client().tool_parts(&id).await;
    assert_eq!((&calls[0]["state"]["status"], &calls[1]["state"]["status"]), (&json!("error"), &json!("completed")));
    let refusal = calls[0]["state"]["error"].as_str().unwrap();
    assert!(refusal.contains("\"permission\":\"edit\"") && refusal.contains("\"action\":\"deny\""), "{refusal}");
    assert_eq!(text_of(&prompt_with(&world, &id, json!({"agent": "build"})).await), "built");
    prompt_with(&world, &id, json!({"agent": "build"})).await;

    let asked = world.model.main_requests();
    let prompts = |at: usize| transcript::user_texts(&asked[at].body);
    for at in 0..3 {
        let prompts = prompts(at);
        assert!(prompts[0].starts_with("go\n<system-reminder>\nYou are planning now"), "{prompts:?}");
    }
    assert_eq!(prompts(3)[0], "go");
    assert!(prompts(3)[1].starts_with("go\n<system-reminder>\nPlanning is over"), "{:?}", prompts(3));
    assert_eq!(prompts(4), ["go", "go", "go"], "only the first prompt after the plan");
    let stored = json!(world.messages(&id).await).to_string();
    assert!(!stored.contains("system-reminder"), "it stands in no record");
    let session = world.client().get(&format!("/session/{id}")).await.ok();
    assert_eq!(session["agent"], "build");
}

#[tokio::test]
async fn an_agent_is_offered_the_tools_that_its_rules_allow() {
    let world = World::start().await;
    world.model.respond_with(|_| Answer::say("fine"));
    let id = world.session().await;
    for agent in ["build", "general", "explore"] {
        let answer = prompt_with(&world, &id, json!({"agent": agent})).await;
        assert_eq!(answer["info"]["mode"], agent);
    }
    let offered: Vec<Vec<String>> =
        world.model.main_requests().iter().map(|request| transcript::offered_tools(&request.body)).collect();
    let lacks = |at: usize| -> Vec<&String> { offered[0].iter().filter(|tool| !offered[at].contains(tool)).collect() };
    assert!(lacks(1).iter().all(|tool| ["question", "todowrite"].contains(&tool.as_str())), "{offered:?}");
    for tool in ["edit", "write"] {
        assert!(lacks(2).iter().any(|lacking| *lacking == tool), "{offered:?}");
    }
    assert!(offered[2].contains(&"read".to_owned()) && offered[2].contains(&"bash".to_owned()), "{offered:?}");
    let reads = "You find things";
    let system = world.model.main_requests()[2].body["messages"][0]["content"].as_str().unwrap().to_owned();
    assert!(system.starts_with(reads), "{system}");
}

#[tokio::test]
async fn a_variant_adds_its_options_and_is_kept_on_message_and_session() {
    let variants = json!({"high": {"reasoningEffort": "high"}, "low": {"reasoningEffort": "low"}});
    let config = json!({
        "provider": {"fake": {"models": {"m": {"variants": variants}}}},
        "agent": {"thinker": {"model": "fake/m", "variant": "low", "options": {"seed": 7}, "top_p": 0.9}},
    });
    let world = with_config(config).await;
    world.model.respond_with(|_| Answer::say("fine"));
    let id = world.session().await;
    let model = |id: &str| {
        let (client, path) = (world.client(), format!("/session/{id}"));
        async move { client.get(&path).await.ok()["model"].clone() }
    };
    prompt_with(&world, &id, json!({})).await;
    assert_eq!(model(&id).await, json!({"id": "m", "providerID": "fake", "variant": "default"}));
    let answer = prompt_with(&world, &id, json!({"variant": "high"})).await;
    assert_eq!(answer["info"]["variant"], "high");
    assert_eq!(model(&id).await, json!({"id": "m", "providerID": "fake", "variant": "high"}));
    let other = world.session().await;
    let answer = prompt_with(&world, &other, json!({"agent": "thinker"})).await;
    assert_eq!((&answer["info"]["variant"], &answer["info"]["agent"]), (&json!("low"), &json!("thinker")));
    let asked = world.model.main_requests();
    let effort = |at: usize| asked[at].body["reasoning_effort"].clone();
    assert_eq!((effort(0), effort(1), effort(2)), (Value::Null, json!("high"), json!("low")));
    assert_eq!((&asked[2].body["seed"], &asked[2].body["top_p"]), (&json!(7), &json!(0.9)));
}

#[tokio::test]
async fn a_variant_that_the_model_does_not_define_is_for_its_prompt_alone() {
    let config = json!({"provider": {"fake": {"models": {"m": {"variants": {"high": {"reasoningEffort": "high"}}}}}}});
    let world = with_config(config).await;
    world.model.respond_with(|_| Answer::say("fine"));
    let id = world.session().await;
    let mut answered = Vec::new();
    for body in [json!({"variant": "high"}), json!({}), json!({"variant": "nosuch"}), json!({})] {
        let answer = prompt_with(&world, &id, body).await;
        let session = world.client().get(&format!("/session/{id}")).await.ok();
        answered.push((answer["info"]["variant"].clone(), session["model"]["variant"].clone()));
    }
    let expected = [("high", "high"), ("high", "high"), ("nosuch", "nosuch")];
    for (at, (message, session)) in expected.into_iter().enumerate() {
        assert_eq!(answered[at], (json!(message), json!(session)), "{at}");
    }
    assert_eq!(answered[3], (Value::Null, json!("default")));
}

#[tokio::test]
async fn a_long_context_costs_what_its_price_says_and_the_session_bears_the_sums() {
    let prices = json!({"input": 3, "output": 15, "cache_read": 0.3, "cache_write": 3.75,
        "context_over_200k": {"input": 6, "output": 22.5, "cache_read": 0.6, "cache_write": 7.5}});
    let model = json!({"cost": prices, "limit": {"context": 1_000_000, "output": 32_000}});
    let world = with_config(json!({"provider": {"fake": {"models": {"m": model}}}})).await;
    let usage = |prompt| Usage { prompt, completion: 1000, cached: 50_000, reasoning: 400 };
    world.model.script([
        Answer::new().text("short").finish("stop", usage(150_000)),
        Answer::new().text("long").finish("stop", usage(250_000)),
    ]);
    let id = world.session().await;
    let short = world.prompt(&id, "one").await;
    let long = world.prompt(&id, "two").await;
    let cost = |answer: &Value| answer["info"]["cost"].as_f64().unwrap();
    assert!((cost(&short) - 0.33).abs() < 1e-9, "100000 * 3 + 50000 * 0.3 + 1000 * 15: {}", cost(&short));
    assert!((cost(&long) - 1.2525).abs() < 1e-9, "200000 * 6 + 50000 * 0.6 + 1000 * 22.5: {}", cost(&long));
    let expected = json!({"input": 300_000, "output": 1200, "reasoning": 800, "cache": {"read": 100_000, "write": 0}});
    for number in 0..3 {
        let session = world.at(number).get(&format!("/session/{id}")).await.ok();
        assert_eq!(session["tokens"], expected, "replica {number}");
        assert!((session["cost"].as_f64().unwrap() - 1.5825).abs() < 1e-9, "{}", session["cost"]);
    }
}

/// R10: the rules beside a file come with the first reading of it, and not again.
#[tokio::test]
async fn rules_beside_a_file_come_with_its_reading_once() {
    let files = [("docs/AGENTS.md", "nested docs rule\n"), ("docs/notes.txt", "a\n"), ("docs/more.txt", "b\n")];
    let files = files.map(|(path, text)| (path.to_owned(), text.to_owned())).to_vec();
    let world = World::start_with(WorldSpec { files, ..WorldSpec::default() }).await;
    let read = |path: &str| json!({"filePath": world.file(path)});
    world.model.script([
        Answer::call("call_1", "read", read("docs/notes.txt")),
        Answer::new()
            .tool_call("call_2", "read", read("docs/more.txt"))
            .tool_call("call_3", "read", read("README.md"))
            .finish("tool_calls", Usage::default()),
        Answer::say("done"),
    ]);
    let id = world.session().await;
    world.prompt(&id, "go").await;
    let calls = world.client().tool_parts(&id).await;
    let loaded: Vec<&Value> = calls.iter().map(|call| &call["state"]["metadata"]["loaded"]).collect();
    assert_eq!(loaded, [&json!([world.file("docs/AGENTS.md")]), &json!([]), &json!([])]);
    let shown = calls[0]["state"]["output"].as_str().unwrap();
    assert!(shown.contains("nested docs rule") && shown.contains("docs/AGENTS.md"), "{shown}");
    assert!(transcript::tool_texts(&world.model.main_requests()[1].body)[0].contains("nested docs rule"));
    let again = &world.model.main_requests()[2].body["messages"];
    assert_eq!(again.to_string().matches("nested docs rule").count(), 1);
}
