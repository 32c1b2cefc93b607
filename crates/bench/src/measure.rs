//! The measurements, each of one subject.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tokio::task::JoinSet;

use crate::http::Connection;
use crate::model::{Held, Manner, Model, marks};
use crate::subject::Subject;
use crate::table::quantile;
use crate::usage;

/// How many turns count as the first ones.
const FIRST_TURNS: usize = 50;
/// How many turns at the end count as the late ones.
const LATE_TURNS: usize = 20;
const SESSIONS: usize = 64;
/// How long after the end of a load its last operations are waited for.
const GRACE: Duration = Duration::from_secs(15);
const CREATORS: usize = 16;
const STREAMS: usize = 200;
const STREAMED: usize = 100;
const STREAM_PACES: [Duration; 2] = [Duration::from_micros(1), Duration::from_millis(5)];

fn ms(elapsed: Duration) -> f64 {
    elapsed.as_secs_f64() * 1000.0
}

/// Prompts of one session, one at a time.
pub struct Turns {
    /// The session.
    pub session: String,
    /// The median of the first turns in milliseconds.
    pub first: f64,
    /// The median of the last turns, if all were taken and they are enough.
    pub late: Option<f64>,
    /// How many turns were taken.
    pub count: usize,
}

/// Prompts one session so often, one at a time, but not for longer than `at_most`.
pub async fn turns(subject: &Subject, turns: usize, at_most: Duration) -> Result<Turns> {
    let mut to = subject.connections();
    // The first prompt of a server reads its configuration; that is no matter of the session.
    let warm = to.create_session().await?;
    for _ in 0..subject.processes().len() {
        to.prompt(&warm).await?;
    }
    let session = to.create_session().await?;
    let mut samples = Vec::with_capacity(turns);
    let ends = Instant::now() + at_most;
    while samples.len() < turns && Instant::now() < ends {
        let began = Instant::now();
        to.prompt(&session).await?;
        samples.push(ms(began.elapsed()));
    }
    let count = samples.len();
    let late = (count == turns && turns >= FIRST_TURNS + LATE_TURNS)
        .then(|| quantile(&mut samples.split_off(turns - LATE_TURNS), 0.5));
    samples.truncate(FIRST_TURNS);
    Ok(Turns { session, first: quantile(&mut samples, 0.5), late, count })
}

/// The median time of the prompts of a session that is there, one at a time, in milliseconds.
pub async fn prompts_of(subject: &Subject, session: &str, count: usize) -> Result<f64> {
    let mut to = subject.connections();
    to.prompt(session).await?;
    let mut samples = Vec::with_capacity(count);
    for _ in 0..count {
        let began = Instant::now();
        to.prompt(session).await?;
        samples.push(ms(began.elapsed()));
    }
    Ok(quantile(&mut samples, 0.5))
}

/// A load and what it cost.
pub struct Load {
    /// Operations per second.
    pub rate: f64,
    /// Milliseconds of CPU of the servers per operation.
    pub cpu: f64,
    /// Milliseconds of CPU of Redis per operation.
    pub redis_cpu: f64,
    /// Who used how much of the machine.
    pub shares: String,
}

/// Prompts many sessions at the same time, each one after the other.
pub async fn prompts(subject: &Subject, length: Duration) -> Result<Load> {
    let mut sessions = Vec::new();
    let mut to = subject.connections();
    for _ in 0..SESSIONS {
        sessions.push(to.create_session().await?);
    }
    let workers = sessions.into_iter().enumerate().map(|(at, session)| {
        let mut to = subject.connections();
        to.skip(at);
        move |tally: Tally| async move {
            while tally.goes_on() {
                to.prompt(&session).await?;
                tally.count();
            }
            Ok(())
        }
    });
    load(subject, length, workers).await
}

/// Creates sessions as fast as it goes.
pub async fn creates(subject: &Subject, length: Duration) -> Result<Load> {
    let workers = (0..CREATORS).map(|at| {
        let mut to = subject.connections();
        to.skip(at);
        move |tally: Tally| async move {
            while tally.goes_on() {
                to.create_session().await?;
                tally.count();
            }
            Ok(())
        }
    });
    load(subject, length, workers).await
}

/// What the workers of a load share.
#[derive(Clone)]
struct Tally {
    ends: Instant,
    done: Arc<AtomicUsize>,
}

impl Tally {
    fn goes_on(&self) -> bool {
        Instant::now() < self.ends
    }

    fn count(&self) {
        self.done.fetch_add(1, Ordering::Relaxed);
    }
}

/// Runs workers for so long and counts what they do and what it costs. Each ends what it has begun, but not later than
/// [`GRACE`] after the end.
async fn load<F, W>(subject: &Subject, length: Duration, workers: impl Iterator<Item = F>) -> Result<Load>
where
    F: FnOnce(Tally) -> W,
    W: Future<Output = Result<()>> + Send + 'static,
{
    let own = std::process::id();
    let used =
        || Ok::<_, anyhow::Error>([subject.cpu()?, subject.redis_cpu(), usage::cpu(own)?, usage::cpu_of_machine()?]);
    let before = used()?;
    let began = Instant::now();
    let tally = Tally { ends: began + length, done: Arc::default() };
    let mut all: JoinSet<Result<()>> = workers.map(|worker| worker(tally.clone())).collect();
    let mut late = 0;
    loop {
        match tokio::time::timeout_at((tally.ends + GRACE).into(), all.join_next()).await {
            Ok(Some(done)) => done??,
            Ok(None) => break,
            Err(_) => {
                late = all.len();
                break;
            }
        }
    }
    let count = tally.done.load(Ordering::Relaxed);
    let seconds = began.elapsed().as_secs_f64();
    let after = used()?;
    let [server, redis, generator, machine] = std::array::from_fn(|at| (after[at] - before[at]) / seconds);
    let per = 1000.0 * seconds / count as f64;
    let cores = std::thread::available_parallelism()?;
    let others = (machine - server - redis - generator).max(0.0);
    let unanswered =
        if late > 0 { format!("; {late} unanswered {} s after the end", GRACE.as_secs()) } else { String::new() };
    Ok(Load {
        rate: count as f64 / seconds,
        cpu: server * per,
        redis_cpu: redis * per,
        shares: format!(
            "{count} in {seconds:.1} s; of {cores} cores: servers {server:.2}, Redis {redis:.2}, load generator and model \
             {generator:.2}, all else {others:.2}{unanswered}"
        ),
    })
}

/// The times from the model's sending a delta until a client of this address has it, in milliseconds.
pub async fn deltas(subject: &Subject, model: &Model, url: &str, count: usize) -> Result<Vec<f64>> {
    let mut events = Connection::to(url).events("/event").await?;
    events.frames().await?;
    let mut to = Connection::to(subject.url(0));
    let session = session_at(&mut to).await?;
    model.take_sent();
    model.answers(Manner::Paced(count, Duration::from_millis(10)));
    to.post(&format!("/session/{session}/prompt_async"), crate::subject::PROMPT).await?.ok()?;
    let mut came = vec![None; count];
    while came.last().is_some_and(Option::is_none) {
        let frames = events.frames().await?;
        let now = Instant::now();
        for mark in marks(&frames) {
            came[mark] = Some(now);
        }
    }
    model.answers(Manner::AtOnce);
    let sent = model.take_sent();
    ensure!(sent.len() == count, "{} marks were sent, not {count}", sent.len());
    sent.iter()
        .zip(came)
        .map(|(sent, came)| Ok(ms(came.context("a delta never came")?.duration_since(*sent))))
        .collect()
}

/// The times from sending an abort, to another server if there is one, until the model sees its connection dropped.
pub async fn aborts(subject: &Subject, model: &mut Model, count: usize) -> Result<Vec<f64>> {
    let (mut to, mut other) = (Connection::to(subject.url(0)), Connection::to(subject.other_url()));
    model.answers(Manner::Hold);
    let mut samples = Vec::with_capacity(count);
    for _ in 0..count {
        let session = session_at(&mut to).await?;
        to.post(&format!("/session/{session}/prompt_async"), crate::subject::PROMPT).await?.ok()?;
        ensure!(model.held().await == Held::Begun, "a run ended before its abort");
        // The first delta is on its way to the clients; the abort should find a run that is waiting.
        tokio::time::sleep(Duration::from_millis(50)).await;
        let began = Instant::now();
        let path = format!("/session/{session}/abort");
        let (reply, held) = tokio::join!(other.post(&path, "{}"), model.held());
        reply?.ok()?;
        let Held::Dropped(at) = held else { anyhow::bail!("another run began") };
        samples.push(ms(at.duration_since(began)));
    }
    model.answers(Manner::AtOnce);
    Ok(samples)
}

/// The median time of a GET in milliseconds, and the length of the last answer's JSON array.
pub async fn get(subject: &Subject, path: &str, count: usize) -> Result<(f64, usize)> {
    let mut to = subject.connections();
    let (mut samples, mut length) = (Vec::with_capacity(count), 0);
    for _ in 0..count {
        let began = Instant::now();
        let reply = to.next().get(path).await?;
        samples.push(ms(began.elapsed()));
        length = reply.json()?.as_array().map_or(0, Vec::len);
    }
    Ok((quantile(&mut samples, 0.5), length))
}

/// The CPU seconds of the servers while many streams of events follow one run, the mean of some runs: of one whose deltas
/// come as fast as they are written, and of one whose deltas come one by one.
pub async fn streams(subject: &Subject, model: &Model, runs: usize) -> Result<[f64; 2]> {
    let mut all = JoinSet::new();
    let (seen, mut whole) = tokio::sync::mpsc::unbounded_channel();
    for number in 0..STREAMS {
        let mut events = Connection::to(subject.url(number)).events("/event").await?;
        events.frames().await?;
        let seen = seen.clone();
        all.spawn(async move {
            let mut count = 0;
            while let Ok(frames) = events.frames().await {
                for mark in marks(&frames) {
                    count += 1;
                    if mark == STREAMED - 1 && seen.send(std::mem::take(&mut count)).is_err() {
                        return;
                    }
                }
            }
        });
    }
    let mut to = Connection::to(subject.url(0));
    let session = session_at(&mut to).await?;
    let mut used = [0.0; 2];
    for (used, pace) in used.iter_mut().zip(STREAM_PACES) {
        model.answers(Manner::Paced(STREAMED, pace));
        let before = subject.cpu()?;
        for _ in 0..runs {
            to.post(&format!("/session/{session}/message"), crate::subject::PROMPT).await?.ok()?;
            for _ in 0..STREAMS {
                let came = tokio::time::timeout(Duration::from_secs(60), whole.recv()).await?;
                ensure!(came == Some(STREAMED), "a stream had {came:?} deltas, not {STREAMED}");
            }
        }
        *used = (subject.cpu()? - before) / runs as f64;
    }
    model.answers(Manner::AtOnce);
    Ok(used)
}

/// What Redis is asked.
pub struct Asked {
    /// Commands per prompt of one step in a new session, those about locks apart.
    pub commands: f64,
    /// How many more they are per prompt after many turns.
    pub more_later: f64,
    /// Commands about locks per prompt.
    pub locks: f64,
    /// Commands per delta, when each delta comes alone.
    pub per_delta: f64,
    /// Commands per second when nothing is asked.
    pub idle: f64,
    /// Milliseconds of CPU per second when nothing is asked.
    pub idle_cpu: f64,
    /// The commands by name.
    pub named: String,
}

/// Counts the commands that one replica sends to Redis. What it sends when nothing is asked of it is taken off.
pub async fn redis(subject: &Subject, model: &Model, turns: usize) -> Result<Asked> {
    let (proxy, redis) = subject.redis_counts()?;
    let mut to = subject.connections();
    let session = to.create_session().await?;
    to.prompt(&session).await?;
    let idle_for = Duration::from_secs(5);
    let (before, used) = (proxy.counts(), subject.cpu()?);
    tokio::time::sleep(idle_for).await;
    let idle_cpu = (subject.cpu()? - used) * 1000.0 / idle_for.as_secs_f64();
    let idle = proxy.counts().since(&before).total() as f64 / idle_for.as_secs_f64();

    let some = 40;
    let mut per_prompt = Vec::new();
    let mut first = None;
    for number in 0..turns / some {
        let (before, began) = (proxy.counts(), Instant::now());
        for _ in 0..some {
            to.prompt(&session).await?;
        }
        let now = proxy.counts().since(&before);
        per_prompt.push((now.total() as f64 - idle * began.elapsed().as_secs_f64()) / some as f64);
        if number == 0 {
            first = Some(now);
        }
    }
    let first = first.context("too few turns")?;
    let named = first
        .named(redis)
        .iter()
        .map(|(name, count)| format!("{name} {:.2}", *count as f64 / some as f64))
        .collect::<Vec<_>>();

    let count = 100;
    model.answers(Manner::Paced(count, Duration::from_millis(10)));
    let (before, began) = (proxy.counts(), Instant::now());
    to.prompt(&session).await?;
    let streamed = proxy.counts().since(&before).total() as f64 - idle * began.elapsed().as_secs_f64();
    model.answers(Manner::AtOnce);
    let commands = per_prompt[0];
    let last = per_prompt.last().copied().unwrap_or(commands);
    Ok(Asked {
        commands,
        // Timers fall into one window or another.
        more_later: if (last - commands).abs() < 0.5 { 0.0 } else { last - commands },
        locks: first.locks() as f64 / some as f64,
        // A heartbeat more or less is no command per delta.
        per_delta: ((streamed - commands) / count as f64 * 10.0).round() / 10.0,
        idle,
        idle_cpu,
        named: named.join(", "),
    })
}

async fn session_at(to: &mut Connection) -> Result<String> {
    let session = to.post("/session", r#"{"title":"A titled session"}"#).await?.json()?;
    Ok(session["id"].as_str().context("a session has an id")?.to_string())
}
