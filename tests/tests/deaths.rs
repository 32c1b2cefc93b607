//! takeover: a replica is killed at each durable point of each operation that holds a lease or a guard; the operation has the
//! end that docs/GUARANTEES.md states.

#![allow(clippy::unwrap_used)]

use reqwest::Method;
use serde_json::{Value, json};
use std::path::PathBuf;
use suite::figures::rounds;
use suite::screen::shows_what_is_stored;
use testkit::client::{parts_of, text_of, text_prompt};
use testkit::model::Gate;
use testkit::{Answer, BOUND, Client, Event, Failpoint, Mode, World, WorldSpec, eventually, transcript};

/// Replicas with failpoints that notice a silence soon.
fn spec() -> WorldSpec {
    let args = ["--lease-ttl", "2s", "--tick", "300ms"].map(str::to_owned).to_vec();
    WorldSpec { args, failpoints: true, ..WorldSpec::default() }
}

/// Sends a request to the first replica, which dies at the point before it answers.
async fn dies(world: &mut World, point: &Failpoint, method: Method, path: &str, body: Value) {
    let client = world.at(0);
    dies_under(world, &client, point, method, path, body).await;
}

/// The same with a name, under which the request may be sent again.
async fn dies_named(world: &mut World, name: &str, point: &Failpoint, method: Method, path: &str, body: Value) {
    let client = named(world, 0, name);
    dies_under(world, &client, point, method, path, body).await;
}

async fn dies_under(world: &mut World, client: &Client, point: &Failpoint, method: Method, path: &str, body: Value) {
    let armed = world.replica(0).kill_at(point);
    let kind = [("content-type", "application/json")];
    let died = client.try_send(method, path, &kind, Some(body.to_string().into_bytes())).await;
    assert!(died.is_err(), "{point:?}: {died:?}");
    armed.reached(BOUND).await;
    world.replica(0).kill9();
}

/// A client of a replica whose requests bear a name.
fn named(world: &World, number: usize, name: &str) -> Client {
    world.at(number).with_header("x-request-id", name)
}

/// The names of the files below a directory of the store that belong to a session, or to one of its messages.
fn files_of(world: &World, session: &str, messages: &[String]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut directories = vec![world.data_dir().join("storage"), world.data_dir().join("flotilla/open")];
    directories.extend(["flotilla/ticket", "flotilla/ask"].map(|name| world.data_dir().join(name)));
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(&directory).into_iter().flatten().flatten() {
            let path = entry.path();
            let text = path.to_string_lossy().into_owned();
            if path.is_dir() {
                directories.push(path);
            } else if text.contains(session) || messages.iter().any(|message| text.contains(message.as_str())) {
                found.push(path);
            }
        }
    }
    found
}

/// Waits until no marker is left.
async fn all_is_settled(world: &World, what: &str) {
    eventually(BOUND, &format!("no marker to be left ({what})"), || async {
        let open = std::fs::read_dir(world.data_dir().join("flotilla/open")).unwrap().count();
        (open == 0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_deletion_whose_replica_dies_is_finished_or_never_was() {
    if !Mode::is_fleet_or_skip() {
        return;
    }
    let head = |id: &str| format!("guard/{id}/head.json");
    type Point = fn(&str, &str) -> Failpoint;
    // Not yet durable: the session lives on, whole.
    let before: [Point; 2] = [
        // Its marker is made, and no more.
        |id, _| Failpoint::after("rename", format!("flotilla/open/{id}.deleted")),
        |_, head| Failpoint::before("rename", head),
    ];
    // Durable: somebody finishes it.
    let after: [Point; 5] = [
        |_, head| Failpoint::after("rename", head),
        |id, _| Failpoint::before("unlink", format!("storage/message/{id}")),
        |id, _| Failpoint::after("rmdir", format!("storage/message/{id}")),
        |_, head| Failpoint::before("rename", head).skip(1),
        |id, _| Failpoint::before("unlink", format!("flotilla/open/{id}.deleted")),
    ];
    let mut world = World::start_with(spec()).await;
    world.model.respond_with(|_| Answer::say("answered"));
    let points = before.iter().map(|point| (point, false)).chain(after.iter().map(|point| (point, true)));
    for (point, is_durable) in points {
        let id = world.session().await;
        let path = format!("/session/{id}");
        world.prompt(&id, "go").await;
        let messages: Vec<String> =
            world.messages(&id).await.iter().map(|m| m["info"]["id"].as_str().unwrap().to_owned()).collect();
        all_is_settled(&world, "before").await;
        let mut events = world.global_events(1).await;
        let point = point(&id, &head(&id));
        dies(&mut world, &point, Method::DELETE, &path, json!({})).await;
        if is_durable {
            let gone = |event: &testkit::Event| {
                event.kind() == "session.deleted" && event.properties()["sessionID"] == id.as_str()
            };
            events.until(BOUND, "the deletion to be told", gone).await;
            for number in [1, 2] {
                assert_eq!(world.at(number).get(&path).await.status, 404, "{point:?}");
                let listed = world.at(number).get("/session").await.ok();
                assert!(!listed.to_string().contains(&id), "{point:?}: {listed}");
            }
        } else {
            // As if nobody had asked for it.
            for number in [1, 2] {
                assert_eq!(world.at(number).get(&path).await.status, 200, "{point:?}");
                assert_eq!(world.at(number).messages(&id).await.len(), 2, "{point:?}");
            }
            all_is_settled(&world, &format!("{point:?}")).await;
            assert_eq!(text_of(&world.at(1).prompt(&id, "still there?").await), "answered", "{point:?}");
            assert_eq!(world.at(2).delete(&path).await.status, 200, "{point:?}");
        }
        all_is_settled(&world, &format!("{point:?}")).await;
        eventually(BOUND, "nothing to be left of the session", || async {
            files_of(&world, &id, &messages).is_empty().then_some(())
        })
        .await;
        world.replica(0).start_again().await;
    }
}

#[tokio::test]
async fn an_abort_before_the_take_over_answers_with_the_turn_that_it_stopped() {
    if !Mode::is_fleet_or_skip() {
        return;
    }
    let mut world = World::start_with(spec()).await;
    world.model.respond_with(|_| Answer::say("first answer"));
    let id = world.session().await;
    assert_eq!(text_of(&world.prompt(&id, "first").await), "first answer");
    // Of the two messages that are stored now, the second is the answer: it is never placed.
    let armed = world.replica(0).kill_at(&Failpoint::before("rename", format!("storage/message/{id}")).skip(1));
    let mut second = text_prompt("second");
    second["messageID"] = json!("msg_second");
    let path = format!("/session/{id}/message");
    assert_eq!(world.at(0).post(&format!("/session/{id}/prompt_async"), &second).await.status, 204);
    armed.reached(BOUND).await;
    world.replica(0).kill9();
    // The same prompt at another replica: it joins, and waits.
    let waiter = {
        let (client, path) = (world.at(2), path.clone());
        tokio::spawn(async move { client.post(&path, &second).await.ok() })
    };
    world.at(1).abort(&id).await;
    let answer = waiter.await.unwrap();
    assert_eq!(answer["info"]["parentID"], "msg_second", "{answer}");
    assert_eq!(answer["info"]["error"]["name"], "MessageAbortedError", "{answer}");
    assert!(answer["info"]["time"]["completed"].is_u64(), "{answer}");
    assert_eq!(world.at(1).messages(&id).await.last().unwrap(), &answer);
    all_is_settled(&world, "the abort").await;
    assert_eq!(world.model.main_requests().len(), 1, "what was aborted is not asked");
    // What was aborted goes to the model with the next prompt.
    assert_eq!(text_of(&world.at(1).prompt(&id, "third").await), "first answer");
    let asked = world.model.main_requests().pop().unwrap();
    assert_eq!(transcript::user_texts(&asked.body), ["first", "second", "third"]);
}

/// Answers each prompt with its own text.
fn echo(world: &World) {
    world.model.respond_with(|body| Answer::say(&format!("answer to {}", transcript::last_user_text(body))));
}

/// What was said in a turn.
fn turn(prompt: &str) -> [(String, String); 2] {
    [("user".into(), prompt.into()), ("assistant".into(), format!("answer to {prompt}"))]
}

#[tokio::test]
async fn a_prompt_whose_replica_dies_before_its_ticket_is_given_out_never_was() {
    if !Mode::is_fleet_or_skip() {
        return;
    }
    let points: [fn(&str) -> Failpoint; 6] = [
        // Its name is durable, and no more.
        |_| Failpoint::after("rename", "flotilla/key/"),
        |id| Failpoint::after("create", format!("flotilla/open/{id}.1")),
        |_| Failpoint::after("rename", "storage/part/"),
        |id| Failpoint::after("rename", format!("flotilla/ticket/{id}")),
        |id| Failpoint::after("rename", format!("storage/message/{id}")),
        |id| Failpoint::before("rename", format!("guard/{id}/head.json")),
    ];
    let mut world = World::start_with(spec()).await;
    echo(&world);
    for (number, point) in points.iter().enumerate() {
        let id = world.session().await;
        let (path, point) = (format!("/session/{id}/message"), point(&id));
        let mut lost = text_prompt("lost");
        lost["messageID"] = json!(format!("msg_lost{number}"));
        dies(&mut world, &point, Method::POST, &path, lost.clone()).await;
        // Once somebody has swept nothing is left of it; at other points the next prompt comes before that.
        if number % 2 == 1 {
            all_is_settled(&world, &format!("{point:?}")).await;
            assert_eq!(world.at(1).messages(&id).await, Vec::<Value>::new(), "{point:?}");
            assert_eq!(world.at(2).messages(&id).await, Vec::<Value>::new(), "{point:?}");
        }
        assert_eq!(text_of(&world.at(1).prompt(&id, "other").await), "answer to other", "{point:?}");
        let asked = world.model.main_requests().pop().unwrap();
        assert_eq!(transcript::user_texts(&asked.body), ["other"], "{point:?}");
        assert_eq!(world.at(2).conversation(&id).await, turn("other"), "{point:?}");
        // Sent again it is a prompt like any other.
        let answer = world.at(2).post(&path, &lost).await.ok();
        assert_eq!(text_of(&answer), "answer to lost", "{point:?}");
        for number in [1, 2] {
            let said = world.at(number).conversation(&id).await;
            assert_eq!(said, [turn("other"), turn("lost")].concat(), "{point:?}");
        }
        all_is_settled(&world, &format!("{point:?}")).await;
        world.replica(0).start_again().await;
    }
}

/// A durable point in a session, and whether something is done there already.
type Point = (fn(&str) -> Failpoint, bool);

/// Of a prompt after its ticket was given out, and whether its answer is finished there. The most telling first.
const IN_A_RUN: [Point; 11] = [
    // The ticket is given out, and nobody was told of anything.
    (|id| Failpoint::after("rename", format!("guard/{id}/head.json")), false),
    // The answer's last part is there, its end is not; then that, too, but not told.
    (|id| Failpoint::before("rename", format!("storage/message/{id}")).skip(2), false),
    (|id| Failpoint::after("rename", format!("storage/message/{id}")).skip(2), true),
    // The tickets are about to be settled; they are, but the lease is not given back.
    (|id| Failpoint::before("rename", format!("guard/{id}/head.json")).skip(2), true),
    (|id| Failpoint::after("rename", format!("guard/{id}/head.json")).skip(2), true),
    // The run guard is taken; so is what a runner's first commit reserves.
    (|id| Failpoint::after("rename", format!("guard/{id}/run/")), false),
    (|id| Failpoint::after("rename", format!("guard/{id}/head.json")).skip(1), false),
    // The answer is there without a part, with its first one, with its text.
    (|id| Failpoint::after("rename", format!("storage/message/{id}")).skip(1), false),
    (|_| Failpoint::after("rename", "storage/part/").skip(1), false),
    (|_| Failpoint::after("rename", "storage/part/").skip(3), false),
    (|id| Failpoint::before("unlink", format!("flotilla/open/{id}.1")), true),
];

#[tokio::test]
async fn a_prompt_whose_replica_dies_after_its_ticket_was_given_out_is_answered_once_and_told() {
    if !Mode::is_fleet_or_skip() {
        return;
    }
    let mut world = World::start_with(spec()).await;
    echo(&world);
    let reader = world.faithful_events(2).await;
    for (number, (point, is_finished)) in IN_A_RUN.iter().take(rounds(5)).enumerate() {
        let id = world.session().await;
        let (path, point) = (format!("/session/{id}/message"), point(&id));
        let mut prompt = text_prompt("go");
        prompt["messageID"] = json!(format!("msg_run{number}"));
        let armed = world.replica(0).kill_at(&point);
        let asked = world.model.main_requests().len();
        let cut = tokio::spawn({
            let (client, path, body) = (world.at(0), path.clone(), prompt.to_string().into_bytes());
            async move { client.try_send(Method::POST, &path, &[("content-type", "application/json")], Some(body)).await }
        });
        armed.reached(BOUND).await;
        world.replica(0).kill9();
        // It may have been answered before its markers went.
        let _cut = cut.await.unwrap();
        // The same prompt at another replica joins.
        let answer = world.at(1).post(&path, &prompt).await.ok();
        assert_eq!((text_of(&answer), &answer["info"]["finish"]), ("answer to go".into(), &json!("stop")), "{point:?}");
        let messages = world.at(2).messages(&id).await;
        let of = |role: &str| messages.iter().filter(|m| m["info"]["role"] == role).collect::<Vec<_>>();
        assert_eq!(of("user").len(), 1, "{point:?}: {messages:#?}");
        let finished = of("assistant").into_iter().filter(|m| m["info"]["finish"] == "stop").count();
        assert_eq!(finished, 1, "{point:?}: {messages:#?}");
        let open = of("assistant").into_iter().filter(|m| m["info"]["time"]["completed"].is_null()).count();
        assert_eq!(open, 0, "{point:?}: {messages:#?}");
        let asked = world.model.main_requests().len() - asked;
        assert!(asked == 1 || asked == 2 && !is_finished, "{point:?}: asked {asked} times");
        assert_eq!(world.model.concurrent_runs(&id), 1);
        shows_what_is_stored(&reader, &world.at(2), &id).await;
        all_is_settled(&world, &format!("{point:?}")).await;
        world.replica(0).start_again().await;
    }
}

#[tokio::test]
async fn who_takes_a_run_over_may_die_of_it_as_well() {
    if !Mode::is_fleet_or_skip() {
        return;
    }
    let mut world = World::start_with(spec()).await;
    let gate = Gate::new();
    world.model.push(Answer::new().text("half ").wait(&gate).stop());
    world.model.respond_with(|_| Answer::say("whole"));
    let id = world.session().await;
    world.at(0).prompt_async(&id, "go").await;
    gate.reached().await;
    // Whichever claims it has taken the run guard, and nothing more.
    let point = Failpoint::after("rename", format!("guard/{id}/run/"));
    let mut armed = [1, 2].map(|number| Some(world.replica(number).kill_at(&point)));
    world.replica(0).kill9();
    let dead = eventually(BOUND, "a claim", || {
        let dead = (1..3).find(|number| world.replica(*number).has_ended());
        async move { dead }
    })
    .await;
    let other = 3 - dead;
    armed[other - 1].take().unwrap().disarm();
    let survivor = world.at(other);
    eventually(BOUND, "the end", || async { (survivor.status(&id).await == "idle").then_some(()) }).await;
    let messages = survivor.messages(&id).await;
    assert_eq!(text_of(messages.last().unwrap()), "whole");
    assert_eq!(world.model.main_requests().len(), 2, "who died of the claim had asked nobody");
    all_is_settled(&world, "two deaths").await;
}

#[tokio::test]
async fn an_abort_whose_replica_dies_reaches_the_run_elsewhere_or_never_was() {
    if !Mode::is_fleet_or_skip() {
        return;
    }
    let mut world = World::start_with(spec()).await;
    for is_durable in [false, true] {
        let gate = Gate::new();
        world.model.push(Answer::new().text("half ").wait(&gate).text("whole").stop());
        let id = world.session().await;
        // Nobody waits for it: a caller's replica would look by itself, and tell the owner.
        world.at(1).prompt_async(&id, "go").await;
        gate.reached().await;
        let head = format!("guard/{id}/head.json");
        let point = if is_durable { Failpoint::after("rename", head) } else { Failpoint::before("rename", head) };
        dies(&mut world, &point, Method::POST, &format!("/session/{id}/abort"), json!({})).await;
        if !is_durable {
            gate.release();
        }
        let client = world.at(2);
        eventually(BOUND, "the end", || async { (client.status(&id).await == "idle").then_some(()) }).await;
        let answer = client.messages(&id).await.pop().unwrap();
        let request = world.model.main_requests().pop().unwrap();
        if is_durable {
            assert_eq!(answer["info"]["error"]["name"], "MessageAbortedError", "{answer}");
            assert!(request.disconnected, "the model is asked no more");
        } else {
            assert_eq!((text_of(&answer), &answer["info"]["error"]), ("half whole".into(), &Value::Null));
        }
        all_is_settled(&world, "an abort").await;
        world.replica(0).start_again().await;
    }
}

#[tokio::test]
async fn an_owner_that_dies_while_it_stops_for_an_abort_leaves_the_turn_aborted() {
    if !Mode::is_fleet_or_skip() {
        return;
    }
    let mut world = World::start_with(spec()).await;
    let points: [fn(&str) -> Failpoint; 2] = [
        // What was stopped is about to be closed; it is, and its ticket is about to be settled.
        |id| Failpoint::before("rename", format!("storage/message/{id}")),
        |id| Failpoint::before("rename", format!("guard/{id}/head.json")),
    ];
    for (number, point) in points.iter().enumerate() {
        let gate = Gate::new();
        world.model.push(Answer::new().text("half ").wait(&gate).text("whole").stop());
        let id = world.session().await;
        let (path, point) = (format!("/session/{id}/message"), point(&id));
        let mut prompt = text_prompt("go");
        prompt["messageID"] = json!(format!("msg_stopped{number}"));
        assert_eq!(world.at(0).post(&format!("/session/{id}/prompt_async"), &prompt).await.status, 204);
        gate.reached().await;
        let armed = world.replica(0).kill_at(&point);
        let abort = tokio::spawn({
            let (client, id) = (world.at(1), id.clone());
            async move { client.abort(&id).await }
        });
        armed.reached(BOUND).await;
        world.replica(0).kill9();
        abort.await.unwrap();
        // Who asks for the same prompt is answered with what was stopped.
        let answer = world.at(2).post(&path, &prompt).await.ok();
        assert_eq!(answer["info"]["error"]["name"], "MessageAbortedError", "{point:?}: {answer}");
        let messages = world.at(1).messages(&id).await;
        assert_eq!(messages.len(), 2, "{point:?}: {messages:#?}");
        assert_eq!(parts_of(&answer).iter().filter(|part| part["text"] == "half ").count(), 1, "{point:?}: {answer}");
        assert_eq!(world.model.main_requests().len(), number + 1, "{point:?}: what was stopped is not asked again");
        all_is_settled(&world, &format!("{point:?}")).await;
        world.replica(0).start_again().await;
    }
}

#[tokio::test]
async fn a_session_whose_maker_dies_is_not_there_or_whole_and_made_once() {
    if !Mode::is_fleet_or_skip() {
        return;
    }
    let points = [
        // Its name is durable; its guard is; its record is, but nobody was told.
        (Failpoint::after("rename", "flotilla/key/"), 0),
        (Failpoint::after("rename", "flotilla/guard/"), 0),
        (Failpoint::after("rename", "storage/session/"), 1),
        (Failpoint::before("rename", ".answer.json"), 1),
    ];
    let mut world = World::start_with(spec()).await;
    let reader = world.faithful_events(2).await;
    for (number, (point, made)) in points.iter().enumerate() {
        let (name, title) = (format!("make-{number}"), format!("made {number}"));
        let body = json!({"title": title});
        dies_named(&mut world, &name, point, Method::POST, "/session", body.clone()).await;
        let listed = async |number: usize| {
            let all = world.at(number).get("/session").await.ok();
            all.as_array().unwrap().iter().filter(|session| session["title"] == title).count()
        };
        assert_eq!((listed(1).await, listed(2).await), (*made, *made), "{point:?}");
        let first = named(&world, 1, &name).post("/session", &body).await.ok();
        assert_eq!(named(&world, 2, &name).post("/session", &body).await.ok(), first, "{point:?}");
        assert_eq!((listed(1).await, listed(2).await), (1, 1), "{point:?}");
        let is_told =
            |event: &Event| event.kind() == "session.created" && event.properties()["info"]["id"] == first["id"];
        eventually(BOUND, "the session to be told", || async { reader.collected().iter().any(is_told).then_some(()) })
            .await;
        let id = first["id"].as_str().unwrap();
        echo(&world);
        assert_eq!(text_of(&world.at(1).prompt(id, "go").await), "answer to go", "{point:?}");
        world.replica(0).start_again().await;
    }
}

#[tokio::test]
async fn a_change_of_a_session_whose_replica_dies_is_made_once_and_told() {
    if !Mode::is_fleet_or_skip() {
        return;
    }
    let points: [Point; 4] = [
        (|_| Failpoint::before("rename", "storage/session/"), false),
        (|_| Failpoint::after("rename", "storage/session/"), true),
        (|id| Failpoint::after("rename", format!("guard/{id}/head.json")), true),
        (|_| Failpoint::before("rename", ".answer.json"), true),
    ];
    let mut world = World::start_with(spec()).await;
    let reader = world.faithful_events(2).await;
    for (number, (point, is_changed)) in points.iter().enumerate() {
        let id = world.session().await;
        let (path, point, name) = (format!("/session/{id}"), point(&id), format!("change-{number}"));
        let rule = json!({"permission": "edit", "pattern": "*", "action": "allow"});
        let body = json!({"title": format!("changed {number}"), "permission": [rule]});
        dies_named(&mut world, &name, &point, Method::PATCH, &path, body.clone()).await;
        let titled = world.at(1).get(&path).await.ok()["title"] == body["title"];
        assert_eq!(titled, *is_changed, "{point:?}");
        for number in [1, 2] {
            let changed = named(&world, number, &name).patch(&path, &body).await.ok();
            assert_eq!((&changed["title"], &changed["permission"]), (&body["title"], &json!([rule])), "{point:?}");
        }
        let is_told = |event: &Event| {
            let info = &event.properties()["info"];
            event.kind() == "session.updated" && info["id"] == id.as_str() && info["title"] == body["title"]
        };
        eventually(BOUND, &format!("the change to be told ({point:?})"), || async {
            reader.collected().iter().any(is_told).then_some(())
        })
        .await;
        world.replica(0).start_again().await;
    }
}

/// The first ask of a session, of permissions or of questions.
async fn asked(client: &Client, kind: &str, session: &str) -> Value {
    eventually(BOUND, "the ask", || async {
        let asks = client.get(&format!("/{kind}")).await.ok();
        asks.as_array()?.iter().find(|ask| ask["sessionID"] == session).cloned()
    })
    .await
}

#[tokio::test]
async fn a_reply_to_an_ask_whose_replica_dies_is_given_once_and_told() {
    if !Mode::is_fleet_or_skip() {
        return;
    }
    // The approval is there, the answer is not; then that, too; then the head, but nobody was told.
    let points: [fn(&str) -> Failpoint; 4] = [
        |id| Failpoint::before("rename", format!("flotilla/ask/{id}")),
        |id| Failpoint::after("rename", format!("flotilla/ask/{id}")),
        |id| Failpoint::before("rename", format!("guard/{id}/head.json")),
        |id| Failpoint::after("rename", format!("guard/{id}/head.json")),
    ];
    let config = json!({"permission": {"bash": "ask"}});
    let mut world = World::start_with(WorldSpec { config, ..spec() }).await;
    let reader = world.faithful_events(2).await;
    for (number, point) in points.iter().enumerate() {
        for kind in ["permission", "question"] {
            let file = format!("ran-{number}");
            let call = match kind {
                "permission" => {
                    // No two begin alike: an approval of one would reach the next.
                    let tell = ["echo 1", "printf '1\\n'", "date", "seq 1"][number];
                    let command = format!("{tell} >> {file}");
                    Answer::call("c1", "bash", json!({"command": command, "description": "d"}))
                }
                _ => {
                    let options = json!([{"label": "Yes", "description": "d"}, {"label": "No", "description": "d"}]);
                    let question = json!({"question": "Shall I?", "header": "Choice", "options": options});
                    Answer::call("c1", "question", json!({"questions": [question]}))
                }
            };
            world.model.push(call);
            world.model.push(Answer::say("done"));
            let id = world.session().await;
            world.at(1).prompt_async(&id, "go").await;
            let ask = asked(&world.at(1), kind, &id).await;
            let (point, name) = (point(&id), format!("reply-{kind}-{number}"));
            let path = format!("/{kind}/{}/reply", ask["id"].as_str().unwrap());
            let body = if kind == "question" { json!({"answers": [["Yes"]]}) } else { json!({"reply": "always"}) };
            dies_named(&mut world, &name, &point, Method::POST, &path, body.clone()).await;
            for number in [2, 1] {
                let again = named(&world, number, &name).post(&path, &body).await;
                assert_eq!((again.status, again.text()), (200, "true".into()), "{point:?} {kind}");
            }
            let is_told = |event: &Event| {
                let properties = event.properties();
                event.kind() == format!("{kind}.replied") && properties["requestID"] == ask["id"]
            };
            eventually(BOUND, &format!("the reply to be told ({point:?} {kind})"), || async {
                reader.collected().iter().any(is_told).then_some(())
            })
            .await;
            let client = world.at(2);
            eventually(BOUND, "the end", || async { (client.status(&id).await == "idle").then_some(()) }).await;
            assert_eq!(text_of(client.messages(&id).await.last().unwrap()), "done", "{point:?} {kind}");
            if kind == "permission" {
                let lines = std::fs::read_to_string(world.file(&file)).unwrap().lines().count();
                assert_eq!(lines, 1, "{point:?}: the command ran once");
            }
            world.replica(0).start_again().await;
        }
    }
}
