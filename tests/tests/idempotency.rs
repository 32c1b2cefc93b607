//! An idempotency key names a prompt: sent again, to any replica, it is the same prompt.

use serde_json::json;
use testkit::client::{text_of, text_prompt};
use testkit::model::Gate;
use testkit::{Answer, World};

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
}
