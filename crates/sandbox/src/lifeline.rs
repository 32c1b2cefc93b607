//! Until when a replica's commands may live: moved on for as long as the replica can prove that it may run them.

use crate::report::Order;
use rustix::time::{ClockId, clock_gettime};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Instant;

/// A moment that is moved on. When it passes, every command that was started with it is killed, whether its replica runs,
/// hangs or is stopped. A clone is the same lifeline.
#[derive(Clone, Debug)]
pub struct Lifeline(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    until: Instant,
    /// The standard inputs of the supervisors.
    supervisors: Vec<Weak<OwnedFd>>,
}

impl Lifeline {
    /// A lifeline that ends at this moment unless it is moved on.
    pub fn new(until: Instant) -> Self {
        Self(Arc::new(Mutex::new(State { until, supervisors: Vec::new() })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Commands may live until this moment. Tells their supervisors at once, from the caller's own thread, and does not wait.
    pub fn move_on(&self, until: Instant) {
        let mut state = self.state();
        state.until = until;
        let order = Order::LiveUntil(on_this_machine(until));
        state.supervisors.retain(|supervisor| match supervisor.upgrade() {
            Some(supervisor) => {
                order.send(&supervisor);
                true
            }
            None => false,
        });
    }

    /// When it ends, as [`on_this_machine`] counts.
    pub(crate) fn until(&self) -> u64 {
        on_this_machine(self.state().until)
    }

    /// From now on the supervisor at the other end of this pipe is told.
    pub(crate) fn tell(&self, supervisor: &Arc<OwnedFd>) {
        let mut state = self.state();
        // It may have been moved on since the supervisor was started.
        Order::LiveUntil(on_this_machine(state.until)).send(supervisor);
        state.supervisors.push(Arc::downgrade(supervisor));
    }
}

/// A moment as all processes of this machine count it: milliseconds of the monotonic clock.
///
/// That clock is read first: a process that is stopped between the two readings tells too early a moment, never too late a
/// one.
fn on_this_machine(moment: Instant) -> u64 {
    let now = now_on_this_machine();
    now + moment.saturating_duration_since(Instant::now()).as_millis() as u64
}

/// Now, as [`on_this_machine`] counts.
pub(crate) fn now_on_this_machine() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec as u64 * 1_000 + now.tv_nsec as u64 / 1_000_000
}
