//! The same mixed work for half an hour, or as long as it is told to: `make soak SECONDS=600`.
//!
//! The page goes to `docs/evidence` if it lasted for half an hour and the tree is as it is committed. Else it is a rehearsal,
//! and goes to `target`.

use std::fmt::Write as _;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use suite::{evidence, soak};

/// How long a soak lasts that says something.
const WHOLE: Duration = Duration::from_secs(1_800);
/// How many samples are taken.
const SAMPLES: u32 = 60;

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("the suite lies in the repository")?;
    let (lasts, seed) = asked(std::env::args().skip(1))?;
    let mut page = evidence::heading(root, &format!("make soak SECONDS={}", lasts.as_secs()), seed)?;
    let (samples, failed) = soak::run(lasts, lasts / SAMPLES, seed).await;
    let grown = soak::grown(&samples);
    writeln!(
        page,
        "\nThree replicas together, each with `--store-memory {}MiB`; names of requests are kept for a day, tombstones for a \
         week.\n",
        soak::STORE_MIB
    )?;
    writeln!(
        page,
        "| minute | operations | resident, MiB | of that kept, MiB | open files | tasks | Redis keys | Redis, KiB | files | names | tombstones |"
    )?;
    writeln!(page, "|{}", "---|".repeat(11))?;
    for sample in &samples {
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        let (minute, resident, kept) = (sample.at.as_secs_f64() / 60.0, mib(sample.resident), mib(sample.kept));
        let (kib, soak::Sample { operations, files_open, tasks, .. }) = (sample.redis_bytes / 1024, *sample);
        let soak::Sample { redis_keys, files, names, tombstones, .. } = *sample;
        writeln!(
            page,
            "| {minute:.1} | {operations} | {resident:.1} | {kept:.1} | {files_open} | {tasks} | {redis_keys} | {kib} | {files} | {names} | {tombstones} |"
        )?;
    }
    writeln!(page, "\nGrown from the second quarter of the time to the last: {}.", grown.len())?;
    grown.iter().try_for_each(|what| writeln!(page, "- {what}"))?;
    writeln!(page, "\nOperations that failed: {}.", failed.len())?;
    failed.iter().try_for_each(|what| writeln!(page, "- {what}"))?;
    let rehearsal = lasts < WHOLE || !evidence::changes(root)?.is_empty();
    let path = evidence::write(root, "soak", rehearsal, &page)?;
    println!("{page}\nwritten to {}", path.display());
    Ok(if grown.is_empty() && failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn asked(mut words: impl Iterator<Item = String>) -> anyhow::Result<(Duration, u64)> {
    let (mut lasts, mut seed) = (WHOLE, 1);
    while let Some(word) = words.next() {
        let number = words.next().and_then(|number| number.parse().ok()).with_context(|| format!("{word} N"))?;
        match word.as_str() {
            "--seconds" => lasts = Duration::from_secs(number),
            "--seed" => seed = number,
            other => bail!("{other} is unknown: --seconds N, --seed N"),
        }
    }
    ensure!(lasts >= Duration::from_secs(u64::from(SAMPLES)), "--seconds {SAMPLES} or more");
    Ok((lasts, seed))
}
