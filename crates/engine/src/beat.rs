//! The beat: on a thread, a runtime and a connection of its own, so that nothing that runs here can hold it up. What it hears
//! is dealt with elsewhere: by the task `steward`.

use crate::engine::Engine;
use crate::strand::is_alone;
use coordination::{Born, Cursor, ReplicaId, SessionKey, Ticked};
use run_protocol::{BeatWatch, Beaten};
use std::collections::HashMap;
use std::time::Duration;
use tokio::sync::mpsc;
use wire::tenant::Tenant;

/// What is not dealt with yet; more of it is heard again with the next beat.
const HEARD: usize = 4;
/// How long the beat may take to leave the fleet.
const LEAVING: Duration = Duration::from_secs(2);
/// A replica that was silent for this long is buried at once if its process is gone, too.
const SHORT_SILENCE_MS: u64 = 2_000;

/// What a beat brought.
pub(crate) enum Heard {
    /// Coordination did not answer.
    Nothing,
    /// This replica was buried.
    Buried,
    /// Coordination forgot everything and bears this mark.
    Reborn(Born),
    /// This replica lives.
    Alive(Box<News>),
}

impl Heard {
    /// As what follows is decided from it. `runs`: something runs here for a session.
    pub(crate) fn beaten(&self, runs: impl Fn(&SessionKey) -> bool) -> Beaten<Born> {
        match self {
            Self::Nothing => Beaten::Unanswered,
            Self::Buried => Beaten::Buried,
            Self::Reborn(born) => Beaten::Reborn(born.clone()),
            Self::Alive(news) => Beaten::Alive {
                owned: news.owned,
                due: news.due,
                is_mistaken: news.pokes.iter().any(|(key, _)| !runs(key)),
            },
        }
    }
}

/// What a replica that lives is told.
pub(crate) struct News {
    /// Leases that it owns.
    pub owned: u64,
    /// Sessions to look at, and the count to acknowledge.
    pub pokes: Vec<(SessionKey, u64)>,
    /// Leases that wait for an owner.
    pub due: u64,
    /// What it follows, and the newest cursor of each of these logs.
    pub followed: Vec<(Tenant, Option<Cursor>)>,
    pub newest: HashMap<Tenant, Option<Cursor>>,
    /// Other replicas that were silent for the whole TTL, with the beat they stopped at.
    pub silent: Vec<(ReplicaId, u64)>,
    /// Those that were silent for a short while.
    pub suspects: Vec<(ReplicaId, u64)>,
    /// True for the one replica that sweeps and tidies.
    pub is_lowest: bool,
}

impl Engine {
    /// Starts the thread `beat`; it leaves the fleet and ends with the replica. Returns what it hears.
    pub(crate) fn start_beat(&self) -> std::io::Result<mpsc::Receiver<Heard>> {
        let (heard, receiver) = mpsc::channel(HEARD);
        let engine = self.clone();
        let beat = async move {
            engine.beat(&heard).await;
            let _ = tokio::time::timeout(LEAVING, engine.leave_fleet()).await;
            engine.0.left.cancel();
        };
        if is_alone() {
            self.0.tasks.spawn(beat);
        } else {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            std::thread::Builder::new().name("beat".into()).spawn(move || runtime.block_on(beat))?;
        }
        Ok(receiver)
    }

    async fn beat(&self, heard: &mpsc::Sender<Heard>) {
        let ttl_ms = self.0.settings.lease_ttl.as_millis() as u64;
        let mut watch = BeatWatch::new(ttl_ms);
        let mut ticks = tokio::time::interval(self.0.settings.tick);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut followed = Vec::new();
        loop {
            tokio::select! {
                biased;
                _ = ticks.tick() => {}
                () = self.0.stopped.cancelled() => return,
            }
            // Who joins again beats under its new name only.
            let Some(mut tick) = self.0.replica.next_tick() else { continue };
            if let Some(now_followed) = self.followed() {
                followed = now_followed;
            }
            tick.watched = followed.iter().map(|(tenant, _)| tenant.clone()).collect();
            let sent = self.0.replica.now_ms();
            let news = match self.0.ports.registry.tick(&tick).await {
                Err(error) => {
                    tracing::warn!(%error, "the beat was not answered");
                    // A gap in the own watching: the silence of others proves nothing any more.
                    watch.reset();
                    Heard::Nothing
                }
                Ok(Ticked::Buried) => Heard::Buried,
                Ok(Ticked::Reborn(born)) => Heard::Reborn(born),
                Ok(Ticked::Alive { beats, owned, pokes, due, newest }) => {
                    self.0.replica.answered(sent);
                    let now = self.0.replica.now_ms();
                    let is_other = |(replica, _): &(ReplicaId, u64)| *replica != tick.replica;
                    Heard::Alive(Box::new(News {
                        owned,
                        pokes,
                        due,
                        followed: followed.clone(),
                        newest,
                        silent: watch.see(now, &beats).into_iter().filter(is_other).collect(),
                        suspects: watch
                            .suspects(now, SHORT_SILENCE_MS.min(ttl_ms))
                            .into_iter()
                            .filter(is_other)
                            .collect(),
                        is_lowest: beats.keys().min() == Some(&tick.replica),
                    }))
                }
            };
            let joins_again = matches!(news, Heard::Buried | Heard::Reborn(_));
            // Before it is heard: whoever hears it may be done with joining at once.
            if joins_again {
                self.0.replica.joins_again(true);
            }
            if heard.try_send(news).is_err() && joins_again {
                self.0.replica.joins_again(false);
            }
        }
    }

    /// The last beat: this replica buries itself, so that nobody waits for it.
    async fn leave_fleet(&self) {
        let Some(tick) = self.0.replica.next_tick() else { return };
        if let Ok(Ticked::Alive { beats, .. }) = self.0.ports.registry.tick(&tick).await
            && let Some(&beat) = beats.get(&tick.replica)
        {
            let _ = self.0.ports.registry.bury(&tick.replica, beat).await;
        }
    }
}
