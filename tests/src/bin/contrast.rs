//! The same rows against three OpenCodes that share one home and against Flotilla: `make contrast`.

use std::process::ExitCode;

use anyhow::Context;
use suite::contrast::{Fleet, ROWS, Row};
use testkit::install::Clients;

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let clients = Clients::find().context("the unmodified OpenCode is not installed")?;
    let opencode = outcomes(&Fleet::of_opencode(&clients.opencode).await?).await;
    let flotilla = outcomes(&Fleet::of_flotilla().await).await;
    println!("| row | what is done | OpenCode x3 | Flotilla |\n|---|---|---|---|");
    let holds = |outcome: &anyhow::Result<()>| if outcome.is_ok() { "holds" } else { "fails" };
    for ((row, theirs), ours) in ROWS.iter().zip(&opencode).zip(&flotilla) {
        println!("| {} | {} | {} | {} |", row.name, row.done, holds(theirs), holds(ours));
    }
    println!();
    let mut wrong = 0;
    for ((Row { name, .. }, theirs), ours) in ROWS.iter().zip(&opencode).zip(&flotilla) {
        match theirs {
            Err(harm) => println!("{name}, OpenCode x3: {harm:#}"),
            Ok(()) => println!("{name}: a row that three OpenCodes pass does not test its subject"),
        }
        if let Err(harm) = ours {
            println!("{name}, FLOTILLA: {harm:#}");
        }
        wrong += usize::from(theirs.is_ok() || ours.is_err());
    }
    println!("{} rows, {wrong} not as they must be", ROWS.len());
    Ok(if wrong == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn outcomes(fleet: &Fleet) -> Vec<anyhow::Result<()>> {
    let mut outcomes = Vec::new();
    for row in &ROWS {
        eprintln!("{}: {}", row.name, row.done);
        outcomes.push(row.run(fleet).await);
    }
    outcomes
}
