//! What must hold once the faults have stopped and time has run on.

use crate::acts::{ACT, Acts};
use crate::clients::{Aborted, Asked, Known, Pages, text_of};
use crate::deciders::Replied;
use crate::fleet::Fleet;
use crate::model::ANSWER;
use crate::readers::Reader;
use crate::requests::Request;
use run_protocol::HeadState;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use storage::{Record, SessionFilter, StoreError, TenantStore};
use wire::ids::{MessageId, SessionId};
use wire::message::{Message, MessageWithParts};
use wire::part::{PartKind, ToolState};
use wire::permission::{Action, PermissionRequest, Reply, Rule};
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
    if open.is_empty() && !pages.replies.is_empty() {
        for place in 0..fleet.size() {
            let request = Request::get("/permission");
            let asks = fleet.ask(place, |replica| async move { request.send(&replica, "look", &|| {}).await });
            let asks = asks.await.ok().and_then(Result::ok).map(|answer| answer.body).unwrap_or_default();
            let asks: Vec<PermissionRequest> = serde_json::from_slice(&asks).unwrap_or_default();
            open.extend(asks.iter().map(|ask| format!("{} is listed at {place}", ask.id)));
        }
    }
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
                check_answers(&store, known, pages, &mut broken)?;
                let aborted = pages.aborted.iter().filter(|aborted| aborted.session == known.id);
                check_aborted(&store, known, &aborted.collect::<Vec<_>>(), &fleet.acts, &mut broken)?;
                check_acts(&store, known, &pages.replies, &fleet.acts, &mut broken)?;
            }
            _ if !known.is_condemned => broken.push(format!("{} is gone, and nobody wanted that", known.id)),
            _ => check_deleted(&store, known, &asked, &mut broken)?,
        }
    }
    check_approvals(&store, &pages.replies, &mut broken)?;
    let mut titles = BTreeSet::new();
    let sessions = store.sessions(&SessionFilter::default())?.into_iter();
    let twice = sessions.filter(|session| !titles.insert(session.title.clone()));
    broken.extend(twice.map(|session| format!("{} was asked for once and made twice", session.id)));
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

/// How much later than an abort an answer may have been created that had begun before: each message of a session is given a
/// time after the one before.
const BEGUN_BEFORE_MS: u64 = 100;

/// No answer to a prompt was begun once an abort of it was acknowledged, nor an effect of a call in one.
fn check_aborted(
    store: &TenantStore,
    known: &Known,
    aborted: &[&Aborted],
    acts: &Acts,
    broken: &mut Vec<String>,
) -> Result<(), StoreError> {
    for item in store.messages(&known.id, None, None)?.items {
        let Some(said) = item.info.assistant() else { continue };
        let begun = Some(said.time.created).filter(|_| said.error.is_none());
        let calls = item.parts.iter().filter_map(|part| part.tool());
        let begun = begun.into_iter().chain(calls.flat_map(|call| acts.of(&call.call_id)));
        let Some(begun) = begun.max() else { continue };
        let mut of_it = aborted.iter().filter(|aborted| aborted.stopped.contains(&said.parent_id));
        if let Some(Aborted { at, .. }) = of_it.find(|aborted| begun > aborted.at + BEGUN_BEFORE_MS) {
            broken.push(format!("{} was begun at {begun} for what was aborted at {at}", said.id));
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
        let same = items.iter().filter(|item| item.info.user().is_some() && text_of(item) == asked.text).count();
        if same != 1 {
            broken.push(format!("{:?} was asked once and is there {same} times", asked.text));
        }
        if asked.k.is_none() || tickets.get(&asked.message) != asked.k.as_ref() {
            broken.push(format!("{} has another ticket than it was given", asked.message));
        }
        let place = items.iter().position(|item| *item.info.id() == asked.message).unwrap_or_default();
        let answered =
            |item: &MessageWithParts| item.info.assistant().is_some_and(|said| said.time.completed.is_some());
        if !known.is_aborted && !items[place..].iter().any(answered) {
            broken.push(format!("{} was never answered", asked.message));
        }
    }
    if let Some(last) = items.last().filter(|last| !known.is_aborted && !is_end(last)) {
        broken.push(format!("{} ends with {}", known.id, last.info.id()));
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

/// What prompts were answered with is what is stored.
fn check_answers(
    store: &TenantStore,
    known: &Known,
    pages: &Pages,
    broken: &mut Vec<String>,
) -> Result<(), StoreError> {
    for (_, answer) in pages.answers.iter().filter(|(session, _)| *session == known.id) {
        let is_complete = answer.info.assistant().is_some_and(|said| said.time.completed.is_some());
        let stored = store.message(&known.id, answer.info.id());
        if is_complete && stored.as_ref().ok() != Some(answer) {
            broken.push(format!("{} was answered as {answer:?} and is {stored:?}", answer.info.id()));
        }
    }
    Ok(())
}

/// What people said no to without more words ends a turn.
const REJECTED: &str = "The user rejected";

/// True for what a turn may end with that nobody stopped.
fn is_end(message: &MessageWithParts) -> bool {
    let is_rejected = message.parts.iter().filter_map(|part| part.tool()).any(|call| is_rejected(&call.state));
    message.info.assistant().is_some_and(|said| said.finish.as_deref() == Some("stop") || said.error.is_some())
        || is_rejected
}

fn is_rejected(state: &ToolState) -> bool {
    matches!(state, ToolState::Error { error, .. } if error.starts_with(REJECTED))
}

/// Each call has ended. It took effect once at most, and only if it may; what its people were told is so.
fn check_acts(
    store: &TenantStore,
    known: &Known,
    replies: &[Replied],
    acts: &Acts,
    broken: &mut Vec<String>,
) -> Result<(), StoreError> {
    if !store.asks(&known.id)?.is_empty() {
        broken.push(format!("asks are left of {}", known.id));
    }
    let items = store.messages(&known.id, None, None)?.items;
    for part in items.iter().flat_map(|item| &item.parts) {
        let PartKind::Tool(call) = &part.kind else { continue };
        let id = &call.call_id;
        let effects = acts.of(id).len();
        if effects > 1 {
            broken.push(format!("{id} took effect {effects} times"));
        }
        let input = match &call.state {
            ToolState::Completed { input, .. } | ToolState::Error { input, .. } => input,
            ToolState::Pending { .. } | ToolState::Running { .. } => {
                broken.push(format!("{id} of {} never ended", part.message_id));
                continue;
            }
        };
        let is_done = matches!(call.state, ToolState::Completed { .. });
        if call.tool != ACT || (is_done && input["reads"] != true && effects == 0) {
            broken.push(format!("{id} is told as done and was not: {:?}", call.state));
        }
        let of_it = |replied: &&Replied| replied.request.tool.as_ref().is_some_and(|tool| tool.call_id == *id);
        let mut allowed = replies.iter().filter(|replied| match replied.reply {
            Reply::Once => of_it(replied),
            Reply::Always => replied.request.patterns.iter().any(|on| input["on"] == **on),
            Reply::Reject => false,
        });
        if input["asks"] == true && (is_done || effects > 0) && allowed.next().is_none() {
            broken.push(format!("{id} was done, and nobody allowed it"));
        }
        let given: Vec<Reply> =
            replies.iter().filter(of_it).filter(|replied| replied.is_given).map(|replied| replied.reply).collect();
        let is_rejected = is_rejected(&call.state);
        match given[..] {
            [] => {}
            [Reply::Reject] if !is_done && effects == 0 => {}
            [Reply::Once | Reply::Always] if !is_rejected => {}
            _ => broken.push(format!("{id} was replied to with {given:?}, and is {:?}", call.state)),
        }
    }
    Ok(())
}

/// What was allowed for good is.
fn check_approvals(store: &TenantStore, replies: &[Replied], broken: &mut Vec<String>) -> Result<(), StoreError> {
    for replied in replies.iter().filter(|replied| replied.is_given && replied.reply == Reply::Always) {
        let Ok(session) = store.session(&replied.request.session_id) else { continue };
        let approved = store.read(&Record::Approvals { project: session.project_id })?.unwrap_or_default();
        let approved: Vec<Rule> = serde_json::from_slice(&approved).unwrap_or_default();
        if !replied.request.always.iter().all(|on| approved.contains(&Rule::new(ACT, on, Action::Allow))) {
            broken.push(format!("{} was allowed for good, and is not", replied.request.id));
        }
    }
    Ok(())
}
