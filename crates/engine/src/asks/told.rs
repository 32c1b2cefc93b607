//! What readers of events are told of asks by a run, where those who should have told it died, or told it out of order: clients
//! know of asks by events, and would wait for ever for what is answered, or never reply to what nobody told.

use super::{Answer, StoredAsk, parse};
use crate::api::EngineError;
use crate::engine::blocking;
use crate::run::Run;
use std::time::Duration;
use wire::event::Happened;
use wire::ids::{PermissionId, QuestionId};
use wire::permission::Reply;

/// How long a run waits for the event of its ask to be out.
const MOMENT: Duration = Duration::from_secs(1);

impl StoredAsk {
    /// What clients are told of its answer.
    fn answered_event(&self, answer: &Answer) -> Option<Happened> {
        let session = self.session();
        match answer {
            Answer::Reply { reply, .. } => {
                Some(wire::event::permission_replied(session, &PermissionId::parse(self.id()).ok()?, *reply))
            }
            Answer::Answers { answers } => {
                Some(wire::event::question_replied(session, &QuestionId::parse(self.id()).ok()?, answers))
            }
            Answer::Dismissed => Some(wire::event::question_rejected(session, &QuestionId::parse(self.id()).ok()?)),
        }
    }
}

/// Tells an ask that was stored just now. Whoever finds it in the store may reply before readers hear of it: they are told the
/// reply behind it, then. False: it is not out yet, and the reply is to be told by this run, too.
pub(super) async fn raised(run: &Run, ask: &StoredAsk) -> Result<bool, EngineError> {
    run.publish(ask.raised_event()).await;
    if !run.engine.flush(&run.handle.key.tenant, MOMENT).await {
        return Ok(false);
    }
    let (store, record) = (run.engine.tenant_store(&run.handle.key.tenant), ask.record());
    let stored = blocking(move || store.read(&record).map_err(EngineError::from)).await?;
    if let Some(ask) = parse(stored.into_iter().collect()).pop().filter(|ask| ask.answer.is_some()) {
        found(run, &ask).await?;
    }
    Ok(true)
}

/// Tells the reply to an ask behind it.
pub(super) async fn answered(run: &Run, ask: &StoredAsk, answer: &Answer) {
    if let Some(happened) = ask.answered_event(answer) {
        run.publish(happened).await;
    }
}

/// Tells of an ask that stands in the store what readers were not told, or not last.
pub(super) async fn found(run: &Run, ask: &StoredAsk) -> Result<(), EngineError> {
    run.engine.catch_up(&run.handle.key.tenant).await;
    let feed = run.engine.feed(&run.handle.key.tenant).await?;
    let told = feed.asks(&run.handle.key.session).into_iter().find(|told| told.id == ask.id());
    let happened = match (&ask.answer, told) {
        (None, None) => Some(ask.raised_event()),
        (Some(answer), Some(told)) if told.is_open => ask.answered_event(answer),
        _ => None,
    };
    if let Some(happened) = happened {
        run.publish(happened).await;
    }
    Ok(())
}

/// Before a run gives its lease back: what it, or one before it, waited for and readers still take for open is withdrawn, as
/// when it ends without an answer.
pub(crate) async fn ended(run: &Run) -> Result<(), EngineError> {
    let key = &run.handle.key;
    let feed = run.engine.feed(&key.tenant).await?;
    let is_open = || feed.asks(&key.session).iter().any(|told| told.is_open);
    if !is_open() {
        return Ok(());
    }
    run.engine.flush(&key.tenant, MOMENT).await;
    run.engine.catch_up(&key.tenant).await;
    let (store, session) = (run.engine.tenant_store(&key.tenant), key.session.clone());
    let stored = blocking(move || Ok(parse(store.asks(&session)?))).await?;
    for told in feed.asks(&key.session).iter().filter(|told| told.is_open) {
        if stored.iter().any(|ask| ask.id() == told.id) {
            continue;
        }
        let permission = PermissionId::parse(&told.id);
        let permission = permission.map(|id| wire::event::permission_replied(&key.session, &id, Reply::Reject));
        let question = || QuestionId::parse(&told.id).map(|id| wire::event::question_rejected(&key.session, &id));
        if let Ok(happened) = permission.or_else(|_| question()) {
            run.publish(happened).await;
        }
    }
    Ok(())
}
