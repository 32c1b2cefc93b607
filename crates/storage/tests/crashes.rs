//! The power goes after every single operation: what was acknowledged is there, and nothing is half there.

#![allow(clippy::unwrap_used)]

mod support;

use run_protocol::{Head, HeadState};
use std::sync::Arc;
use storage::forgetful::{Crash, Forgetful, root};
use storage::{Durability, Marker, Record, SessionFilter, Store, StoreError, TenantStore, Write};
use support::*;
use wire::tenant::Tenant;

fn open_on(disk: &Arc<Forgetful>) -> TenantStore {
    let store = Store::open_on(disk.clone(), root(), Durability::Disk, Arc::new(Spread)).unwrap();
    store.tenant(&Tenant::default())
}

/// Runs `work` with the power going after its first, second, ... operation, and `check` on what each crash leaves.
///
/// `work` gets a store that `prepare` has run on; `check` is told whether `work` was acknowledged.
fn crash_everywhere(
    prepare: impl Fn(&TenantStore),
    work: impl Fn(&TenantStore) -> Result<(), StoreError>,
    check: impl Fn(&TenantStore, bool),
) {
    for operations in 0.. {
        assert!(operations < 500, "it never ends");
        let disk = Forgetful::new("/data");
        prepare(&open_on(&disk));
        let store = open_on(&disk);
        disk.die_after(operations);
        let acknowledged = work(&store).is_ok();
        assert!(acknowledged || disk.is_dead(), "it failed with the power on");
        let crashes = [Crash::ForgetAll, Crash::KeepAll].into_iter().chain((1..8).map(Crash::Some));
        for crash in crashes {
            let survivor = disk.after(crash);
            eprintln!("after {operations} operations, {crash:?}");
            check(&open_on(&survivor), acknowledged);
        }
        if !disk.is_dead() {
            assert!(operations > 3, "it was crashed nowhere");
            return;
        }
    }
}

#[test]
fn a_session_is_whole_or_can_be_made_again() {
    let id = ses("a");
    crash_everywhere(
        |_| {},
        |store| store.create_session(&session(&id, 1), Head::new("p")),
        |store, acknowledged| {
            if acknowledged {
                assert_eq!(store.session(&id).unwrap(), session(&id, 1));
                assert_eq!(store.sessions(&SessionFilter::default()).unwrap().len(), 1);
            } else {
                match store.create_session(&session(&id, 1), Head::new("p")) {
                    Ok(()) | Err(StoreError::Exists) => {}
                    Err(error) => panic!("{error}"),
                }
            }
            assert_eq!(store.session(&id).unwrap(), session(&id, 1));
            change_head(store, &id, |head| prompt(&id, "m", head, 1));
            assert_eq!(store.take_run(&id, 0).unwrap().fence().0, 1);
        },
    );
}

/// Somebody dies after any operation; another one finds what it did, or does it, and says so; then the power goes.
fn found_and_acknowledged(
    prepare: impl Fn(&TenantStore),
    work: impl Fn(&TenantStore) -> Result<(), StoreError>,
    finds: impl Fn(&TenantStore) -> bool,
    check: impl Fn(&TenantStore),
) {
    let mut found = 0;
    for operations in 0.. {
        assert!(operations < 500, "it never ends");
        let disk = Forgetful::new("/data");
        prepare(&open_on(&disk));
        let first = open_on(&disk);
        disk.die_after(operations);
        let _whatever_it_did = work(&first);
        let has_died = disk.is_dead();
        disk.die_after(usize::MAX);
        if finds(&open_on(&disk)) {
            found += 1;
            check(&open_on(&disk.after(Crash::ForgetAll)));
        }
        if !has_died {
            assert!(found > 0, "nothing was ever found");
            return;
        }
    }
}

#[test]
fn a_session_that_somebody_else_made_and_died_is_durable_once_it_is_found() {
    let id = ses("a");
    let make = |store: &TenantStore| store.create_session(&session(&id, 1), Head::new("p"));
    found_and_acknowledged(
        |_| {},
        make,
        |store| matches!(make(store), Ok(()) | Err(StoreError::Exists)),
        |store| assert_eq!(store.session(&id).unwrap(), session(&id, 1)),
    );
}

#[test]
fn a_prompt_that_somebody_else_stored_and_died_is_durable_once_it_is_found() {
    let id = ses("a");
    let store_it = |store: &TenantStore| {
        let guard = store.take_head(&id)?;
        let (writes, head) = prompt(&id, "m", guard.head(), 1);
        guard.commit(writes, head).map(drop)
    };
    found_and_acknowledged(
        |store| store.create_session(&session(&id, 1), Head::new("p")).unwrap(),
        store_it,
        |store| store.head(&id).unwrap().issued == 1 && store.sync_seen(&id).is_ok(),
        |store| {
            assert_eq!(store.head(&id).unwrap().issued, 1);
            assert_eq!(store.messages(&id, None, None).unwrap().items.len(), 1);
        },
    );
}

#[test]
fn a_name_that_somebody_else_wrote_and_died_is_durable_once_it_is_found() {
    let name = Record::Key { hash: "ab".repeat(16) };
    found_and_acknowledged(
        |_| {},
        |store| store.put_if_absent(&name, b"{}").map(drop),
        |store| store.put_if_absent(&name, b"{}").is_ok(),
        |store| assert_eq!(store.read(&name).unwrap().as_deref(), Some(&b"{}"[..])),
    );
}

#[test]
fn an_import_is_whole_or_not_seen_and_the_same_import_finishes_it() {
    let id = ses("a");
    let own = Record::Session { project: "p".into(), id: id.clone() };
    let writes = [
        text_part(&id, &msg("m"), &prt("x"), "hello"),
        user_message(&id, &msg("m"), 1),
        Write::Put(own, serde_json::to_vec(&session(&id, 1)).unwrap()),
    ];
    let records: Vec<(Record, Vec<u8>)> = writes
        .into_iter()
        .filter_map(|write| match write {
            Write::Put(record, body) => Some((record, body)),
            Write::Reveal(..) | Write::PutNew(..) | Write::Remove(_) => None,
        })
        .collect();
    let import = |store: &TenantStore| store.import_session(&id, &Head::new("p"), &records).map(|_| ());
    let is_seen = |store: &TenantStore| {
        let listed = store.sessions(&SessionFilter::default()).unwrap().len();
        match store.session(&id) {
            Err(StoreError::NotFound) => assert_eq!(listed, 0),
            session => {
                session.unwrap();
                let items = store.messages(&id, None, None).unwrap().items;
                assert_eq!((listed, items.len()), (1, 1));
                assert_eq!(items[0].parts[0].text().unwrap().text, "hello");
            }
        }
        listed == 1
    };
    crash_everywhere(
        |_| {},
        import,
        |store, acknowledged| {
            assert!(is_seen(store) || !acknowledged);
            // Empties the guard of who is dead: the import would wait until it has stood still.
            drop(store.take_head(&id));
            import(store).unwrap();
            assert!(is_seen(store));
        },
    );
}

#[test]
fn a_ticket_that_was_given_out_has_all_that_it_needs() {
    let id = ses("a");
    crash_everywhere(
        |store| create(store, &id),
        |store| {
            store.put_marker(&id, 1)?;
            let guard = store.take_head(&id)?;
            let (writes, head) = prompt(&id, "m", guard.head(), 1);
            guard.commit(writes, head).map(|_| ())
        },
        |store, acknowledged| {
            let head = store.head(&id).unwrap();
            assert!(!acknowledged || head.issued == 1);
            if head.issued == 1 {
                assert_eq!(store.markers().unwrap(), [Marker { session: id.clone(), ticket: Some(1) }]);
                assert_eq!(store.tickets(&id).unwrap().len(), 1);
                let items = store.messages(&id, None, None).unwrap().items;
                assert_eq!(items[0].parts[0].text().unwrap().text, "hello");
            }
            // What was not given out may be there in parts, and counts for nothing: the same prompt makes it whole.
            if head.issued == 0 {
                change_head(store, &id, |head| prompt(&id, "m", head, 1));
                let items = store.messages(&id, None, None).unwrap().items;
                assert_eq!((items.len(), items[0].parts.len()), (1, 1));
            }
        },
    );
}

#[test]
fn a_run_that_was_taken_stays_taken_and_its_commits_stay() {
    let id = ses("a");
    crash_everywhere(
        |store| create(store, &id),
        |store| {
            let run = store.take_run(&id, 0)?;
            for (text, completed) in [("begun", None), ("done", Some(2))] {
                let part = text_part(&id, &msg("m"), &prt("x"), text);
                run.commit(vec![part, assistant_message(&id, &msg("m"), 1, completed)])?;
            }
            Ok(())
        },
        |store, acknowledged| {
            let number = store.run_number(&id).unwrap();
            let items = store.messages(&id, None, None).unwrap().items;
            assert!(items.is_empty() || number == 1, "a commit under a number that was not durable");
            if acknowledged {
                assert_eq!(items.len(), 1);
            }
            for item in items {
                let finished = item.info.assistant().unwrap().time.completed.is_some();
                let text = item.parts[0].text().unwrap().text.as_str();
                assert!(finished || !acknowledged);
                assert!(text == "done" || !finished, "the message is finished before its part");
            }
            assert_eq!(store.take_run(&id, number).unwrap().fence().0, number + 1);
        },
    );
}

/// A file system may write a name down before the contents of its file.
#[test]
fn a_part_that_was_torn_is_told_from_those_that_are_whole() {
    let id = ses("a");
    let disk = Forgetful::new("/data");
    let store = open_on(&disk);
    create(&store, &id);
    let run = store.take_run(&id, 0).unwrap();
    let whole = text_part(&id, &msg("m"), &prt("x"), "whole");
    run.commit(vec![whole, assistant_message(&id, &msg("m"), 1, None)]).unwrap();
    run.commit_lightly(vec![text_part(&id, &msg("m"), &prt("y"), "shown")]).unwrap();
    assert_eq!(store.torn_parts(&msg("m")).unwrap(), []);
    // Of one change since the last fsync of a directory, all or none.
    let torn = (1..64).map(|seed| open_on(&disk.after(Crash::Some(seed)))).find_map(|store| {
        let torn = store.torn_parts(&msg("m")).unwrap();
        (!torn.is_empty()).then_some((store, torn))
    });
    let (store, torn) = torn.expect("the name was kept by none of the crashes");
    assert_eq!(torn, [prt("y")]);
    let items = || store.messages(&id, None, None).unwrap().items;
    assert_eq!(items()[0].parts.len(), 1);
    let run = store.take_run(&id, 1).unwrap();
    let remove = Write::Remove(Record::Part { message: msg("m"), id: prt("y") });
    run.commit(vec![remove, assistant_message(&id, &msg("m"), 1, Some(2))]).unwrap();
    assert_eq!(items()[0].parts.len(), 1);
    assert_eq!(store.torn_parts(&msg("m")).unwrap(), []);
}

#[test]
fn a_deletion_goes_on_where_it_was() {
    let id = ses("a");
    crash_everywhere(
        |store| {
            create(store, &id);
            change_head(store, &id, |head| prompt(&id, "m", head, 1));
            let marker = Write::Put(Record::Deletion { session: id.clone() }, vec![]);
            change_head(store, &id, |head| (vec![marker.clone()], Head { state: HeadState::Deleted, ..head.clone() }));
        },
        |store| {
            store.remove_session(&id)?;
            let guard = store.take_head(&id)?;
            let head = Head { state: HeadState::Removed, ..guard.head().clone() };
            guard.commit(vec![], head)?;
            store.remove_deletion_marker(&id)
        },
        |store, acknowledged| {
            let head = store.head(&id).unwrap();
            assert!(!acknowledged || head.state == HeadState::Removed);
            if head.state == HeadState::Deleted {
                assert_eq!(store.markers().unwrap().len(), 1, "nobody would find the deletion");
                store.remove_session(&id).unwrap();
            }
            let session = Record::Session { project: "p".into(), id: id.clone() };
            for gone in [
                session,
                Record::Message { session: id.clone(), id: msg("m") },
                Record::Part { message: msg("m"), id: prt("m") },
            ] {
                assert_eq!(store.read(&gone).unwrap(), None, "{gone:?}");
            }
        },
    );
}

#[test]
fn what_was_removed_under_a_guard_stays_removed() {
    let id = ses("a");
    crash_everywhere(
        |store| {
            create(store, &id);
            change_head(store, &id, |head| prompt(&id, "m", head, 1));
        },
        |store| {
            let guard = store.take_head(&id)?;
            let head = guard.head().clone();
            let message = Record::Message { session: id.clone(), id: msg("m") };
            let part = Record::Part { message: msg("m"), id: prt("m") };
            guard.commit(vec![Write::Remove(message), Write::Remove(part)], head).map(|_| ())
        },
        |store, acknowledged| {
            let items = store.messages(&id, None, None).unwrap().items;
            assert!(items.is_empty() || !acknowledged);
        },
    );
}

#[test]
fn a_failed_fsync_is_an_error_and_ends_readiness() {
    let disk = Forgetful::new("/data");
    let store = Store::open_on(disk.clone(), root(), Durability::Disk, Arc::new(Spread)).unwrap();
    let tenant = store.tenant(&Tenant::default());
    create(&tenant, &ses("a"));
    store.probe().unwrap();
    disk.fail_fsyncs(true);
    assert!(matches!(tenant.put_marker(&ses("a"), 1), Err(StoreError::Io(_))));
    disk.fail_fsyncs(false);
    assert!(matches!(store.probe(), Err(StoreError::SyncFailed)));
}
