//! Many writers at once, on all replicas.

use serde_json::{Value, json};
use testkit::client::{id_of, text_prompt};
use testkit::model::Gate;
use testkit::{Answer, World};

const WRITERS: usize = 8;
const ROUNDS: usize = 6;

#[tokio::test]
async fn no_update_of_eight_writers_on_three_replicas_is_lost() {
    let world = World::start().await;
    let id = world.session().await;
    let path = format!("/session/{id}");
    let rule = |writer: usize, round: usize| json!({"permission": "bash", "pattern": format!("writer-{writer} round-{round}"), "action": "ask"});
    let mut writers = Vec::new();
    for writer in 0..WRITERS {
        let (clients, path) = ([0, 1, 2].map(|n| world.at(n)), path.clone());
        writers.push(tokio::spawn(async move {
            for round in 0..ROUNDS {
                // Rules are added, so that each of them must be there in the end. One writer also sets the title and
                // another the metadata: nobody else may set them back.
                let mut change = json!({"permission": [rule(writer, round)]});
                if writer == 0 {
                    change["title"] = json!(format!("title {round}"));
                }
                if writer == 1 {
                    change["metadata"] = json!({ "round": round });
                }
                let changed = clients[(writer + round) % 3].patch(&path, &change).await.ok();
                if writer == 0 {
                    assert_eq!(changed["title"], change["title"]);
                }
            }
        }));
    }
    for writer in writers {
        writer.await.unwrap();
    }
    let session = world.at(0).get(&path).await.ok();
    assert_eq!(session["title"], format!("title {}", ROUNDS - 1));
    assert_eq!(session["metadata"], json!({"round": ROUNDS - 1}));
    let rules = session["permission"].as_array().unwrap();
    assert_eq!(rules.len(), WRITERS * ROUNDS);
    for writer in 0..WRITERS {
        let own: Vec<&Value> =
            (0..ROUNDS).map(|round| rules.iter().find(|r| **r == rule(writer, round)).unwrap()).collect();
        let kept = rules.iter().filter(|r| r["pattern"].as_str().unwrap().starts_with(&format!("writer-{writer} ")));
        assert!(kept.eq(own), "the updates of writer {writer} are in its order");
    }
    for number in 1..3 {
        assert_eq!(world.at(number).get(&path).await.ok(), session, "replica {number}");
    }
}

#[tokio::test]
async fn the_same_message_posted_to_two_replicas_at_once_is_run_once() {
    let world = World::start().await;
    let gate = Gate::new();
    world.model.push(Answer::new().text("once").wait(&gate).stop());
    let id = world.session().await;
    let path = format!("/session/{id}/message");
    let mut body = text_prompt("go");
    body["messageID"] = json!("msg_2036b6d86001eocMY4GfT40NyM");
    let post = |number: usize| {
        let (client, path, body) = (world.at(number), path.clone(), body.clone());
        tokio::spawn(async move { client.post(&path, &body).await.ok() })
    };
    let posts = [post(0), post(1), post(2)];
    gate.reached().await;
    gate.release();
    let mut answers = Vec::new();
    for post in posts {
        answers.push(post.await.unwrap());
    }
    assert_eq!(answers[0], answers[1]);
    assert_eq!(answers[0], answers[2]);
    assert_eq!(answers[0]["parts"][1]["text"], "once");
    assert_eq!(world.messages(&id).await.len(), 2);
    // Asked again after its end, it is answered and not run.
    assert_eq!(world.client().post(&path, &body).await.ok(), answers[0]);
    assert_eq!(world.model.main_requests().len(), 1);

    let mut other = text_prompt("something else");
    other["messageID"] = body["messageID"].clone();
    assert_eq!(world.client().post(&path, &other).await.status, 409, "the same id with another body");
    let elsewhere = world.session().await;
    let taken = world.client().post(&format!("/session/{elsewhere}/message"), &body).await;
    assert_eq!(taken.status, 409, "the same id in another session");
    assert_eq!(world.messages(&elsewhere).await, Vec::<Value>::new());
}

#[tokio::test]
async fn many_sessions_run_beside_each_other_and_none_runs_twice_at_once() {
    let world = World::start().await;
    world.model.respond_with(|body| {
        let asked = testkit::transcript::last_user_text(body);
        Answer::new().text_chunks(["to ", &asked], std::time::Duration::from_millis(5)).stop()
    });
    let mut prompts = Vec::new();
    for number in 0..12 {
        let client = world.client();
        prompts.push(tokio::spawn(async move {
            let id = id_of(&client.create_session(&json!({"title": "one of many"})).await);
            for round in 0..3 {
                let text = format!("{number}/{round}");
                let answer = client.prompt(&id, &text).await;
                assert_eq!(answer["parts"][1]["text"], format!("to {text}"));
            }
            id
        }));
    }
    for prompt in prompts {
        let id = prompt.await.unwrap();
        assert_eq!(world.model.concurrent_runs(&id), 1);
        assert_eq!(world.messages(&id).await.len(), 6);
    }
}
