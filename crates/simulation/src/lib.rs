//! A fleet on one thread, with paused time: real engines, each behind the routes of its server, over one in-process coordination
//! table and one disk that forgets, and a scripted model. A seed decides what clients do, what becomes of each call, who dies when and when the power goes. Then
//! the faults stop, time runs on, and it is looked at whether all that the clients and the readers of events were told is so.
//!
//! The same seed gives the same order of everything, which [`Report::hash`] tells. Replicas are values: a death drops their
//! tasks where they wait, or in the midst of a write to the disk.
//!
//! In each second seed the model calls a tool, which may ask, and people reply; the others are decided as if there were none.
//!
//! Clients send whole requests to a replica's router, read whole answers and follow its event streams; what was cut they send
//! again elsewhere, under the same name or as a new request.
//!
//! What is left out: connections (sockets, HTTP's own framing, timeouts of peers), authentication, compression, and Redis itself;
//! other tools, children, reverts, questions. What a replica writes without waiting in
//! between is not interleaved with what others write: `crates/storage/tests/guards.rs` does that. That all was told which is
//! stored is looked at where coordination was never emptied: afterwards a client reads all anew.

mod acts;
mod check;
mod chronicle;
mod clients;
mod deciders;
mod dice;
mod disk;
mod faults;
mod fleet;
mod link;
mod model;
mod mortal;
mod readers;
mod requests;
mod trace;
mod view;
mod weather;

use clients::{Client, Ledger};
use dice::Dice;
use fleet::Fleet;
use readers::Reader;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{sleep, timeout};
use trace::Trace;

/// How long clients may take to end after the faults have stopped.
const CLIENTS: Duration = Duration::from_secs(300);
/// How long all work may take to be done after that: some sweeps.
const QUIET: Duration = Duration::from_secs(300);

/// What came of a seed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The seed.
    pub seed: u64,
    /// A hash of all that happened, in its order.
    pub hash: u64,
    /// Requests of clients that were answered.
    pub operations: u64,
    /// How often each fault struck.
    pub faults: BTreeMap<&'static str, u64>,
    /// How much time went by for the fleet.
    pub time: Duration,
    /// What does not hold.
    pub violations: Vec<String>,
}

/// Runs a seed; its trace is printed if `prints` says so.
///
/// Errors: the runtime of this thread could not be made.
pub fn run(seed: u64, prints: bool) -> std::io::Result<Report> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build()?;
    Ok(runtime.block_on(simulate(seed, prints)))
}

async fn simulate(seed: u64, prints: bool) -> Report {
    let dice = Dice::new(seed);
    let trace = Arc::new(Trace::new(prints));
    let fleet = Arc::new(Fleet::new(2 + dice.below(2) as usize, &dice, trace.clone()));
    let mut late = Vec::new();
    if let Err(error) = fleet.chronicle.begin(&fleet.memory.ports()).await {
        late.push(format!("nobody listens: {error}"));
    }
    let ledger: Arc<Ledger> = Arc::default();
    for place in 0..fleet.size() {
        tokio::spawn(fleet.clone().keep(place));
    }
    let readers: Vec<Arc<Reader>> = (0..2 + dice.below(2) as usize)
        .map(|number| Arc::new(Reader::new(number, fleet.clone(), dice.fork())))
        .collect();
    for reader in &readers {
        tokio::spawn(reader.clone().live());
    }
    // A stream of its own: what is drawn of tools moves nothing else.
    let calls = seed.is_multiple_of(2).then(|| Dice::new(!seed));
    let client = |number, dice, calls| Client { number, fleet: fleet.clone(), ledger: ledger.clone(), dice, calls };
    let mut clients = Vec::new();
    for number in 0..2 + dice.below(3) as usize {
        let client = client(number, dice.fork(), calls.as_ref().map(Dice::fork));
        clients.push(tokio::spawn(client.live(3 + dice.below(8))));
    }
    if let Some(calls) = &calls {
        let listens = calls.chance(500);
        for dice in [calls.fork(), calls.fork()] {
            tokio::spawn(client(clients.len(), dice, None).decide(listens));
        }
    }
    faults::strike(fleet.clone(), dice.fork(), dice.ms(5_000, 45_000)).await;
    fleet.calm_down();
    let ended = timeout(CLIENTS, async {
        for client in clients {
            if let Err(error) = client.await {
                late.push(format!("a client broke: {error}"));
            }
        }
    });
    if ended.await.is_err() {
        late.push("a client did not end".to_owned());
    }
    let pages = ledger.read();
    // A TTL after coordination was emptied replicas look at what they take to be at work.
    sleep(fleet::TTL * 2).await;
    let quiet = timeout(QUIET, async {
        loop {
            match check::unfinished(&fleet, &pages).await {
                Ok(open) if open.is_empty() && readers.iter().all(|reader| reader.has_all()) => return,
                _ => sleep(Duration::from_secs(1)).await,
            }
        }
    });
    let mut violations = late;
    if quiet.await.is_err() {
        let behind = readers.iter().filter(|reader| !reader.has_all());
        violations.extend(behind.map(|reader| format!("reader {} was not told all", reader.number)));
        match check::unfinished(&fleet, &pages).await {
            Ok(open) => violations.extend(open),
            Err(error) => violations.push(format!("the store cannot be read: {error}")),
        }
    }
    let pages = ledger.read();
    match check::broken(&fleet, &pages, &readers) {
        Ok(broken) => violations.extend(broken),
        Err(error) => violations.push(format!("the store cannot be read: {error}")),
    }
    for violation in &violations {
        trace.note(format_args!("violation: {violation}"));
    }
    Report {
        seed,
        hash: trace.hash(),
        operations: pages.operations,
        faults: fleet.weather.struck(),
        time: Duration::from_millis(trace.now_ms()),
        violations,
    }
}
