//! Sessions that OpenCode 1.1 left: served as they stand.

#![allow(clippy::unwrap_used)]

mod support;

use run_protocol::Head;
use std::path::Path;
use storage::{Record, SessionFilter, StoreError, TenantStore};
use support::*;

const SESSION: &str = r#"{
  "id": "ses_old",
  "slug": "calm-river",
  "version": "1.1.65",
  "projectID": "abc",
  "directory": "/srv/w",
  "title": "t",
  "time": {
    "created": 1795351892431,
    "updated": 1795351893737
  },
  "summary": {
    "additions": 0,
    "deletions": 0,
    "files": 0
  },
  "later": [1]
}"#;

const MESSAGE: &str = r#"{
  "id": "msg_old",
  "sessionID": "ses_old",
  "role": "user",
  "time": {
    "created": 1795351892975
  },
  "summary": { "title": "word", "diffs": [] },
  "agent": "build",
  "model": { "providerID": "fake", "modelID": "m" },
  "later": { "x": null }
}"#;

const PART: &str = r#"{
  "id": "prt_old",
  "sessionID": "ses_old",
  "messageID": "msg_old",
  "type": "text",
  "text": "hello"
}"#;

fn old_data(root: &Path) -> TenantStore {
    let files =
        [("session/abc/ses_old", SESSION), ("message/ses_old/msg_old", MESSAGE), ("part/msg_old/prt_old", PART)];
    for (name, text) in files {
        let path = root.join("storage").join(format!("{name}.json"));
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    std::fs::write(root.join("storage/migration"), "2").unwrap();
    open(root)
}

fn as_it_was(root: &Path, names: &[(&str, &str)]) {
    for (name, text) in names {
        assert_eq!(std::fs::read_to_string(root.join("storage").join(format!("{name}.json"))).unwrap(), *text);
    }
}

#[test]
fn it_is_read_without_being_touched() {
    let dir = tempfile::tempdir().unwrap();
    let store = old_data(dir.path());
    let id = ses("old");
    assert_eq!(store.sessions(&SessionFilter::default()).unwrap(), [store.session(&id).unwrap()]);
    assert_eq!(store.head(&id).unwrap(), Head::new("abc"));
    assert_eq!(store.run_number(&id).unwrap(), 0);
    let page = store.messages(&id, None, None).unwrap();
    assert_eq!(page.items[0].parts[0].text().unwrap().text, "hello");
    assert_eq!(
        serde_json::to_value(&page.items[0].info).unwrap(),
        serde_json::from_str::<serde_json::Value>(MESSAGE).unwrap()
    );
    assert!(!dir.path().join("flotilla/guard/ses_old").exists());
    as_it_was(
        dir.path(),
        &[("session/abc/ses_old", SESSION), ("message/ses_old/msg_old", MESSAGE), ("part/msg_old/prt_old", PART)],
    );
}

#[test]
fn its_first_write_gives_it_a_guard_and_touches_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let store = old_data(dir.path());
    let id = ses("old");
    let head = change_head(&store, &id, |head| {
        let mut session = store.session(&id).unwrap();
        session.title = "new".into();
        let record = Record::Session { project: head.project.clone(), id: id.clone() };
        (vec![put(record, &serde_json::to_value(session).unwrap())], head.clone())
    });
    assert_eq!(head.clock, 1795351892975, "a new message comes after the old ones");
    assert_eq!(store.take_run(&id, 0).unwrap().fence().0, 1);
    let session = store.session(&id).unwrap();
    assert_eq!((session.title.as_str(), &session.extra["later"]), ("new", &serde_json::json!([1])));
    as_it_was(dir.path(), &[("message/ses_old/msg_old", MESSAGE), ("part/msg_old/prt_old", PART)]);
}

#[test]
fn many_adopt_it_at_once_and_agree() {
    for _ in 0..20 {
        let dir = tempfile::tempdir().unwrap();
        old_data(dir.path());
        let id = ses("old");
        let won: usize = std::thread::scope(|scope| {
            let takers: Vec<_> = (0..4)
                .map(|_| {
                    let (store, id) = (open(dir.path()), &id);
                    scope.spawn(move || match store.take_run(id, 0) {
                        Ok(_) => 1,
                        Err(StoreError::Fenced) => 0,
                        Err(error) => panic!("{error}"),
                    })
                })
                .collect();
            takers.into_iter().map(|taker| taker.join().unwrap()).sum()
        });
        assert_eq!(won, 1);
    }
}

#[test]
fn one_that_vanished_before_it_was_adopted_is_not_found() {
    let dir = tempfile::tempdir().unwrap();
    let store = old_data(dir.path());
    std::fs::remove_file(dir.path().join("storage/session/abc/ses_old.json")).unwrap();
    assert!(matches!(store.take_head(&ses("old")), Err(StoreError::NotFound)));
    assert!(matches!(store.take_run(&ses("old"), 0), Err(StoreError::NotFound)));
    let left = Record::Message { session: ses("old"), id: msg("old") };
    assert_eq!(store.read(&left).unwrap().unwrap(), MESSAGE.as_bytes());
}
