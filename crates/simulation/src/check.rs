//! What must hold once the faults have stopped and time has run on.

use crate::clients::{Aborted, Asked, Known, Pages};
use crate::fleet::Fleet;
use crate::model::ANSWER;
use crate::readers::Reader;
use run_protocol::HeadState;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use storage::{StoreError, TenantStore};
use wire::ids::{MessageId, SessionId};
use wire::message::{Message, MessageWithParts};
use wire::tenant::Tenant;

/// What still has to happen before everything can be looked at: nothing, if all work is done.
pub(crate) async fn unfinished(fleet: &Fleet, pages: &Pages) -> Result<Vec<String>, StoreError> {
    let store = fleet.store()?.tenant(&Tenant::default());
    let mut open: Vec<String> = Vec::new();
    for Known { id, .. } in &pages.sessions {
        let head = store.head(id)?;
        let is_done = match head.state {
            HeadState::Live => head.settled == head.issued,
            HeadState::Removed => true,
            _ => false,
        };
        if !is_done {
            open.push(format!("{id} is open: {:?}, {} of {} settled", head.state, head.settled, head.issued));
        }
    }
    open.extend(store.markers()?.iter().map(|marker| format!("{} has a marker: {:?}", marker.session, marker.ticket)));
    let statuses = fleet.memory.ports().leases.statuses(&Tenant::default()).await.unwrap_or_default();
    let busy: BTreeSet<SessionId> = statuses.into_keys().collect();
    open.extend(busy.iter().map(|id| format!("{id} has a lease")));
    Ok(open)
}

/// All that does not hold.
pub(crate) fn broken(fleet: &Fleet, pages: &Pages, readers: &[Arc<Reader>]) -> Result<Vec<String>, StoreError> {
    let mut broken = pages.broken.clone();
    broken.extend(fleet.holders.broken());
    broken.extend(fleet.chronicle.broken());
    let store = fleet.store()?.tenant(&Tenant::default());
    let mut live = Vec::new();
    for known in &pages.sessions {
        let asked: Vec<&Asked> = pages.asked.iter().filter(|asked| asked.session == known.id).collect();
        match store.head(&known.id)?.state {
            HeadState::Live if known.is_deleted => broken.push(format!("{} was deleted and lives", known.id)),
            HeadState::Live => {
                live.push(known.id.clone());
                check_session(&store, known, &asked, &mut broken)?;
                let aborted = pages.aborted.iter().filter(|aborted| aborted.session == known.id);
                check_aborted(&store, known, &aborted.collect::<Vec<_>>(), &mut broken)?;
            }
            _ if !known.is_condemned => broken.push(format!("{} is gone, and nobody wanted that", known.id)),
            _ => check_deleted(&store, known, &asked, &mut broken)?,
        }
    }
    let told = fleet.chronicle.view().differs(&store, &live, fleet.chronicle.end().1 == 0)?;
    broken.extend(told.into_iter().map(|what| format!("the log: {what}")));
    for reader in readers {
        let (told, view) = reader.told();
        broken.extend(told);
        let differs = view.differs(&store, &live, false)?;
        broken.extend(differs.into_iter().map(|what| format!("reader {}: {what}", reader.number)));
    }
    Ok(broken)
}

/// Nothing of a deleted session is there.
fn check_deleted(
    store: &TenantStore,
    known: &Known,
    asked: &[&Asked],
    broken: &mut Vec<String>,
) -> Result<(), StoreError> {
    if !matches!(store.session(&known.id), Err(StoreError::NotFound | StoreError::Deleted)) {
        broken.push(format!("{} was deleted and is read", known.id));
    }
    for asked in asked {
        if store.message_exists(&asked.message)?.is_some() || !store.parts(&asked.message)?.is_empty() {
            broken.push(format!("{} is left of a deleted session", asked.message));
        }
    }
    if !store.tickets(&known.id)?.is_empty() {
        broken.push(format!("tickets are left of {}", known.id));
    }
    Ok(())
}

fn text_of(message: &MessageWithParts) -> String {
    message.parts.iter().filter_map(|part| part.text()).map(|text| text.text.as_str()).collect()
}

/// How much later than an abort an answer may have been created that had begun before: each message of a session is given a
/// time after the one before.
const BEGUN_BEFORE_MS: u64 = 100;

/// No answer to a prompt was begun once an abort of it was acknowledged.
fn check_aborted(
    store: &TenantStore,
    known: &Known,
    aborted: &[&Aborted],
    broken: &mut Vec<String>,
) -> Result<(), StoreError> {
    for item in store.messages(&known.id, None, None)?.items {
        let Some(said) = item.info.assistant().filter(|said| said.error.is_none()) else { continue };
        let late = |aborted: &&&Aborted| said.time.created > aborted.at + BEGUN_BEFORE_MS;
        if let Some(Aborted { at, .. }) =
            aborted.iter().filter(|aborted| aborted.stopped.contains(&said.parent_id)).find(late)
        {
            broken.push(format!("{} was begun at {} for what was aborted at {at}", said.id, said.time.created));
        }
    }
    Ok(())
}

/// Each acknowledged prompt is there once, whole and settled once; each answer is of one prompt and whole.
fn check_session(
    store: &TenantStore,
    known: &Known,
    asked: &[&Asked],
    broken: &mut Vec<String>,
) -> Result<(), StoreError> {
    let (head, items) = (store.head(&known.id)?, store.messages(&known.id, None, None)?.items);
    let tickets: BTreeMap<MessageId, u64> =
        store.tickets(&known.id)?.into_iter().map(|(message, ticket)| (message, ticket.k)).collect();
    let numbers: BTreeSet<u64> = tickets.values().copied().collect();
    if numbers.len() != tickets.len() || numbers.last().is_some_and(|k| *k > head.issued) {
        broken.push(format!("{} gave out {} and has the tickets {tickets:?}", known.id, head.issued));
    }
    let texts: BTreeMap<&MessageId, String> = items.iter().map(|item| (item.info.id(), text_of(item))).collect();
    for asked in asked {
        let times = items.iter().filter(|item| *item.info.id() == asked.message).count();
        let text = texts.get(&asked.message);
        if times != 1 || text != Some(&asked.text) {
            broken.push(format!("{} is there {times} times and says {text:?}", asked.message));
        }
        if tickets.get(&asked.message) != Some(&asked.k) {
            broken.push(format!("{} has another ticket than it was given", asked.message));
        }
        let place = items.iter().position(|item| *item.info.id() == asked.message).unwrap_or_default();
        let answered =
            |item: &MessageWithParts| item.info.assistant().is_some_and(|said| said.time.completed.is_some());
        if !known.is_aborted && !items[place..].iter().any(answered) {
            broken.push(format!("{} was never answered", asked.message));
        }
    }
    let mut answers: BTreeMap<&MessageId, u64> = BTreeMap::new();
    for item in &items {
        let Message::Assistant(said) = &item.info else { continue };
        if said.time.completed.is_none() {
            broken.push(format!("{} was never completed", said.id));
        }
        if !items.iter().take_while(|before| *before.info.id() != said.id).any(|it| *it.info.id() == said.parent_id) {
            broken.push(format!("{} does not stand behind {}, which it answers", said.id, said.parent_id));
        }
        if said.finish.as_deref() != Some("stop") || said.error.is_some() {
            continue;
        }
        *answers.entry(&said.parent_id).or_default() += 1;
        let whole = texts.get(&said.parent_id).map(|text| format!("{ANSWER}{text}"));
        if whole.as_ref() != texts.get(&said.id) {
            broken.push(format!("{} is not the answer to {}: {:?}", said.id, said.parent_id, texts.get(&said.id)));
        }
    }
    let twice = answers.iter().filter(|(_, times)| **times > 1);
    broken.extend(twice.map(|(prompt, times)| format!("{prompt} was answered {times} times")));
    Ok(())
}
