//! Explores the large bound, or one of `--prompts n --aborts n ...`, and prints what came of it.

use model::bound::{Bound, Fault};
use std::process::ExitCode;

fn main() -> Result<ExitCode, String> {
    let mut bound = Bound::large();
    let mut threads = std::thread::available_parallelism().map_or(1, usize::from);
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let value = words.next().and_then(|value| value.parse::<u8>().ok());
        let value = value.ok_or_else(|| format!("{word} needs a number"))?;
        match word.as_str() {
            "--replicas" => bound.replicas = value,
            "--prompts" => bound.prompts = value,
            "--retries" => bound.retries = value,
            "--aborts" => bound.aborts = value,
            "--deletions" => bound.deletions = value,
            "--faults" => bound.faults = value,
            "--of-a-kind" => bound.of_a_kind = value,
            "--threads" => threads = value.into(),
            _ => return Err(format!("{word} is not known")),
        }
    }
    let explored = model::explore(bound, threads);
    print!("{explored}");
    let is_sound = explored.is_complete && explored.broken.is_empty();
    let all_taken = Fault::ALL.iter().all(|fault| {
        explored.bound.of_kind(*fault) == 0 || explored.taken.iter().any(|(kind, count)| kind == fault && *count > 0)
    });
    Ok(if is_sound && all_taken { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
