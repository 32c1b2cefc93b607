//! The in-process backend and Redis give the same answers to the same operations, whatever they are.
#![allow(clippy::unwrap_used, reason = "a test")]

mod support;

use coordination::conformance::{attempt, key, run_entry, text};
use coordination::memory::Memory;
use coordination::{Attempt, Born, Enter, LogLimits, Ports, Read, ReplicaId, Tick, Ticked};
use coordination_redis::RedisPorts;
use proptest::prelude::*;
use run_protocol::Fence;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use support::{Different, Redis};
use wire::tenant::Tenant;

/// One operation: which replica, which session, by which attempt, and numbers to go with it.
#[derive(Clone, Debug)]
struct Operation {
    what: What,
    replica: usize,
    session: usize,
    by: By,
    number: u64,
    flag: bool,
}

#[derive(Clone, Copy, Debug)]
enum What {
    Enter,
    EnterForOthers,
    Begin,
    Release,
    HandOver,
    Adopt,
    Claim,
    EnsureDue,
    Poke,
    Forget,
    AppendIfIdle,
    Publish,
    Tick,
    Bury,
    Join,
}

/// An attempt by its name, or the one that the last claim gave the session to.
#[derive(Clone, Copy, Debug)]
enum By {
    Name(u8),
    Claim,
}

fn operation() -> impl Strategy<Value = Operation> {
    use What::*;
    // What makes leases comes more often than what ends them, else most sequences are about nothing.
    let what = prop::sample::select(vec![
        Enter,
        Enter,
        Enter,
        EnterForOthers,
        Begin,
        Begin,
        Release,
        HandOver,
        Adopt,
        Claim,
        Claim,
        EnsureDue,
        Poke,
        Forget,
        AppendIfIdle,
        Publish,
        Publish,
        Tick,
        Tick,
        Bury,
        Join,
    ]);
    let by = prop_oneof![3 => (0..2u8).prop_map(By::Name), 1 => Just(By::Claim)];
    (what, 0..3usize, 0..2usize, by, 0..4u64, any::<bool>())
        .prop_map(|(what, replica, session, by, number, flag)| Operation { what, replica, session, by, number, flag })
}

/// One of the two backends, and which attempt it gave each claimed session to.
struct Side {
    ports: Ports,
    claimed: HashMap<usize, Attempt>,
    batches: [u64; 3],
    claims: u64,
}

impl Side {
    fn new(ports: Ports) -> Self {
        Self { ports, claimed: HashMap::new(), batches: [0; 3], claims: 0 }
    }

    /// Does the operation; returns the answer, and all that can be seen afterwards, as text.
    async fn apply(&mut self, operation: &Operation) -> String {
        let answer = self.answer(operation).await;
        let tenant = Tenant::default();
        let statuses: BTreeMap<_, _> = self.ports.leases.statuses(&tenant).await.unwrap().into_iter().collect();
        let mut seen = Vec::new();
        for number in 0..3 {
            let mut owned = self.ports.registry.owned(&replica(number)).await.unwrap();
            owned.sort();
            let held = self.ports.leases.attempt_of(&session(number)).await.unwrap().is_some();
            let former = self.ports.leases.former(&session(number)).await.unwrap();
            seen.push((owned, held, former));
        }
        format!("{answer} {statuses:?} {seen:?}")
    }

    async fn answer(&mut self, operation: &Operation) -> String {
        let Operation { what, replica: who, session: which, by, number, flag } = operation.clone();
        let (leases, registry) = (self.ports.leases.clone(), self.ports.registry.clone());
        let (who_id, s, born) = (replica(who), session(which), Born("mark".into()));
        let by = match by {
            By::Name(name) => attempt(&name.to_string()),
            By::Claim => self.claimed.get(&which).cloned().unwrap_or_else(|| attempt("none")),
        };
        let said = [run_entry(&s, number, &format!("{what:?} {number}"))];
        match what {
            What::Enter | What::EnterForOthers => {
                let for_others = matches!(what, What::EnterForOthers);
                let enter = Enter { replica: who_id, born, key: s, attempt: by, ticket: number, for_others };
                format!("{:?}", leases.enter(&enter).await.unwrap())
            }
            What::Begin => format!("{}", leases.begin(&s, &by, Fence(number), &said).await.unwrap()),
            What::Release => format!("{:?}", leases.release(&s, &by, number, &said).await.unwrap()),
            What::HandOver => {
                format!("{:?}", leases.hand_over(&s, &by, u64::from(flag) * 600_000, flag).await.unwrap())
            }
            What::Adopt => format!("{:?}", leases.adopt(&s, &who_id, &by, Fence(number)).await.unwrap()),
            What::Claim => {
                // All that is due, since two leases that are due in the same millisecond have no order.
                let attempts: Vec<_> = (0..3).map(|index| attempt(&format!("claim {} {index}", self.claims))).collect();
                self.claims += 1;
                let claimed = leases.claim(&who_id, &born, &attempts).await.unwrap();
                let mut sessions: Vec<_> = claimed.iter().map(|(s, _)| s.to_string()).collect();
                sessions.sort();
                let index = |claimed| (0..3).find(|index| session(*index) == claimed).unwrap();
                self.claimed.extend(claimed.into_iter().map(|(s, attempt)| (index(s), attempt)));
                format!("{sessions:?}")
            }
            What::EnsureDue => format!("{:?}", leases.ensure_due(&s, &born).await.unwrap()),
            What::Poke => format!("{:?}", leases.poke(&s, flag).await.unwrap()),
            What::Forget => format!("{:?}", leases.forget(&s).await.unwrap()),
            What::AppendIfIdle => format!("{:?}", leases.append_if_idle(&s, &said).await.unwrap()),
            What::Publish => {
                self.batches[who] += u64::from(flag);
                let tenant = Tenant::default();
                format!("{:?}", self.ports.events.publish(&tenant, &who_id, self.batches[who], &said).await.unwrap())
            }
            What::Tick => {
                let acknowledged = vec![(s, number)];
                let tick = Tick { replica: who_id, born, acknowledged, watched: Vec::new() };
                match registry.tick(&tick).await.unwrap() {
                    Ticked::Alive { beats, owned, mut pokes, due, .. } => {
                        pokes.sort();
                        let beats: BTreeMap<_, _> = beats.into_iter().collect();
                        format!("{beats:?} {owned} {pokes:?} {due}")
                    }
                    other => format!("{other:?}"),
                }
            }
            What::Bury => format!("{:?}", registry.bury(&who_id, number).await.unwrap()),
            What::Join => format!("{:?}", registry.join(&who_id, &born).await.unwrap()),
        }
    }

    async fn log(&self) -> Vec<String> {
        match self.ports.events.read_after(&Tenant::default(), None, 10_000).await.unwrap() {
            Read::Entries(entries) => entries.iter().map(|(_, body)| text(body)).collect(),
            Read::Reset => panic!("reading from the oldest can't be refused"),
        }
    }
}

fn replica(number: usize) -> ReplicaId {
    ReplicaId(format!("replica {number}"))
}

fn session(number: usize) -> coordination::SessionKey {
    key(&number.to_string())
}

async fn compare(redis: &Redis, case: u64, operations: &[Operation]) {
    let mut settings = redis.settings.clone();
    settings.prefix = format!("case-{case}");
    let memory = Memory::new(Arc::new(Different::default()), LogLimits::default());
    let mut sides = [Side::new(memory.ports()), Side::new(RedisPorts::connect(settings).await.unwrap())];
    for side in &sides {
        for number in 0..3 {
            side.ports.registry.join(&replica(number), &Born("mark".into())).await.unwrap();
        }
    }
    for (step, operation) in operations.iter().enumerate() {
        let [memory, redis] = &mut sides;
        assert_eq!(memory.apply(operation).await, redis.apply(operation).await, "at step {step}: {operation:?}");
    }
    assert_eq!(sides[0].log().await, sides[1].log().await);
}

#[test]
fn both_backends_give_the_same_answers() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let redis = runtime.block_on(Redis::start());
    let cases = std::sync::atomic::AtomicU64::new(0);
    let config = ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() };
    proptest!(config, |(operations in prop::collection::vec(operation(), 1..60))| {
        let case = cases.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        runtime.block_on(compare(&redis, case, &operations));
    });
}
