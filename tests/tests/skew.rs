//! Replicas and clients whose clocks are wrong by minutes and days, and ids that tell other times than they come in.
#![allow(clippy::unwrap_used)]

use serde_json::{Value, json};
use testkit::install::with_wrong_clock;
use testkit::outline::to_idle;
use testkit::{Answer, BOUND, Mode, World, WorldSpec, transcript};

/// A fleet whose first replica is fast and whose second is slow.
async fn skewed(fast: i64, slow: i64) -> Option<World> {
    if !Mode::is_fleet_or_skip() {
        return None;
    }
    let wrappers = vec![with_wrong_clock(fast)?, with_wrong_clock(slow)?, Vec::new()];
    let args = ["--lease-ttl", "3s", "--tick", "500ms"].map(str::to_owned).to_vec();
    let world = World::start_with(WorldSpec { wrappers, args, ..WorldSpec::default() }).await;
    world.model.respond_with(|body| Answer::say(&format!("answer to {}", transcript::last_user_text(body))));
    Some(world)
}

fn created(message: &Value) -> u64 {
    message["info"]["time"]["created"].as_u64().unwrap()
}

fn order(message: &Value) -> (u64, String) {
    (created(message), message["info"]["id"].as_str().unwrap().to_owned())
}

/// Ids of messages, by the time that they tell: the beginning, a moment before their 48 bits ran over, the present, the end.
const IDS: [&str; 5] = [
    "msg_000000000001AAAAAAAAAAAAAA",
    "msg_fff9a5c01001BBBBBBBBBBBBBB",
    "msg_257b3c400001CCCCCCCCCCCCCC",
    "msg_ffffffffffffzzzzzzzzzzzzzz",
    "msg_000000000002DDDDDDDDDDDDDD",
];

/// Prompts in turn, on one replica after the other, with ids of their own and without.
#[tokio::test]
async fn a_conversation_keeps_its_order_whatever_clocks_and_ids_say() {
    let Some(world) = skewed(420, -300).await else { return };
    let id = world.session().await;
    let mut control = world.events(2).await;
    let mut asked = Vec::new();
    for round in 0..10 {
        let text = format!("prompt {round}");
        let mut body = testkit::client::text_prompt(&text);
        // From the latest to the earliest, so that their order is not that of the prompts.
        if let Some(own) = IDS.iter().rev().nth(round / 2).filter(|_| round % 2 == 0) {
            body["messageID"] = json!(own);
        }
        let answer = world.at(round).post(&format!("/session/{id}/message"), &body).await.ok();
        assert_eq!(testkit::client::text_of(&answer), format!("answer to {text}"));
        asked.push((text, body["messageID"].as_str().map(str::to_owned), answer));
    }
    let first = created(&world.at(2).messages(&id).await[0]);
    assert!(first > testkit::polling::now_ms() + 300_000, "the first replica's clock is fast: {first}");
    for number in 0..3 {
        let messages = world.at(number).messages(&id).await;
        assert_eq!(messages.len(), 20);
        for (pair, (text, own, answer)) in messages.chunks(2).zip(&asked) {
            let [user, assistant] = pair else { panic!("{pair:?}") };
            assert_eq!((&user["info"]["role"], testkit::client::text_of(user)), (&json!("user"), text.clone()));
            assert!(own.as_ref().is_none_or(|own| user["info"]["id"] == own.as_str()));
            assert_eq!(assistant["info"]["parentID"], user["info"]["id"]);
            assert_eq!(assistant["info"]["id"], answer["info"]["id"]);
        }
        let orders: Vec<_> = messages.iter().map(order).collect();
        assert!(orders.is_sorted() && orders.iter().is_sorted_by(|a, b| a.0 < b.0), "{orders:?}");
    }
    // The model was asked with the conversation in its order.
    let last = world.model.main_requests().pop().unwrap();
    let said = transcript::user_texts(&last.body);
    assert_eq!(said, (0..10).map(|round| format!("prompt {round}")).collect::<Vec<_>>());
    control
        .until(BOUND, "the last answer", |e| e.properties()["info"]["parentID"] == asked[9].2["info"]["parentID"])
        .await;
}

#[tokio::test]
async fn prompts_that_wait_are_answered_in_their_order_by_replicas_with_wrong_clocks() {
    let Some(world) = skewed(600, -600).await else { return };
    let gate = testkit::Gate::new();
    world.model.push(Answer::new().text("first").wait(&gate).stop());
    let id = world.session().await;
    let first = world.spawn_prompt(0, &id, "prompt first");
    gate.reached().await;
    // Merged into one turn: all are answered by the last answer.
    let path = format!("/session/{id}/prompt_async");
    for (number, own) in [(1, IDS[3]), (2, IDS[0])] {
        let mut body = testkit::client::text_prompt(&format!("prompt {own}"));
        body["messageID"] = json!(own);
        assert_eq!(world.at(number).post(&path, &body).await.status, 204);
    }
    gate.release();
    first.await.unwrap();
    let client = world.client();
    let said = testkit::eventually(BOUND, "all to be answered", || async {
        let said = client.conversation(&id).await;
        said.iter().any(|(_, text)| *text == format!("answer to prompt {}", IDS[0])).then_some(said)
    })
    .await;
    let users: Vec<_> = said.iter().filter(|(role, _)| role == "user").map(|(_, text)| text.clone()).collect();
    assert_eq!(users, ["prompt first".to_owned(), format!("prompt {}", IDS[3]), format!("prompt {}", IDS[0])]);
}

#[tokio::test]
async fn a_run_is_taken_over_across_wrong_clocks_and_nobody_is_buried_for_one() {
    let Some(mut world) = skewed(900, -900).await else { return };
    let gate = testkit::Gate::new();
    world.model.push(Answer::new().text("begun ").wait(&gate));
    let id = world.session().await;
    let mut control = world.events(1).await;
    world.at(0).prompt_async(&id, "go on").await;
    gate.reached().await;
    world.replica(0).kill9();
    control.until_idle(BOUND, &id).await;
    let messages = world.at(1).messages(&id).await;
    let orders: Vec<_> = messages.iter().map(order).collect();
    assert!(orders.is_sorted(), "{orders:?}");
    assert!(
        orders.iter().is_sorted_by(|a, b| a.0 < b.0),
        "the replica with the slow clock reserves later times: {orders:?}"
    );
    // The two that are left live on.
    for number in [1, 2] {
        let answer = world.at(number).prompt(&id, "and now").await;
        assert_eq!(testkit::client::text_of(&answer), "answer to and now");
        let log = world.replicas()[number].stderr();
        assert!(!log.contains("joins the fleet again"), "{log}");
    }
}

#[tokio::test]
async fn readers_of_replicas_with_wrong_clocks_are_told_the_same_and_resume_anywhere() {
    let Some(world) = skewed(3600, -3600).await else { return };
    let mut control = world.events(2).await;
    let mut reader = world.events(0).await;
    let id = world.session().await;
    world.prompt(&id, "one").await;
    reader.until_idle(BOUND, &id).await;
    reader.cut();
    world.at(0).prompt(&id, "two").await;
    world.reconnect(&mut reader, 1).await;
    let count = |reader: &testkit::EventReader| {
        reader.of_session(&id).iter().filter(|event| event.kind() == "session.idle").count()
    };
    control.until_idle(BOUND, &id).await;
    control.until_idle(BOUND, &id).await;
    testkit::eventually(BOUND, "both idles", || async { (count(&reader) == 2).then_some(()) }).await;
    let [told, resumed] = [&control, &reader].map(|reader| {
        let events = reader.of_session(&id);
        let events: Vec<_> = events.into_iter().map(|event| (event.id, event.data)).collect();
        events
    });
    assert_eq!(told, resumed);
    assert!(to_idle(&control.of_session(&id)).len() > 5);
}

#[tokio::test]
async fn a_replica_that_is_a_month_ahead_forgets_no_name_and_no_approval_of_the_others() {
    let Some(ahead) = with_wrong_clock(30 * 24 * 3600) else { return };
    if !Mode::is_fleet_or_skip() {
        return;
    }
    let config = json!({"permission": {"bash": "ask"}});
    let args = ["--lease-ttl", "3s", "--tick", "500ms"].map(str::to_owned).to_vec();
    let wrappers = vec![ahead, Vec::new(), Vec::new()];
    let world = World::start_with(WorldSpec { config, wrappers, args, ..WorldSpec::default() }).await;
    world.model.respond_with(|body| match transcript::last_user_text(body).as_str() {
        text if text.starts_with("run")
            && !body["messages"].as_array().unwrap().iter().any(|m| m["role"] == "tool") =>
        {
            Answer::call("call_1", "bash", json!({"command": "echo hello", "description": "d"}))
        }
        _ => Answer::say("done"),
    });
    let id = world.session().await;
    let named = |number: usize| {
        let (client, path) = (world.at(number), format!("/session/{id}/message"));
        async move {
            let body = testkit::client::text_prompt("once only").to_string().into_bytes();
            let headers = [("content-type", "application/json"), ("idempotency-key", "the same")];
            client.send(reqwest::Method::POST, &path, &headers, Some(body)).await.ok()
        }
    };
    let once = named(1).await;
    // An approval for good, given to a replica with a right clock.
    let mut control = world.events(2).await;
    let asking = world.spawn_prompt(1, &id, "run it");
    let asked = control.until_kind(BOUND, "permission.asked").await;
    let reply = format!("/permission/{}/reply", asked.properties()["id"].as_str().unwrap());
    world.at(2).post(&reply, &json!({"reply": "always"})).await.ok();
    asking.await.unwrap();
    assert_eq!(named(0).await["info"]["id"], once["info"]["id"], "the name is known on the replica that is ahead");
    let other = world.session().await;
    let answer = world.at(0).prompt(&other, "run it again").await;
    assert_eq!(testkit::client::text_of(&answer), "done", "nobody is asked again");
}
