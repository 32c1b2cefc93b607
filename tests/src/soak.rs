//! A soak: the same mixed work for a long time, without faults, and what the fleet takes meanwhile: `make soak`.
//!
//! The clients and the checker are those of [`chaos`](crate::chaos). Readers are cut and come back every few seconds.

use std::collections::HashSet;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::Duration;

use testkit::{CuttingProxy, Mode, World, WorldSpec};
use tokio::task::JoinSet;

use crate::chaos::clients::{Shared, Worker};
use crate::chaos::model;
use crate::chaos::readers::Reader;

/// How many clients work at the same time.
const CLIENTS: usize = 6;
/// How many readers there are.
const READERS: usize = 6;
/// How long a reader reads until it is cut.
const CUT_AFTER: Duration = Duration::from_secs(7);

/// What each replica keeps of its store, in MiB: so little that it is full before half of the time is over.
pub const STORE_MIB: u64 = 12;

/// What the fleet took at one moment: all replicas together, where nothing else is said.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sample {
    /// Since the beginning.
    pub at: Duration,
    /// Operations of clients that had ended.
    pub operations: usize,
    /// Bytes that are resident.
    pub resident: u64,
    /// Of that what the replicas keep of their stores, by their own estimate.
    pub kept: u64,
    /// Open files and connections; 0 where only root may count them.
    pub files_open: u64,
    /// Tasks that are alive.
    pub tasks: u64,
    /// Keys of Redis.
    pub redis_keys: u64,
    /// Bytes that Redis uses.
    pub redis_bytes: u64,
    /// Files and directories under `DIR/flotilla`, but for what is kept for a while on purpose.
    pub files: u64,
    /// Of that the names of requests, which are known for a day.
    pub names: u64,
    /// And what tells for a week that a session was deleted.
    pub tombstones: u64,
}

/// A quantity that must not grow: its name, what it may grow by beside a tenth of itself, and how it is read.
type Quantity = (&'static str, u64, fn(&Sample) -> u64);

/// All of them.
const QUANTITIES: [Quantity; 6] = [
    ("resident memory", 12 << 20, |sample| sample.resident),
    ("open files", 30, |sample| sample.files_open),
    ("tasks", 30, |sample| sample.tasks),
    ("keys of Redis", 20, |sample| sample.redis_keys),
    ("bytes of Redis", 1 << 20, |sample| sample.redis_bytes),
    ("files", 300, |sample| sample.files),
];

/// Works for so long on three replicas behind nginx and takes a sample each `every`. Returns the samples, and what went wrong
/// from a client's view.
///
/// # Panics
/// When a process cannot be started, or breaks off.
pub async fn run(lasts: Duration, every: Duration, seed: u64) -> (Vec<Sample>, Vec<String>) {
    let args = vec!["--store-memory".to_owned(), format!("{STORE_MIB}MiB")];
    let mut world = World::start_in(Mode::ThreeReplicas, WorldSpec { args, ..WorldSpec::default() }).await;
    model::answer(&world);
    let nginx = world.nginx().await;
    let before = CuttingProxy::start(nginx.port());
    let shared = Shared::new();
    let readers: Vec<Reader> = (0..READERS).map(|_| Reader::start(&before.url(), shared.start)).collect();
    let mut clients = JoinSet::new();
    for number in 0..CLIENTS {
        clients.spawn(Worker::new(number, &nginx.url(), seed, shared.clone()).work());
    }
    let mut samples = Vec::new();
    let mut cut = Duration::ZERO;
    while shared.start.elapsed() < lasts {
        let next = every * (samples.len() as u32 + 1);
        tokio::time::sleep(next.min(cut + CUT_AFTER).saturating_sub(shared.start.elapsed())).await;
        if shared.start.elapsed() >= cut + CUT_AFTER {
            cut = shared.start.elapsed();
            before.cut();
        }
        if shared.start.elapsed() >= next {
            samples.push(sample(&mut world, &shared).await);
        }
    }
    shared.stop.store(true, Ordering::Relaxed);
    while let Some(ended) = clients.join_next().await {
        ended.unwrap_or_else(|error| panic!("a client broke off: {error}"));
    }
    drop(readers);
    let failed = shared.deeds().into_iter().filter_map(|deed| match deed.what {
        crate::chaos::history::What::Failed(how) => Some(format!("{}: {how}", deed.session)),
        _ => None,
    });
    (samples, failed.collect())
}

async fn sample(world: &mut World, shared: &Shared) -> Sample {
    let (mut resident, mut kept, mut files_open, mut tasks) = (0, 0, 0, 0);
    for number in 0..world.replicas().len() {
        let usage = world.replicas()[number].usage();
        resident += usage.resident;
        files_open += usage.files.unwrap_or_default() as u64;
        let metrics = world.at(number).get("/metrics").await.text();
        kept += number_after(&metrics, "flotilla_kept_bytes ");
        tasks += number_after(&metrics, "flotilla_tasks ");
    }
    let redis_keys = number_after(&world.redis().command(&["DBSIZE"]), "");
    let redis_bytes = number_after(&world.redis().command(&["INFO", "memory"]), "used_memory:");
    let store = world.data_dir().join("flotilla");
    let names = entries(&store.join("key"));
    let tombstones = tombstones(world.data_dir());
    let files = entries(&store).saturating_sub(names + tombstones);
    let (at, operations) = (shared.start.elapsed(), shared.deeds().len());
    Sample { at, operations, resident, kept, files_open, tasks, redis_keys, redis_bytes, files, names, tombstones }
}

/// The number that follows a text; 0 if there is none.
fn number_after(text: &str, what: &str) -> u64 {
    let lines = text.lines().filter_map(|line| line.split_once(what)).map(|(_, rest)| rest);
    let digits = |rest: &str| rest.chars().filter(char::is_ascii_digit).collect::<String>().parse().ok();
    lines.filter_map(digits).next().unwrap_or_default()
}

/// How many files and directories lie below a directory.
fn entries(directory: &Path) -> u64 {
    let below = std::fs::read_dir(directory).into_iter().flatten().flatten();
    below.map(|entry| 1 + if entry.path().is_dir() { entries(&entry.path()) } else { 0 }).sum()
}

/// What is left of sessions whose records are gone.
fn tombstones(data_dir: &Path) -> u64 {
    let projects = std::fs::read_dir(data_dir.join("storage/session")).into_iter().flatten().flatten();
    let records = projects.flat_map(|project| std::fs::read_dir(project.path()).into_iter().flatten().flatten());
    let living: HashSet<String> =
        records.filter_map(|record| Some(record.file_name().to_str()?.strip_suffix(".json")?.to_owned())).collect();
    let guards = std::fs::read_dir(data_dir.join("flotilla/guard")).into_iter().flatten().flatten();
    let dead = guards.filter(|guard| !living.contains(&*guard.file_name().to_string_lossy()));
    dead.map(|guard| 1 + entries(&guard.path())).sum()
}

/// What grew: by more than it may from the second quarter of the time, when all is warm, to the last.
pub fn grown(samples: &[Sample]) -> Vec<String> {
    let quarter = samples.len() / 4;
    let (warm, last) = (&samples[quarter..2 * quarter], &samples[samples.len() - quarter..]);
    let middle = |samples: &[Sample], read: fn(&Sample) -> u64| {
        let mut values: Vec<u64> = samples.iter().map(read).collect();
        values.sort_unstable();
        values.get(values.len() / 2).copied().unwrap_or_default()
    };
    let judged = QUANTITIES.iter().filter_map(|(name, room, read)| {
        let (before, after) = (middle(warm, *read), middle(last, *read));
        (after > before + before / 10 + room).then(|| format!("{name}: {before}, then {after}"))
    });
    judged.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growth_is_seen_and_warming_up_is_not() {
        let curve = |resident: fn(u64) -> u64| {
            let sample = |minute: u64| Sample {
                at: Duration::from_secs(60 * minute),
                operations: 0,
                resident: resident(minute),
                kept: minute << 20,
                files_open: 90,
                tasks: 200,
                redis_keys: 30,
                redis_bytes: 9 << 20,
                files: 800,
                names: minute * 1_000,
                tombstones: minute * 50,
            };
            (1..=40).map(sample).collect::<Vec<_>>()
        };
        assert_eq!(grown(&curve(|minute| (150 + minute.min(10) * 5) << 20)), Vec::<String>::new());
        assert_eq!(grown(&curve(|minute| (150 + minute * 4) << 20)).len(), 1);
    }
}
