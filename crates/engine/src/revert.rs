//! Reverts: a conversation goes back to one of its messages, and with it the files that were changed since.
//!
//! A revert is decided under the head guard: a plan is stored that names every file, and an intent in the head that has a
//! ticket. Whoever takes the session over carries it out before anything else (see [`finish`]). The messages stay until the
//! next prompt, whose commit removes them.

mod finish;

use crate::api::{EngineError, RequestName};
use crate::commit::{Committer, Decision, Under, body};
use crate::edits::recount;
use crate::engine::Engine;
use crate::named::Acting;
use crate::prompt::never_given_out;
use crate::run::message_record;
use crate::snapshots::patch_of;
use coordination::SessionKey;
use run_protocol::{Head, Intent, IntentKind};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;
use storage::{Record, TenantStore, Write};
use tokio::time::Instant;
use wire::event::Happened;
use wire::ids::{MessageId, PartId, SessionId};
use wire::message::MessageWithParts;
use wire::part::PartKind;
use wire::session::{Revert, Session};
use wire::tenant::Tenant;

/// How long a prompt waits for a revert that is under way.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often it, and whoever asked for the revert, look at the store by themselves.
const LOOK: Duration = Duration::from_secs(1);

/// What a revert does with files, as it is stored.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Plan {
    /// The root of the work tree.
    root: PathBuf,
    /// The work tree before the first revert, once it was taken: an unrevert goes back there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    before: Option<String>,
    /// For each file, by its absolute path, the snapshot that says what it is to be.
    files: BTreeMap<String, String>,
    /// Where the conversation goes back to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    point: Option<Point>,
}

/// A place in a conversation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Point {
    message: MessageId,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    part: Option<PartId>,
}

/// What a prompt's commit removes of a reverted conversation.
pub(crate) struct Cleanup {
    pub writes: Vec<Write>,
    /// What is told of it, with the record that it is about.
    pub told: Vec<(Option<String>, Happened)>,
}

impl Engine {
    /// Goes back to a message, or to one of its parts: the files that later steps changed are what they were before them.
    /// Returns the session; unchanged if there is no such message or part.
    ///
    /// Errors: `Busy` while anything is open in the session; `Unavailable` if this replica stops first, which stops nothing.
    pub async fn revert(
        &self,
        tenant: &Tenant,
        session: &SessionId,
        message: &MessageId,
        part: Option<&PartId>,
        name: Option<&RequestName>,
    ) -> Result<Session, EngineError> {
        self.is_coordinated()?;
        let wanted = Point { message: message.clone(), part: part.cloned() };
        let about = async { Ok(self.session(tenant, session).await?.id) };
        self.once(tenant, name, about, |acting| {
            self.intend(tenant, acting, IntentKind::Revert, move |at, session| plan_revert(at, session, &wanted))
        })
        .await
    }

    /// Takes a revert back: the files it changed are what they were before it. Returns the session; unchanged if nothing
    /// is reverted.
    ///
    /// Errors: as [`Engine::revert`].
    pub async fn unrevert(
        &self,
        tenant: &Tenant,
        session: &SessionId,
        name: Option<&RequestName>,
    ) -> Result<Session, EngineError> {
        self.is_coordinated()?;
        let about = async { Ok(self.session(tenant, session).await?.id) };
        self.once(tenant, name, about, |acting| self.intend(tenant, acting, IntentKind::Unrevert, plan_unrevert)).await
    }

    /// Stores an intent, sees to it that somebody carries it out, and waits for that.
    async fn intend<F>(
        &self,
        tenant: &Tenant,
        acting: Acting,
        kind: IntentKind,
        plan: F,
    ) -> Result<Session, EngineError>
    where
        F: Fn(&Under<'_>, &Session) -> Result<Option<Plan>, EngineError> + Send + Sync + 'static,
    {
        let key = SessionKey::new(tenant.clone(), acting.session);
        let intended = self.head_commit(&key, Committer::Request, move |head, at| {
            let session = at.session()?;
            if !head.apply_once(acting.name.as_deref()) {
                // Sent again: it is done, or under way.
                let under_way = head.intent.as_ref().map(|intent| (intent.ticket, session, Vec::new()));
                return Ok(Decision::Leave(under_way));
            }
            if head.is_open() {
                return Err(EngineError::Busy(at.id.clone()));
            }
            let Some(plan) = plan(at, &session)? else { return Ok(Decision::Leave(None)) };
            let before = head.issued;
            let ticket = head.issue();
            let (mut withdrawn, mut writes) = (Vec::new(), Vec::new());
            if at.store.put_marker(at.id, ticket)? {
                (withdrawn, writes) = never_given_out(at, before, None)?;
            }
            head.intent = Some(Intent { ticket, kind });
            writes.push(Write::Put(Record::Revert { session: at.id.clone() }, body(&plan)?));
            Ok(Decision::Write(writes, Some((ticket, session, withdrawn))))
        });
        if let (head, Some((ticket, session, withdrawn))) = intended.await? {
            self.tell_withdrawn(&key, &head, &session, &withdrawn).await;
            let (engine, entered) = (self.clone(), key.clone());
            // Not bound to the caller: a client that goes away stops nothing.
            self.0.tasks.spawn(async move { engine.enter(&entered, ticket, false, None).await });
            self.wait_for_intent(&key, ticket, None).await?;
        }
        self.session(tenant, &key.session).await
    }

    /// Waits until an intent is carried out, wherever that happens.
    async fn wait_for_intent(
        &self,
        key: &SessionKey,
        ticket: u64,
        patience: Option<Duration>,
    ) -> Result<(), EngineError> {
        let began = Instant::now();
        let waiter = self.0.waiters.join(key);
        loop {
            let woken = waiter.notify.notified();
            tokio::pin!(woken);
            woken.as_mut().enable();
            let head = self.read_head(key).await?;
            if !head.is_live() {
                return Err(EngineError::SessionNotFound(key.session.clone()));
            }
            if head.settled >= ticket {
                return Ok(());
            }
            if patience.is_some_and(|patience| began.elapsed() > patience) {
                return Err(EngineError::Unavailable("a revert of this session is under way".into()));
            }
            let late = tokio::select! {
                biased;
                woken = tokio::time::timeout(LOOK, woken) => woken.is_err(),
                () = self.0.leaving.cancelled() => {
                    return Err(EngineError::Unavailable("this replica stops; the revert goes on elsewhere".into()));
                }
            };
            if late {
                // Nobody may be working: then this replica does.
                self.enter(key, ticket, true, None).await;
            }
        }
    }

    /// Waits for a revert that is under way; a prompt comes before it or after it.
    pub(crate) async fn wait_for_revert(&self, key: &SessionKey, intent: &Intent) -> Result<(), EngineError> {
        self.wait_for_intent(key, intent.ticket, Some(PATIENCE)).await
    }
}

/// The plan of a revert to a place; none if there is no such place.
fn plan_revert(at: &Under<'_>, session: &Session, wanted: &Point) -> Result<Option<Plan>, EngineError> {
    let messages = at.store.messages(at.id, None, None)?.items;
    let Some((point, patches)) = locate(&messages, wanted) else { return Ok(None) };
    let roots = messages.iter().rev().filter_map(|message| message.info.assistant());
    let root = roots.map(|answer| PathBuf::from(&answer.path.root)).next().unwrap_or_default();
    let earlier = read_plan(at.store, at.id)?.filter(|_| session.revert.is_some()).unwrap_or_default();
    let mut files = BTreeMap::new();
    if let Some(before) = &earlier.before {
        // Of what was reverted earlier, something may come back now.
        files.extend(earlier.files.into_keys().map(|file| (file, before.clone())));
    }
    let mut reverted = BTreeMap::new();
    for patch in patches {
        for file in patch.files {
            // The first step that changed a file knows what it was before all of them.
            reverted.entry(file.to_string_lossy().into_owned()).or_insert_with(|| patch.hash.to_string());
        }
    }
    files.extend(reverted);
    Ok(Some(Plan { root, before: earlier.before, files, point: Some(point) }))
}

/// The plan of taking a revert back; none if nothing is reverted.
fn plan_unrevert(at: &Under<'_>, session: &Session) -> Result<Option<Plan>, EngineError> {
    if session.revert.is_none() {
        return Ok(None);
    }
    let mut plan = read_plan(at.store, at.id)?.unwrap_or_default();
    match &plan.before {
        // What is as it was before the revert is nobody's business any more.
        Some(before) => {
            plan.files.retain(|_, snapshot| snapshot != before);
            plan.files.values_mut().for_each(|snapshot| snapshot.clone_from(before));
        }
        None => plan.files.clear(),
    }
    Ok(Some(Plan { point: None, ..plan }))
}

fn read_plan(store: &TenantStore, session: &SessionId) -> Result<Option<Plan>, EngineError> {
    let stored = store.read(&Record::Revert { session: session.clone() })?;
    Ok(stored.and_then(|stored| serde_json::from_slice(&stored).ok()))
}

/// The place that is meant, and the patches behind it. A part with nothing of interest before it in its message stands for
/// the prompt of the message, as in OpenCode.
fn locate(messages: &[MessageWithParts], wanted: &Point) -> Option<(Point, Vec<crate::snapshots::PatchPart>)> {
    let mut prompt = None;
    let mut point = None;
    let mut patches = Vec::new();
    for message in messages {
        let id = message.info.id();
        if message.info.user().is_some() && point.is_none() {
            prompt = Some(id.clone());
        }
        if wanted.part.is_none() && point.is_none() && *id == wanted.message {
            point = Some(Point { message: prompt.clone().unwrap_or_else(|| id.clone()), part: None });
        }
        let mut before = false;
        for part in &message.parts {
            if point.is_some() {
                patches.extend(patch_of(part));
                continue;
            }
            if wanted.part.as_ref() == Some(&part.id) {
                point = Some(match before {
                    true => Point { message: id.clone(), part: Some(part.id.clone()) },
                    false => Point { message: prompt.clone().unwrap_or_else(|| id.clone()), part: None },
                });
            }
            before |= matches!(part.kind, PartKind::Text(_) | PartKind::Tool(_));
        }
    }
    point.map(|point| (point, patches))
}

/// Removes what a revert hid: a prompt goes on from there. The session's record is written by the caller. None: nothing
/// is reverted.
pub(crate) fn clean_up(
    head: &mut Head,
    at: &Under<'_>,
    session: &mut Session,
    now: u64,
) -> Result<Option<Cleanup>, EngineError> {
    let Some(Revert { message_id, part_id, .. }) = session.revert.take() else { return Ok(None) };
    let messages = at.store.messages(at.id, None, None)?.items;
    let place = messages.iter().position(|message| *message.info.id() == message_id);
    let (mut writes, mut told) = (Vec::new(), Vec::new());
    let mut gone = Vec::new();
    for (index, message) in messages.iter().enumerate().skip(place.unwrap_or(messages.len())) {
        let id = message.info.id();
        let is_kept = part_id.is_some() && place == Some(index);
        if !is_kept {
            writes.push(Write::Remove(message_record(&message.info)));
            told.push((Some(id.to_string()), wire::event::message_removed(at.id, id)));
        }
        let from = match &part_id {
            Some(first) if is_kept => message.parts.iter().position(|part| part.id == *first),
            _ => Some(0),
        };
        for part in message.parts.iter().skip(from.unwrap_or(message.parts.len())) {
            writes.push(Write::Remove(Record::Part { message: id.clone(), id: part.id.clone() }));
            if is_kept {
                told.push((Some(part.id.to_string()), wire::event::part_removed(at.id, id, &part.id)));
            }
            gone.push(part);
        }
    }
    recount(head, session, gone, []);
    session.time.updated = session.time.updated.max(now);
    // The prompt's own update of the session follows, of the same commit.
    told.push((None, wire::event::session_updated(session)));
    writes.push(Write::Remove(Record::Revert { session: at.id.clone() }));
    Ok(Some(Cleanup { writes, told }))
}
