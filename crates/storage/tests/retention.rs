//! What is kept for a while only goes afterwards, and nothing else goes with it.

#![allow(clippy::unwrap_used)]

mod support;

use run_protocol::{Head, HeadState, TicketAnswer};
use std::path::Path;
use std::time::{Duration, SystemTime};
use storage::Record;
use support::{change_head, create, msg, open, prompt, ses};

const HOUR: Duration = Duration::from_secs(3_600);

fn age(path: &Path, age: Duration) {
    std::fs::File::open(path).unwrap().set_modified(SystemTime::now() - age).unwrap();
}

fn name(store: &storage::TenantStore, hash: &str, session: &str) {
    let record = serde_json::to_vec(&serde_json::json!({"session": ses(session)})).unwrap();
    store.put_if_absent(&Record::Key { hash: hash.into() }, &record).unwrap();
}

#[test]
fn names_and_tickets_go_a_day_after_they_are_settled() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    for session in ["idle", "busy"] {
        create(&store, &ses(session));
        change_head(&store, &ses(session), |head| prompt(&ses(session), session, head, 1));
        name(&store, &format!("aa{session}"), session);
        name(&store, &format!("ab{session}"), session);
    }
    change_head(&store, &ses("idle"), |head| {
        let mut head = head.clone();
        head.settle(1, TicketAnswer::Dropped);
        (Vec::new(), head)
    });
    let files = directory.path().join("flotilla");
    let old = HOUR * 25;
    for session in ["idle", "busy"] {
        age(&files.join(format!("key/aa/aa{session}.json")), old);
        age(&files.join(format!("key/ab/ab{session}.json")), HOUR * 23);
        age(&files.join(format!("ticket/ses_{session}/msg_{session}.json")), old);
    }
    assert_eq!(store.remove_old().unwrap(), 2);
    let is_there = |path: String| files.join(path).exists();
    assert!(!is_there("key/aa/aaidle.json".into()) && !is_there("ticket/ses_idle/msg_idle.json".into()));
    assert!(is_there("key/aa/aabusy.json".into()) && is_there("ticket/ses_busy/msg_busy.json".into()), "still at work");
    assert!(is_there("key/ab/abidle.json".into()) && is_there("key/ab/abbusy.json".into()), "too young");
    assert!(store.message(&ses("idle"), &msg("idle")).is_ok(), "the conversation stays");
}

#[test]
fn tombstones_and_outputs_go_after_a_week_and_leftovers_after_a_day() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let end = |session: &str, state: HeadState| {
        change_head(&store, &ses(session), |head| (Vec::new(), Head { state, ..head.clone() }));
    };
    for session in ["removed", "fresh", "live"] {
        create(&store, &ses(session));
    }
    for session in ["removed", "fresh"] {
        end(session, HeadState::Deleted);
        store.remove_session(&ses(session)).unwrap();
        end(session, HeadState::Removed);
    }
    let files = directory.path().join("flotilla");
    for session in ["removed", "live"] {
        age(&files.join(format!("guard/ses_{session}/head.json")), HOUR * 24 * 8);
    }
    std::fs::create_dir_all(directory.path().join("tool-output")).unwrap();
    for (output, days) in [("old", 8), ("young", 6)] {
        let path = directory.path().join("tool-output").join(output);
        std::fs::write(&path, "x").unwrap();
        age(&path, HOUR * 24 * days);
    }
    std::fs::create_dir_all(files.join("new/half/run")).unwrap();
    age(&files.join("new/half"), HOUR * 25);
    assert_eq!(store.remove_old().unwrap(), 3);
    let is_there = |path: &str| directory.path().join(path).exists();
    assert!(!is_there("flotilla/guard/ses_removed") && !is_there("tool-output/old") && !is_there("flotilla/new/half"));
    assert!(is_there("flotilla/guard/ses_fresh") && is_there("tool-output/young"));
    assert!(store.session(&ses("live")).is_ok());
    assert_eq!(store.remove_old().unwrap(), 0);
}

#[test]
fn an_answer_that_was_recorded_goes_with_its_name() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    store.put_if_absent(&Record::Answer { hash: "aa01".into() }, b"true").unwrap();
    age(&directory.path().join("flotilla/key/aa/aa01.answer.json"), HOUR * 25);
    assert_eq!(store.remove_old().unwrap(), 1);
}

#[test]
fn a_large_event_is_read_in_pieces_and_goes_after_an_hour() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let name = store.keep_event(b"0123456789", None).unwrap();
    assert_eq!(store.event_piece(&name, 0, 4).unwrap().unwrap(), b"0123");
    assert_eq!(store.event_piece(&name, 8, 4).unwrap().unwrap(), b"89");
    assert_eq!(store.event_piece(&name, 10, 4).unwrap().unwrap(), b"");
    assert!(store.event_piece("../format", 0, 4).is_err());
    age(&directory.path().join(format!("flotilla/event/{name}.json")), HOUR - Duration::from_secs(60));
    assert_eq!(store.remove_old().unwrap(), 0);
    age(&directory.path().join(format!("flotilla/event/{name}.json")), HOUR + Duration::from_secs(60));
    assert_eq!(store.remove_old().unwrap(), 1);
    assert_eq!(store.event_piece(&name, 0, 4).unwrap(), None);
}

#[test]
fn a_large_event_of_a_session_is_kept_for_as_long_as_that_is_at_work() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let session = ses("busy");
    create(&store, &session);
    change_head(&store, &session, |head| prompt(&session, "busy", head, 1));
    let name = store.keep_event(b"asked", Some(&session)).unwrap();
    age(&directory.path().join(format!("flotilla/event/{name}.json")), HOUR * 30);
    assert_eq!(store.remove_old().unwrap(), 0);
    assert_eq!(store.event_piece(&name, 0, 9).unwrap().unwrap(), b"asked");
    change_head(&store, &session, |head| {
        let mut head = head.clone();
        head.settle(1, TicketAnswer::Dropped);
        (Vec::new(), head)
    });
    assert_eq!(store.remove_old().unwrap(), 1);
}
