//! A run: how it gets its lease, and what it can do while it has one. What it does when, its life says (see
//! [`crate::life`]).

use crate::api::EngineError;
use crate::commit::{Committer, Decision, Under};
use crate::engine::{Counters, Engine, blocking};
use crate::publish::Origin;
use crate::runs::RunHandle;
use crate::strand::stay;
use crate::trace;
use crate::trial::Trial;
use coordination::{Attempt, Enter, Entered, SessionKey};
pub(crate) use run_protocol::StopReason;
use run_protocol::{
    Asked, End, EnterInput, Entering, Entry, Fence, Former, Handover, Head, Look, RecordVersion, entering,
};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;
use storage::{Record, RunGuard, Write};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;
use wire::message::Message;
use wire::session::Session;

/// How often a session's lease is asked for.
const ENTERS: u32 = 8;

/// Tells a step to stop, and why.
#[derive(Default)]
pub(crate) struct Stop {
    pub token: CancellationToken,
    reason: OnceLock<StopReason>,
}

impl Stop {
    pub(crate) fn stop(&self, reason: StopReason) {
        let _ = self.reason.set(reason);
        self.token.cancel();
    }

    /// True where calls that have not begun are left for whoever goes on.
    pub(crate) fn leaves_waiting(&self) -> bool {
        matches!(self.reason(), Some(StopReason::Interrupted | StopReason::Frozen))
    }

    pub(crate) fn reason(&self) -> Option<StopReason> {
        self.reason.get().copied()
    }
}

/// A run that has begun: it holds the run guard and a lease that bears its fence. A clone is the same run.
#[derive(Clone)]
pub(crate) struct Run {
    pub engine: Engine,
    pub handle: Arc<RunHandle>,
    pub guard: Arc<RunGuard>,
    pub origin: Origin,
    sequence: Arc<AtomicU64>,
    /// Whether the session was open before this run: what is open may be the work of others.
    pub goes_on: bool,
    trial: Arc<Mutex<Option<Trial>>>,
    /// What the run's newest head commit found and reserved.
    known: Arc<Mutex<Known>>,
    /// Held by each commit that is under way.
    landing: Arc<tokio::sync::RwLock<()>>,
}

impl Engine {
    /// Asks for the session's lease, and runs if it is won. Returns once it is known who runs; coordination that does
    /// not answer is tried again a few times: after that the sweep, or a waiting caller, finds the ticket.
    ///
    /// `number` of the run guard, where it was read already.
    pub(crate) async fn enter(&self, key: &SessionKey, ticket: u64, was_open: bool, number: Option<u64>) {
        if self.is_draining() {
            // Stored here, run elsewhere: whoever works there is told, too, and does not let go.
            self.ask(key, &self.new_attempt(), ticket, true).await;
            return;
        }
        let attempt = self.new_attempt();
        // Looked at each time: coordination may have forgotten everything since.
        let awaits_owners = || self.0.replica.awaits_owners(self.0.settings.lease_ttl);
        let (mut entering, mut next) = Entering::begin(was_open, number, ENTERS, awaits_owners());
        loop {
            let input = match next {
                entering::Enter::ReadNumber => EnterInput::Number(self.read_run_number(key).await.ok()),
                entering::Enter::Ask => EnterInput::Asked(self.ask(key, &attempt, ticket, false).await),
                entering::Enter::Wait { tries } => {
                    let wait = 100 * u64::from(tries) + self.0.ids.bits() % 100;
                    tokio::time::sleep(Duration::from_millis(wait)).await;
                    EnterInput::Waited { awaits_owners: awaits_owners() }
                }
                entering::Enter::Run(entry) => return self.spawn_run(key.clone(), attempt, entry),
                entering::Enter::End => return,
            };
            next = entering.next(input);
        }
    }

    /// Asks for the session's lease once, or that others take it.
    async fn ask(&self, key: &SessionKey, attempt: &Attempt, ticket: u64, for_others: bool) -> Asked {
        let enter = Enter {
            replica: self.0.replica.id(),
            born: self.0.replica.born(),
            key: key.clone(),
            attempt: attempt.clone(),
            ticket,
            for_others,
        };
        let span = trace::lease("enter", key, attempt);
        match self.0.ports.leases.enter(&enter).instrument(span).await {
            Ok(Entered::Won) => Asked::Won,
            Ok(Entered::Waiting) => Asked::Others,
            Ok(Entered::Reborn(_)) => Asked::Unknown,
            Err(error) => {
                tracing::warn!(session = %key.session, %error, "a lease could not be asked for");
                Asked::Unknown
            }
        }
    }

    /// The task `run`, one per lease that this replica owns. A panic hands the run over.
    pub(crate) fn spawn_run(&self, key: SessionKey, attempt: Attempt, entry: Entry) {
        let engine = self.clone();
        Counters::add(&self.0.counters.runs_begun, 1);
        if matches!(entry, Entry::Claimed) {
            Counters::add(&self.0.counters.taken_over, 1);
        }
        let span = trace::run(&key, &attempt, &self.0.replica.id(), matches!(entry, Entry::Claimed));
        let ended = span.clone();
        self.0.tasks.spawn(
            async move {
                let place = engine.0.runs.enter(key.clone(), attempt.clone());
                let life = engine.clone().live(place.handle.clone(), entry);
                let end = match tokio::spawn(stay(life.instrument(ended.clone()))).await {
                    Ok((end, failure)) => {
                        if let Some(error) = failure {
                            tracing::error!(%error, "the run cannot go on here");
                        }
                        end
                    }
                    Err(panic) => {
                        tracing::error!(%panic, "the run broke off");
                        // No beat takes the lease back in its name.
                        place.handle.stand(None);
                        End::Failed
                    }
                };
                match end {
                    End::Over => trace::end(&ended, "over"),
                    End::HandOver => trace::end(&ended, "handed over"),
                    End::Lost => {
                        tracing::info!("the run was taken over by another replica");
                        trace::end(&ended, "lost");
                        Counters::add(&engine.0.counters.lost, 1);
                    }
                    End::Failed => trace::fail(&ended, "failed"),
                }
                let Some(Handover { delay_ms, failed }) = end.handover() else { return };
                // Does nothing if the lease is another's by now.
                for tries in 0..20_u64 {
                    match engine.0.ports.leases.hand_over(&key, &attempt, delay_ms, failed).await {
                        Ok(()) => return,
                        Err(_) => tokio::time::sleep(Duration::from_millis(100 * tries.min(10) + 50)).await,
                    }
                }
            }
            .instrument(span),
        );
    }

    pub(crate) async fn read_run_number(&self, key: &SessionKey) -> Result<u64, EngineError> {
        let (store, session) = (self.tenant_store(&key.tenant), key.session.clone());
        blocking(move || store.run_number(&session).map_err(EngineError::from)).await
    }

    /// Where the events of a session come from.
    pub(crate) fn origin(&self, key: &SessionKey, session: &Session, fence: Option<Fence>) -> Origin {
        Origin {
            tenant: key.tenant.clone(),
            directory: session.directory.clone(),
            project: Some(session.project_id.clone()),
            session: Some(key.session.clone()),
            fence,
        }
    }
}

/// What a run's newest head commit found and reserved.
#[derive(Clone)]
pub(crate) struct Known {
    /// The head's rev after it.
    pub rev: u64,
    /// The session's record under it.
    pub session: Session,
    /// The created time that it reserved for the next message.
    pub reserved: u64,
}

impl Run {
    /// A run whose first head commit found and reserved this.
    pub(crate) fn new(
        engine: Engine,
        handle: Arc<RunHandle>,
        guard: RunGuard,
        origin: Origin,
        goes_on: bool,
        known: Known,
    ) -> Self {
        Self {
            engine,
            handle,
            guard: Arc::new(guard),
            origin,
            sequence: Arc::default(),
            goes_on,
            trial: Arc::default(),
            known: Arc::new(Mutex::new(known)),
            landing: Arc::default(),
        }
    }

    pub(crate) async fn read_head(&self) -> Result<Head, EngineError> {
        self.engine.read_head(&self.handle.key).await
    }

    /// What the newest head commit found and reserved.
    pub(crate) fn known(&self) -> Known {
        self.known.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).clone()
    }

    pub(crate) fn learn(&self, known: Known) {
        *self.known.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = known;
    }

    /// The run's identity, for the processes that it starts.
    pub(crate) fn identity(&self) -> sandbox::Identity {
        sandbox::Identity {
            session: self.handle.key.session.to_string(),
            attempt: self.handle.attempt.to_string(),
            fence: self.guard.fence().0,
        }
    }

    /// Commits what the run writes. `Lost` if another runner took the guard. Who breaks this off does not undo it: see
    /// [`Run::all_landed`].
    pub(crate) async fn commit(&self, writes: Vec<Write>) -> Result<(), EngineError> {
        let (guard, landing) = (self.guard.clone(), self.landing.clone().read_owned().await);
        blocking(move || {
            let committed = guard.commit(writes).map_err(EngineError::from);
            drop(landing);
            committed
        })
        .await
    }

    /// Waits until every [`Run::commit`] is over that was begun, also those whose callers were broken off: what is written after
    /// them stands.
    pub(crate) async fn all_landed(&self) {
        drop(self.landing.write().await);
    }

    /// Commits what a step shows before it ends: durable with the next [`Run::commit`].
    pub(crate) async fn commit_lightly(&self, writes: Vec<Write>) -> Result<(), EngineError> {
        let guard = self.guard.clone();
        blocking(move || guard.commit_lightly(writes).map_err(EngineError::from)).await
    }

    /// A version for what the run commits next.
    pub(crate) fn version(&self, record: &str) -> (String, RecordVersion) {
        let sequence = self.sequence.fetch_add(1, Ordering::AcqRel) + 1;
        (record.to_owned(), RecordVersion::run(self.guard.fence(), sequence))
    }

    /// Publishes what happened to the session as a whole.
    pub(crate) async fn publish(&self, happened: wire::event::Happened) {
        self.engine.publish(&self.origin, happened, None).await;
    }

    /// Publishes a record that the run has committed.
    pub(crate) async fn publish_record(&self, record: &str, happened: wire::event::Happened) {
        self.engine.publish(&self.origin, happened, Some(self.version(record))).await;
    }

    /// A head commit of this run: refused with `Lost` once another runner took the guard.
    pub(crate) async fn head_commit<T, F>(&self, decide: F) -> Result<(Head, T), EngineError>
    where
        T: Send + 'static,
        F: Fn(&mut Head, &Under<'_>) -> Result<Decision<T>, EngineError> + Send + Sync + 'static,
    {
        self.engine.head_commit(&self.handle.key, Committer::Runner(self.guard.fence()), decide).await
    }

    /// Reserves the next message's time anew: others may have been given one since.
    pub(crate) async fn reserve(&self) -> Result<Head, EngineError> {
        let now = self.engine.now_ms();
        let (head, (session, reserved)) = self
            .head_commit(move |head, at| {
                let reserved = head.reserve_time(now);
                Ok(Decision::Write(Vec::new(), (at.session()?, reserved)))
            })
            .await?;
        self.learn(Known { rev: head.rev, session, reserved });
        Ok(head)
    }

    /// Waits until something stops the step: an abort, a deletion, a loss, the end of the replica's time.
    pub(crate) async fn watch(&self) -> StopReason {
        loop {
            tokio::select! {
                biased;
                () = self.handle.lost.cancelled() => return StopReason::Lost,
                () = self.handle.interrupted.cancelled() => return StopReason::Interrupted,
                () = self.engine.0.replica.freezes() => return StopReason::Frozen,
                () = self.handle.poke.notified() => {}
            }
            self.engine.0.waiters.wake(&self.handle.key);
            match self.read_head().await {
                Ok(head) => {
                    if let Some(reason) = Look::at(&head).stops() {
                        return reason;
                    }
                }
                Err(EngineError::SessionNotFound(_)) => return StopReason::Lost,
                Err(error) => tracing::warn!(%error, "the head could not be read"),
            }
        }
    }

    /// Waits out the back-off of an attempt that follows several, and then for its trial. False: something came meanwhile,
    /// look at the head first.
    pub(crate) async fn wait_for_attempt(&self, tries: u32) -> Result<bool, EngineError> {
        let ttl_ms = self.engine.0.settings.lease_ttl.as_millis() as u64;
        let delay = Duration::from_millis(run_protocol::turn::attempt_delay_ms(tries, ttl_ms));
        let turn = async {
            tokio::time::sleep(delay).await;
            Trial::begin(&self.engine, &self.handle.key).await
        };
        let trial = tokio::select! {
            biased;
            begun = turn => begun,
            reason = self.watch() => match reason {
                StopReason::Lost => return Err(EngineError::Lost),
                StopReason::Aborted { .. } | StopReason::Interrupted | StopReason::Frozen => return Ok(false),
            },
            () = self.engine.0.draining.cancelled() => return Ok(false),
        };
        *self.trial.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = trial;
        Ok(true)
    }

    /// Counts the attempt that begins.
    pub(crate) async fn count_attempt(&self, former: Former) -> Result<(), EngineError> {
        let counted = self.head_commit(move |head, _| {
            head.count_after(former);
            Ok(Decision::Write(Vec::new(), ()))
        });
        counted.await.map(|_| ())
    }

    /// The run's trial is over, if it is on trial: it has completed a step, or does nothing but wait for people.
    pub(crate) fn end_trial(&self) {
        self.trial.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).take();
    }

    /// Parks at a durable point until ownership is proven again.
    pub(crate) async fn wait_for_thaw(&self) -> Result<(), EngineError> {
        while self.engine.0.replica.is_frozen() {
            tokio::select! {
                biased;
                () = tokio::time::sleep(Duration::from_millis(500)) => {}
                () = self.handle.lost.cancelled() => return Err(EngineError::Lost),
            }
            // A cut-off owner looks at the head by itself: an abort reaches it through the store.
            if Look::at(&self.read_head().await?) != Look::Go {
                return Ok(());
            }
        }
        Ok(())
    }
}

/// Where a session's record lies.
pub(crate) fn session_record(session: &Session) -> Record {
    Record::Session { project: session.project_id.clone(), id: session.id.clone() }
}

/// The message of an id, as it is stored.
pub(crate) fn message_record(message: &Message) -> Record {
    Record::Message { session: message.session_id().clone(), id: message.id().clone() }
}
