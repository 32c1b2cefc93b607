//! takeover: hundreds of runs at once, a run that kills its replica again and again, a replica whose threads and cores are all
//! taken.

#![allow(clippy::unwrap_used)]

use serde_json::{Value, json};
use std::process::{Child, Command};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use suite::figures::rounds;
use suite::load::{self, Load};
use testkit::client::text_of;
use testkit::{Answer, BOUND, Client, Failpoint, Mode, World, WorldSpec, eventually, transcript};

/// Who needs the cores for itself, or takes them all, waits for its turn: no test is to be another's load.
static CORES: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

fn args(ttl: &str, tick: &str) -> Vec<String> {
    ["--lease-ttl", ttl, "--tick", tick].map(str::to_owned).to_vec()
}

/// What each replica says of a metric.
async fn metric(world: &World, number: usize, name: &str) -> u64 {
    let text = world.at(number).get("/metrics").await.text();
    let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("no {name} in {text}"));
    line.rsplit(' ').next().unwrap().parse::<f64>().unwrap() as u64
}

#[tokio::test]
async fn hundreds_of_runs_of_a_dead_replica_are_spread_over_the_others() {
    if !Mode::is_fleet_or_skip() {
        return;
    }
    let _alone = CORES.lock().await;
    let count = 150 * rounds(1);
    let mut world = World::start_with(WorldSpec { args: args("3s", "500ms"), ..WorldSpec::default() }).await;
    let is_over = Arc::new(AtomicBool::new(false));
    world.model.respond_with({
        let is_over = is_over.clone();
        move |_| {
            if is_over.load(Ordering::Relaxed) { Answer::say("answered") } else { Answer::new().text("half").hang() }
        }
    });
    let mut ids = Vec::new();
    for _ in 0..count {
        let id = world.at(0).titled_session().await;
        world.at(0).prompt_async(&id, "go").await;
        ids.push(id);
    }
    world.model.wait_main_requests(count, BOUND * rounds(1) as u32).await;
    is_over.store(true, Ordering::Relaxed);
    world.replica(0).kill9();
    let began = Instant::now();
    for id in &ids {
        let client = world.at(1);
        eventually(BOUND * rounds(1) as u32, "each run to be finished", || async {
            (client.status(id).await == "idle").then_some(())
        })
        .await;
        assert_eq!(text_of(client.messages(id).await.last().unwrap()), "answered");
        assert_eq!(world.model.concurrent_runs(id), 1);
    }
    println!("figure {count} runs taken over and finished: {} ms after kill -9", began.elapsed().as_millis());
    assert_eq!(world.model.main_requests().len(), 2 * count, "each was tried once more");
    let (b, c) = (metric(&world, 1, TAKEN_OVER).await, metric(&world, 2, TAKEN_OVER).await);
    assert!(b + c >= count as u64 && b.min(c) >= count as u64 / 5, "{b} and {c} of {count}");
}

const TAKEN_OVER: &str = "flotilla_runs_taken_over_total";

/// Starts again what was killed.
async fn revive(world: &mut World) {
    for number in 0..3 {
        if world.replica(number).has_ended() {
            world.replica(number).start_again().await;
        }
    }
}

/// What a replica answers; nothing if it dies, or is dead.
async fn asked(client: &Client, path: &str) -> Option<Value> {
    let reply = client.try_send(reqwest::Method::GET, path, &[], None).await.ok()?;
    (reply.status == 200).then(|| reply.json())
}

#[tokio::test]
async fn a_run_that_kills_its_replica_at_each_attempt_ends_in_an_error_and_its_neighbour_is_unharmed() {
    if !Mode::is_fleet_or_skip() {
        return;
    }
    let config = json!({"permission": {"bash": {"*": "allow", "echo *": "ask"}}});
    let mut world = World::start_with(WorldSpec { args: args("2s", "300ms"), config, ..WorldSpec::default() }).await;
    world.model.respond_with(|body| match transcript::user_texts(body).first().map(String::as_str) {
        // The parent of a command is its supervisor, whose parent is the replica.
        Some("poison") => {
            let command = "date >> deaths; kill -9 $(awk '{print $4}' /proc/$PPID/stat)";
            Answer::call("c1", "bash", json!({"command": command, "description": "d"}))
        }
        Some("asks") if transcript::tool_texts(body).is_empty() => {
            Answer::call("c1", "bash", json!({"command": "echo asked >> asks", "description": "d"}))
        }
        _ => Answer::say("was allowed"),
    });
    let (poison, asks) = (world.session().await, world.session().await);
    world.at(0).prompt_async(&asks, "asks").await;
    eventually(BOUND, "the ask", || async {
        let asks = asked(&world.at(0), "/permission").await?;
        (asks.as_array()?.len() == 1).then_some(())
    })
    .await;
    world.at(0).prompt_async(&poison, "poison").await;
    let ended = Instant::now() + Duration::from_secs(90);
    let last = loop {
        assert!(Instant::now() < ended, "the poisoned run does not end");
        revive(&mut world).await;
        let said = asked(&world.client(), &format!("/session/{poison}/message")).await;
        let last = said.and_then(|said| said.as_array()?.last().cloned()).unwrap_or_default();
        let deaths = std::fs::read_to_string(world.file("deaths")).unwrap_or_default().lines().count();
        // One more at most, where a neighbour's trial began before this one's killing blow.
        assert!(deaths <= 5, "{deaths} deaths");
        if last["info"]["error"]["name"] == "UnknownError" {
            assert!(deaths >= 4);
            break last;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    assert!(last["info"]["error"]["data"]["message"].as_str().unwrap().contains("again and again"), "{last}");
    revive(&mut world).await;
    // The neighbour went through the same deaths.
    let said = world.client().messages(&asks).await;
    assert!(said.iter().all(|message| message["info"]["error"].is_null()), "{said:#?}");
    let ask = eventually(BOUND, "the ask of the neighbour", || async {
        asked(&world.client(), "/permission").await?.as_array()?.first().cloned()
    });
    let path = format!("/permission/{}/reply", ask.await["id"].as_str().unwrap());
    assert_eq!(world.client().post(&path, &json!({"reply": "once"})).await.status, 200);
    let last = eventually(BOUND, "the neighbour to end", || async {
        let last = asked(&world.client(), &format!("/session/{asks}/message")).await?.as_array()?.last().cloned()?;
        (last["info"]["finish"] == "stop").then_some(last)
    })
    .await;
    assert_eq!(text_of(&last), "was allowed");
    assert_eq!(std::fs::read_to_string(world.file("asks")).unwrap(), "asked\n", "what waited ran once");
}

/// Does nothing, as fast as it can, until it is dropped.
struct Burner(Child);

impl Burner {
    fn start() -> Self {
        Self(Command::new("sh").args(["-c", "while :; do :; done"]).spawn().unwrap())
    }
}

impl Drop for Burner {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// No replica was late, buried, or frozen.
fn nobody_was_missed(world: &World) {
    for replica in world.replicas() {
        let log = replica.stderr();
        for sign in ["buried a replica", "joins the fleet again", "the run was taken over"] {
            assert!(!log.contains(sign), "{sign}: {log}");
        }
    }
}

#[tokio::test]
async fn two_saturated_cores_lose_no_lease() {
    if !Mode::is_fleet_or_skip() {
        return;
    }
    let _alone = CORES.lock().await;
    let world = World::start_with(WorldSpec { args: args("3s", "500ms"), ..WorldSpec::default() }).await;
    load::answer(&world, Duration::from_millis(5));
    let burners: Vec<Burner> = (0..6).map(|_| Burner::start()).collect();
    let load = Load::start(world.url(0), 8);
    load.goes_on(40 * rounds(1) as u64).await;
    let prompts = load.finish(&world).await;
    drop(burners);
    println!("figure two saturated cores: {prompts} prompts, no lease lost");
    nobody_was_missed(&world);
}

#[tokio::test]
async fn a_replica_all_of_whose_threads_are_busy_keeps_its_leases_and_its_commands() {
    if !Mode::is_fleet_or_skip() {
        return;
    }
    let _alone = CORES.lock().await;
    let spec = WorldSpec { args: args("2s", "300ms"), failpoints: true, ..WorldSpec::default() };
    let mut world = World::start_with(spec).await;
    let command = "echo begun >> trace; while [ ! -e go ]; do sleep 0.05; done; echo ended >> trace";
    world.model.push(Answer::call("c1", "bash", json!({"command": command, "description": "d"})));
    world.model.push(Answer::say("done"));
    let id = world.session().await;
    world.at(0).prompt_async(&id, "go").await;
    eventually(BOUND, "the command to begin", || async { world.file("trace").exists().then_some(()) }).await;
    let armed = world.replica(0).hog_at(&Failpoint::after("create", "flotilla/probe"));
    let busy = tokio::spawn({
        let client = world.at(0);
        async move { client.get("/readyz").await }
    });
    armed.reached(BOUND).await;
    // Far longer than the TTL: it answers again once its threads are free.
    busy.await.unwrap();
    std::fs::write(world.file("go"), "").unwrap();
    let survivor = world.at(1);
    eventually(BOUND, "the run to end", || async { (survivor.status(&id).await == "idle").then_some(()) }).await;
    assert_eq!(std::fs::read_to_string(world.file("trace")).unwrap(), "begun\nended\n");
    assert_eq!(text_of(survivor.messages(&id).await.last().unwrap()), "done");
    nobody_was_missed(&world);
}
