//! `flotilla-bench`: prompts, deltas, aborts, lists and streams of one replica, of three, and of OpenCode beside them, in
//! one run on one machine with a model that answers at once.
//!
//! The load generator and the model share the machine with what is measured, so that rates are bounded by both: what a
//! server itself costs is the CPU that Linux counts for its process. `OPENCODE_BIN` names the program of OpenCode;
//! without it its column is empty.

mod http;
mod long_session;
mod measure;
mod model;
mod plan;
mod subject;
mod table;
mod usage;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Result;
use clap::Parser;

use crate::model::{Manner, Model};
use crate::plan::Plan;
use crate::subject::Subject;
use crate::table::{Column, Row, Table, quantile};

/// Measures Flotilla, and OpenCode beside it.
#[derive(Debug, Parser)]
#[command(name = "flotilla-bench")]
struct Arguments {
    /// Ends within two minutes: fewer samples, smaller sizes.
    #[arg(long)]
    quick: bool,
    /// Messages of the long session (100,000; with --quick 10,000).
    #[arg(long)]
    long: Option<usize>,
    /// Only these parts, by comma: opencode, one, three, long, grown, redis, disk.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Nothing but prompts of 64 sessions at one replica for so many seconds, to be looked at with a profiler.
    #[arg(long)]
    hold: Option<u64>,
}

impl Arguments {
    fn wants(&self, part: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| only == part)
    }
}

// The servers are children of this thread and end with it; the model has a thread of its own.
#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let mut plan = if arguments.quick { Plan::quick() } else { Plan::full() };
    plan.long = arguments.long.unwrap_or(plan.long);
    let began = Instant::now();
    let mut model = Model::start()?;
    let mut table = Table::default();
    if let Some(seconds) = arguments.hold {
        let subject = Subject::flotilla(1, model.url(), &["--durability", "os"]).await?;
        eprintln!("process {:?}", subject.processes());
        let load = measure::prompts(&subject, Duration::from_secs(seconds)).await?;
        println!("{:.0} per second, {:.2} ms CPU each; {}", load.rate, load.cpu, load.shares);
        return Ok(());
    }
    table.note(format!(
        "{} deltas per answer; durability os except where a row says disk; data below {} (TMPDIR); release build: {}",
        model::DELTAS,
        std::env::temp_dir().display(),
        !cfg!(debug_assertions)
    ));
    if arguments.wants("opencode")
        && let Some(program) = std::env::var_os("OPENCODE_BIN").map(PathBuf::from)
    {
        let subject = Subject::opencode(&program, model.url()).await?;
        // What OpenCode can't do leaves dashes; the rows of Flotilla are still wanted.
        if let Err(error) = suite(&subject, &mut model, &plan, &mut table, Column::OpenCode).await {
            table.note(format!("OpenCode: {error:#}"));
        }
        model.answers(Manner::AtOnce);
    }
    let os = ["--durability", "os"];
    if arguments.wants("one") {
        let subject = Subject::flotilla(1, model.url(), &os).await?;
        suite(&subject, &mut model, &plan, &mut table, Column::One).await?;
    }
    if arguments.wants("three") {
        let subject = Subject::flotilla(3, model.url(), &os).await?;
        suite(&subject, &mut model, &plan, &mut table, Column::Three).await?;
    }
    if arguments.wants("redis") {
        redis(&model, &plan, &mut table).await?;
    }
    if arguments.wants("disk") {
        disk(&model, &plan, &mut table).await?;
    }
    if arguments.wants("long") {
        let mut subject = Subject::flotilla(1, model.url(), &os).await?;
        long(&mut subject, &plan, &mut table).await?;
    }
    if arguments.wants("grown") {
        let mut subject = Subject::flotilla(1, model.url(), &os).await?;
        grown(&mut subject, &model, &mut table).await?;
    }
    for (row, of) in [(Row::FleetPrompt, Row::PromptP50), (Row::FleetCpu, Row::CpuPerPrompt)] {
        if let Some((three, one)) = table.get(of, Column::Three).zip(table.get(of, Column::One)) {
            table.put(row, Column::Three, three / one);
        }
    }
    table.note(format!("it took {:.0} s", began.elapsed().as_secs_f64()));
    println!("{}", table.text(plan.turns, plan.long));
    Ok(())
}

/// The rows that every subject has.
async fn suite(subject: &Subject, model: &mut Model, plan: &Plan, table: &mut Table, column: Column) -> Result<()> {
    eprintln!("{}", subject.name());
    for _ in 0..subject.processes().len() {
        subject.connections().next().get("/session").await?.ok()?;
    }
    table.put(Row::MemoryIdle, column, usage::resident(subject.processes())?);

    let turns = if column == Column::OpenCode { plan.opencode_turns } else { plan.turns };
    let turned = measure::turns(subject, turns, plan.turns_at_most).await?;
    table.put(Row::PromptP50, column, turned.first);
    if turned.count < turns {
        table.note(format!("{}: only {} turns of {turns} in the time for them", subject.name(), turned.count));
    }
    if let Some(late) = turned.late {
        table.put(Row::PromptLate, column, late);
        table.put(Row::LateRatio, column, late / turned.first);
        table.note(format!(
            "{}: the model request of turn {turns} has {} bytes",
            subject.name(),
            model.request_bytes()
        ));
        let (elapsed, count) = measure::get(subject, &format!("/session/{}/message", turned.session), 20).await?;
        table.put(Row::List600, column, elapsed);
        table.note(format!("{}: the list has {count} messages", subject.name()));
    }

    let mut deltas = measure::deltas(subject, model, subject.url(0), plan.deltas).await?;
    table.put(Row::DeltaP50, column, quantile(&mut deltas, 0.5));
    table.put(Row::DeltaP99, column, quantile(&mut deltas, 0.99));
    if subject.is_fleet() {
        let mut deltas = measure::deltas(subject, model, subject.other_url(), plan.deltas).await?;
        table.put(Row::DeltaOtherP50, column, quantile(&mut deltas, 0.5));
        table.put(Row::DeltaOtherP99, column, quantile(&mut deltas, 0.99));
    }
    let mut aborts = measure::aborts(subject, model, plan.aborts).await?;
    table.put(Row::AbortP50, column, quantile(&mut aborts, 0.5));
    table.put(Row::AbortP99, column, quantile(&mut aborts, 0.99));
    table.put(Row::AbortMax, column, quantile(&mut aborts, 1.0));
    let [at_once, paced] = measure::streams(subject, model, plan.streamed_runs).await?;
    table.put(Row::StreamsAtOnce, column, at_once);
    table.put(Row::Streams, column, paced);

    let prompts = measure::prompts(subject, plan.load).await?;
    table.put(Row::PromptsPerSecond, column, prompts.rate);
    table.put(Row::CpuPerPrompt, column, prompts.cpu);
    if column != Column::OpenCode {
        table.put(Row::RedisCpuPerPrompt, column, prompts.redis_cpu);
    }
    table.put(Row::MemoryAfter, column, usage::resident(subject.processes())?);
    table.note(format!("{}: prompts of 64 sessions, {}", subject.name(), prompts.shares));

    let creates = measure::creates(subject, plan.creates).await?;
    table.put(Row::CreatesPerSecond, column, creates.rate);
    table.put(Row::CpuPerCreate, column, creates.cpu);
    table.note(format!("{}: creates, {}", subject.name(), creates.shares));
    Ok(())
}

/// What Redis is asked, counted by a proxy.
async fn redis(model: &Model, plan: &Plan, table: &mut Table) -> Result<()> {
    let subject = Subject::counted(model.url()).await?;
    let asked = measure::redis(&subject, model, plan.turns).await?;
    table.put(Row::RedisCommands, Column::One, asked.commands);
    table.put(Row::RedisHistory, Column::One, asked.more_later);
    table.put(Row::RedisLocks, Column::One, asked.locks);
    table.put(Row::RedisPublishes, Column::One, asked.per_delta);
    table.put(Row::RedisIdle, Column::One, asked.idle);
    table.put(Row::CpuIdle, Column::One, asked.idle_cpu);
    table.note(format!(
        "Redis commands as a proxy before Redis sees them (a script is one), per prompt, what is sent anyway taken off: {}",
        asked.named
    ));
    Ok(())
}

/// The rows of durability `disk`.
async fn disk(model: &Model, plan: &Plan, table: &mut Table) -> Result<()> {
    let subject = Subject::flotilla(1, model.url(), &["--durability", "disk"]).await?;
    eprintln!("{}", subject.name());
    table.put(Row::DiskPromptP50, Column::One, measure::turns(&subject, 50, plan.turns_at_most).await?.first);
    let prompts = measure::prompts(&subject, plan.load / 2).await?;
    table.put(Row::DiskPromptsPerSecond, Column::One, prompts.rate);
    table.note(format!("{}: prompts of 64 sessions, {}", subject.name(), prompts.shares));
    table.put(Row::DiskCreatesPerSecond, Column::One, measure::creates(&subject, plan.creates).await?.rate);
    Ok(())
}

/// The first page of a very long session.
async fn long(subject: &mut Subject, plan: &Plan, table: &mut Table) -> Result<()> {
    let session = long_session::make(subject, plan.long).await?;
    let path = format!("/session/{session}/message?limit=50");
    let (cold, count) = measure::get(subject, &path, 1).await?;
    table.put(Row::FirstPageCold, Column::One, cold);
    let (warm, _) = measure::get(subject, &path, 20).await?;
    table.put(Row::FirstPage, Column::One, warm);
    let memory = usage::resident(subject.processes())?;
    table.note(format!(
        "the page of the session of {} messages has {count}; {memory:.0} MB resident after it",
        plan.long
    ));
    Ok(())
}

/// What the length of a session costs: one of 20 messages beside one of 2,000, and what a summary makes of that.
async fn grown(subject: &mut Subject, model: &Model, table: &mut Table) -> Result<()> {
    const FEW: usize = 20;
    const MANY: usize = 2_000;
    const SAMPLES: usize = 40;
    let few = long_session::make(subject, FEW).await?;
    let many = long_session::make(subject, MANY).await?;
    let page = |session: &str| format!("/session/{session}/message?limit={FEW}");
    let mut pages = [0.0; 2];
    for (session, page_of) in [&few, &many].into_iter().zip(&mut pages) {
        measure::get(subject, &page(session), 1).await?;
        *page_of = measure::get(subject, &page(session), SAMPLES).await?.0;
    }
    let after_few = measure::prompts_of(subject, &few, SAMPLES).await?;
    let after_many = measure::prompts_of(subject, &many, SAMPLES).await?;
    let sent = model.request_bytes();
    let path = format!("/session/{many}/summarize");
    subject.connections().next().post(&path, r#"{"providerID":"fake","modelID":"m"}"#).await?.ok()?;
    let after_summary = measure::prompts_of(subject, &many, SAMPLES).await?;
    let one = Column::One;
    for (few, many, growth, values) in [
        (Row::PageOfFew, Row::PageOfMany, Row::PageGrowth, pages),
        (Row::PromptAfterFew, Row::PromptAfterMany, Row::PromptGrowth, [after_few, after_many]),
        (Row::PromptAfterFew, Row::PromptAfterSummary, Row::SummaryGrowth, [after_few, after_summary]),
    ] {
        table.put(few, one, values[0]);
        table.put(many, one, values[1]);
        table.put(growth, one, values[1] / values[0]);
    }
    table.note(format!(
        "the model request after {MANY} messages has {sent} bytes, after their summary {}",
        model.request_bytes()
    ));
    Ok(())
}
