//! Records: written, listed, paged, kept as they were.

#![allow(clippy::unwrap_used)]

mod support;

use run_protocol::{Fence, Head, HeadState};
use std::path::Path;
use storage::{Durability, Marker, Record, SessionFilter, Store, StoreError, Write};
use support::*;
use wire::tenant::Tenant;

#[test]
fn a_session_is_made_once() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let id = ses("a");
    create(&store, &id);
    assert_eq!(store.session(&id).unwrap(), session(&id, 1));
    assert_eq!(store.head(&id).unwrap(), Head::new("p"));
    assert!(matches!(store.create_session(&session(&id, 2), Head::new("p")), Err(StoreError::Exists)));
    assert_eq!(store.session(&id).unwrap(), session(&id, 1));
    assert!(matches!(store.session(&ses("b")), Err(StoreError::NotFound)));
    assert!(matches!(store.take_head(&ses("b")), Err(StoreError::NotFound)));
    assert!(matches!(store.run_number(&ses("b")), Err(StoreError::NotFound)));
    assert!(matches!(store.take_run(&ses("b"), 0), Err(StoreError::NotFound)));
}

#[test]
fn a_prompt_and_its_answer_are_read_back_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let id = ses("a");
    create(&store, &id);
    let head = change_head(&store, &id, |head| prompt(&id, "m1", head, 100));
    assert_eq!((head.issued, head.rev), (1, 1));
    // An id that sorts before the first message's: the created time decides.
    let run = store.take_run(&id, store.run_number(&id).unwrap()).unwrap();
    assert_eq!(run.fence(), Fence(1));
    let answer = msg("a2");
    run.commit(vec![assistant_message(&id, &answer, 200, None)]).unwrap();
    assert_eq!(store.messages(&id, None, None).unwrap().items[1].parts, []);
    run.commit(vec![text_part(&id, &answer, &prt("x"), "word")]).unwrap();
    assert_eq!(store.messages(&id, None, None).unwrap().items[1].parts[0].text().unwrap().text, "word");
    run.commit(vec![text_part(&id, &answer, &prt("x"), "wood"), assistant_message(&id, &answer, 200, Some(201))])
        .unwrap();
    let page = store.messages(&id, None, None).unwrap();
    let ids: Vec<_> = page.items.iter().map(|item| item.info.id().clone()).collect();
    assert_eq!(ids, [msg("m1"), answer.clone()]);
    assert_eq!(page.items[1].parts[0].text().unwrap().text, "wood");
    assert_eq!(store.message(&id, &answer).unwrap(), page.items[1]);
    assert_eq!(store.message_exists(&answer).unwrap(), Some(id.clone()));
    assert_eq!(store.message_exists(&msg("none")).unwrap(), None);
    let guard = store.take_head(&id).unwrap();
    guard.check_run(run.fence()).unwrap();
    assert!(matches!(guard.check_run(Fence(0)), Err(StoreError::Fenced)));
}

#[test]
fn pages_go_back_from_the_newest() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let id = ses("a");
    create(&store, &id);
    for n in 0..7_u64 {
        // Ids that run against time, and two messages of the same millisecond.
        change_head(&store, &id, |head| prompt(&id, &format!("m{}", 9 - n), head, 100 + n / 2));
    }
    let all = store.messages(&id, None, None).unwrap();
    assert_eq!((all.items.len(), all.next), (7, None));
    let mut seen = Vec::new();
    let mut before = None;
    loop {
        let page = store.messages(&id, Some(3), before).unwrap();
        seen.splice(0..0, page.items);
        before = page.next;
        if before.is_none() {
            break;
        }
    }
    assert_eq!(seen, all.items);
    assert!(seen.is_sorted_by_key(|item| item.info.order()));
    assert_eq!(store.messages(&id, Some(7), None).unwrap().next, None);
}

#[test]
fn what_another_process_commits_is_read_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let (here, there) = (open(dir.path()), open(dir.path()));
    let id = ses("a");
    create(&here, &id);
    let texts = |store: &storage::TenantStore| -> Vec<String> {
        let items = store.messages(&id, None, None).unwrap().items;
        items.iter().map(|item| item.parts.iter().map(|part| part.text().unwrap().text.clone()).collect()).collect()
    };
    change_head(&here, &id, |head| prompt(&id, "m1", head, 1));
    assert_eq!((texts(&here), texts(&there)), (vec!["hello".to_owned()], vec!["hello".to_owned()]));
    // Open: a runner elsewhere adds an answer, changes and finishes it.
    let run = there.take_run(&id, 0).unwrap();
    for (text, completed) in [("a", None), ("b", None), ("c", Some(3))] {
        let answer = msg("m2");
        let part = text_part(&id, &answer, &prt("x"), text);
        run.commit(vec![part, assistant_message(&id, &answer, 2, completed)]).unwrap();
        assert_eq!(texts(&here), ["hello", text]);
    }
    change_head(&there, &id, |head| {
        let mut head = head.clone();
        head.settled = 1;
        (vec![], head)
    });
    assert_eq!(texts(&here), ["hello", "c"]);
    // Closed: parts of finished messages change in head commits, here and there.
    for (n, store) in [&here, &there, &there, &here, &there].into_iter().enumerate() {
        let text = format!("t{n}");
        change_head(store, &id, |head| (vec![text_part(&id, &msg("m1"), &prt("m1"), &text)], head.clone()));
        assert_eq!((texts(&here), texts(&there)), (vec![text.clone(), "c".into()], vec![text, "c".into()]));
    }
    change_head(&there, &id, |head| {
        let record = Record::Message { session: id.clone(), id: msg("m1") };
        (vec![Write::Remove(record)], head.clone())
    });
    assert_eq!((texts(&here), texts(&there)), (vec!["c".to_owned()], vec!["c".to_owned()]));
    assert_eq!(std::fs::read_dir(dir.path().join("flotilla/guard/ses_a/head")).unwrap().count(), 1);
}

#[test]
fn sessions_are_listed_newest_first_and_filtered() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    for (name, updated) in [("a", 5), ("b", 9), ("c", 7), ("d", 7)] {
        store.create_session(&session(&ses(name), updated), Head::new("p")).unwrap();
    }
    let mut child = session(&ses("e"), 8);
    child.parent_id = Some(ses("a"));
    child.project_id = "q".into();
    child.path = "sub/dir".into();
    store.create_session(&child, Head::new("q")).unwrap();
    let list = |filter: SessionFilter| -> Vec<String> {
        let sessions = store.sessions(&filter).unwrap();
        sessions.iter().map(|session| session.id.as_str()[4..].to_owned()).collect()
    };
    let all = SessionFilter::default;
    assert_eq!(list(all()), ["b", "e", "c", "d", "a"]);
    assert_eq!(list(SessionFilter { limit: Some(2), ..all() }), ["b", "e"]);
    assert_eq!(list(SessionFilter { limit: Some(0), ..all() }), [""; 0]);
    assert_eq!(list(SessionFilter { project: Some("p".into()), ..all() }), ["b", "c", "d", "a"]);
    assert_eq!(list(SessionFilter { roots: Some(false), ..all() }), ["e"]);
    assert_eq!(list(SessionFilter { start: Some(8), ..all() }), ["b", "e"]);
    assert_eq!(list(SessionFilter { search: Some("OF SES_C".into()), ..all() }), ["c"]);
    assert_eq!(list(SessionFilter { path_prefix: Some("sub".into()), ..all() }), ["e"]);
    assert_eq!(list(SessionFilter { directory: Some("/elsewhere".into()), ..all() }), [""; 0]);
    let mut newer = session(&ses("a"), 10);
    newer.title = "Renamed".into();
    let record = Record::Session { project: "p".into(), id: ses("a") };
    change_head(&store, &ses("a"), |head| {
        (vec![put(record.clone(), &serde_json::to_value(&newer).unwrap())], head.clone())
    });
    assert_eq!(list(all()), ["a", "b", "e", "c", "d"]);
    assert_eq!(store.children(&ses("a")).unwrap(), []);
}

#[test]
fn a_child_in_the_same_project_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    create(&store, &ses("a"));
    let mut child = session(&ses("b"), 8);
    child.parent_id = Some(ses("a"));
    store.create_guard(&child.id, &Head::new("p")).unwrap();
    assert!(matches!(store.session(&child.id), Err(StoreError::NotFound)));
    let record = Record::Session { project: "p".into(), id: child.id.clone() };
    change_head(&store, &ses("a"), |head| {
        (vec![put(record.clone(), &serde_json::to_value(&child).unwrap())], head.clone())
    });
    assert_eq!(store.children(&ses("a")).unwrap(), [child]);
}

#[test]
fn what_must_be_new_does_not_replace() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let id = ses("a");
    create(&store, &id);
    let run = store.take_run(&id, 0).unwrap();
    let ask = Record::Ask { session: id.clone(), id: "per_a".into() };
    run.commit(vec![Write::PutNew(ask.clone(), b"1".to_vec())]).unwrap();
    assert!(matches!(run.commit(vec![Write::PutNew(ask.clone(), b"2".to_vec())]), Err(StoreError::Exists)));
    assert_eq!(store.read(&ask).unwrap().unwrap(), b"1");
    assert_eq!(store.asks(&id).unwrap(), [b"1"]);
    run.commit(vec![Write::Remove(ask.clone()), Write::Remove(ask.clone())]).unwrap();
    assert_eq!(store.read(&ask).unwrap(), None);
    let left = std::fs::read_dir(dir.path().join("flotilla/guard/ses_a/run/1")).unwrap().count();
    assert_eq!(left, 0, "the guard's directory is left empty");
    for bad in ["../x", "a/b", ""] {
        let record = Record::Ask { session: id.clone(), id: bad.into() };
        assert!(run.commit(vec![Write::Put(record, vec![])]).is_err());
    }
}

#[test]
fn markers_come_and_go() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let (a, b) = (ses("a"), ses("b-1_x"));
    create(&store, &b);
    for (k, was_there) in [(1, false), (2, false), (3, false), (3, true)] {
        assert_eq!(store.put_marker(&a, k).unwrap(), was_there);
    }
    store.put_marker(&b, 1).unwrap();
    let deletion = Record::Deletion { session: b.clone() };
    change_head(&store, &b, |head| (vec![Write::Put(deletion.clone(), vec![])], head.clone()));
    store.remove_markers_upto(&a, 2).unwrap();
    store.remove_marker(&a, 9).unwrap();
    std::fs::write(dir.path().join("flotilla/open/none of ours"), "").unwrap();
    let mut markers = store.markers().unwrap();
    markers.sort_by_key(|marker| (marker.session.clone(), marker.ticket));
    let marker = |session: &wire::ids::SessionId, ticket| Marker { session: session.clone(), ticket };
    assert_eq!(markers, [marker(&a, Some(3)), marker(&b, None), marker(&b, Some(1))]);
    store.remove_deletion_marker(&b).unwrap();
    assert_eq!(store.markers().unwrap().len(), 2);
}

#[test]
fn a_deleted_session_leaves_a_tombstone_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let (id, other) = (ses("a"), ses("b"));
    for id in [&id, &other] {
        create(&store, id);
        let name = format!("m{}", &id.as_str()[4..]);
        change_head(&store, id, |head| {
            let (mut writes, head) = prompt(id, &name, head, 1);
            writes.push(put(Record::Todo { session: id.clone() }, &serde_json::json!([])));
            writes.push(put(Record::Diff { session: id.clone() }, &serde_json::json!([])));
            writes.push(put(Record::Ask { session: id.clone(), id: "per_a".into() }, &serde_json::json!({})));
            (writes, head)
        });
    }
    assert!(matches!(store.remove_session(&id), Err(StoreError::Live)));
    let state = |state| move |head: &Head| (vec![], Head { state, ..head.clone() });
    change_head(&store, &id, state(HeadState::Deleted));
    assert!(matches!(store.session(&id), Err(StoreError::Deleted)));
    assert!(matches!(store.messages(&id, None, None), Err(StoreError::Deleted)));
    store.remove_session(&id).unwrap();
    store.remove_session(&id).unwrap();
    change_head(&store, &id, state(HeadState::Removed));
    let guard = store.take_head(&id).unwrap();
    let head = Head { state: HeadState::Live, ..guard.head().clone() };
    assert!(matches!(guard.commit(vec![], head), Err(StoreError::Deleted)));
    assert!(matches!(store.create_session(&session(&id, 1), Head::new("p")), Err(StoreError::Exists)));
    let left = files(dir.path()).into_iter().filter(|path| path.contains("ses_a") || path.contains("msg_ma"));
    assert_eq!(left.collect::<Vec<_>>(), ["flotilla/guard/ses_a/head.json"]);
    assert_eq!(store.messages(&other, None, None).unwrap().items.len(), 1);
    assert_eq!(store.sessions(&SessionFilter::default()).unwrap().len(), 1);
}

fn files(root: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut open = vec![root.to_path_buf()];
    while let Some(directory) = open.pop() {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else {
                found.push(path.strip_prefix(root).unwrap().to_str().unwrap().to_owned());
            }
        }
    }
    found.sort();
    found
}

#[test]
fn tenants_do_not_see_each_other() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path().into(), Durability::Os, std::sync::Arc::new(Spread)).unwrap();
    let (one, two) = (store.tenant(&Tenant::parse("one").unwrap()), store.tenant(&Tenant::parse("two").unwrap()));
    assert_eq!(store.tenants().unwrap(), [Tenant::default()]);
    assert_eq!(two.sessions(&SessionFilter::default()).unwrap(), []);
    assert_eq!(two.markers().unwrap(), []);
    create(&one, &ses("a"));
    create(&two, &ses("a"));
    change_head(&one, &ses("a"), |head| prompt(&ses("a"), "m", head, 1));
    assert_eq!(store.tenants().unwrap().len(), 3);
    let outside = SessionFilter { project: Some("../../tenants/two/storage/session/p".into()), ..Default::default() };
    assert!(one.sessions(&outside).is_err());
    assert_eq!(one.messages(&ses("a"), None, None).unwrap().items.len(), 1);
    assert_eq!(two.messages(&ses("a"), None, None).unwrap().items.len(), 0);
    assert!(matches!(store.tenant(&Tenant::default()).session(&ses("a")), Err(StoreError::NotFound)));
    assert!(dir.path().join("tenants/one/storage/session/p/ses_a.json").exists());
}

#[test]
fn a_directory_serves_one_process_and_no_older_version() {
    let dir = tempfile::tempdir().unwrap();
    let open = || Store::open(dir.path().into(), Durability::Disk, std::sync::Arc::new(Spread));
    let (one, two) = (open().unwrap(), open().unwrap());
    let lock = one.lock_directory().unwrap();
    assert!(matches!(two.lock_directory(), Err(StoreError::Locked(_))));
    drop(lock);
    two.lock_directory().unwrap();
    one.probe().unwrap();
    std::fs::write(dir.path().join("flotilla/format"), "2\n").unwrap();
    let error = open().err().unwrap();
    assert!(matches!(error, StoreError::NewerFormat { found: 2, known: 1, .. }));
    assert_eq!(error.to_string().lines().count(), 1);
}

#[test]
fn damage_is_named_and_does_not_hide_other_sessions() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    create(&store, &ses("a"));
    create(&store, &ses("b"));
    std::fs::write(dir.path().join("storage/session/p/ses_a.json"), "{\"id\":").unwrap();
    let error = store.session(&ses("a")).unwrap_err();
    assert!(matches!(&error, StoreError::Corrupt { path, .. } if path.ends_with("ses_a.json")), "{error}");
    assert_eq!(store.sessions(&SessionFilter::default()).unwrap().len(), 1);
    std::fs::write(dir.path().join("flotilla/guard/ses_b/head.json"), "{}").unwrap();
    assert!(matches!(store.head(&ses("b")), Err(StoreError::Corrupt { .. })));
}

#[test]
fn a_torn_part_of_an_unfinished_message_hides_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let id = ses("a");
    create(&store, &id);
    change_head(&store, &id, |head| prompt(&id, "m1", head, 100));
    let run = store.take_run(&id, 0).unwrap();
    let answer = msg("a2");
    run.commit(vec![assistant_message(&id, &answer, 200, None)]).unwrap();
    run.commit_lightly(vec![text_part(&id, &answer, &prt("x"), "kept"), text_part(&id, &answer, &prt("y"), "torn")])
        .unwrap();
    // What a power cut may leave of a light commit.
    std::fs::write(dir.path().join("storage/part/msg_a2/prt_y.json"), "").unwrap();
    let cold = open(dir.path());
    let parts = &cold.messages(&id, None, None).unwrap().items[1].parts;
    assert_eq!(parts.len(), 1);
    assert_eq!(parts[0].text().unwrap().text, "kept");
    // Once the message is finished its parts are durable: damage is told.
    run.commit(vec![assistant_message(&id, &answer, 200, Some(201))]).unwrap();
    assert!(matches!(open(dir.path()).messages(&id, None, None), Err(StoreError::Corrupt { .. })));
}

/// What a replica left of it that died before the head was read by others, under the time that it had then.
#[test]
fn a_prompt_that_is_stored_again_is_read_at_its_new_place() {
    for commits_in_between in [0, 40] {
        let dir = tempfile::tempdir().unwrap();
        let (here, there) = (open(dir.path()), open(dir.path()));
        let id = ses("a");
        create(&here, &id);
        let run = here.take_run(&id, 0).unwrap();
        let answer = |name: &str, created| {
            run.commit(vec![assistant_message(&id, &msg(name), created, Some(created))]).unwrap();
        };
        change_head(&here, &id, |head| prompt(&id, "m1", head, 1));
        // A prompt's beginning, and no head that says so.
        run.commit(vec![text_part(&id, &msg("m2"), &prt("m2"), "hello"), user_message(&id, &msg("m2"), 2)]).unwrap();
        answer("m3", 3);
        assert_eq!(there.messages(&id, None, None).unwrap().items.len(), 3);
        answer("m4", 4);
        change_head(&here, &id, |head| prompt(&id, "m2", head, 5));
        for _ in 0..commits_in_between {
            change_head(&here, &id, |head| (vec![], head.clone()));
        }
        let (mut names, mut before) = (Vec::new(), None);
        loop {
            let page = there.messages(&id, Some(2), before).unwrap();
            names.splice(0..0, page.items.iter().map(|item| item.info.id().to_string()));
            before = page.next;
            if before.is_none() {
                break;
            }
        }
        assert_eq!(names, ["msg_m1", "msg_m3", "msg_m4", "msg_m2"], "{commits_in_between} commits later");
    }
}

/// As what a prompt left that broke off before the directory of its message was made.
#[test]
fn what_lies_nowhere_is_removed_on_a_disk_that_is_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path().into(), Durability::Disk, std::sync::Arc::new(Spread)).unwrap();
    let (store, id) = (store.tenant(&Tenant::default()), ses("a"));
    create(&store, &id);
    let gone = || Write::Remove(Record::Message { session: id.clone(), id: msg("gone") });
    let head = change_head(&store, &id, |head| (vec![gone()], head.clone()));
    // With what is made visible behind it, in the same directory.
    change_head(&store, &id, |head| {
        let (mut writes, head) = prompt(&id, "m1", head, 1);
        let Some(Write::Put(message, body)) = writes.pop() else { panic!("a message is put") };
        ([vec![gone()], writes, vec![Write::Reveal(message, body)]].concat(), head)
    });
    assert_eq!(store.head(&id).unwrap().rev, head.rev + 1);
    assert_eq!(store.messages(&id, None, None).unwrap().items.len(), 1);
}
