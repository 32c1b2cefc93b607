//! What the store's tests share: stores on real directories, records, entropy.

#![allow(dead_code)]

use run_protocol::Head;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use storage::{Durability, Record, Store, StoreError, TenantStore, Write};
use wire::clock::Entropy;
use wire::ids::{MessageId, PartId, SessionId};
use wire::session::Session;
use wire::tenant::Tenant;

/// A counter that is spread over 64 bits; no two of a test process give the same bits, as no two replicas' do.
#[derive(Default)]
pub struct Spread;

static DRAWN: AtomicU64 = AtomicU64::new(0);

impl Entropy for Spread {
    fn bits(&self) -> u64 {
        (DRAWN.fetch_add(1, Ordering::Relaxed) + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(31)
    }
}

pub fn open(root: &Path) -> TenantStore {
    Store::open(root.into(), Durability::Os, Arc::new(Spread)).unwrap().tenant(&Tenant::default())
}

pub fn ses(name: &str) -> SessionId {
    SessionId::parse(&format!("ses_{name}")).unwrap()
}

pub fn msg(name: &str) -> MessageId {
    MessageId::parse(&format!("msg_{name}")).unwrap()
}

pub fn prt(name: &str) -> PartId {
    PartId::parse(&format!("prt_{name}")).unwrap()
}

pub fn session(id: &SessionId, updated: u64) -> Session {
    serde_json::from_value(serde_json::json!({
        "id": id, "projectID": "p", "directory": "/w", "title": format!("Title of {id}"),
        "time": {"created": updated, "updated": updated},
    }))
    .unwrap()
}

pub fn user_message(session: &SessionId, id: &MessageId, created: u64) -> Write {
    let record = serde_json::json!({
        "id": id, "sessionID": session, "role": "user", "time": {"created": created}, "agent": "build",
        "model": {"providerID": "p", "modelID": "m"},
    });
    put(Record::Message { session: session.clone(), id: id.clone() }, &record)
}

pub fn assistant_message(session: &SessionId, id: &MessageId, created: u64, completed: Option<u64>) -> Write {
    let mut record = serde_json::json!({
        "id": id, "sessionID": session, "role": "assistant", "parentID": "msg_parent", "mode": "build",
        "agent": "build", "modelID": "m", "providerID": "p", "path": {"cwd": "/w", "root": "/w"}, "cost": 0.0,
        "tokens": {"input": 0, "output": 0, "reasoning": 0, "cache": {"read": 0, "write": 0}},
        "time": {"created": created},
    });
    if let Some(completed) = completed {
        record["time"]["completed"] = completed.into();
    }
    put(Record::Message { session: session.clone(), id: id.clone() }, &record)
}

pub fn text_part(session: &SessionId, message: &MessageId, id: &PartId, text: &str) -> Write {
    let record = serde_json::json!({
        "id": id, "sessionID": session, "messageID": message, "type": "text", "text": text,
    });
    put(Record::Part { message: message.clone(), id: id.clone() }, &record)
}

pub fn ticket(session: &SessionId, message: &MessageId, k: u64) -> Write {
    let record = Record::Ticket { session: session.clone(), message: message.clone() };
    put(record, &serde_json::json!({"k": k, "body_hash": "hash", "kind": "prompt"}))
}

pub fn put(record: Record, value: &serde_json::Value) -> Write {
    Write::Put(record, serde_json::to_vec(value).unwrap())
}

/// Makes a live session with one project and no work.
pub fn create(store: &TenantStore, id: &SessionId) {
    store.create_session(&session(id, 1), Head::new("p")).unwrap();
}

/// The writes of a prompt: its part, ticket and message; and the head that gives out the ticket.
pub fn prompt(session: &SessionId, name: &str, head: &Head, created: u64) -> (Vec<Write>, Head) {
    let (message, mut head) = (msg(name), head.clone());
    let k = head.issue();
    let writes = vec![
        text_part(session, &message, &prt(name), "hello"),
        ticket(session, &message, k),
        user_message(session, &message, created),
    ];
    (writes, head)
}

/// One head commit, as a caller makes it that has no lock: taken and read again until it lands.
pub fn change_head(store: &TenantStore, session: &SessionId, change: impl Fn(&Head) -> (Vec<Write>, Head)) -> Head {
    let mut wait = std::time::Duration::from_micros(100);
    for _ in 0..10_000 {
        let result = store.take_head(session).and_then(|guard| {
            let (writes, head) = change(guard.head());
            guard.commit(writes, head)
        });
        match result {
            Ok(head) => return head,
            Err(StoreError::Fenced | StoreError::Contended { .. }) => {
                let share = Spread.bits() % 1_000;
                std::thread::sleep(wait * share as u32 / 1_000);
                wait = (wait * 2).min(std::time::Duration::from_millis(20));
            }
            Err(error) => panic!("{error}"),
        }
    }
    panic!("the guard was never ours");
}
