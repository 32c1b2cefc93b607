//! nobody-notices: behind a balancer that sends a request again, the death of a replica fails no request and doubles none.

use serde_json::json;
use std::time::Duration;
use suite::figures::rounds;
use suite::load::{self, Load};
use testkit::client::{id_of, text_of, text_prompt};
use testkit::haproxy::Haproxy;
use testkit::model::Gate;
use testkit::nginx::Nginx;
use testkit::{Answer, BOUND, Client, CuttingProxy, Failpoint, Mode, World, WorldSpec, eventually};

/// Replicas that notice a silence soon.
fn quick() -> WorldSpec {
    let args = ["--lease-ttl", "3s", "--tick", "500ms"].map(str::to_owned).to_vec();
    WorldSpec { args, ..WorldSpec::default() }
}

async fn killed_under_load(balancer: &str, world: &mut World) {
    load::answer(world, Duration::from_millis(15));
    let load = Load::start(balancer, 5);
    for round in 0..rounds(3) {
        load.goes_on(8).await;
        world.replica(round).kill9();
        load.goes_on(8).await;
        world.replica(round).start_again().await;
    }
    let prompts = load.finish(world).await;
    println!("figure killed under load: {} kills, {prompts} prompts, no failure", rounds(3));
}

#[tokio::test]
async fn kill_9_under_load_behind_nginx_shows_no_client_an_error_and_doubles_no_prompt() {
    if !Mode::is_fleet_or_skip() {
        return;
    }
    let mut world = World::start_with(quick()).await;
    let nginx = world.nginx().await;
    killed_under_load(&nginx.url(), &mut world).await;
}

#[tokio::test]
async fn kill_9_under_load_behind_haproxy_shows_no_client_an_error_and_doubles_no_prompt() {
    if !Mode::is_fleet_or_skip() {
        return;
    }
    let mut world = World::start_with(quick()).await;
    let haproxy = world.haproxy().await;
    killed_under_load(&haproxy.url(), &mut world).await;
}

#[tokio::test]
async fn a_request_that_is_sent_again_after_a_death_goes_on_where_it_was() {
    if !Mode::is_fleet_or_skip() {
        return;
    }
    let points = [
        // The name is durable; nothing else is.
        Failpoint::after("rename", "flotilla/key/"),
        // Some of the prompt's records are there, the head says nothing of them.
        Failpoint::before("rename", "storage/message/"),
        // The ticket is given out.
        Failpoint::after("rename", "head.json"),
    ];
    let mut world = World::start_with(WorldSpec { failpoints: true, ..quick() }).await;
    world.model.respond_with(|_| Answer::say("answered"));
    for (number, point) in points.iter().enumerate() {
        let id = world.session().await;
        let path = format!("/session/{id}/message");
        let name = format!("request-{number}");
        let armed = world.replica(0).kill_at(point);
        let again = |replica: usize| world.at(replica).with_header("x-request-id", &name);
        let body = Some(text_prompt("go").to_string().into_bytes());
        let kind = [("content-type", "application/json")];
        let died = again(0).try_send(reqwest::Method::POST, &path, &kind, body).await;
        assert!(died.is_err(), "{point:?}: {died:?}");
        armed.reached(BOUND).await;
        assert_eq!(text_of(&again(1).post(&path, &text_prompt("go")).await.ok()), "answered", "{point:?}");
        assert_eq!(text_of(&again(2).post(&path, &text_prompt("go")).await.ok()), "answered", "{point:?}");
        let said = world.at(2).conversation(&id).await;
        let turn = [("user", "go"), ("assistant", "answered")].map(|(role, text)| (role.to_owned(), text.to_owned()));
        assert_eq!(said, turn, "{point:?}");
        world.replica(0).kill9();
        world.replica(0).start_again().await;
    }
    assert_eq!(world.model.main_requests().len(), points.len(), "each prompt was run once");
}

#[tokio::test]
async fn white_space_keeps_a_silent_answer_alive_and_only_from_then_on_a_death_is_noticed() {
    if !Mode::is_fleet_or_skip() {
        return;
    }
    let args = ["--answer-keepalive", "1s", "--lease-ttl", "3s", "--tick", "500ms"].map(str::to_owned).to_vec();
    let mut world = World::start_with(WorldSpec { args, ..WorldSpec::default() }).await;
    let gate = Gate::new();
    world.model.push(Answer::new().text("late ").wait(&gate).text("answer").stop());
    world.model.respond_with(|_| Answer::say("after all"));
    let id = world.session().await;
    let url = format!("{}/session/{id}/message", world.url(0));
    let http = reqwest::Client::new();
    let mut response = http.post(&url).body(text_prompt("go").to_string()).send().await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(response.chunk().await.unwrap().as_deref(), Some(&b" "[..]));
    gate.release();
    assert_eq!(text_of(&serde_json::from_str(&response.text().await.unwrap()).unwrap()), "late answer");

    // A request that makes no sense is refused at once, with its own status.
    assert_eq!(world.at(0).post(&format!("/session/{id}/message"), &json!({"parts": 1})).await.status, 400);

    // White space is out: a death cuts the connection, and does not end it as if that were all.
    let held = Gate::new();
    world.model.push(Answer::new().text("cut").wait(&held).stop());
    let mut response = http.post(&url).body(text_prompt("again").to_string()).send().await.unwrap();
    assert_eq!(response.chunk().await.unwrap().as_deref(), Some(&b" "[..]));
    world.replica(0).kill9();
    while let Ok(chunk) = response.chunk().await {
        assert_eq!(chunk.as_deref(), Some(&b" "[..]), "a clean end, or an answer");
    }
    // It is answered all the same, as whoever asks next finds.
    eventually(BOUND, "the answer", || async {
        let said = world.at(1).conversation(&id).await;
        said.last().is_some_and(|(_, text)| text == "after all").then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_replica_that_is_gone_without_a_word_costs_its_callers_no_more_than_the_balancers_patience() {
    if !Mode::is_fleet_or_skip() {
        return;
    }
    let world = World::start_with(quick()).await;
    let between: Vec<CuttingProxy> = world.replicas().iter().map(|r| CuttingProxy::start(r.port())).collect();
    let ports = || between.iter().map(CuttingProxy::port);
    let nginx =
        Nginx::start_edited(ports(), |text| text.replace("proxy_read_timeout 2m", "proxy_read_timeout 2s")).await;
    let haproxy = Haproxy::start_edited(ports(), |text| text.replace("timeout server 2m", "timeout server 2s")).await;
    for (asked, url) in [nginx.url(), haproxy.url()].iter().enumerate() {
        let gate = Gate::new();
        world.model.push(Answer::new().wait(&gate).text("answered").stop());
        let id = world.at(0).titled_session().await;
        let client = Client::new([url]);
        let path = format!("/session/{id}/message");
        let caller = tokio::spawn(async move { client.post(&path, &text_prompt("go")).await });
        world.model.wait_main_requests(asked + 1, BOUND).await;
        // Which one serves it is known by its run.
        let served = eventually(BOUND, "the run", || async {
            for number in 0..between.len() {
                let metrics = world.at(number).get("/metrics").await.text();
                if metrics.lines().any(|line| line == "flotilla_runs 1") {
                    return Some(number);
                }
            }
            None
        })
        .await;
        between[served].half_open();
        gate.release();
        let reply = caller.await.unwrap();
        assert_eq!(text_of(&reply.ok()), "answered", "{url}");
        between[served].heal();
        let said = world.at(0).conversation(&id).await;
        let turn = [("user", "go"), ("assistant", "answered")].map(|(role, text)| (role.to_owned(), text.to_owned()));
        assert_eq!(said, turn, "{url}");
    }
}

#[tokio::test]
async fn a_death_between_an_effect_and_its_recorded_answer_doubles_nothing() {
    if !Mode::is_fleet_or_skip() {
        return;
    }
    let mut world = World::start_with(WorldSpec { failpoints: true, ..quick() }).await;
    let id = world.session().await;
    let path = format!("/session/{id}");
    let rule = json!({"permission": [{"permission": "edit", "pattern": "*", "action": "allow"}]});
    let armed = world.replica(0).kill_at(&Failpoint::before("rename", ".answer.json"));
    let kind = [("content-type", "application/json"), ("x-request-id", "change")];
    let body = Some(rule.to_string().into_bytes());
    assert!(world.at(0).try_send(reqwest::Method::PATCH, &path, &kind, body).await.is_err());
    armed.reached(BOUND).await;
    for number in [1, 2] {
        let changed = world.at(number).with_header("x-request-id", "change").patch(&path, &rule).await.ok();
        assert_eq!(changed["permission"].as_array().unwrap().len(), 1, "the rule was added once: {changed}");
    }

    // The same of an abort: sent again it does not stop what was asked after it.
    let (abort, kind) = (format!("{path}/abort"), [("x-request-id", "abort")]);
    let armed = world.replica(1).kill_at(&Failpoint::before("rename", ".answer.json"));
    assert!(world.at(1).try_send(reqwest::Method::POST, &abort, &kind, None).await.is_err());
    armed.reached(BOUND).await;
    let gate = Gate::new();
    world.model.push(Answer::new().text("not ").wait(&gate).text("stopped").stop());
    world.at(2).prompt_async(&id, "go").await;
    gate.reached().await;
    assert_eq!(world.at(2).with_header("x-request-id", "abort").post(&abort, &json!({})).await.status, 200);
    gate.release();
    eventually(BOUND, "the answer", || async {
        (text_of(world.at(2).messages(&id).await.last()?) == "not stopped").then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_balancer_names_each_request_by_itself_whatever_its_client_calls_it() {
    if !Mode::is_fleet_or_skip() {
        return;
    }
    let world = World::start().await;
    let (nginx, haproxy) = (world.nginx().await, world.haproxy().await);
    let make = async |client: Client| {
        let client = client.with_header("x-request-id", "a-name-of-anothers");
        id_of(&client.create_session(&json!({"title": "mine"})).await)
    };
    for url in [nginx.url(), haproxy.url()] {
        let [first, second] = [make(Client::new([&url])).await, make(Client::new([&url])).await];
        assert_ne!(first, second, "a client got what another one, or itself, asked for before");
    }
    // Replicas believe the balancer.
    assert_eq!(make(world.at(0)).await, make(world.at(1)).await);
}
