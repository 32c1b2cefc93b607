//! An idempotency key names a prompt: sent again, to any replica, it is the same prompt.

use reqwest::Method;
use serde_json::json;
use testkit::client::{id_of, text_of, text_prompt};
use testkit::model::Gate;
use testkit::{Answer, BOUND, Mode, World, WorldSpec, eventually};

#[tokio::test]
async fn a_prompt_that_is_sent_again_with_its_key_is_run_once() {
    let world = World::start().await;
    let gate = Gate::new();
    world.model.push(Answer::new().text("once").wait(&gate).stop());
    let id = world.session().await;
    let path = format!("/session/{id}/message");
    let body = text_prompt("go");
    let post = |number: usize| {
        let (client, path, body) = (world.at(number).with_header("idempotency-key", "k-1"), path.clone(), body.clone());
        tokio::spawn(async move { client.post(&path, &body).await.ok() })
    };
    let posts = [post(0), post(1), post(2)];
    gate.reached().await;
    gate.release();
    for post in posts {
        assert_eq!(text_of(&post.await.unwrap()), "once");
    }
    // Asked again after its end, it is answered and not run.
    let client = world.client().with_header("idempotency-key", "k-1");
    assert_eq!(text_of(&client.post(&path, &body).await.ok()), "once");
    assert_eq!(world.model.main_requests().len(), 1);
    assert_eq!(world.messages(&id).await.len(), 2);

    let other = client.post(&path, &text_prompt("something else")).await;
    assert_eq!((other.status, other.json()["name"].clone()), (422, json!("IdempotencyError")));
    // The key counts for one session only.
    world.model.push(Answer::say("elsewhere"));
    let elsewhere = world.session().await;
    let answer = client.post(&format!("/session/{elsewhere}/message"), &body).await.ok();
    assert_eq!(text_of(&answer), "elsewhere");

    let long = world.client().with_header("idempotency-key", &"x".repeat(256));
    assert_eq!(long.post(&path, &body).await.status, 400);
    // Which of two would count?
    let two = world.client().with_header("idempotency-key", "k-2").with_header("idempotency-key", "k-3");
    assert_eq!(two.post(&path, &body).await.status, 400);
}

#[tokio::test]
async fn every_request_with_an_effect_that_is_sent_again_with_its_key_acts_once() {
    let world =
        World::start_with(WorldSpec { config: json!({"permission": {"bash": "ask"}}), ..WorldSpec::default() }).await;
    let keyed = |key: &str| world.client().with_header("idempotency-key", key);

    let make = || keyed("make");
    let made = make().post("/session", &json!({"title": "once"})).await.ok();
    assert_eq!(make().post("/session", &json!({"title": "once"})).await.ok(), made);
    assert_eq!(make().post("/session", &json!({"title": "another"})).await.status, 422);
    assert_eq!(world.client().get("/session").await.ok().as_array().unwrap().len(), 1);
    let id = made["id"].as_str().unwrap().to_owned();
    let path = format!("/session/{id}");

    let rule = json!({"permission": [{"permission": "edit", "pattern": "*", "action": "allow"}]});
    let changed = keyed("change").patch(&path, &rule).await.ok();
    assert_eq!(keyed("change").patch(&path, &rule).await.ok(), changed);
    let stored = world.client().get(&path).await.ok();
    assert_eq!(stored["permission"].as_array().unwrap().len(), 1, "the rule was added once");

    // A reply that is sent again is no reply to an unknown request, also once the run is over.
    world.model.push(Answer::call("c1", "bash", json!({"command": "echo hi", "description": "d"})));
    world.model.push(Answer::say("done"));
    world.prompt_async(&id, "go").await;
    let ask = eventually(BOUND, "the ask", || async {
        world.client().get("/permission").await.ok().as_array().unwrap().first().cloned()
    });
    let reply = format!("/permission/{}/reply", ask.await["id"].as_str().unwrap());
    let once = json!({"reply": "once"});
    assert_eq!(keyed("reply").post(&reply, &once).await.ok(), json!(true));
    eventually(BOUND, "the end", || async { (world.status(&id).await == "idle").then_some(()) }).await;
    assert_eq!(keyed("reply").post(&reply, &once).await.ok(), json!(true));
    assert_eq!(world.client().post(&reply, &once).await.status, 404, "without the key it is unknown");

    // An abort that is sent again does not stop what was asked after it, nor does a disposal.
    for stop in [&*format!("{path}/abort"), "/instance/dispose", "/global/dispose"] {
        assert_eq!(keyed("stop").post(stop, &json!({})).await.ok(), json!(true));
        let gate = Gate::new();
        world.model.push(Answer::new().text("not ").wait(&gate).text(stop).stop());
        world.prompt_async(&id, "go on").await;
        gate.reached().await;
        assert_eq!(keyed("stop").post(stop, &json!({})).await.ok(), json!(true));
        gate.release();
        let whole = format!("not {stop}");
        eventually(BOUND, "the answer", || async {
            (text_of(world.messages(&id).await.last()?) == whole).then_some(())
        })
        .await;
        eventually(BOUND, "the end", || async { (world.status(&id).await == "idle").then_some(()) }).await;
    }

    let fork = || keyed("fork");
    let forked = fork().post(&format!("{path}/fork"), &json!({})).await.ok();
    assert_eq!(fork().post(&format!("{path}/fork"), &json!({})).await.ok(), forked);

    // An edit that is sent again does not undo what was done after it.
    let answer = world.messages(&id).await.pop().unwrap();
    let part = answer["parts"].as_array().unwrap().iter().find(|part| part["type"] == "text").unwrap();
    let mut edited = part.clone();
    edited["text"] = json!("edited");
    let message = format!("{path}/message/{}", answer["info"]["id"].as_str().unwrap());
    let of_part = format!("{message}/part/{}", part["id"].as_str().unwrap());
    assert_eq!(keyed("edit").patch(&of_part, &edited).await.ok(), edited);
    assert_eq!(world.client().patch(&of_part, part).await.ok(), *part);
    assert_eq!(keyed("edit").patch(&of_part, &edited).await.ok(), edited);
    assert_eq!(world.client().get(&message).await.ok(), answer, "the edit was made once");
    for gone in [&of_part, &message] {
        assert_eq!(keyed("remove").delete(gone).await.ok(), json!(true));
        assert_eq!(keyed("remove").delete(gone).await.ok(), json!(true));
    }

    assert_eq!(keyed("delete").delete(&path).await.ok(), json!(true));
    assert_eq!(keyed("delete").delete(&path).await.ok(), json!(true));
    assert_eq!(world.client().delete(&path).await.status, 404);
}

#[tokio::test]
async fn every_key_is_known_also_after_redis_came_back_empty() {
    if !Mode::is_fleet_or_skip() {
        return;
    }
    let config = json!({"permission": {"bash": "ask"}});
    let mut world = World::start_with(WorldSpec { config, ..WorldSpec::default() }).await;
    world.model.push(Answer::call("c1", "bash", json!({"command": "echo hi", "description": "d"})));
    world.model.respond_with(|_| Answer::say("once"));
    let make = json!({"title": "once"});
    let made = world.client().with_header("idempotency-key", "make").post("/session", &make).await.ok();
    let path = format!("/session/{}", made["id"].as_str().unwrap());
    let [message, prompt_async, abort] = ["message", "prompt_async", "abort"].map(|end| format!("{path}/{end}"));
    let rule = json!({"permission": [{"permission": "edit", "pattern": "*", "action": "allow"}]});
    let gone = world.session().await;
    let ask = {
        let go =
            world.client().with_header("idempotency-key", "async").post(&prompt_async, &text_prompt("async")).await;
        assert_eq!(go.status, 204);
        let ask = eventually(BOUND, "the ask", || async {
            world.client().get("/permission").await.ok().as_array().unwrap().first().cloned()
        });
        ask.await["id"].as_str().unwrap().to_owned()
    };
    let requests = [
        (Method::POST, "/session".to_owned(), "make", make),
        (Method::POST, prompt_async, "async", text_prompt("async")),
        (Method::POST, format!("/permission/{ask}/reply"), "reply", json!({"reply": "once"})),
        (Method::POST, message, "message", text_prompt("go")),
        (Method::PATCH, path.clone(), "change", rule),
        (Method::POST, abort, "abort", json!({})),
        (Method::DELETE, format!("/session/{gone}"), "delete", json!({})),
    ];
    let client = world.client();
    let send = async |number: usize| {
        let (method, path, key, body) = requests[number].clone();
        let headers = [("content-type", "application/json"), ("idempotency-key", key)];
        client.send(method, &path, &headers, Some(body.to_string().into_bytes())).await
    };
    let mut answers = Vec::new();
    for number in 0..requests.len() {
        answers.push(send(number).await);
    }
    let before = (world.messages(&id_of(&made)).await, world.model.main_requests().len());
    world.redis().restart_empty().await;
    for (number, answer) in answers.iter().enumerate() {
        let again = eventually(BOUND, "Redis to be back", || async {
            Some(send(number).await).filter(|reply| reply.status != 503)
        });
        let again = again.await;
        assert_eq!((again.status, again.text()), (answer.status, answer.text()), "{:?}", requests[number]);
        assert!((200..300).contains(&again.status), "{:?}: {}", requests[number], again.text());
    }
    let after = (world.messages(&id_of(&made)).await, world.model.main_requests().len());
    assert_eq!(after, before, "nothing was said again, and nothing asked");
    assert_eq!(world.client().get(&path).await.ok()["permission"].as_array().unwrap().len(), 1, "one rule");
    assert_eq!(world.client().get("/session").await.ok().as_array().unwrap().len(), 1);
}
