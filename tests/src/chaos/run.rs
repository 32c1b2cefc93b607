//! A run: everything at once, until the time is up; then quiet, and a look at all that is left.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

use testkit::nginx::Nginx;
use testkit::{BOUND, CuttingProxy, Mode, World, WorldSpec, eventually};
use tokio::task::JoinSet;

use super::clients::{Shared, Worker, number_of};
use super::faults::Struck;
use super::history::{Asked, End, Fault, Harm, History, Kind, Link, Said, What};
use super::model;
use super::readers::Reader;
use crate::figures::Draws;

/// How many clients work at the same time.
const CLIENTS: usize = 5;
/// How many readers there are.
const READERS: usize = 3;
/// How long all may take to come to rest after the last fault.
const REST: Duration = Duration::from_secs(90);
/// How often a kind of fault must have hit a replica at work before a run says something.
pub const HITS: usize = 20;

/// What is to be run.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// How long there are faults.
    pub faults_for: Duration,
    /// What decides all that is drawn.
    pub seed: u64,
}

/// What was seen.
#[derive(Debug)]
pub struct Outcome {
    /// Everything.
    pub history: History,
    /// What the replicas logged last, for whoever looks for the cause of a violation.
    pub logs: Vec<String>,
}

impl Outcome {
    /// How often each kind of fault was done, and how often it hit a replica at work.
    pub fn hits(&self) -> BTreeMap<Kind, (usize, usize)> {
        let mut hits: BTreeMap<Kind, (usize, usize)> = Kind::all().into_iter().map(|kind| (kind, (0, 0))).collect();
        for Fault { kind, hit, .. } in &self.history.faults {
            let entry = hits.entry(*kind).or_default();
            *entry = (entry.0 + 1, entry.1 + usize::from(*hit > 0));
        }
        hits
    }
}

/// Runs a plan on three replicas behind nginx, with a Redis of their own.
///
/// # Panics
/// When a process cannot be started, or does not come back.
pub async fn run(plan: Plan) -> Outcome {
    let args = ["--lease-ttl", "3s", "--tick", "300ms", "--drain-notice", "500ms", "--drain-deadline", "8s"];
    // Short, so that many answers are kept alive by white space when something happens to them, and that a model is given up
    // which says nothing.
    let patience = ["--answer-keepalive", "3s", "--model-timeout", "4s"];
    let args = args.into_iter().chain(patience).map(str::to_owned).collect();
    let spec = WorldSpec { args, proxied: true, failpoints: true, ..WorldSpec::default() };
    let mut world = World::start_in(Mode::ThreeReplicas, spec).await;
    model::answer(&world);
    let between: Vec<CuttingProxy> = world.replicas().iter().map(|r| CuttingProxy::start(r.port())).collect();
    // As little patience with a replica that has become silent as heartbeats allow.
    let impatient = |text: &str| text.replace("proxy_read_timeout 2m", "proxy_read_timeout 12s");
    let nginx = Nginx::start_edited(between.iter().map(CuttingProxy::port), impatient).await;
    let before = CuttingProxy::start(nginx.port());
    let shared = Shared::new();
    let readers: Vec<Reader> = (0..READERS).map(|_| Reader::start(&before.url(), shared.start)).collect();
    let mut clients = JoinSet::new();
    for number in 0..CLIENTS {
        clients.spawn(Worker::new(number, &before.url(), plan.seed, shared.clone()).work());
    }
    let mut history = History::default();
    let mut draws = Draws::from_seed(plan.seed);
    let mut order: Vec<Kind> = Vec::new();
    while shared.start.elapsed() < plan.faults_for {
        // Each kind as often as the others.
        if order.is_empty() {
            order = Kind::all();
        }
        let kind = order.swap_remove(draws.below(order.len()));
        // Each third has another one beside it.
        let (link, harm) = (Link::ALL[draws.below(Link::ALL.len())], Harm::ALL[draws.below(Harm::ALL.len())]);
        let beside = (draws.below(3) == 0).then_some((link, harm));
        let mut struck = Struck { world: &mut world, clients: &before, replicas: &between, start: shared.start };
        history.faults.extend(struck.strike(kind, beside, &mut draws).await);
        tokio::time::sleep(Duration::from_millis(300 + draws.below(1_700) as u64)).await;
    }
    shared.stop.store(true, Ordering::Relaxed);
    while let Some(ended) = clients.join_next().await {
        ended.unwrap_or_else(|error| panic!("a client broke off: {error}"));
    }
    history.deeds = shared.deeds();
    history.left = rest(&mut world).await;
    history.ends = ends(&world, &history).await;
    history.left.extend(left_of_the_deleted(&world, &history));
    let asked = world.model.main_requests().into_iter().filter_map(|request| {
        let ended = request.ended.map_or(Duration::MAX / 2, |ended| ended.duration_since(shared.start));
        Some(Asked { session: request.session?, began: request.began.duration_since(shared.start), ended })
    });
    history.asked = asked.collect();
    history.readers = readers.iter().map(Reader::seen).collect();
    let logs = world.replicas().iter().map(testkit::Replica::stderr).collect();
    Outcome { history, logs }
}

/// Waits until nobody is at work any more; says what never ends.
async fn rest(world: &mut World) -> Vec<String> {
    let mut left = Vec::new();
    let began = std::time::Instant::now();
    loop {
        left.clear();
        for number in 0..3 {
            let status = world.at(number).get("/session/status").await;
            if status.status != 200 || status.json() != serde_json::json!({}) {
                left.push(format!("replica {number} says {}", status.text()));
            }
        }
        let open = std::fs::read_dir(world.data_dir().join("flotilla/open")).into_iter().flatten().flatten();
        left.extend(open.map(|marker| format!("the marker {:?}", marker.file_name())));
        left.extend(world.tool_processes().into_iter().map(|(id, line)| format!("process {id}: {line}")));
        if left.is_empty() || began.elapsed() > REST {
            return left;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// What each session came to, as the replicas say one after the other.
async fn ends(world: &World, history: &History) -> Vec<End> {
    let mut ends = Vec::new();
    let made = history.deeds.iter().filter(|deed| deed.what == What::Made);
    for (number, deed) in made.enumerate() {
        let client = world.at(number);
        let path = format!("/session/{}", deed.session);
        let record = eventually(BOUND, "a session to be read", || async {
            Some(client.get(&path).await).filter(|reply| [200, 404].contains(&reply.status))
        })
        .await;
        if record.status == 404 {
            continue;
        }
        let mut messages = Vec::new();
        for message in client.messages(&deed.session).await {
            messages.push(Said {
                by_user: message["info"]["role"] == "user",
                text: model::said(&message),
                finished: !message["info"]["time"]["completed"].is_null(),
                whole: message["info"]["finish"] == "stop",
            });
        }
        let busy = client.status(&deed.session).await != "idle";
        let title = number_of(&record.json()["title"]);
        ends.push(End { session: deed.session.clone(), title, busy, messages });
    }
    ends
}

/// Records of deleted sessions that are still on the disk.
fn left_of_the_deleted(world: &World, history: &History) -> Vec<String> {
    let deleted: Vec<&str> =
        history.deeds.iter().filter(|deed| deed.what == What::Deleted).map(|deed| &*deed.session).collect();
    let mut left = Vec::new();
    let mut directories = vec![world.data_dir().join("storage")];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(&directory).into_iter().flatten().flatten() {
            let name = entry.path().to_string_lossy().into_owned();
            if deleted.iter().any(|session| name.contains(session)) {
                left.push(format!("{name} of a deleted session"));
            } else if entry.path().is_dir() {
                directories.push(entry.path());
            }
        }
    }
    left
}
