//! A run: from the lease to its release.
//!
//! The number of the run guard is read before a lease check that succeeds, the check comes before the take, nothing is
//! done before the lease says `begin`; then the head is read again, whoever was here before.

use crate::api::EngineError;
use crate::commit::{Committer, Decision, Under};
use crate::engine::{Counters, Engine, blocking};
use crate::publish::Origin;
use crate::replica::unavailable;
use crate::runs::RunHandle;
use crate::sessions::begin_deletion;
use crate::trace;
use crate::trial::Trial;
use crate::turn::{Next, Transcript};
use coordination::{Attempt, Enter, Entered, Former, LeaseKind, SessionKey};
use run_protocol::{Fence, Head, Look, Opening, RecordVersion};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;
use storage::{Record, RunGuard, StoreError, Write};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;
use wire::message::{Message, MessageError};
use wire::session::{Session, SessionStatus};

/// How a lease came.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Entry {
    /// By ENTER; `number` of the run guard was read before it.
    Entered { number: u64, was_open: bool },
    /// By CLAIM: confirmed before the guard is taken.
    Claimed,
}

/// How a run ended.
#[derive(Debug)]
pub(crate) enum End {
    /// The lease is given back, or was gone already.
    Over,
    /// Somebody else shall go on, after a delay.
    HandOver,
}

/// Why a step must stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StopReason {
    /// Aborted up to this ticket.
    Aborted { upto: u64 },
    /// The session was deleted, or the run was lost: nothing more is written.
    Lost,
    /// The replica's time is over: what runs is recorded as interrupted.
    Interrupted,
    /// Ownership can no longer be proven: what runs is recorded as interrupted, the run parks.
    Frozen,
}

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
    /// How the attempt before this one ended, if there was one, until that is counted.
    follows: Arc<Mutex<Option<Former>>>,
    trial: Arc<Mutex<Option<Trial>>>,
    /// Nobody was told that the session is busy.
    silent: Arc<AtomicBool>,
    /// What the run's newest head commit found and reserved.
    known: Arc<Mutex<Known>>,
}

impl Engine {
    /// Asks for the session's lease, and runs if it is won. Returns once it is known who runs; coordination that does
    /// not answer is tried again a few times: after that the sweep, or a waiting caller, finds the ticket.
    ///
    /// `number` of the run guard, where it was read already.
    pub(crate) async fn enter(&self, key: &SessionKey, ticket: u64, was_open: bool, mut number: Option<u64>) {
        if self.is_draining() {
            // Stored here, run elsewhere.
            if let Err(error) = self.0.ports.leases.ensure_due(key, &self.0.replica.born()).await {
                tracing::warn!(session = %key.session, %error, "nobody could be told of a prompt");
            }
            return;
        }
        let attempt = self.new_attempt();
        for tries in 0..8_u64 {
            // Looked at each time: coordination may have forgotten everything since.
            if was_open && self.0.replica.awaits_owners(self.0.settings.lease_ttl) {
                return;
            }
            let number = match number.take() {
                Some(number) => number,
                None => match self.read_run_number(key).await {
                    Ok(number) => number,
                    Err(_) => return,
                },
            };
            let enter = Enter {
                replica: self.0.replica.id(),
                born: self.0.replica.born(),
                key: key.clone(),
                attempt: attempt.clone(),
                kind: LeaseKind::Run,
                ticket,
                was_open,
            };
            let span = trace::lease("enter", key, &attempt);
            match self.0.ports.leases.enter(&enter).instrument(span).await {
                Ok(Entered::Won) => {
                    self.spawn_run(key.clone(), attempt, Entry::Entered { number, was_open });
                    return;
                }
                Ok(Entered::Waiting | Entered::Busy) => return,
                Ok(Entered::Reborn(_)) => {}
                Err(error) => tracing::warn!(session = %key.session, %error, "a lease could not be asked for"),
            }
            tokio::time::sleep(Duration::from_millis(100 * (tries + 1) + self.0.ids.bits() % 100)).await;
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
                let run = engine.clone().run(place.handle.clone(), entry);
                let (delay_ms, failed) = match tokio::spawn(run.instrument(ended.clone())).await {
                    Ok(Ok(End::Over)) => return trace::end(&ended, "over"),
                    Ok(Ok(End::HandOver)) => {
                        trace::end(&ended, "handed over");
                        (0, false)
                    }
                    Ok(Err(EngineError::Lost)) => {
                        tracing::info!("the run was taken over by another replica");
                        trace::end(&ended, "lost");
                        Counters::add(&engine.0.counters.lost, 1);
                        (0, true)
                    }
                    Ok(Err(error)) => {
                        tracing::error!(%error, "the run cannot go on here");
                        trace::fail(&ended, "failed");
                        (1_000, true)
                    }
                    Err(panic) => {
                        tracing::error!(%panic, "the run broke off");
                        trace::fail(&ended, "panicked");
                        (1_000, true)
                    }
                };
                // From here on no beat takes the lease back in this run's name.
                place.handle.rest();
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

    async fn run(self, handle: Arc<RunHandle>, entry: Entry) -> Result<End, EngineError> {
        let Some(run) = self.become_runner(&handle, entry).await? else { return Ok(End::Over) };
        // What began the lease told that the session is busy, unless for an intent; each further turn tells it itself.
        let mut told_busy = !run.is_silent();
        loop {
            let (head, loaded) = Transcript::look(&run).await?;
            match Opening::decide(&head, run.tries(&head), self.0.settings.attempts) {
                Opening::Release => {
                    if run.release(head.issued, false).await? {
                        return Ok(End::Over);
                    }
                }
                Opening::FinishIntent => {
                    if let Some(intent) = &head.intent {
                        run.finish_intent(intent).await?;
                    }
                }
                Opening::FinishDeletion => {
                    self.finish_deletion(&handle.key).await?;
                    return Ok(End::Over);
                }
                Opening::CloseAborted { upto } => run.close_aborted(head.settled, upto).await?,
                Opening::GiveUp => {
                    let error = MessageError::unknown("The run failed again and again without completing a step.");
                    run.fail_turn(&head, error).await?;
                }
                Opening::Run => {
                    run.speak();
                    if let Some(end) = run.turns(head, loaded, told_busy).await? {
                        return Ok(end);
                    }
                    told_busy = false;
                }
            }
        }
    }

    /// Takes the run guard between two looks at the lease. None: the lease is another's, or the session is gone.
    async fn become_runner(&self, handle: &Arc<RunHandle>, entry: Entry) -> Result<Option<Run>, EngineError> {
        let key = &handle.key;
        let mut number = match entry {
            Entry::Entered { number, .. } => number,
            Entry::Claimed => {
                let number = self.read_run_number(key).await?;
                if !self.0.ports.leases.confirm(key, &handle.attempt).await.map_err(unavailable)? {
                    return Ok(None);
                }
                number
            }
        };
        let guard = loop {
            let (store, session) = (self.tenant_store(&key.tenant), key.session.clone());
            let taken = blocking(move || match store.take_run(&session, number) {
                Ok(guard) => Ok(Some(guard)),
                Err(StoreError::Fenced | StoreError::Contended { .. }) => Ok(None),
                Err(error) => Err(error.into()),
            });
            if let Some(guard) = taken.await? {
                break guard;
            }
            number = self.read_run_number(key).await?;
            if !self.0.ports.leases.confirm(key, &handle.attempt).await.map_err(unavailable)? {
                return Ok(None);
            }
        };
        let fence = guard.fence();
        let was_open = matches!(entry, Entry::Claimed | Entry::Entered { was_open: true, .. });
        let now = self.now_ms();
        let (head, opened) = self
            .head_commit(key, Committer::Runner(fence), move |head, at| {
                if !head.is_live() {
                    return Ok(Decision::Leave(None));
                }
                let session = match at.session() {
                    // Its record is gone, by no request of ours: what is left of it goes, too.
                    Err(EngineError::SessionNotFound(_)) => {
                        return Ok(Decision::Write(vec![begin_deletion(head, at)], None));
                    }
                    session => session?,
                };
                let reserved = head.reserve_time(now);
                Ok(Decision::Write(Vec::new(), Some((session, reserved, was_open && head.is_open()))))
            })
            .await?;
        let Some((session, reserved, was_begun)) = opened else {
            self.finish_deletion(key).await?;
            return Ok(None);
        };
        let origin = self.origin(key, &session, Some(fence));
        handle.begin(fence);
        trace::fenced(fence);
        // A revert is over in a moment: OpenCode tells no status for it.
        let is_silent = head.intent.is_some();
        let busy = match is_silent {
            true => Vec::new(),
            false => self.status_entries(&origin, &SessionStatus::Busy),
        };
        self.flush(&key.tenant, Duration::from_secs(5)).await;
        let begun = self.0.ports.leases.begin(key, &handle.attempt, fence, &busy);
        let begun = begun.instrument(trace::lease("begin", key, &handle.attempt));
        if !begun.await.map_err(unavailable)? {
            return Ok(None);
        }
        let follows = match was_begun {
            true => Some(self.0.ports.leases.former(key).await.map_err(unavailable)?),
            false => None,
        };
        Ok(Some(Run {
            engine: self.clone(),
            handle: handle.clone(),
            guard: Arc::new(guard),
            origin,
            sequence: Arc::new(AtomicU64::new(0)),
            goes_on: was_begun,
            follows: Arc::new(Mutex::new(follows)),
            trial: Arc::default(),
            silent: Arc::new(AtomicBool::new(is_silent)),
            known: Arc::new(Mutex::new(Known { rev: head.rev, session, reserved })),
        }))
    }

    async fn read_run_number(&self, key: &SessionKey) -> Result<u64, EngineError> {
        let (store, session) = (self.tenant_store(&key.tenant), key.session.clone());
        blocking(move || store.run_number(&session).map_err(EngineError::from)).await
    }

    /// Where the events of a session come from.
    pub(crate) fn origin(&self, key: &SessionKey, session: &Session, fence: Option<Fence>) -> Origin {
        Origin {
            tenant: key.tenant.clone(),
            directory: session.directory.clone(),
            project: session.project_id.clone(),
            session: key.session.clone(),
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

    /// True while nobody was told that the session is busy: it ends without a word, too.
    pub(crate) fn is_silent(&self) -> bool {
        self.silent.load(Ordering::Acquire)
    }

    fn speak(&self) {
        self.silent.store(false, Ordering::Release);
    }

    /// The run's identity, for the processes that it starts.
    pub(crate) fn identity(&self) -> sandbox::Identity {
        sandbox::Identity {
            session: self.handle.key.session.to_string(),
            attempt: self.handle.attempt.to_string(),
            fence: self.guard.fence().0,
        }
    }

    /// Commits what the run writes. `Lost` if another runner took the guard.
    pub(crate) async fn commit(&self, writes: Vec<Write>) -> Result<(), EngineError> {
        let guard = self.guard.clone();
        blocking(move || guard.commit(writes).map_err(EngineError::from)).await
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

    /// Step after step until nothing is left to do; `loaded` is the conversation under this head. None: look at the head
    /// again from the beginning.
    async fn turns(
        &self,
        mut head: Head,
        mut loaded: Option<Transcript>,
        told_busy: bool,
    ) -> Result<Option<End>, EngineError> {
        let (mut has_begun, mut first) = (false, true);
        loop {
            match Look::at(&head) {
                Look::Go => {}
                Look::Deleted | Look::Aborted { .. } => return Ok(None),
            }
            if self.engine.is_draining() {
                return self.hand_over().await;
            }
            if self.engine.0.replica.is_frozen() {
                self.wait_for_thaw().await?;
                (head, loaded) = Transcript::look(self).await?;
                continue;
            }
            if !has_begun {
                if self.tries(&head) > 1 {
                    // It waits first, and much may change meanwhile.
                    loaded = None;
                }
                if !self.begin_attempt(&head).await? {
                    (head, loaded) = Transcript::look(self).await?;
                    continue;
                }
                has_begun = true;
            }
            let seen = head.issued;
            let mut transcript = match loaded.take() {
                Some(transcript) => transcript,
                None => Transcript::load(self, seen).await?,
            };
            if first {
                transcript.tell_untold(self).await?;
            }
            if first && transcript.has_dangling() {
                transcript.close_dangling(self, None).await?;
                transcript = Transcript::load(self, seen).await?;
            }
            let next = match transcript.next(head.settled) {
                Next::Done { answer } => return self.settle(seen, answer).await,
                next => next,
            };
            let stop = Arc::new(Stop::default());
            let retry = head.retry.clone();
            let step = crate::step::step(self, transcript, next, first && told_busy, retry, stop.clone());
            let step = step.instrument(trace::step(&self.identity()));
            let outcome = {
                let watch = self.watch();
                tokio::pin!(step, watch);
                tokio::select! {
                    outcome = &mut step => outcome,
                    reason = &mut watch => {
                        stop.stop(reason);
                        step.await
                    }
                }
            }?;
            first = false;
            match stop.reason() {
                Some(StopReason::Lost) => return Err(EngineError::Lost),
                Some(StopReason::Interrupted) => return self.hand_over().await,
                Some(StopReason::Frozen) => {
                    head = self.reserve().await?;
                    continue;
                }
                Some(StopReason::Aborted { upto }) => {
                    self.settle_aborted(upto, outcome.message).await?;
                    return Ok(None);
                }
                None => {}
            }
            Counters::add(&self.engine.0.counters.steps, 1);
            self.end_trial();
            if let Some(answer) = outcome.ends_with {
                return self.settle(seen, answer).await;
            }
            // The commit that ends a step: its attempts are over, its tokens are added up, the next message's time is
            // reserved.
            head = self.add_up(outcome.spent, self.engine.now_ms()).await?;
        }
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

    /// Gives the run to another replica. That is no failure.
    async fn hand_over(&self) -> Result<Option<End>, EngineError> {
        self.engine.flush(&self.handle.key.tenant, Duration::from_secs(1)).await;
        Ok(Some(End::HandOver))
    }

    /// Waits until something stops the step: an abort, a deletion, a loss, the end of the replica's time.
    async fn watch(&self) -> StopReason {
        loop {
            tokio::select! {
                () = self.handle.lost.cancelled() => return StopReason::Lost,
                () = self.handle.interrupted.cancelled() => return StopReason::Interrupted,
                () = self.engine.0.replica.freezes() => return StopReason::Frozen,
                () = self.handle.poke.notified() => {}
            }
            self.engine.0.waiters.wake(&self.handle.key);
            match self.read_head().await {
                Ok(head) => match Look::at(&head) {
                    Look::Go => {}
                    Look::Deleted => return StopReason::Lost,
                    Look::Aborted { upto } => return StopReason::Aborted { upto },
                },
                Err(EngineError::SessionNotFound(_)) => return StopReason::Lost,
                Err(error) => tracing::warn!(%error, "the head could not be read"),
            }
        }
    }

    /// Attempts since the last completed step, with this one.
    fn tries(&self, head: &Head) -> u32 {
        let mut counted = head.clone();
        count(&mut counted, self.follows());
        counted.tries
    }

    fn follows(&self) -> Option<Former> {
        *self.follows.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Begins an attempt: one after a failure is counted before anything is done, one after several waits out its back-off
    /// and then for its trial. False: something came meanwhile, look at the head first.
    ///
    /// It is counted only now, so that a run that still waits is not counted the death of its replica.
    async fn begin_attempt(&self, head: &Head) -> Result<bool, EngineError> {
        let tries = self.tries(head);
        if tries > 1 {
            let ttl_ms = self.engine.0.settings.lease_ttl.as_millis() as u64;
            let delay = Duration::from_millis(run_protocol::turn::attempt_delay_ms(tries, ttl_ms));
            let turn = async {
                tokio::time::sleep(delay).await;
                Trial::begin(&self.engine, &self.handle.key).await
            };
            let trial = tokio::select! {
                begun = turn => begun,
                reason = self.watch() => match reason {
                    StopReason::Lost => return Err(EngineError::Lost),
                    StopReason::Aborted { .. } | StopReason::Interrupted | StopReason::Frozen => return Ok(false),
                },
                () = self.engine.0.draining.cancelled() => return Ok(false),
            };
            *self.trial.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = trial;
        }
        let follows = self.follows();
        if !matches!(follows, None | Some(Former::HandedOver)) {
            self.head_commit(move |head, _| {
                count(head, follows);
                Ok(Decision::Write(Vec::new(), ()))
            })
            .await?;
            *self.follows.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = None;
        }
        Ok(true)
    }

    /// The run's trial is over, if it is on trial: it has completed a step, or does nothing but wait for people.
    pub(crate) fn end_trial(&self) {
        self.trial.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).take();
    }

    /// Parks at a durable point until ownership is proven again.
    async fn wait_for_thaw(&self) -> Result<(), EngineError> {
        while self.engine.0.replica.is_frozen() {
            tokio::select! {
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

/// Counts an attempt that follows one which ended so. That it was handed over is no failure.
fn count(head: &mut Head, former: Option<Former>) {
    match former {
        None | Some(Former::HandedOver) => {}
        Some(Former::Failed) => head.count_attempt(false),
        Some(Former::Spared) => head.count_attempt(true),
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
