//! This replica in the fleet: beats, burial of the silent, claims, the drain.

use crate::api::EngineError;
use crate::beat::Heard;
use crate::engine::{Counters, Engine, Settings};
use coordination::{Attempt, Born, Ports, ReplicaId, SessionKey, Signal, Tick};
use run_protocol::steward::room_to_claim;
use run_protocol::{Adoption, Amends, Duty, Fence, Liveness, RunHere};
use sandbox::Lifeline;
use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;
use wire::ids::IdSource;
use wire::tenant::Tenant;

/// Runs that may be about to begin at once: as many leases are claimed.
const ENTERING: usize = 32;
/// How often one replica looks through all markers.
const SWEEP: Duration = Duration::from_secs(60);
/// How often one replica removes what was kept for long enough.
const TIDY: Duration = Duration::from_secs(3_600);
/// How long the steward reads on in a log at once.
const CATCH_UP: Duration = Duration::from_secs(1);

pub(crate) struct Replica {
    name: String,
    publisher: ReplicaId,
    started: Instant,
    /// How much longer than ownership can be proven a command may live: enough to be stopped in order before.
    grace: Duration,
    lifeline: Lifeline,
    state: Mutex<State>,
}

struct State {
    id: ReplicaId,
    born: Born,
    liveness: Liveness,
    /// True while it joins under a new name or mark: until what it runs is adopted, no answered tick proves anything.
    joins_again: bool,
    acknowledged: Vec<(SessionKey, u64)>,
    /// When this replica saw that coordination had forgotten everything.
    reborn: Option<Instant>,
    /// Changed with each new id, so that the control channel is listened to anew.
    incarnation: u64,
}

impl Replica {
    pub(crate) async fn join(ports: &Ports, ids: &IdSource, settings: &Settings) -> Result<Self, EngineError> {
        let id = new_id(&settings.name, ids);
        let proposal = Born(format!("{:016x}", ids.bits()));
        let started = Instant::now();
        let born = ports.registry.join(&id, &proposal).await.map_err(unavailable)?;
        let margin = settings.lease_ttl / 5;
        let mut liveness = Liveness::new(settings.lease_ttl.as_millis() as u64, margin.as_millis() as u64);
        liveness.answered(0);
        let state = State {
            id: id.clone(),
            born,
            liveness,
            joins_again: false,
            acknowledged: Vec::new(),
            reborn: None,
            incarnation: 0,
        };
        let grace = settings.lease_ttl / 10;
        let lifeline = Lifeline::new((started + settings.lease_ttl - margin + grace).into_std());
        Ok(Self { name: settings.name.clone(), publisher: id, started, grace, lifeline, state: Mutex::new(state) })
    }

    /// The next beat to send; none while this replica joins again.
    pub(crate) fn next_tick(&self) -> Option<Tick> {
        let mut state = self.state();
        (!state.joins_again).then(|| Tick {
            replica: state.id.clone(),
            born: state.born.clone(),
            acknowledged: std::mem::take(&mut state.acknowledged),
            watched: Vec::new(),
        })
    }

    /// A beat that was sent then was answered: ownership is proven anew.
    pub(crate) fn answered(&self, sent_ms: u64) {
        let now = self.now_ms();
        let left = {
            let mut state = self.state();
            state.liveness.answered(sent_ms);
            state.liveness.left_ms(now)
        };
        let until = self.started + Duration::from_millis(now + left) + self.grace;
        self.lifeline.move_on(until.into_std());
    }

    pub(crate) fn joins_again(&self, joins: bool) {
        self.state().joins_again = joins;
    }

    /// Until when commands of this replica may live.
    pub(crate) fn lifeline(&self) -> Lifeline {
        self.lifeline.clone()
    }

    /// Waits until ownership can no longer be proven.
    pub(crate) async fn freezes(&self) {
        loop {
            let left = self.state().liveness.left_ms(self.now_ms());
            if left == 0 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(left)).await;
        }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    pub(crate) fn id(&self) -> ReplicaId {
        self.state().id.clone()
    }

    /// Who publishes: one identity for the whole life of the process.
    pub(crate) fn publisher(&self) -> ReplicaId {
        self.publisher.clone()
    }

    pub(crate) fn born(&self) -> Born {
        self.state().born.clone()
    }

    /// Milliseconds of this replica's own monotonic clock.
    pub(crate) fn now_ms(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
    }

    /// True when ownership can no longer be proven.
    pub(crate) fn is_frozen(&self) -> bool {
        self.state().liveness.is_frozen(self.now_ms())
    }

    /// True for a TTL after coordination forgot everything: leases that are missing may have an owner that takes them
    /// back.
    pub(crate) fn awaits_owners(&self, ttl: Duration) -> bool {
        self.state().reborn.is_some_and(|seen| seen.elapsed() < ttl)
    }

    /// True when the last tick that was answered is older than this.
    pub(crate) fn is_late(&self, limit: Duration) -> bool {
        let age = self.state().liveness.age_ms(self.now_ms());
        age.is_none_or(|age| age > limit.as_millis() as u64)
    }
}

fn new_id(name: &str, ids: &IdSource) -> ReplicaId {
    ReplicaId(format!("{name}.{:016x}", ids.bits()))
}

pub(crate) fn unavailable(error: coordination::CoordinationError) -> EngineError {
    EngineError::Unavailable(error.to_string())
}

impl Engine {
    pub(crate) fn new_attempt(&self) -> Attempt {
        Attempt(format!("{:016x}{:016x}", self.0.ids.bits(), self.0.ids.bits()))
    }

    /// Starts the beat and the tasks that work for this replica as a whole.
    pub(crate) fn start_replica(&self) -> Result<(), EngineError> {
        let heard = self.start_beat();
        let heard = heard.map_err(|error| EngineError::Unavailable(format!("the beat cannot begin: {error}")))?;
        self.0.tasks.spawn(self.clone().steward(heard));
        self.0.tasks.spawn(self.clone().claims());
        self.0.tasks.spawn(self.clone().listen());
        self.0.tasks.spawn(self.clone().sweep_at_start());
        Ok(())
    }

    /// The task `steward`: deals with what the beat heard; it ends with the replica.
    async fn steward(self, mut beat: mpsc::Receiver<Heard>) {
        let (mut swept, mut tidied) = (Instant::now(), Instant::now());
        let mut behind: HashMap<Tenant, u32> = HashMap::new();
        loop {
            let heard = tokio::select! {
                biased;
                heard = beat.recv() => match heard {
                    Some(heard) => heard,
                    None => return,
                },
                () = self.0.stopped.cancelled() => return,
            };
            let beaten = heard.beaten(|key| self.0.runs.run_of(key) != RunHere::No);
            match Duty::decide(beaten, self.0.runs.count() as u64) {
                Duty::LookByThemselves => self.look_at_all_runs(),
                Duty::JoinAgain(mark) => self.rejoin(mark).await,
                Duty::GoOn { claims, amends } => {
                    let Heard::Alive(news) = heard else { continue };
                    for (key, count) in news.pokes {
                        self.0.runs.poke(&key, None);
                        self.0.waiters.wake(&key);
                        self.0.replica.state().acknowledged.push((key, count));
                    }
                    self.bury(news.silent, news.suspects).await;
                    if claims {
                        self.0.runs.due.notify_one();
                    }
                    if amends {
                        self.reconcile().await;
                    }
                    self.catch_up_late(&news.followed, &news.newest, &mut behind).await;
                    if news.is_lowest && swept.elapsed() >= SWEEP {
                        swept = Instant::now();
                        self.spawn_sweep();
                    }
                    if news.is_lowest && tidied.elapsed() >= TIDY {
                        tidied = Instant::now();
                        let engine = self.clone();
                        self.0.tasks.spawn(async move { engine.tidy().await });
                    }
                }
            }
        }
    }

    /// Reads on in logs whose newest cursor has been another for more than one tick; for a moment only, since much else waits
    /// for that. The next tick goes on.
    async fn catch_up_late(
        &self,
        followed: &[(Tenant, Option<coordination::Cursor>)],
        newest: &HashMap<Tenant, Option<coordination::Cursor>>,
        behind: &mut HashMap<Tenant, u32>,
    ) {
        for (tenant, own) in followed {
            let read_on = async {
                let is_read = match newest.get(tenant) {
                    // On a busy log it is another one at each tick: what counts is whether it has come here since.
                    Some(Some(there)) if Some(there) != own.as_ref() => self.has_read(tenant, there).await,
                    Some(there) => there == own,
                    None => true,
                };
                if is_read {
                    behind.remove(tenant);
                    return;
                }
                let ticks = behind.entry(tenant.clone()).or_default();
                *ticks += 1;
                if *ticks > 1 {
                    self.catch_up(tenant).await;
                }
            };
            if tokio::time::timeout(CATCH_UP, read_on).await.is_err() {
                tracing::warn!(%tenant, "the event log is not read to its end yet");
            }
        }
    }

    /// The task `control`: pokes and wakes; it ends with the replica.
    async fn listen(self) {
        loop {
            let (id, incarnation) = {
                let state = self.0.replica.state();
                (state.id.clone(), state.incarnation)
            };
            let mut signals = match self.0.ports.registry.listen(&id).await {
                Ok(signals) => signals,
                Err(error) => {
                    tracing::warn!(%error, "the control channel is not heard");
                    tokio::time::sleep(Duration::from_millis(500 + self.0.ids.bits() % 500)).await;
                    continue;
                }
            };
            while self.0.replica.state().incarnation == incarnation {
                tokio::select! {
                    biased;
                    signal = signals.recv() => match signal {
                        Some(Signal::Poke(key, fence)) => self.0.runs.poke(&key, fence),
                        Some(Signal::Wake) => self.0.runs.due.notify_one(),
                        None => break,
                    },
                    () = tokio::time::sleep(self.0.settings.tick) => {}
                    () = self.0.stopped.cancelled() => return,
                }
            }
        }
    }

    /// The task `claims`: takes what is due, as much as there is room for; it ends with the replica.
    async fn claims(self) {
        loop {
            tokio::select! {
                biased;
                () = self.0.runs.due.notified() => {}
                () = self.0.stopped.cancelled() => return,
            }
            // After a moment drawn at random, so that a whole fleet does not try at once; who has little to do comes first.
            let wait = Duration::from_millis(self.0.ids.bits() % 50 + self.0.runs.count().min(50) as u64);
            tokio::select! {
                biased;
                () = tokio::time::sleep(wait) => {}
                () = self.0.stopped.cancelled() => return,
            }
            if self.claim().await {
                self.0.runs.due.notify_one();
            }
        }
    }

    /// True if there may be more to claim, or room for it soon.
    async fn claim(&self) -> bool {
        let entering = self.0.runs.entering();
        let room = match room_to_claim(self.is_draining(), self.0.replica.is_frozen(), entering, ENTERING) {
            None => return false,
            Some(0) => return true,
            Some(room) => room,
        };
        let attempts: Vec<_> = (0..room).map(|_| self.new_attempt()).collect();
        let (id, born) = (self.0.replica.id(), self.0.replica.born());
        match self.0.ports.leases.claim(&id, &born, &attempts).await {
            Ok(claimed) => {
                let is_full = claimed.len() == room;
                for (key, attempt) in claimed {
                    self.spawn_run(key, attempt, run_protocol::Entry::Claimed);
                }
                is_full
            }
            Err(error) => {
                tracing::warn!(%error, "nothing could be claimed");
                false
            }
        }
    }

    async fn bury(&self, mut dead: Vec<(ReplicaId, u64)>, suspects: Vec<(ReplicaId, u64)>) {
        for suspect in suspects {
            // Silent, and nobody listens on its control channel: its process is gone.
            if !dead.contains(&suspect) && matches!(self.0.ports.registry.is_reachable(&suspect.0).await, Ok(false)) {
                dead.push(suspect);
            }
        }
        for (replica, beat) in dead {
            match self.0.ports.registry.bury(&replica, beat).await {
                Ok(Some(leases)) => {
                    tracing::warn!(%replica, leases, "buried a replica that fell silent");
                    Counters::add(&self.0.counters.buried, 1);
                    self.spawn_sweep();
                }
                Ok(None) => {}
                Err(error) => tracing::warn!(%replica, %error, "a silent replica could not be buried"),
            }
        }
    }

    /// After a burial of this replica or a rebirth of coordination: joins (under a new id) and takes its leases back.
    async fn rejoin(&self, reborn: Option<Born>) {
        self.join_and_adopt(reborn).await;
        self.0.replica.joins_again(false);
    }

    async fn join_and_adopt(&self, reborn: Option<Born>) {
        let was_reborn = reborn.is_some();
        let (id, proposal) = {
            let mut state = self.0.replica.state();
            if let Some(born) = reborn {
                state.born = born;
                state.reborn = Some(Instant::now());
            } else {
                state.id = new_id(&self.0.replica.name, &self.0.ids);
                state.incarnation += 1;
            }
            state.acknowledged.clear();
            (state.id.clone(), state.born.clone())
        };
        tracing::warn!(replica = %id, reborn = was_reborn, "joins the fleet again");
        // First: whether the rest can be done now or not, it is not told again that coordination forgot.
        if was_reborn {
            let engine = self.clone();
            self.0.tasks.spawn(async move {
                // Owners that live adopt first.
                tokio::select! {
                    biased;
                    () = tokio::time::sleep(engine.0.settings.lease_ttl) => {
                        engine.sweep().await;
                        engine.ask_after_the_busy().await;
                    }
                    () = engine.0.stopped.cancelled() => {}
                }
            });
        }
        match self.0.ports.registry.join(&id, &proposal).await {
            Ok(born) => self.0.replica.state().born = born,
            Err(error) => {
                tracing::warn!(%error, "the fleet could not be joined");
                return;
            }
        }
        for (key, attempt, fence) in self.0.runs.begun() {
            self.adopt(&id, &key, &attempt, fence).await;
        }
    }

    /// Has somebody look at the sessions that readers here take to be at work: whoever worked there may have settled all while
    /// it was cut off, and died before it told so. Where somebody has the lease, nothing changes.
    async fn ask_after_the_busy(&self) {
        self.ask_to_look(self.told_busy().await).await;
    }

    /// Has a replica claim the lease of each of these sessions, unless somebody has it, and tell what readers were not told,
    /// were it only that the session is idle: whoever was to tell it has no lease to tell it under any more. Coordination
    /// that does not answer is asked again for some seconds.
    pub(crate) async fn ask_to_look(&self, mut sessions: Vec<SessionKey>) {
        for tries in 0..20_u64 {
            let born = self.0.replica.born();
            let mut unanswered = Vec::new();
            for key in sessions {
                match self.0.ports.leases.ensure_due(&key, &born).await {
                    Ok(true) => {}
                    // Coordination came back empty, and this replica has yet to join it.
                    Ok(false) => unanswered.push(key),
                    Err(error) => {
                        tracing::warn!(session = %key.session, %error, "nobody looks yet whether a session is still at work");
                        unanswered.push(key);
                    }
                }
            }
            if unanswered.is_empty() {
                return;
            }
            sessions = unanswered;
            let wait = 100 * tries.min(10) + 50;
            tokio::select! {
                biased;
                () = tokio::time::sleep(Duration::from_millis(wait + self.0.ids.bits() % wait)) => {}
                () = self.0.stopped.cancelled() => return,
            }
        }
    }

    /// The backend counts other leases for this replica than it runs: those that nobody runs are handed over, those that
    /// it runs are adopted.
    async fn reconcile(&self) {
        let id = self.0.replica.id();
        let Ok(owned) = self.0.ports.registry.owned(&id).await else { return };
        for key in &owned {
            if Amends::decide(true, self.0.runs.run_of(key)) == Amends::HandOver
                && let Ok(Some(attempt)) = self.0.ports.leases.attempt_of(key).await
                && self.0.runs.run_of(key) == RunHere::No
            {
                let _ = self.0.ports.leases.hand_over(key, &attempt, 0, false).await;
            }
        }
        for (key, attempt, fence) in self.0.runs.begun() {
            if Amends::decide(owned.contains(&key), RunHere::Works(fence)) == Amends::Adopt(fence) {
                self.adopt(&id, &key, &attempt, fence).await;
            }
        }
    }

    /// Takes a lease back in the name of the run that works under it here.
    async fn adopt(&self, id: &ReplicaId, key: &SessionKey, attempt: &Attempt, fence: Fence) {
        if matches!(self.read_run_number(key).await, Ok(number) if !fence.holds(number)) {
            return self.0.runs.lose(key, attempt);
        }
        let adopted = match self.0.ports.leases.adopt(key, id, attempt, fence).await {
            Ok(adopted) => adopted,
            // The next beat finds that the count differs.
            Err(error) => return tracing::warn!(session = %key.session, %error, "a lease could not be adopted"),
        };
        let still_works = self.0.runs.attempt_of(key, fence).as_ref() == Some(attempt);
        match Adoption::decide(adopted, still_works) {
            Adoption::Keep => {}
            Adoption::HandOver => {
                if let Err(error) = self.0.ports.leases.hand_over(key, attempt, 0, false).await {
                    tracing::warn!(session = %key.session, %error, "the next beat gives the lease away");
                }
            }
            Adoption::Lose => self.0.runs.lose(key, attempt),
        }
    }

    /// Coordination does not answer: runs look at the store by themselves, so that an abort reaches them.
    fn look_at_all_runs(&self) {
        for (key, _, _) in self.0.runs.begun() {
            self.0.runs.poke(&key, None);
        }
    }

    /// Hands every run over at its next step and returns when all are gone or the deadline is over, and this replica's
    /// readers have been told what was done. Requests that still arrive are stored, run elsewhere, and answered here until [`Engine::stop`].
    pub async fn drain(&self) {
        self.0.draining.cancel();
        let deadline = Instant::now() + self.0.settings.drain_deadline;
        self.0.runs.poke_all();
        while self.0.runs.count() > 0 && Instant::now() < deadline {
            let _ = tokio::time::timeout_at(deadline, self.0.runs.changed()).await;
        }
        self.0.runs.interrupt_all();
        let _ = tokio::time::timeout(Duration::from_secs(1), async {
            while self.0.runs.count() > 0 {
                self.0.runs.changed().await;
            }
        })
        .await;
        // Readers hear here what was done here: then their streams may be cut.
        let tenant = Tenant::default();
        self.flush(&tenant, Duration::from_millis(500)).await;
        let _ = tokio::time::timeout(Duration::from_millis(500), self.catch_up(&tenant)).await;
    }

    /// Tells all callers that still wait for an answer to ask elsewhere.
    pub fn leave(&self) {
        self.0.leaving.cancel();
    }

    /// Ends the beat, which leaves the fleet, and all tasks; readers of events are cut.
    pub async fn stop(&self) {
        self.flush(&Tenant::default(), Duration::from_secs(1)).await;
        self.0.stopped.cancel();
        let _ = tokio::time::timeout(Duration::from_secs(2), self.0.left.cancelled()).await;
        let _ = tokio::time::timeout(Duration::from_secs(2), self.0.tasks.end()).await;
    }
}
