//! What happened in a simulation, in order, as a hash: two runs with the same one did the same.

use std::fmt::{self, Write};
use std::hash::{DefaultHasher, Hasher};
use std::sync::{Mutex, PoisonError};
use tokio::time::Instant;

/// What happened so far.
pub(crate) struct Trace {
    began: Instant,
    prints: bool,
    told: Mutex<Told>,
}

/// A hash of each line, the moment before it. Its keys are always the same.
#[derive(Default)]
struct Told(DefaultHasher);

impl Write for Told {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.write(text.as_bytes());
        Ok(())
    }
}

impl Trace {
    /// Begins now. Its lines are printed as well if `prints` says so.
    pub(crate) fn new(prints: bool) -> Self {
        Self { began: Instant::now(), prints, told: Mutex::default() }
    }

    /// Milliseconds since the beginning.
    pub(crate) fn now_ms(&self) -> u64 {
        self.began.elapsed().as_millis() as u64
    }

    /// Takes a line in.
    pub(crate) fn note(&self, line: fmt::Arguments<'_>) {
        let now = self.now_ms();
        if self.prints {
            println!("{now:>7} {line}");
        }
        // A hash takes everything.
        let _ = writeln!(self.told.lock().unwrap_or_else(PoisonError::into_inner), "{now} {line}");
    }

    pub(crate) fn hash(&self) -> u64 {
        self.told.lock().unwrap_or_else(PoisonError::into_inner).0.finish()
    }
}
