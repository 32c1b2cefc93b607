//! Leases: who works for a session.

use super::{Replica, World, attempt, entry, key, run_entry, within};
use crate::{Adopted, Enter, Entered, Entry, LogLimits, Released};
use run_protocol::Fence;
use std::time::Duration;
use wire::tenant::Tenant;

/// Nothing is trimmed here.
pub const LIMITS: LogLimits = LogLimits { age: Duration::from_secs(600), bytes: 64 << 20 };

pub async fn a_lease_is_won_by_one_and_awaited_by_others(world: &dyn World) {
    let (a, b) = (Replica::join(world, "a").await, Replica::join(world, "b").await);
    assert_eq!(a.enter(&key("s"), "1").await, Entered::Won);
    assert_eq!(b.enter(&key("s"), "2").await, Entered::Waiting);
    assert_eq!(a.enter(&key("s"), "3").await, Entered::Waiting);
    assert_eq!(b.enter(&key("other"), "4").await, Entered::Won);
    assert!(a.ports.leases.confirm(&key("s"), &attempt("1")).await.unwrap());
    assert!(!b.ports.leases.confirm(&key("s"), &attempt("2")).await.unwrap());
    assert_eq!(a.ports.leases.attempt_of(&key("s")).await.unwrap(), Some(attempt("1")));
    assert_eq!((a.owned().await, b.owned().await), (1, 1));
}

pub async fn a_repeated_wish_is_won_again(world: &dyn World) {
    let a = Replica::join(world, "a").await;
    assert_eq!(a.enter(&key("s"), "1").await, Entered::Won);
    assert_eq!(a.enter(&key("s"), "1").await, Entered::Won);
    assert_eq!(a.owned().await, 1);
}

pub async fn a_wish_for_others_is_left_to_them(world: &dyn World) {
    let (a, b) = (Replica::join(world, "a").await, Replica::join(world, "b").await);
    let for_others = async |name: &str, ticket| {
        let wish = Enter { ticket, for_others: true, ..a.wish(&key("s"), name) };
        a.ports.leases.enter(&wish).await.unwrap()
    };
    assert_eq!(for_others("1", 1).await, Entered::Waiting);
    assert_eq!(b.claim(&["2"]).await, [(key("s"), attempt("2"))]);
    assert!(b.ports.leases.begin(&key("s"), &attempt("2"), Fence(1), &[]).await.unwrap());
    // Whoever works is told that there is more, and does not let go.
    assert_eq!(for_others("3", 2).await, Entered::Waiting);
    assert_eq!(b.ports.leases.release(&key("s"), &attempt("2"), 1, &[]).await.unwrap(), Released::More);
}

pub async fn a_lost_lease_cannot_begin(world: &dyn World) {
    let (a, b) = (Replica::join(world, "a").await, Replica::join(world, "b").await);
    assert!(!a.ports.leases.begin(&key("s"), &attempt("1"), Fence(1), &[entry("none")]).await.unwrap());
    a.enter(&key("s"), "1").await;
    a.ports.leases.hand_over(&key("s"), &attempt("1"), 0, false).await.unwrap();
    assert!(!a.ports.leases.begin(&key("s"), &attempt("1"), Fence(1), &[entry("ownerless")]).await.unwrap());
    b.enter(&key("s"), "2").await;
    assert!(!a.ports.leases.begin(&key("s"), &attempt("1"), Fence(1), &[entry("another's")]).await.unwrap());
    assert!(b.ports.leases.begin(&key("s"), &attempt("2"), Fence(2), &[entry("mine")]).await.unwrap());
    assert_eq!(a.bodies(&Tenant::default()).await, ["mine"]);
}

pub async fn who_was_outrun_cannot_begin_with_a_lease_that_came_late(world: &dyn World) {
    let (a, b) = (Replica::join(world, "a").await, Replica::join(world, "b").await);
    a.enter(&key("s"), "1").await;
    a.ports.leases.hand_over(&key("s"), &attempt("1"), 0, false).await.unwrap();
    b.run(&key("s"), "2", 8).await;
    assert_eq!(b.ports.leases.release(&key("s"), &attempt("2"), 9, &[]).await.unwrap(), Released::Done);
    assert_eq!(a.enter(&key("s"), "1").await, Entered::Won, "the wish, once more");
    assert!(!a.ports.leases.begin(&key("s"), &attempt("1"), Fence(7), &[entry("outrun")]).await.unwrap());
    a.ports.leases.forget(&key("s")).await.unwrap();
    let adopted = a.ports.leases.adopt(&key("s"), &a.id, &attempt("1"), Fence(7)).await.unwrap();
    assert_eq!(adopted, Adopted::Lost);
    assert_eq!(a.enter(&key("s"), "3").await, Entered::Won);
    assert!(a.ports.leases.begin(&key("s"), &attempt("3"), Fence(10), &[entry("the next")]).await.unwrap());
    assert_eq!(a.bodies(&Tenant::default()).await, ["the next"]);
}

pub async fn beginning_twice_says_so_once(world: &dyn World) {
    let a = Replica::join(world, "a").await;
    a.enter(&key("s"), "1").await;
    for _ in 0..2 {
        assert!(a.ports.leases.begin(&key("s"), &attempt("1"), Fence(1), &[entry("busy")]).await.unwrap());
    }
    assert_eq!(a.bodies(&Tenant::default()).await, ["busy"]);
}

pub async fn a_newer_ticket_keeps_the_lease(world: &dyn World) {
    let (a, b) = (Replica::join(world, "a").await, Replica::join(world, "b").await);
    a.run(&key("s"), "1", 1).await;
    let wish = Enter { ticket: 2, ..b.wish(&key("s"), "2") };
    assert_eq!(b.ports.leases.enter(&wish).await.unwrap(), Entered::Waiting);
    let leases = &a.ports.leases;
    assert_eq!(leases.release(&key("s"), &attempt("1"), 1, &[entry("idle")]).await.unwrap(), Released::More);
    assert!(leases.confirm(&key("s"), &attempt("1")).await.unwrap());
    assert_eq!(leases.release(&key("s"), &attempt("1"), 2, &[entry("idle")]).await.unwrap(), Released::Done);
    assert_eq!(a.bodies(&Tenant::default()).await, ["idle"]);
}

pub async fn release_is_done_once(world: &dyn World) {
    let (a, b) = (Replica::join(world, "a").await, Replica::join(world, "b").await);
    a.run(&key("s"), "1", 1).await;
    let leases = &a.ports.leases;
    assert_eq!(leases.release(&key("s"), &attempt("1"), 1, &[entry("idle")]).await.unwrap(), Released::Done);
    assert_eq!(leases.release(&key("s"), &attempt("1"), 1, &[entry("idle")]).await.unwrap(), Released::Gone);
    assert_eq!(a.bodies(&Tenant::default()).await, ["idle"]);
    assert!(leases.statuses(&Tenant::default()).await.unwrap().is_empty());
    assert_eq!(a.owned().await, 0);
    assert_eq!(b.enter(&key("s"), "2").await, Entered::Won);
    assert_eq!(leases.release(&key("s"), &attempt("1"), 9, &[]).await.unwrap(), Released::Gone);
}

pub async fn what_is_handed_over_is_claimed(world: &dyn World) {
    let (a, b) = (Replica::join(world, "a").await, Replica::join(world, "b").await);
    for name in ["s", "t", "u"] {
        a.run(&key(name), name, 1).await;
        a.ports.leases.hand_over(&key(name), &attempt(name), 0, false).await.unwrap();
    }
    let mut claimed = b.claim(&["1", "2"]).await;
    claimed.extend(b.claim(&["3", "4"]).await);
    claimed.sort();
    let sessions: Vec<_> = claimed.iter().map(|(key, _)| key.clone()).collect();
    assert_eq!(sessions, [key("s"), key("t"), key("u")]);
    for (key, attempt) in &claimed {
        assert!(b.ports.leases.confirm(key, attempt).await.unwrap());
    }
    assert_eq!((a.owned().await, b.owned().await), (0, 3));
    assert_eq!(a.claim(&["5"]).await, []);
}

pub async fn a_delayed_lease_is_not_claimed_before_its_time(world: &dyn World) {
    let (a, b) = (Replica::join(world, "a").await, Replica::join(world, "b").await);
    a.run(&key("later"), "1", 1).await;
    a.ports.leases.hand_over(&key("later"), &attempt("1"), 600_000, false).await.unwrap();
    a.run(&key("soon"), "2", 1).await;
    a.ports.leases.hand_over(&key("soon"), &attempt("2"), 20, false).await.unwrap();
    let claimed = within("a lease that is due soon", async {
        loop {
            let claimed = b.claim(&["3", "4"]).await;
            if !claimed.is_empty() {
                break claimed;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    assert_eq!(claimed.await, [(key("soon"), attempt("3"))]);
    // Whoever wishes for it need not wait: the delay is for those who claim.
    assert_eq!(b.enter(&key("later"), "5").await, Entered::Won);
}

pub async fn only_the_holder_hands_over(world: &dyn World) {
    let (a, b) = (Replica::join(world, "a").await, Replica::join(world, "b").await);
    a.run(&key("s"), "1", 1).await;
    b.ports.leases.hand_over(&key("s"), &attempt("2"), 0, false).await.unwrap();
    b.ports.leases.hand_over(&key("none"), &attempt("2"), 0, false).await.unwrap();
    assert!(a.ports.leases.confirm(&key("s"), &attempt("1")).await.unwrap());
    assert_eq!(b.claim(&["3"]).await, []);
}

pub async fn a_repeated_claim_says_the_same(world: &dyn World) {
    let a = Replica::join(world, "a").await;
    for name in ["s", "t", "u"] {
        a.ports.leases.ensure_due(&key(name), &a.born).await.unwrap();
    }
    let mut first = a.claim(&["1", "2"]).await;
    let mut second = a.claim(&["1", "2"]).await;
    first.sort();
    second.sort();
    assert_eq!((first.len(), &first), (2, &second));
    assert_eq!(a.owned().await, 2);
}

pub async fn adopting_takes_back_what_nobody_took(world: &dyn World) {
    let (a, b) = (Replica::join(world, "a").await, Replica::join(world, "b").await);
    let adopt = async |replica: &Replica, fence| {
        replica.ports.leases.adopt(&key("s"), &replica.id, &attempt("1"), Fence(fence)).await.unwrap()
    };
    a.run(&key("s"), "1", 7).await;
    assert_eq!(adopt(&a, 7).await, Adopted::Mine);
    a.ports.leases.hand_over(&key("s"), &attempt("1"), 0, false).await.unwrap();
    assert_eq!(adopt(&a, 6).await, Adopted::Lost);
    assert_eq!(adopt(&a, 7).await, Adopted::Mine);
    assert_eq!(b.claim(&["2"]).await, [], "what was adopted is not due");
    a.ports.leases.hand_over(&key("s"), &attempt("1"), 0, false).await.unwrap();
    assert_eq!(b.claim(&["2"]).await.len(), 1);
    assert_eq!(adopt(&a, 7).await, Adopted::Lost);
    assert_eq!((a.owned().await, b.owned().await), (0, 1));
}

pub async fn adopting_moves_the_lease_to_the_new_name(world: &dyn World) {
    let before = Replica::join(world, "a, before").await;
    before.run(&key("s"), "1", 7).await;
    let after = Replica::join(world, "a, after").await;
    let adopted = after.ports.leases.adopt(&key("s"), &after.id, &attempt("1"), Fence(7)).await.unwrap();
    assert_eq!(adopted, Adopted::Mine);
    assert_eq!((before.owned().await, after.owned().await), (0, 1));
    assert_eq!(after.ports.registry.owned(&after.id).await.unwrap(), [key("s")]);
}

pub async fn adopting_after_everything_was_forgotten(world: &dyn World) {
    let a = Replica::join(world, "a").await;
    a.run(&key("s"), "1", 7).await;
    world.forget().await;
    let leases = &a.ports.leases;
    assert!(!leases.confirm(&key("s"), &attempt("1")).await.unwrap());
    assert_eq!(leases.adopt(&key("s"), &a.id, &attempt("1"), Fence(7)).await.unwrap(), Adopted::Mine);
    assert!(leases.confirm(&key("s"), &attempt("1")).await.unwrap());
    assert_eq!(leases.statuses(&Tenant::default()).await.unwrap().len(), 1);
    assert_eq!(leases.adopt(&key("s"), &a.id, &attempt("2"), Fence(7)).await.unwrap(), Adopted::Lost);
    // The adopted one can be buried, though its replica has not joined anew.
    assert_eq!(a.ports.registry.bury(&a.id, 0).await.unwrap(), Some(1));
}

/// What a failover to a copy leaves that the wish or the claim has reached, and the begin has not.
pub async fn adopting_gives_a_lease_that_lost_its_begin_the_fence(world: &dyn World) {
    let (a, b) = (Replica::join(world, "a").await, Replica::join(world, "b").await);
    a.enter(&key("entered"), "1").await;
    // The other lease still bears the fence of its former owner.
    b.run(&key("claimed"), "2", 6).await;
    b.ports.leases.hand_over(&key("claimed"), &attempt("2"), 0, false).await.unwrap();
    assert_eq!(a.claim(&["3"]).await, [(key("claimed"), attempt("3"))]);
    let tenant = Tenant::default();
    for (batch, s, own) in [(1, key("entered"), attempt("1")), (3, key("claimed"), attempt("3"))] {
        let said = |body| [run_entry(&s, 7, body)];
        assert_eq!(a.ports.events.publish(&tenant, &a.id, batch, &said("refused")).await.unwrap(), [0]);
        assert_eq!(a.ports.leases.adopt(&s, &a.id, &own, Fence(7)).await.unwrap(), Adopted::Mine);
        let nothing: [usize; 0] = [];
        assert_eq!(a.ports.events.publish(&tenant, &a.id, batch + 1, &said("answer")).await.unwrap(), nothing);
        assert_eq!(a.ports.leases.release(&s, &own, 1, &said("idle")).await.unwrap(), Released::Done);
    }
    assert_eq!(a.bodies(&tenant).await, ["answer", "idle", "answer", "idle"]);
}

pub async fn what_is_adopted_before_it_begins_still_says_so(world: &dyn World) {
    let a = Replica::join(world, "a").await;
    let leases = &a.ports.leases;
    a.enter(&key("s"), "1").await;
    for s in [key("s"), key("missing")] {
        assert_eq!(leases.adopt(&s, &a.id, &attempt("1"), Fence(7)).await.unwrap(), Adopted::Mine);
        for _ in 0..2 {
            assert!(leases.begin(&s, &attempt("1"), Fence(7), &[run_entry(&s, 7, "busy")]).await.unwrap());
        }
    }
    assert_eq!(a.bodies(&Tenant::default()).await, ["busy", "busy"], "each once");
}

pub async fn who_was_outrun_adopts_no_fence(world: &dyn World) {
    let (a, b) = (Replica::join(world, "a").await, Replica::join(world, "b").await);
    b.run(&key("s"), "2", 8).await;
    b.ports.leases.hand_over(&key("s"), &attempt("2"), 0, false).await.unwrap();
    assert_eq!(a.enter(&key("s"), "1").await, Entered::Won, "a wish that came late");
    a.ports.leases.adopt(&key("s"), &a.id, &attempt("1"), Fence(7)).await.unwrap();
    let outrun = [run_entry(&key("s"), 7, "outrun")];
    assert_eq!(a.ports.events.publish(&Tenant::default(), &a.id, 1, &outrun).await.unwrap(), [0]);
}

pub async fn ensure_due_makes_a_lease_only_where_none_is(world: &dyn World) {
    let (a, b) = (Replica::join(world, "a").await, Replica::join(world, "b").await);
    for _ in 0..2 {
        assert!(a.ports.leases.ensure_due(&key("s"), &a.born).await.unwrap());
    }
    assert_eq!(a.ports.leases.statuses(&Tenant::default()).await.unwrap().len(), 1);
    assert_eq!(b.claim(&["1", "2"]).await, [(key("s"), attempt("1"))]);
    a.ports.leases.ensure_due(&key("s"), &a.born).await.unwrap();
    assert_eq!(a.claim(&["3"]).await, []);
}

pub async fn forgetting_drops_the_lease_of_anybody(world: &dyn World) {
    let (a, b) = (Replica::join(world, "a").await, Replica::join(world, "b").await);
    a.run(&key("owned"), "1", 1).await;
    a.ports.leases.ensure_due(&key("ownerless"), &a.born).await.unwrap();
    for name in ["owned", "ownerless", "none"] {
        b.ports.leases.forget(&key(name)).await.unwrap();
    }
    assert!(!a.ports.leases.confirm(&key("owned"), &attempt("1")).await.unwrap());
    assert_eq!((a.owned().await, b.claim(&["2"]).await), (0, vec![]));
    assert!(a.ports.leases.statuses(&Tenant::default()).await.unwrap().is_empty());
}

pub async fn idle_events_come_out_only_without_a_lease(world: &dyn World) {
    let a = Replica::join(world, "a").await;
    a.ports.leases.append_if_idle(&key("s"), &[entry("before")]).await.unwrap();
    a.run(&key("s"), "1", 1).await;
    a.ports.leases.append_if_idle(&key("s"), &[entry("owned")]).await.unwrap();
    a.ports.leases.hand_over(&key("s"), &attempt("1"), 0, false).await.unwrap();
    a.ports.leases.append_if_idle(&key("s"), &[entry("ownerless")]).await.unwrap();
    assert_eq!(a.bodies(&Tenant::default()).await, ["before"]);
}

pub async fn a_status_is_the_leases_own(world: &dyn World) {
    let a = Replica::join(world, "a").await;
    let tenant = Tenant::default();
    let status = async || a.ports.leases.statuses(&tenant).await.unwrap().remove(&key("s").session);
    let busy = || Some(r#"{"type":"busy"}"#.to_owned());
    let retry = r#"{"type":"retry"}"#;
    let publish = async |batch, fence, status: &str| {
        let said = Entry { status: Some(status.into()), ..super::run_entry(&key("s"), fence, status) };
        a.ports.events.publish(&tenant, &a.id, batch, &[said]).await.unwrap()
    };
    assert_eq!(status().await, None);
    assert_eq!(a.enter(&key("s"), "1").await, Entered::Won);
    assert_eq!(status().await, busy());
    assert!(a.ports.leases.begin(&key("s"), &attempt("1"), Fence(5), &[]).await.unwrap());
    assert!(publish(1, 5, retry).await.is_empty());
    assert_eq!(status().await.as_deref(), Some(retry));
    assert_eq!(publish(2, 4, r#"{"type":"idle"}"#).await, [0]);
    a.ports.leases.hand_over(&key("s"), &attempt("1"), 0, false).await.unwrap();
    assert_eq!(status().await.as_deref(), Some(retry), "an ownerless lease keeps its status");
    assert_eq!(a.enter(&key("s"), "2").await, Entered::Won);
    assert!(a.ports.leases.begin(&key("s"), &attempt("2"), Fence(6), &[]).await.unwrap());
    assert_eq!(status().await, busy());
    assert_eq!(a.ports.registry.bury(&a.id, 0).await.unwrap(), Some(1));
    assert_eq!(status().await, busy(), "so does that of a dead owner");
    let other = Tenant::parse("other").unwrap();
    assert!(a.ports.leases.statuses(&other).await.unwrap().is_empty());
}

pub async fn a_wish_of_a_buried_replica_is_left_to_the_living(world: &dyn World) {
    let (a, b) = (Replica::join(world, "a").await, Replica::join(world, "b").await);
    assert_eq!(b.ports.registry.bury(&a.id, 0).await.unwrap(), Some(0));
    assert_eq!(a.enter(&key("s"), "1").await, Entered::Waiting);
    assert_eq!(a.claim(&["3"]).await, []);
    assert_eq!(b.claim(&["4", "5"]).await, [(key("s"), attempt("4"))]);
}
