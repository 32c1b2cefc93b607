//! Who can die: a replica from its start to its death. All that it does to anything goes through what looks at this.

use crate::dice::Dice;
use async_trait::async_trait;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

/// How long a piece of blocking work waits for a thread, and its caller for the answer: less than so many milliseconds.
const THREAD_MS: u64 = 4;

/// A replica from its start to its death.
pub(crate) struct Mortal {
    /// The replica's place and how often one was started there.
    pub name: String,
    dice: Dice,
    ended: CancellationToken,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// It does nothing before.
    stopped_until: Option<Instant>,
    /// It cannot reach coordination before.
    cut_until: Option<Instant>,
    /// Writing operations that are still done before it dies. Nothing: all.
    writes_left: Option<u64>,
}

impl Mortal {
    pub(crate) fn new(name: String, dice: Dice) -> Self {
        Self { name, dice, ended: CancellationToken::new(), state: Mutex::default() }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// It dies: nothing that it does has an effect from here on.
    pub(crate) fn end(&self) {
        self.ended.cancel();
    }

    /// It dies at its writing operation after so many.
    pub(crate) fn end_after(&self, writes: u64) {
        self.state().writes_left = Some(writes);
    }

    pub(crate) fn is_over(&self) -> bool {
        self.ended.is_cancelled()
    }

    /// Waits for its death.
    pub(crate) async fn over(&self) {
        self.ended.cancelled().await;
    }

    /// It stands still for a time, as a process that is stopped does.
    pub(crate) fn stop_for(&self, time: Duration) {
        self.state().stopped_until = Some(Instant::now() + time);
    }

    /// It does not reach coordination for a time.
    pub(crate) fn cut_for(&self, time: Duration) {
        self.state().cut_until = Some(Instant::now() + time);
    }

    /// Whatever was to happen to it does not.
    pub(crate) fn recover(&self) {
        *self.state() = State::default();
    }

    pub(crate) fn is_cut_off(&self) -> bool {
        self.state().cut_until.is_some_and(|until| Instant::now() < until)
    }

    /// Waits while it stands still; for ever once it is dead.
    pub(crate) async fn goes_on(&self) {
        loop {
            if self.is_over() {
                std::future::pending::<()>().await;
            }
            let until = self.state().stopped_until.filter(|until| Instant::now() < *until);
            let Some(until) = until else { return };
            sleep_until(until).await;
        }
    }

    /// False once it is dead, which it may be from this operation on.
    pub(crate) fn may_write(&self) -> bool {
        match &mut self.state().writes_left {
            Some(0) => self.end(),
            Some(left) => *left -= 1,
            None => {}
        }
        !self.is_over()
    }
}

#[async_trait]
impl engine::Strand for Mortal {
    async fn pause(&self) {
        self.goes_on().await;
        sleep(self.dice.ms(0, THREAD_MS)).await;
        self.goes_on().await;
    }

    async fn ended(&self) {
        self.over().await;
    }
}
