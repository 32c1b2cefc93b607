//! Drives the life of a run: does what [`run_protocol::Life`] says next, and tells it what came of that. What follows is
//! decided there.

use crate::api::EngineError;
use crate::commit::{Committer, Decision};
use crate::engine::{Counters, Engine, blocking};
use crate::replica::unavailable;
use crate::run::{Known, Run, Stop, StopReason};
use crate::runs::RunHandle;
use crate::sessions::begin_deletion;
use crate::settle::{Farewell, Settled};
use crate::trace;
use crate::turn::{Next, Transcript};
use coordination::SessionKey;
use run_protocol::{Effect, End, Entry, Fence, Head, Input, Life, Opened, Spent, Worked};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use storage::{RunGuard, StoreError};
use tracing::Instrument;
use wire::ids::MessageId;
use wire::message::{MessageError, MessageWithParts};
use wire::session::SessionStatus;

impl Engine {
    /// Lives a run through, from the lease to its end. The lease of one that failed is still to be handed over.
    pub(crate) async fn live(self, handle: Arc<RunHandle>, entry: Entry) -> (End, Option<EngineError>) {
        let (mut life, mut effect) = Life::begin(entry, self.0.settings.attempts);
        let mut driver = Driver::new(self, handle.clone());
        let mut failure = None;
        loop {
            handle.stand(life.fence());
            let input = match driver.perform(effect).await {
                Ok(input) => input,
                Err(EngineError::Lost) => Input::Lost,
                Err(error) => {
                    failure = Some(error);
                    Input::Failed
                }
            };
            if let Effect::End(end) = effect {
                return (end, failure);
            }
            effect = life.next(input);
        }
    }

    async fn take_run(&self, key: &SessionKey, number: u64) -> Result<Option<RunGuard>, EngineError> {
        let (store, session) = (self.tenant_store(&key.tenant), key.session.clone());
        blocking(move || match store.take_run(&session, number) {
            Ok(guard) => Ok(Some(guard)),
            Err(StoreError::Fenced | StoreError::Contended { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        })
        .await
    }
}

/// What a run has at hand between two effects.
struct Driver {
    engine: Engine,
    handle: Arc<RunHandle>,
    guard: Option<RunGuard>,
    /// Since the first head commit.
    run: Option<Run>,
    /// As it was read or committed last.
    head: Option<Head>,
    /// The conversation under that head, if it was read with it.
    loaded: Option<Transcript>,
    /// What the last step used.
    spent: Spent,
    /// The message that the last step wrote.
    message: Option<MessageId>,
    answer: Option<Settled>,
    farewell: Option<Farewell>,
    /// Whoever had the lease before may have settled all, and died or lost it before that could be told; so may whoever stored a
    /// prompt that was aborted. The first step tells what is untold, and where there is none, the end of the run.
    may_be_untold: bool,
    /// The prompts that were answered. Each is told by the replica that stored it, if that lives.
    prompts: BTreeMap<MessageId, Arc<MessageWithParts>>,
}

impl Driver {
    fn new(engine: Engine, handle: Arc<RunHandle>) -> Self {
        Self {
            engine,
            handle,
            guard: None,
            run: None,
            head: None,
            loaded: None,
            spent: Spent::default(),
            message: None,
            answer: None,
            farewell: None,
            may_be_untold: true,
            prompts: BTreeMap::new(),
        }
    }

    /// The run, once its first head commit has found that the session lives.
    fn run(&self) -> Result<Run, EngineError> {
        self.run.clone().ok_or_else(|| EngineError::Store("a run that has not opened its session was to go on".into()))
    }

    async fn perform(&mut self, effect: Effect) -> Result<Input<'_>, EngineError> {
        let (engine, key) = (self.engine.clone(), self.handle.key.clone());
        Ok(match effect {
            Effect::ReadNumber => Input::Number(engine.read_run_number(&key).await?),
            Effect::Confirm => {
                let confirmed = engine.0.ports.leases.confirm(&key, &self.handle.attempt).await;
                Input::Confirmed(confirmed.map_err(unavailable)?)
            }
            Effect::Take { number } => {
                self.guard = engine.take_run(&key, number).await?;
                Input::Taken(self.guard.as_ref().map(RunGuard::fence))
            }
            Effect::Open { fence, was_open } => Input::Opened(self.open(fence, was_open).await?),
            Effect::Begin { fence, silent } => Input::Begun(self.begin(fence, silent).await?),
            Effect::AskFormer => Input::Follows(engine.0.ports.leases.former(&key).await.map_err(unavailable)?),
            Effect::Look => {
                let run = self.run()?;
                let (mut head, mut loaded) = Transcript::look(&run).await?;
                // A prompt that came since was given a later time: what answers it, or says that it was aborted, comes after it.
                if head.is_live() && head.is_open() && head.clock > run.known().reserved {
                    (head, loaded) = (run.reserve().await?, None);
                }
                self.loaded = loaded;
                self.found(head)
            }
            Effect::Wait { tries } => {
                // Much may change meanwhile.
                self.loaded = None;
                Input::Waited(self.run()?.wait_for_attempt(tries).await?)
            }
            Effect::Count { former } => {
                self.run()?.count_attempt(former).await?;
                Input::Done
            }
            Effect::Park => {
                self.run()?.wait_for_thaw().await?;
                Input::Done
            }
            Effect::Work { seen, is_first, told_busy } => Input::Worked(self.work(seen, is_first, told_busy).await?),
            Effect::EndStep => {
                let head = self.run()?.add_up(std::mem::take(&mut self.spent), engine.now_ms()).await?;
                self.found(head)
            }
            Effect::Reserve => {
                let head = self.run()?.reserve().await?;
                self.found(head)
            }
            Effect::SettleAborted { upto } => {
                self.may_be_untold = true;
                self.run()?.settle_aborted(upto, self.message.take()).await?;
                Input::Done
            }
            Effect::CloseAborted { settled, upto } => {
                self.may_be_untold = true;
                self.run()?.close_aborted(settled, upto).await?;
                Input::Done
            }
            Effect::Settle { seen } => {
                let answer = self.answer.take().ok_or_else(|| EngineError::Store("nothing was answered".into()))?;
                self.spent = answer.spent.clone();
                let (ending, farewell) = self.run()?.settle(seen, answer).await?;
                self.farewell = farewell;
                Input::Ended(ending)
            }
            Effect::GiveUp { seen } => {
                self.spent = Spent::default();
                let error = MessageError::unknown("The run failed again and again without completing a step.");
                let (ending, farewell) = self.run()?.fail_turn(seen, error).await?;
                self.farewell = farewell;
                Input::Ended(ending)
            }
            Effect::FinishIntent => {
                if let Some(intent) = self.head.as_ref().and_then(|head| head.intent.as_ref()) {
                    self.run()?.finish_intent(intent).await?;
                }
                Input::Done
            }
            Effect::FinishDeletion => {
                engine.finish_deletion(&key).await?;
                Input::Done
            }
            Effect::Release { seen, silent } => {
                let run = self.run()?;
                let may_be_untold = std::mem::take(&mut self.may_be_untold);
                if may_be_untold || has_untold(&run, std::mem::take(&mut self.prompts)).await? {
                    tell_settled(&run, seen).await?;
                }
                crate::asks::told::ended(&run).await?;
                Input::Released(run.release(seen, silent, self.farewell.take()).await?)
            }
            Effect::End(end) => {
                if end == End::HandOver {
                    engine.flush(&key.tenant, Duration::from_secs(1)).await;
                }
                Input::Done
            }
        })
    }

    /// The head that was found, and this replica as it is.
    fn found(&mut self, head: Head) -> Input<'_> {
        Input::Head {
            head: self.head.insert(head),
            is_draining: self.engine.is_draining(),
            is_frozen: self.engine.0.replica.is_frozen(),
        }
    }

    /// The first head commit under the fence.
    async fn open(&mut self, fence: Fence, was_open: bool) -> Result<Opened, EngineError> {
        let (engine, key) = (&self.engine, &self.handle.key);
        let now = engine.now_ms();
        let (head, opened) = engine
            .head_commit(key, Committer::Runner(fence), move |head, at| {
                let Opened::Live { goes_on, has_intent } = Opened::decide(head, was_open) else {
                    return Ok(Decision::Leave(None));
                };
                let session = match at.session() {
                    // Its record is gone, by no request of ours: what is left of it goes, too.
                    Err(EngineError::SessionNotFound(_)) => {
                        return Ok(Decision::Write(vec![begin_deletion(head, at)], None));
                    }
                    session => session?,
                };
                let reserved = head.reserve_time(now);
                Ok(Decision::Write(Vec::new(), Some((session, reserved, goes_on, has_intent))))
            })
            .await?;
        let (Some(guard), Some((session, reserved, goes_on, has_intent))) = (self.guard.take(), opened) else {
            return Ok(Opened::Deleted);
        };
        let origin = engine.origin(key, &session, Some(fence));
        let known = Known { rev: head.rev, session, reserved };
        self.run = Some(Run::new(engine.clone(), self.handle.clone(), guard, origin, goes_on, known));
        Ok(Opened::Live { goes_on, has_intent })
    }

    /// Begins the lease. False: it is another's.
    async fn begin(&self, fence: Fence, silent: bool) -> Result<bool, EngineError> {
        let (engine, key) = (&self.engine, &self.handle.key);
        trace::fenced(fence);
        let busy = match silent {
            true => Vec::new(),
            false => engine.status_entries(&self.run()?.origin, &SessionStatus::Busy),
        };
        engine.flush(&key.tenant, Duration::from_secs(5)).await;
        let begun = engine.0.ports.leases.begin(key, &self.handle.attempt, fence, &busy);
        begun.instrument(trace::lease("begin", key, &self.handle.attempt)).await.map_err(unavailable)
    }

    /// Loads and does one step, if there is one.
    async fn work(&mut self, seen: u64, is_first: bool, told_busy: bool) -> Result<Worked, EngineError> {
        let run = self.run()?;
        let mut transcript = match self.loaded.take() {
            Some(transcript) => transcript,
            None => Transcript::load(&run, seen).await?,
        };
        if is_first {
            transcript.tell_untold(&run, run.goes_on).await?;
            self.may_be_untold = false;
        }
        self.prompts.extend(transcript.prompts().map(|prompt| (prompt.info.id().clone(), prompt.clone())));
        if is_first && transcript.has_dangling() {
            transcript.close_dangling(&run, None).await?;
            transcript = Transcript::load(&run, seen).await?;
        }
        let (settled, retry) = self.head.as_ref().map_or((0, None), |head| (head.settled, head.retry.clone()));
        let next = match transcript.next(settled) {
            Next::Done { answer } => {
                self.answer = Some(answer);
                return Ok(Worked::Answered);
            }
            next => next,
        };
        let stop = Arc::new(Stop::default());
        let step = crate::step::step(&run, transcript, next, told_busy, retry, stop.clone());
        let step = step.instrument(trace::step(&run.identity()));
        let outcome = {
            let watch = run.watch();
            tokio::pin!(step, watch);
            tokio::select! {
                biased;
                outcome = &mut step => outcome,
                reason = &mut watch => {
                    stop.stop(reason);
                    step.await
                }
            }
        }?;
        if let Some(reason) = stop.reason() {
            self.message = outcome.message;
            // It had come to its end before it could be stopped.
            if reason != StopReason::Lost && outcome.spent != Spent::default() {
                run.add_up(outcome.spent, self.engine.now_ms()).await?;
            }
            return Ok(Worked::Stopped(reason));
        }
        Counters::add(&self.engine.0.counters.steps, 1);
        run.end_trial();
        self.spent = outcome.spent;
        self.answer = outcome.ends_with;
        Ok(if self.answer.is_some() { Worked::Answered } else { Worked::Stepped })
    }
}

/// True if readers here were not told all of these prompts, or not yet.
async fn has_untold(run: &Run, prompts: BTreeMap<MessageId, Arc<MessageWithParts>>) -> Result<bool, EngineError> {
    let heard = run.engine.feed(&run.handle.key.tenant).await?.heard(&run.handle.key.session);
    Ok(prompts.values().any(|prompt| heard.misses(prompt)))
}

/// Tells what is untold of a conversation in which there is nothing left to do.
async fn tell_settled(run: &Run, seen: u64) -> Result<(), EngineError> {
    let told = async { Transcript::load(run, seen).await?.tell_untold(run, true).await };
    match told.await {
        // The log does not answer: whoever tries again tells it.
        Err(error @ (EngineError::Lost | EngineError::Unavailable(_))) => Err(error),
        // A conversation that cannot be read holds up no lease.
        Err(error) => {
            tracing::warn!(session = %run.handle.key.session, %error, "what is untold of a session is not told");
            Ok(())
        }
        Ok(()) => Ok(()),
    }
}
