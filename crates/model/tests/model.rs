//! The protocol holds to the end of a small bound, and what is wrong with its surroundings on purpose is found.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test")]

use model::bound::{Bound, Fault, Flaw};
use model::properties::{Broken, SETTLES};
use model::{Explored, explore};

fn name(broken: Broken) -> &'static str {
    Broken::ALL.iter().find(|(which, _)| *which == broken).map(|(_, name)| *name).unwrap()
}

fn holds(bound: Bound) -> Explored {
    let explored = explore(bound, 2);
    println!("{explored}");
    assert!(explored.is_complete && explored.broken.is_empty(), "{explored}");
    for (fault, count) in &explored.taken {
        assert!(*count > 0 || explored.bound.of_kind(*fault) == 0, "{fault:?} was never taken");
    }
    explored
}

/// The flaw breaks the property, and the way there is printed.
fn is_found(bound: Bound, flaw: Flaw, property: &str) {
    let explored = explore(Bound { flaw: Some(flaw), ..bound }, 2);
    println!("{explored}");
    assert!(explored.broken.iter().any(|(name, _)| *name == property), "{explored}");
}

fn without_faults() -> Bound {
    Bound { faults: 0, ..Bound::small() }
}

#[test]
fn everything_holds_with_one_fault_of_any_kind() {
    holds(Bound::small());
}

#[test]
fn everything_holds_with_clients_that_send_again_abort_and_delete() {
    let one = Bound { prompts: 1, aborts: 0, ..without_faults() };
    holds(Bound { prompts: 2, ..one.clone() });
    holds(Bound { retries: 1, ..one.clone() });
    holds(Bound { aborts: 1, ..one.clone() });
    holds(Bound { deletions: 1, ..one });
}

#[test]
fn a_fence_without_compare_lets_two_runners_write() {
    is_found(Bound { kinds: &[Fault::Cut], ..Bound::small() }, Flaw::FenceWithoutCompare, name(Broken::TwoRunners));
}

#[test]
fn a_look_for_the_guards_before_the_write_does_not_keep_a_deposed_runner_out() {
    is_found(Bound { prompts: 2, ..without_faults() }, Flaw::CheckThenWrite, name(Broken::PromptLost));
}

#[test]
fn without_the_sweep_a_prompt_waits_for_ever() {
    is_found(Bound { kinds: &[Fault::Crash], ..Bound::small() }, Flaw::NoSweep, SETTLES);
}

#[test]
fn an_abort_that_is_only_said_aloud_may_not_be_heard() {
    is_found(Bound { aborts: 1, ..without_faults() }, Flaw::CancelByHintOnly, name(Broken::Abort));
}
