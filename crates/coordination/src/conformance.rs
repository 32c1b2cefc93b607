//! What every backend must do, as tests to be run against each: [`conformance_tests!`](crate::conformance_tests) makes
//! them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

pub mod events;
pub mod leases;
pub mod locks;
pub mod registry;

use crate::{Attempt, Born, Enter, Entered, Entry, Ports, Read, ReplicaId, SessionKey, Tick, Ticked};
use async_trait::async_trait;
use bytes::Bytes;
use run_protocol::{Fence, RecordVersion};
use std::future::Future;
use std::time::Duration;
use wire::ids::SessionId;
use wire::tenant::Tenant;

/// How long a test waits for what must come.
pub const BOUND: Duration = Duration::from_secs(10);

/// A backend under test, empty at first.
#[async_trait]
pub trait World: Send + Sync {
    /// The ports as another replica has them.
    async fn ports(&self) -> Ports;

    /// Makes the backend forget everything.
    async fn forget(&self);
}

/// One replica of the fleet under test.
pub struct Replica {
    pub ports: Ports,
    pub id: ReplicaId,
    pub born: Born,
}

impl Replica {
    pub async fn join(world: &dyn World, name: &str) -> Self {
        Self::join_by(world.ports().await, name).await
    }

    pub async fn join_by(ports: Ports, name: &str) -> Self {
        let id = ReplicaId(name.into());
        let born = ports.registry.join(&id, &Born(format!("proposed by {name}"))).await.unwrap();
        Self { ports, id, born }
    }

    /// The wish to run a session for its first ticket.
    pub fn wish(&self, key: &SessionKey, attempt: &str) -> Enter {
        Enter {
            replica: self.id.clone(),
            born: self.born.clone(),
            key: key.clone(),
            attempt: Attempt(attempt.into()),
            ticket: 1,
            for_others: false,
        }
    }

    pub async fn enter(&self, key: &SessionKey, attempt: &str) -> Entered {
        self.ports.leases.enter(&self.wish(key, attempt)).await.unwrap()
    }

    /// Enters and begins under a fence.
    pub async fn run(&self, key: &SessionKey, attempt: &str, fence: u64) {
        assert_eq!(self.enter(key, attempt).await, Entered::Won);
        assert!(self.ports.leases.begin(key, &Attempt(attempt.into()), Fence(fence), &[]).await.unwrap());
    }

    pub async fn claim(&self, attempts: &[&str]) -> Vec<(SessionKey, Attempt)> {
        let attempts: Vec<_> = attempts.iter().map(|attempt| Attempt((*attempt).into())).collect();
        self.ports.leases.claim(&self.id, &self.born, &attempts).await.unwrap()
    }

    pub async fn tick(&self) -> Ticked {
        self.tick_with(Vec::new(), Vec::new()).await
    }

    pub async fn tick_with(&self, acknowledged: Vec<(SessionKey, u64)>, watched: Vec<Tenant>) -> Ticked {
        let tick = Tick { replica: self.id.clone(), born: self.born.clone(), acknowledged, watched };
        self.ports.registry.tick(&tick).await.unwrap()
    }

    /// How many leases it owns, as the tick says.
    pub async fn owned(&self) -> u64 {
        match self.tick().await {
            Ticked::Alive { owned, .. } => owned,
            other => panic!("{other:?}"),
        }
    }

    pub async fn bodies(&self, tenant: &Tenant) -> Vec<String> {
        match self.ports.events.read_after(tenant, None, 10_000).await.unwrap() {
            Read::Entries(entries) => entries.into_iter().map(|(_, body)| text(&body)).collect(),
            Read::Reset => panic!("reading from the oldest can't be refused"),
        }
    }
}

pub fn attempt(name: &str) -> Attempt {
    Attempt(name.into())
}

pub fn key(name: &str) -> SessionKey {
    SessionKey::new(Tenant::default(), SessionId::parse(&format!("ses_{name}")).unwrap())
}

pub fn text(body: &Bytes) -> String {
    String::from_utf8(body.to_vec()).unwrap()
}

/// An entry about nothing in particular.
pub fn entry(body: &str) -> Entry {
    Entry { session: None, fence: None, record: None, status: None, body: Bytes::copy_from_slice(body.as_bytes()) }
}

/// An entry that a run says.
pub fn run_entry(key: &SessionKey, fence: u64, body: &str) -> Entry {
    Entry { session: Some(key.session.clone()), fence: Some(Fence(fence)), ..entry(body) }
}

/// An entry that shows a record in a version.
pub fn record_entry(key: &SessionKey, record: &str, version: RecordVersion, body: &str) -> Entry {
    Entry { session: Some(key.session.clone()), record: Some((record.into(), version)), ..entry(body) }
}

/// What comes of the work, which must end within [`BOUND`].
pub async fn within<T>(what: &str, work: impl Future<Output = T>) -> T {
    match tokio::time::timeout(BOUND, work).await {
        Ok(value) => value,
        Err(_) => panic!("waited {BOUND:?} in vain for {what}"),
    }
}

/// Makes a test of each behaviour. The argument is an async function from [`LogLimits`](crate::LogLimits) to a
/// [`World`].
#[macro_export]
macro_rules! conformance_tests {
    ($world:path) => {
        $crate::conformance_tests!($world, leases:
            a_lease_is_won_by_one_and_awaited_by_others
            a_repeated_wish_is_won_again
            a_wish_for_others_is_left_to_them
            a_lost_lease_cannot_begin
            who_was_outrun_cannot_begin_with_a_lease_that_came_late
            beginning_twice_says_so_once
            a_newer_ticket_keeps_the_lease
            release_is_done_once
            what_is_handed_over_is_claimed
            a_delayed_lease_is_not_claimed_before_its_time
            only_the_holder_hands_over
            a_repeated_claim_says_the_same
            adopting_takes_back_what_nobody_took
            adopting_moves_the_lease_to_the_new_name
            adopting_after_everything_was_forgotten
            adopting_gives_a_lease_that_lost_its_begin_the_fence
            what_is_adopted_before_it_begins_still_says_so
            who_was_outrun_adopts_no_fence
            ensure_due_makes_a_lease_only_where_none_is
            forgetting_drops_the_lease_of_anybody
            idle_events_come_out_only_without_a_lease
            a_status_is_the_leases_own
            a_wish_of_a_buried_replica_is_left_to_the_living
        );
        $crate::conformance_tests!($world, registry:
            the_first_proposal_is_the_mark
            a_tick_beats_and_tells
            pokes_are_counted_and_acknowledged_only_unchanged
            waiting_pokes_the_owner
            a_poke_is_signalled_with_its_fence
            an_ownerless_lease_is_not_poked
            burial_needs_the_beat_that_was_seen
            the_buried_learn_it
            burial_spares_the_neighbours_of_a_run_on_trial
            burial_frees_every_lease
            everybody_is_woken
            forgetting_everything_is_noticed
            who_listens_is_reachable
            answers_to_ping
        );
        $crate::conformance_tests!($world, events:
            entries_come_in_order
            a_batch_is_appended_once
            a_fenced_out_run_is_not_heard
            older_versions_are_left_out
            begin_and_release_append
            reading_goes_on_after_a_cursor
            an_unknown_cursor_resets
            what_is_forgotten_resets_and_the_rest_goes_on
            a_log_that_began_anew_does_not_know_the_old_cursors
            what_is_too_much_is_trimmed
            what_is_too_old_is_trimmed
            subscribers_see_an_unbroken_chain
            large_bodies_arrive_whole
            tenants_do_not_hear_each_other
            the_tick_tells_the_newest_cursor
            a_log_begins_with_an_entry_of_its_own
            a_log_that_is_followed_stays
            a_dropped_subscription_disturbs_nobody
        );
        $crate::conformance_tests!($world, locks:
            a_lock_keeps_others_out
            impatience_is_contended
            locks_of_other_names_are_free
            extending_keeps_the_lock
            many_contenders_all_get_it
        );
    };
    ($world:path, $part:ident: $($name:ident)*) => {
        mod $part {
            $(
                #[tokio::test]
                async fn $name() {
                    let world = $world($crate::conformance::$part::LIMITS).await;
                    $crate::conformance::$part::$name(&world).await;
                }
            )*
        }
    };
}
