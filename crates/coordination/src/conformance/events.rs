//! Event logs.

use super::{Replica, World, attempt, entry, key, record_entry, run_entry, text, within};
use crate::{Appended, Cursor, Entered, LogLimits, Read, Released, Subscription, Ticked};
use bytes::Bytes;
use run_protocol::{Fence, RecordVersion};
use std::time::Duration;
use wire::tenant::Tenant;

/// Small, so that trimming is seen.
pub const LIMITS: LogLimits = LogLimits { age: Duration::from_secs(2), bytes: 1 << 20 };

/// No entry was fenced out.
const NONE: [usize; 0] = [];

async fn publish(replica: &Replica, batch: u64, bodies: &[&str]) {
    let entries: Vec<_> = bodies.iter().map(|body| entry(body)).collect();
    let refused = replica.ports.events.publish(&Tenant::default(), &replica.id, batch, &entries).await.unwrap();
    assert_eq!(refused, NONE);
}

async fn next(subscription: &mut Subscription) -> Appended {
    within("a message", subscription.recv()).await.expect("the channel stays open")
}

async fn read(replica: &Replica, cursor: Option<&Cursor>, limit: usize) -> Vec<(Cursor, Bytes)> {
    match replica.ports.events.read_after(&Tenant::default(), cursor, limit).await.unwrap() {
        Read::Entries(entries) => entries,
        Read::Reset => panic!("{cursor:?} is in the log"),
    }
}

async fn is_reset(replica: &Replica, cursor: &Cursor) -> bool {
    replica.ports.events.read_after(&Tenant::default(), Some(cursor), 10).await.unwrap() == Read::Reset
}

pub async fn entries_come_in_order(world: &dyn World) {
    let (a, b) = (Replica::join(world, "a").await, Replica::join(world, "b").await);
    publish(&a, 1, &["1", "2"]).await;
    publish(&b, 1, &["3"]).await;
    publish(&a, 2, &["4", "", "6"]).await;
    assert_eq!(b.bodies(&Tenant::default()).await, ["1", "2", "3", "4", "", "6"]);
}

pub async fn a_batch_is_appended_once(world: &dyn World) {
    let a = Replica::join(world, "a").await;
    publish(&a, 1, &["1"]).await;
    publish(&a, 1, &["1"]).await;
    publish(&a, 2, &["2"]).await;
    publish(&a, 1, &["1"]).await;
    publish(&a, 2, &["2"]).await;
    assert_eq!(a.bodies(&Tenant::default()).await, ["1", "2"]);
    let other = Tenant::parse("other").unwrap();
    a.ports.events.publish(&other, &a.id, 1, &[entry("other")]).await.unwrap();
    assert_eq!(a.bodies(&other).await, ["other"], "batches are counted per tenant");
}

pub async fn a_fenced_out_run_is_not_heard(world: &dyn World) {
    let (a, b) = (Replica::join(world, "a").await, Replica::join(world, "b").await);
    let tenant = Tenant::default();
    a.run(&key("s"), "1", 1).await;
    a.ports.leases.hand_over(&key("s"), &attempt("1"), 0, false).await.unwrap();
    let said = |fence, body| run_entry(&key("s"), fence, body);
    let events = &a.ports.events;
    assert_eq!(events.publish(&tenant, &a.id, 1, &[said(1, "handed over")]).await.unwrap(), NONE);
    b.run(&key("s"), "2", 2).await;
    let entries = [said(1, "old"), said(2, "new"), entry("nobody's"), said(1, "old")];
    assert_eq!(events.publish(&tenant, &a.id, 2, &entries).await.unwrap(), [0, 3]);
    assert_eq!(events.publish(&tenant, &a.id, 2, &entries).await.unwrap(), [0, 3], "a repeated batch says the same");
    let released = b.ports.leases.release(&key("s"), &attempt("2"), 1, &[said(2, "idle")]).await.unwrap();
    assert_eq!(released, Released::Done);
    assert_eq!(events.publish(&tenant, &a.id, 3, &[said(2, "too late")]).await.unwrap(), [0]);
    assert_eq!(a.bodies(&tenant).await, ["handed over", "new", "nobody's", "idle"]);
}

pub async fn older_versions_are_left_out(world: &dyn World) {
    let a = Replica::join(world, "a").await;
    let tenant = Tenant::default();
    let shows = |session: &str, record: &str, version: RecordVersion, body: &str| {
        record_entry(&key(session), record, version, body)
    };
    let run = |sequence| RecordVersion::run(Fence(9), sequence);
    let entries = [
        shows("s", "m", run(9), "m9"),
        shows("s", "m", run(10), "m10"),
        shows("s", "m", run(10), "m10 again"),
        shows("s", "m", run(9), "m9 late"),
        shows("s", "n", run(3), "n3"),
        shows("t", "m", run(1), "another session's"),
        shows("s", "m", RecordVersion::head(1), "m, of a head commit"),
    ];
    assert_eq!(a.ports.events.publish(&tenant, &a.id, 1, &entries).await.unwrap(), NONE);
    let late = [shows("s", "m", RecordVersion::run(Fence(10), 1), "late"), shows("s", "n", run(4), "n4")];
    assert_eq!(a.ports.events.publish(&tenant, &a.id, 2, &late).await.unwrap(), NONE, "what is old is not fenced out");
    let expected = ["m9", "m10", "n3", "another session's", "m, of a head commit", "n4"];
    assert_eq!(a.bodies(&tenant).await, expected);
}

pub async fn begin_and_release_append(world: &dyn World) {
    let a = Replica::join(world, "a").await;
    let mut subscription = a.ports.events.subscribe(&Tenant::default()).await.unwrap();
    assert_eq!(a.enter(&key("s"), "1").await, Entered::Won);
    let leases = &a.ports.leases;
    assert!(leases.begin(&key("s"), &attempt("1"), Fence(1), &[run_entry(&key("s"), 1, "busy")]).await.unwrap());
    let idle = [run_entry(&key("s"), 1, "status"), run_entry(&key("s"), 1, "idle")];
    assert_eq!(leases.release(&key("s"), &attempt("1"), 1, &idle).await.unwrap(), Released::Done);
    let (busy, idle) = (next(&mut subscription).await, next(&mut subscription).await);
    assert_eq!((busy.previous, busy.entries.len()), (None, 1));
    assert_eq!((idle.previous, idle.entries.len()), (Some(busy.entries[0].0.clone()), 2));
}

pub async fn reading_goes_on_after_a_cursor(world: &dyn World) {
    let a = Replica::join(world, "a").await;
    assert_eq!(a.ports.events.newest(&Tenant::default()).await.unwrap(), None);
    assert_eq!(read(&a, None, 10).await, []);
    publish(&a, 1, &["1", "2", "3", "4"]).await;
    let all = read(&a, None, 10).await;
    assert_eq!(read(&a, None, 2).await, all[..2]);
    assert_eq!(read(&a, Some(&all[0].0), 2).await, all[1..3]);
    assert_eq!(read(&a, Some(&all[2].0), 10).await, all[3..]);
    assert_eq!(read(&a, Some(&all[3].0), 10).await, []);
    assert_eq!(a.ports.events.newest(&Tenant::default()).await.unwrap(), Some(all[3].0.clone()));
}

pub async fn an_unknown_cursor_resets(world: &dyn World) {
    let a = Replica::join(world, "a").await;
    assert!(is_reset(&a, &Cursor("1-1".into())).await, "nothing is in an empty log");
    publish(&a, 1, &["1", "2", "3"]).await;
    let (number, random) =
        read(&a, None, 1).await[0].0.0.split_once('-').map(|(n, r)| (n.to_owned(), r.to_owned())).unwrap();
    let other_random = format!("{number}-{}", random.parse::<u64>().unwrap() ^ 1);
    let other_number = format!("99-{random}");
    for cursor in
        [&other_random, &other_number, "", "-", "+", "$", "0", "0-0", "(1-1", "1-1-1", "99999999999999999999-1"]
    {
        assert!(is_reset(&a, &Cursor(cursor.to_owned())).await, "{cursor:?}");
    }
    assert!(!is_reset(&a, &Cursor(format!("{number}-{random}"))).await);
}

pub async fn a_log_that_began_anew_does_not_know_the_old_cursors(world: &dyn World) {
    let a = Replica::join(world, "a").await;
    publish(&a, 1, &["1", "2"]).await;
    let before = read(&a, None, 10).await;
    world.forget().await;
    assert!(is_reset(&a, &before[1].0).await);
    publish(&a, 3, &["3", "4", "5"]).await;
    for (cursor, _) in &before {
        assert!(is_reset(&a, cursor).await, "{cursor:?} names an entry of the log before");
    }
    assert_eq!(a.bodies(&Tenant::default()).await, ["3", "4", "5"]);
}

pub async fn what_is_too_much_is_trimmed(world: &dyn World) {
    let a = Replica::join(world, "a").await;
    let large = "x".repeat(100_000);
    publish(&a, 1, &["first"]).await;
    let first = read(&a, None, 1).await[0].0.clone();
    for batch in 2..32 {
        publish(&a, batch, &[&large]).await;
    }
    let kept = read(&a, None, 100).await;
    assert_eq!(kept.len(), 10, "a megabyte holds ten of these");
    assert!(is_reset(&a, &first).await);
    assert_eq!(read(&a, Some(&kept[3].0), 100).await.len(), 6);
    let huge = "y".repeat(2 << 20);
    publish(&a, 32, &[&huge]).await;
    assert_eq!(a.bodies(&Tenant::default()).await, [huge], "the newest stays, however large");
}

pub async fn what_is_too_old_is_trimmed(world: &dyn World) {
    let a = Replica::join(world, "a").await;
    publish(&a, 1, &["old"]).await;
    let old = read(&a, None, 1).await[0].0.clone();
    // The log is appended to all the time, so that it is trimmed, not expired as a whole.
    within("the old entry to be gone", async {
        for batch in 2.. {
            publish(&a, batch, &["newer"]).await;
            if is_reset(&a, &old).await {
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    })
    .await;
    assert!(!read(&a, None, 1).await.is_empty());
    within("an idle log to be gone", async {
        while a.ports.events.newest(&Tenant::default()).await.unwrap().is_some() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    })
    .await;
    assert_eq!(read(&a, None, 10).await, []);
}

pub async fn subscribers_see_an_unbroken_chain(world: &dyn World) {
    let (a, b) = (Replica::join(world, "a").await, Replica::join(world, "b").await);
    publish(&a, 1, &["before"]).await;
    let mut subscriptions = [
        a.ports.events.subscribe(&Tenant::default()).await.unwrap(),
        b.ports.events.subscribe(&Tenant::default()).await.unwrap(),
    ];
    for batch in 1..20 {
        publish(&b, batch, &["x", "y"]).await;
        publish(&a, batch + 1, &["z"]).await;
    }
    let all = read(&a, None, 1000).await;
    for subscription in &mut subscriptions {
        let (mut last, mut heard) = (all[0].0.clone(), Vec::new());
        while heard.len() < all.len() - 1 {
            let appended = next(subscription).await;
            assert_eq!(appended.previous.as_ref(), Some(&last));
            last = appended.entries.last().expect("a message has entries").0.clone();
            heard.extend(appended.entries);
        }
        assert_eq!(heard, all[1..]);
    }
}

pub async fn large_bodies_arrive_whole(world: &dyn World) {
    let (a, b) = (Replica::join(world, "a").await, Replica::join(world, "b").await);
    let mut subscription = b.ports.events.subscribe(&Tenant::default()).await.unwrap();
    let bodies = ["small".to_owned(), "l".repeat(65_537), "n\n".repeat(32_000), "2".repeat(60_000)];
    publish(&a, 1, &bodies.each_ref().map(String::as_str)).await;
    let heard: Vec<_> = next(&mut subscription).await.entries.iter().map(|(_, body)| text(body)).collect();
    assert_eq!(heard, bodies);
}

pub async fn what_is_forgotten_resets_and_the_rest_goes_on(world: &dyn World) {
    let a = Replica::join(world, "a").await;
    let (tenant, events) = (Tenant::default(), &a.ports.events);
    let bodies: Vec<String> = (0..300).map(|number| number.to_string()).collect();
    publish(&a, 1, &bodies.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let all = read(&a, None, 1_000).await;
    for _ in 0..2 {
        events.forget_until(&tenant, &all[259].0).await.unwrap();
        for forgotten in [0, 200, 259] {
            assert_eq!(events.read_after(&tenant, Some(&all[forgotten].0), 10).await.unwrap(), Read::Reset);
        }
        assert_eq!(read(&a, None, 1_000).await, all[260..]);
        assert_eq!(read(&a, Some(&all[260].0), 1_000).await, all[261..]);
    }
    events.forget_until(&tenant, &Cursor("7-7".into())).await.unwrap();
    assert_eq!(read(&a, None, 1_000).await, all[260..], "a cursor that is not there forgets nothing");
    // All of it: what is appended then begins anew, with a higher number.
    events.forget_until(&tenant, &all[299].0).await.unwrap();
    assert_eq!(read(&a, None, 10).await, []);
    publish(&a, 2, &["next"]).await;
    let rest = read(&a, None, 10).await;
    assert_eq!(rest.len(), 1);
    assert!(!all.iter().any(|(cursor, _)| *cursor == rest[0].0));
}

pub async fn tenants_do_not_hear_each_other(world: &dyn World) {
    let a = Replica::join(world, "a").await;
    let other = Tenant::parse("other").unwrap();
    let mut subscription = a.ports.events.subscribe(&other).await.unwrap();
    publish(&a, 1, &["mine"]).await;
    a.ports.events.publish(&other, &a.id, 1, &[entry("theirs")]).await.unwrap();
    assert_eq!(text(&next(&mut subscription).await.entries[0].1), "theirs");
    assert_eq!(a.bodies(&other).await, ["theirs"]);
    assert_eq!(a.bodies(&Tenant::default()).await, ["mine"]);
}

pub async fn the_tick_tells_the_newest_cursor(world: &dyn World) {
    let a = Replica::join(world, "a").await;
    let (mine, empty) = (Tenant::default(), Tenant::parse("empty").unwrap());
    publish(&a, 1, &["1", "2"]).await;
    let Ticked::Alive { newest, .. } = a.tick_with(vec![], vec![mine.clone(), empty.clone()]).await else {
        panic!("not alive")
    };
    assert_eq!(newest[&mine], a.ports.events.newest(&mine).await.unwrap());
    assert_eq!((newest[&mine].is_some(), &newest[&empty], newest.len()), (true, &None, 2));
}

pub async fn a_dropped_subscription_disturbs_nobody(world: &dyn World) {
    let a = Replica::join(world, "a").await;
    let dropped = a.ports.events.subscribe(&Tenant::default()).await.unwrap();
    let slow = a.ports.events.subscribe(&Tenant::default()).await.unwrap();
    let mut kept = a.ports.events.subscribe(&Tenant::default()).await.unwrap();
    drop(dropped);
    for batch in 1..2_000 {
        publish(&a, batch, &["x"]).await;
        next(&mut kept).await;
    }
    assert!(slow.len() < 1_999, "a slow receiver loses messages");
}

pub async fn a_log_begins_with_an_entry_of_its_own(world: &dyn World) {
    let (a, b) = (Replica::join(world, "a").await, Replica::join(world, "b").await);
    let (tenant, events) = (Tenant::default(), &a.ports.events);
    let mut subscription = b.ports.events.subscribe(&tenant).await.unwrap();
    for _ in 0..2 {
        events.begin(&tenant).await.unwrap();
    }
    let beginning = read(&a, None, 10).await;
    assert_eq!(beginning.iter().map(|(_, body)| text(body)).collect::<Vec<_>>(), [""], "it begins once");
    assert_eq!(next(&mut subscription).await, Appended { previous: None, entries: beginning.clone() });
    publish(&a, 1, &["1"]).await;
    assert_eq!(next(&mut subscription).await.previous, Some(beginning[0].0.clone()));
    events.begin(&tenant).await.unwrap();
    assert_eq!(a.bodies(&tenant).await, ["", "1"]);
    world.forget().await;
    events.begin(&tenant).await.unwrap();
    assert!(is_reset(&a, &beginning[0].0).await, "another log has another beginning");
}

pub async fn a_log_that_is_followed_stays(world: &dyn World) {
    let a = Replica::join(world, "a").await;
    let tenant = Tenant::default();
    let followed = a.ports.events.subscribe(&tenant).await.unwrap();
    a.ports.events.begin(&tenant).await.unwrap();
    let beginning = a.ports.events.newest(&tenant).await.unwrap();
    let began = tokio::time::Instant::now();
    while began.elapsed() < LIMITS.age * 3 / 2 {
        a.tick_with(vec![], vec![tenant.clone()]).await;
        assert_eq!(a.ports.events.newest(&tenant).await.unwrap(), beginning);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    drop(followed);
}
