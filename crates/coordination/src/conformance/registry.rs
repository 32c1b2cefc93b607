//! The registry of replicas, and the control channel.

use super::{Replica, World, attempt, key, within};
use crate::{Born, Enter, Entered, Former, LogLimits, ReplicaId, Signal, Ticked};
use run_protocol::Fence;
use std::time::Duration;
use tokio::sync::mpsc::Receiver;

/// Nothing is trimmed here.
pub const LIMITS: LogLimits = LogLimits { age: Duration::from_secs(600), bytes: 64 << 20 };

async fn next(signals: &mut Receiver<Signal>) -> Signal {
    within("a signal", signals.recv()).await.expect("the channel stays open")
}

pub async fn the_first_proposal_is_the_mark(world: &dyn World) {
    let (a, b) = (Replica::join(world, "a").await, Replica::join(world, "b").await);
    assert_eq!((&a.born.0[..], &b.born), ("proposed by a", &a.born));
    let again = a.ports.registry.join(&a.id, &Born("again".into())).await.unwrap();
    assert_eq!(again, a.born);
}

pub async fn a_tick_beats_and_tells(world: &dyn World) {
    let (a, b) = (Replica::join(world, "a").await, Replica::join(world, "b").await);
    a.run(&key("s"), "1", 1).await;
    a.ports.leases.ensure_due(&key("t"), &a.born).await.unwrap();
    b.tick().await;
    for beat in 1..3 {
        let Ticked::Alive { beats, owned, pokes, due, newest } = a.tick().await else { panic!("not alive") };
        assert_eq!((beats[&a.id], beats[&b.id], beats.len()), (beat, 1, 2));
        assert_eq!((owned, due), (1, 1));
        assert!(pokes.is_empty() && newest.is_empty());
    }
    assert_eq!(b.ports.registry.owned(&a.id).await.unwrap(), [key("s")]);
}

async fn pokes_of(replica: &Replica, acknowledged: Vec<(crate::SessionKey, u64)>) -> Vec<(crate::SessionKey, u64)> {
    match replica.tick_with(acknowledged, Vec::new()).await {
        Ticked::Alive { pokes, .. } => pokes,
        other => panic!("{other:?}"),
    }
}

pub async fn pokes_are_counted_and_acknowledged_only_unchanged(world: &dyn World) {
    let (a, b) = (Replica::join(world, "a").await, Replica::join(world, "b").await);
    a.run(&key("s"), "1", 1).await;
    for _ in 0..2 {
        b.ports.leases.poke(&key("s"), true).await.unwrap();
    }
    assert_eq!(pokes_of(&a, vec![]).await, [(key("s"), 2)]);
    assert_eq!(pokes_of(&a, vec![(key("s"), 1)]).await, [(key("s"), 2)]);
    b.ports.leases.poke(&key("s"), false).await.unwrap();
    assert_eq!(pokes_of(&a, vec![(key("s"), 2)]).await, [(key("s"), 3)]);
    assert_eq!(pokes_of(&a, vec![(key("s"), 3), (key("other"), 1)]).await, []);
    assert_eq!(pokes_of(&b, vec![]).await, []);
}

pub async fn waiting_pokes_the_owner(world: &dyn World) {
    let (a, b) = (Replica::join(world, "a").await, Replica::join(world, "b").await);
    a.run(&key("s"), "1", 1).await;
    assert_eq!(b.enter(&key("s"), "2").await, Entered::Waiting);
    assert_eq!(pokes_of(&a, vec![]).await, [(key("s"), 1)]);
}

pub async fn a_poke_is_signalled_with_its_fence(world: &dyn World) {
    let (a, b) = (Replica::join(world, "a").await, Replica::join(world, "b").await);
    let mut signals = a.ports.registry.listen(&a.id).await.unwrap();
    let mut others = b.ports.registry.listen(&b.id).await.unwrap();
    a.enter(&key("s"), "1").await;
    b.ports.leases.poke(&key("s"), true).await.unwrap();
    assert_eq!(next(&mut signals).await, Signal::Poke(key("s"), None));
    a.ports.leases.begin(&key("s"), &attempt("1"), Fence(12), &[]).await.unwrap();
    b.ports.leases.poke(&key("s"), true).await.unwrap();
    assert_eq!(next(&mut signals).await, Signal::Poke(key("s"), Some(Fence(12))));
    a.ports.leases.hand_over(&key("s"), &attempt("1"), 0, false).await.unwrap();
    assert_eq!(next(&mut signals).await, Signal::Wake);
    assert_eq!(next(&mut others).await, Signal::Wake, "the pokes were not for this one");
}

pub async fn an_ownerless_lease_is_not_poked(world: &dyn World) {
    let a = Replica::join(world, "a").await;
    a.ports.leases.poke(&key("none"), true).await.unwrap();
    assert_eq!(a.ports.leases.attempt_of(&key("none")).await.unwrap(), None);
    assert!(a.ports.leases.statuses(&key("none").tenant).await.unwrap().is_empty());
    a.run(&key("s"), "1", 1).await;
    a.ports.leases.hand_over(&key("s"), &attempt("1"), 0, false).await.unwrap();
    a.ports.leases.poke(&key("s"), true).await.unwrap();
    assert_eq!(pokes_of(&a, vec![]).await, []);
}

pub async fn burial_needs_the_beat_that_was_seen(world: &dyn World) {
    let (a, b) = (Replica::join(world, "a").await, Replica::join(world, "b").await);
    a.run(&key("s"), "1", 1).await;
    a.tick().await;
    a.tick().await;
    for beat in [0, 1, 3] {
        assert_eq!(b.ports.registry.bury(&a.id, beat).await.unwrap(), None);
    }
    assert!(a.ports.leases.confirm(&key("s"), &attempt("1")).await.unwrap());
    assert_eq!(b.ports.registry.bury(&a.id, 2).await.unwrap(), Some(1));
    assert_eq!(b.ports.registry.bury(&a.id, 2).await.unwrap(), Some(0), "it is buried already");
    assert_eq!(b.claim(&["2", "3"]).await, [(key("s"), attempt("2"))]);
}

pub async fn burial_spares_the_neighbours_of_a_run_on_trial(world: &dyn World) {
    let (a, b) = (Replica::join(world, "a").await, Replica::join(world, "b").await);
    let former = async |name: &str| b.ports.leases.former(&key(name)).await.unwrap();
    for name in ["s", "t"] {
        a.run(&key(name), name, 1).await;
    }
    a.ports.registry.set_trial(&a.id, Some(&key("s"))).await.unwrap();
    assert_eq!(b.ports.registry.bury(&a.id, 0).await.unwrap(), Some(2));
    assert_eq!((former("s").await, former("t").await), (Former::Failed, Former::Spared));

    // The next death counts for all again, and a trial that is over for nobody.
    let c = Replica::join(world, "c").await;
    assert_eq!(c.claim(&["1", "2"]).await.len(), 2);
    c.ports.registry.set_trial(&c.id, Some(&key("s"))).await.unwrap();
    c.ports.registry.set_trial(&c.id, None).await.unwrap();
    assert_eq!(b.ports.registry.bury(&c.id, 0).await.unwrap(), Some(2));
    for name in ["s", "t", "none"] {
        assert_eq!(former(name).await, Former::Failed);
    }

    // What is handed over did not fail, unless it is said to have.
    b.enter(&key("s"), "3").await;
    b.ports.leases.hand_over(&key("s"), &attempt("3"), 0, false).await.unwrap();
    assert_eq!(former("s").await, Former::HandedOver);
    b.enter(&key("s"), "4").await;
    b.ports.leases.hand_over(&key("s"), &attempt("4"), 0, true).await.unwrap();
    assert_eq!(former("s").await, Former::Failed);
}

pub async fn the_buried_learn_it(world: &dyn World) {
    let (a, b) = (Replica::join(world, "a").await, Replica::join(world, "b").await);
    a.run(&key("s"), "1", 1).await;
    b.ports.leases.poke(&key("s"), false).await.unwrap();
    assert_eq!(b.ports.registry.bury(&a.id, 0).await.unwrap(), Some(1));
    assert_eq!(a.tick().await, Ticked::Buried);
    assert_eq!(a.tick().await, Ticked::Buried);
    let Ticked::Alive { beats, due, .. } = b.tick().await else { panic!("not alive") };
    assert_eq!((beats.contains_key(&a.id), due), (false, 1));
}

pub async fn burial_frees_every_lease(world: &dyn World) {
    let (a, b) = (Replica::join(world, "a").await, Replica::join(world, "b").await);
    for number in 0..450 {
        assert_eq!(a.enter(&key(&number.to_string()), &number.to_string()).await, Entered::Won);
    }
    assert_eq!(b.enter(&key("b"), "b").await, Entered::Won);
    assert_eq!(b.ports.registry.bury(&a.id, 0).await.unwrap(), Some(450));
    let Ticked::Alive { beats, owned, due, .. } = b.tick().await else { panic!("not alive") };
    assert_eq!((beats.len(), owned, due), (1, 1, 450));
}

pub async fn everybody_is_woken(world: &dyn World) {
    let (a, b) = (Replica::join(world, "a").await, Replica::join(world, "b").await);
    let mut signals = b.ports.registry.listen(&b.id).await.unwrap();
    a.ports.leases.ensure_due(&key("s"), &a.born).await.unwrap();
    assert_eq!(next(&mut signals).await, Signal::Wake);
    a.enter(&key("t"), "1").await;
    b.ports.registry.bury(&a.id, 0).await.unwrap();
    assert_eq!(next(&mut signals).await, Signal::Wake);
}

pub async fn forgetting_everything_is_noticed(world: &dyn World) {
    let (mut a, mut b) = (Replica::join(world, "a").await, Replica::join(world, "b").await);
    a.run(&key("s"), "1", 1).await;
    world.forget().await;
    // Who does not know yet makes no lease without an owner: the owner could not take its own back.
    assert!(!a.ports.leases.ensure_due(&key("s"), &a.born).await.unwrap());
    assert_eq!(a.ports.leases.statuses(&key("s").tenant).await.unwrap().len(), 0);
    let Ticked::Reborn(born) = a.tick().await else { panic!("the tick did not notice") };
    assert_ne!(born, a.born);
    let wish: Enter = b.wish(&key("s"), "2");
    assert_eq!(b.ports.leases.enter(&wish).await.unwrap(), Entered::Reborn(born.clone()));
    assert_eq!(b.claim(&["3"]).await, []);
    (a.born, b.born) = (born.clone(), born);
    assert!(matches!(a.tick().await, Ticked::Alive { beats, .. } if beats.len() == 2));
    assert!(matches!(b.tick().await, Ticked::Alive { .. }));
    assert_eq!(b.enter(&key("s"), "4").await, Entered::Won);
}

pub async fn who_listens_is_reachable(world: &dyn World) {
    let (a, b) = (Replica::join(world, "a").await, Replica::join(world, "b").await);
    let is_reachable = async |id: &ReplicaId| b.ports.registry.is_reachable(id).await.unwrap();
    assert!(!is_reachable(&a.id).await);
    let signals = a.ports.registry.listen(&a.id).await.unwrap();
    assert!(is_reachable(&a.id).await);
    assert!(!is_reachable(&b.id).await);
    drop(signals);
    within("the listener to be gone", async {
        while is_reachable(&a.id).await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}

pub async fn answers_to_ping(world: &dyn World) {
    world.ports().await.registry.ping().await.unwrap();
}
