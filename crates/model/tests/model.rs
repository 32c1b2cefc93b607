//! The protocol holds to the end of a small bound, and what is wrong with its surroundings on purpose is found.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test")]

use model::bound::{Bound, Flaw};
use model::{cycles, explore};

fn holds(bound: Bound) {
    let explored = explore(bound, 2, None);
    println!("{explored}");
    assert!(explored.is_complete && explored.broken.is_empty(), "{explored}");
    assert!(explored.took_all(), "a kind of fault was never taken: {explored}");
}

/// The flaw breaks its property, and the way there is printed.
fn is_found(flaw: Flaw) {
    let explored = explore(flaw.bound(), 2, None);
    println!("{explored}");
    assert_eq!(explored.broken.iter().map(|(name, _)| *name).collect::<Vec<_>>(), [flaw.breaks()], "{explored}");
}

#[test]
fn everything_holds_with_one_fault_of_any_kind() {
    holds(Bound::small());
}

#[test]
fn everything_holds_with_clients_that_send_again_abort_and_delete() {
    let one = Bound { faults: 0, ..Bound::small() };
    holds(Bound { prompts: 2, ..one.clone() });
    holds(Bound { retries: 1, ..one.clone() });
    holds(Bound { aborts: 1, ..one.clone() });
    holds(Bound { deletions: 1, ..one });
}

#[test]
fn everything_holds_with_two_faults_one_after_the_other() {
    holds(Bound::two_faults());
}

#[test]
fn everything_holds_with_a_client_that_sends_again_and_a_fault() {
    holds(Bound::with_retry());
}

#[test]
fn everything_holds_with_a_client_that_aborts_and_a_fault() {
    holds(Bound::with_abort());
}

#[test]
fn readers_miss_nothing_though_messages_to_them_are_lost() {
    holds(Bound::with_readers());
}

/// Every order of what is left to do once faults end, not one: none goes on for ever with something open.
#[test]
fn no_fair_way_goes_round_for_ever_with_a_prompt_open() {
    let searched = cycles::search(&Bound::small());
    println!("{} worlds, {} moves", searched.worlds, searched.moves);
    assert_eq!(searched.found, None);
    let stuck = cycles::search(&Flaw::NoSweep.bound());
    assert!(stuck.found.is_some(), "nobody goes through the markers: a prompt waits while everybody beats");
}

#[test]
fn a_fence_without_compare_lets_two_runners_write() {
    is_found(Flaw::FenceWithoutCompare);
}

#[test]
fn a_look_for_the_guards_before_the_write_does_not_keep_a_deposed_runner_out() {
    is_found(Flaw::CheckThenWrite);
}

#[test]
fn without_the_sweep_a_prompt_waits_for_ever() {
    is_found(Flaw::NoSweep);
}

#[test]
fn an_abort_that_is_only_said_aloud_may_not_be_heard() {
    is_found(Flaw::CancelByHintOnly);
}

#[test]
fn a_lease_that_is_claimed_and_not_confirmed_lets_its_owner_be_deposed() {
    is_found(Flaw::ClaimWithoutConfirm);
}

#[test]
fn a_run_that_settles_without_the_look_loses_a_prompt() {
    is_found(Flaw::SettleWithoutTheLook);
}

#[test]
fn a_log_that_is_read_before_it_is_subscribed_to_misses_an_event() {
    is_found(Flaw::ReplayBeforeSubscribe);
}
