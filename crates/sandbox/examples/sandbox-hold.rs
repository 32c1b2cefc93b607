//! Holds a supervised command as a replica does; tests kill it and pause it.
//!
//! `sandbox-hold SUPERVISOR TTL_MS PROGRAM ARGS...`

use sandbox::{ChildEnv, Identity, Lifeline, Limits, SpawnSpec, Supervised};
use std::error::Error;
use std::io::Write;
use std::time::{Duration, Instant};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let mut next = || args.next().ok_or("an argument is missing");
    let (supervisor_exe, ttl, program): (_, Duration, _) =
        (next()?.into(), Duration::from_millis(next()?.parse()?), next()?.into());
    let lifeline = Lifeline::new(Instant::now() + ttl);
    let holder = lifeline.clone();
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(ttl / 4).await;
            holder.move_on(Instant::now() + ttl);
        }
    });
    let mut command = Supervised::spawn(SpawnSpec {
        program,
        args: args.map(Into::into).collect(),
        cwd: std::env::current_dir()?,
        env: ChildEnv::cleaned(std::env::vars_os(), []),
        limits: Limits::default(),
        lifeline,
        supervisor_exe,
        identity: Identity::default(),
    })
    .await?;
    while let Some(chunk) = command.output().await {
        std::io::stdout().write_all(&chunk)?;
    }
    command.wait().await;
    Ok(())
}
