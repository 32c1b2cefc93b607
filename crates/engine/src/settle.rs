//! The end of a run: the final look, the settled tickets, the release.

use crate::api::EngineError;
use crate::commit::{Decision, body};
use crate::publish::Origin;
use crate::run::{Known, Run, session_record};
use crate::snapshots::Changes;
use crate::trace;
use crate::turn::{OpenTurn, Transcript};
use run_protocol::{Ending, Head, RecordVersion, Released, Spent, TicketAnswer};
use std::time::Duration;
use storage::{Record, Write};
use tracing::Instrument;
use wire::ids::MessageId;
use wire::message::{Message, MessageError};
use wire::session::{Session, SessionStatus, SessionSummary};

/// What a run settles its tickets with.
#[derive(Clone, Debug)]
pub(crate) struct Settled {
    pub answer: TicketAnswer,
    /// The prompt that was answered last.
    pub user: Option<MessageId>,
    /// What the turn changed.
    pub changes: Changes,
    /// What the last step used, if it is not added up yet.
    pub spent: Spent,
    /// The loop looked once more and found nothing to do; false where the turn broke off.
    pub looked_again: bool,
    /// The one ticket that it answers, where newer ones are answered by themselves.
    pub alone: Option<u64>,
}

/// What is told with the release, and after it.
pub(crate) struct Farewell {
    /// The loop looked once more and found nothing to do.
    looked_again: bool,
    rev: u64,
    session: Option<Session>,
    user: Option<Message>,
}

impl Run {
    /// The final look. With a farewell if it settled.
    pub(crate) async fn settle(&self, seen: u64, answer: Settled) -> Result<(Ending, Option<Farewell>), EngineError> {
        if answer.alone.is_none() {
            self.prune().await?;
        }
        let now = self.engine.now_ms();
        let given = answer.clone();
        let diffs = match &answer.user {
            Some(_) => self.engine.diffs(&self.handle.key.tenant, &answer.changes).await,
            None => Vec::new(),
        };
        let (head, (ending, session, user, withdrawn)) = self
            .head_commit(move |head, at| {
                let ending = Ending::decide(head, seen);
                if let (Ending::LoadAgain, Some(k)) = (&ending, given.alone) {
                    head.settle(k, given.answer.clone());
                    return Ok(Decision::Write(Vec::new(), (ending, None, None, Vec::new())));
                }
                if !matches!(ending, Ending::Settle { .. }) {
                    return Ok(Decision::Leave((ending, None, None, Vec::new())));
                }
                head.settle(seen, given.answer.clone());
                let mut session = at.session()?;
                crate::turn::add_up(head, &mut session, &given.spent, now);
                if given.alone.is_none() {
                    session.summary = Some(SessionSummary::default());
                }
                let mut writes = vec![Write::Put(session_record(&session), body(&session)?)];
                let user = match &given.user {
                    Some(id) => crate::turn::summarized(at, id, &diffs)?,
                    None => None,
                };
                if let Some(user) = &user {
                    let record = Record::Message { session: session.id.clone(), id: user.id().clone() };
                    writes.push(Write::Put(record, body(user)?));
                }
                let withdrawn = crate::asks::open_asks(at)?;
                writes.extend(crate::asks::withdrawn(at)?);
                Ok(Decision::Write(writes, (ending, Some(session), user, withdrawn)))
            })
            .await?;
        if !matches!(ending, Ending::Settle { .. }) {
            return Ok((ending, None));
        }
        for ask in withdrawn {
            self.publish(ask.withdrawn_event()).await;
        }
        let session = session.filter(|_| answer.alone.is_none());
        Ok((ending, Some(Farewell { looked_again: answer.looked_again, rev: head.rev, session, user })))
    }

    /// What is told after the release: the trailing summary comes after idle.
    async fn say_farewell(&self, farewell: Farewell) {
        let Some(session) = farewell.session else { return };
        let origin = Origin { fence: None, ..self.origin.clone() };
        let version = |record: &str| Some((record.to_owned(), RecordVersion::head(farewell.rev)));
        let engine = &self.engine;
        engine.publish(&origin, wire::event::session_updated(&session), version(session.id.as_str())).await;
        engine.publish(&origin, wire::event::session_diff(&session.id, &serde_json::json!([])), None).await;
        if let Some(user) = &farewell.user {
            engine.publish(&origin, wire::event::message_updated(user), version(user.id().as_str())).await;
        }
    }

    pub(crate) async fn add_up(&self, spent: Spent, now: u64) -> Result<Head, EngineError> {
        let (head, (session, reserved)) = self
            .head_commit(move |head, at| {
                head.end_step();
                let reserved = head.reserve_time(now);
                let mut session = at.session()?;
                crate::turn::add_up(head, &mut session, &spent, now);
                let write = Write::Put(session_record(&session), body(&session)?);
                Ok(Decision::Write(vec![write], (session, reserved)))
            })
            .await?;
        self.learn(Known { rev: head.rev, session, reserved });
        Ok(head)
    }

    /// Deals with the tickets that an abort reaches, after the step has closed its records.
    pub(crate) async fn settle_aborted(&self, upto: u64, message: Option<MessageId>) -> Result<(), EngineError> {
        let answer = message.map_or(TicketAnswer::Dropped, |id| TicketAnswer::Message { id: id.to_string() });
        let now = self.engine.now_ms();
        let (head, (withdrawn, session, reserved)) = self
            .head_commit(move |head, at| {
                let withdrawn = crate::asks::open_asks(at)?;
                let writes = crate::asks::withdrawn(at)?;
                head.settle(upto, answer.clone());
                let reserved = head.reserve_time(now);
                Ok(Decision::Write(writes, (withdrawn, at.session()?, reserved)))
            })
            .await?;
        self.learn(Known { rev: head.rev, session, reserved });
        for ask in withdrawn {
            self.publish(ask.withdrawn_event()).await;
        }
        Ok(())
    }

    /// An abort that came before this runner: what the one before it left open is closed.
    pub(crate) async fn close_aborted(&self, settled: u64, upto: u64) -> Result<(), EngineError> {
        let message = match self.record_abort(settled, upto).await {
            Ok(message) => message,
            // These pass, and then it is tried again.
            Err(error @ (EngineError::Lost | EngineError::Full | EngineError::Unavailable(_))) => return Err(error),
            // A conversation that cannot be read must not keep its callers waiting.
            Err(cause) => {
                tracing::error!(%cause, "an abort cannot be recorded in its conversation");
                None
            }
        };
        self.settle_aborted(upto, message).await
    }

    /// Records an abort in the conversation; returns the message that says so. A turn that had no answer yet gets one, as if
    /// its runner had lived.
    async fn record_abort(&self, settled: u64, upto: u64) -> Result<Option<MessageId>, EngineError> {
        let transcript = Transcript::load(self, upto).await?;
        let error = MessageError::aborted();
        transcript.close_dangling(self, Some(error.clone())).await?;
        Ok(match transcript.open_turn(self, settled).await? {
            OpenTurn::Answered(message) => Some(message),
            OpenTurn::Asked(user) => Some(transcript.fail(self, &user, &error).await?),
            OpenTurn::Lost => None,
        })
    }

    async fn record_failure(&self, seen: u64, error: &MessageError) -> Result<Option<MessageId>, EngineError> {
        let transcript = Transcript::load(self, seen).await?;
        transcript.close_dangling(self, Some(error.clone())).await?;
        match transcript.newest_user() {
            Some(user) => Ok(Some(transcript.fail(self, user, error).await?)),
            None => Ok(None),
        }
    }

    /// Ends the turn with an error that its callers and readers see.
    pub(crate) async fn fail_turn(
        &self,
        seen: u64,
        error: MessageError,
    ) -> Result<(Ending, Option<Farewell>), EngineError> {
        // A conversation that cannot be read must not keep its callers waiting.
        let closed = match self.record_failure(seen, &error).await {
            Err(EngineError::Lost) => return Err(EngineError::Lost),
            Err(cause) => {
                tracing::error!(%cause, "the failure of a turn cannot be recorded in its conversation");
                None
            }
            Ok(closed) => closed,
        };
        self.publish(wire::event::session_error(&self.handle.key.session, &error)).await;
        let message = error.data["message"].as_str().unwrap_or_default().to_owned();
        let answer = match closed {
            Some(id) => TicketAnswer::Message { id: id.to_string() },
            None => TicketAnswer::Failed { message },
        };
        self.settle(
            seen,
            Settled {
                answer,
                user: None,
                changes: Changes::default(),
                spent: Spent::default(),
                looked_again: false,
                alone: None,
            },
        )
        .await
    }

    /// Gives the lease back with the idle events, and tells what is to be told after them. A loop that looked once more and found
    /// nothing to do tells that it was busy with it, as OpenCode does.
    pub(crate) async fn release(
        &self,
        seen: u64,
        silent: bool,
        farewell: Option<Farewell>,
    ) -> Result<Released, EngineError> {
        // Everything of this run goes out before its end: without its lease it would be left out. Whoever claims the lease
        // tells what could not go out.
        if !self.engine.flush(&self.handle.key.tenant, Duration::from_secs(5)).await {
            self.engine.0.waiters.wake(&self.handle.key);
            return Err(EngineError::Unavailable("the events of the run are not out".into()));
        }
        let mut entries = Vec::new();
        if farewell.as_ref().is_some_and(|farewell| farewell.looked_again) {
            entries.extend(self.engine.status_entries(&self.origin, &SessionStatus::Busy));
        }
        if !silent {
            entries.extend(self.engine.status_entries(&self.origin, &SessionStatus::Idle));
        }
        for tries in 0..10_u64 {
            let (key, attempt) = (&self.handle.key, &self.handle.attempt);
            let released = self.engine.0.ports.leases.release(key, attempt, seen, &entries);
            match released.instrument(trace::lease("release", key, attempt)).await {
                Ok(released) => {
                    if released != Released::More {
                        self.engine.0.waiters.wake(&self.handle.key);
                    }
                    if let Some(farewell) = farewell {
                        self.say_farewell(farewell).await;
                    }
                    if released == Released::Gone {
                        self.engine.ask_to_look(vec![key.clone()]).await;
                    }
                    return Ok(released);
                }
                Err(error) => {
                    tracing::warn!(%error, "the lease could not be given back");
                    self.engine.0.waiters.wake(&self.handle.key);
                    tokio::time::sleep(Duration::from_millis(100 * (tries + 1))).await;
                }
            }
        }
        Err(EngineError::Unavailable("the lease could not be given back".into()))
    }
}
