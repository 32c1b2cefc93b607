//! The machine's clock, randomness and disk, handed to everything that depends on them.

use anyhow::Context;
use rand::RngCore;
use std::path::Path;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};
use storage::{Durability, Store};
use wire::clock::{Clock, Entropy};

/// The system's wall clock and a random generator seeded by it.
pub struct System;

impl Clock for System {
    fn now_ms(&self) -> u64 {
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
    }
}

impl Entropy for System {
    fn bits(&self) -> u64 {
        rand::rng().next_u64()
    }
}

/// Opens the store in a directory, and makes it if it is not there.
///
/// Errors: one line, if it cannot be written or is of a later version.
pub fn open_store(directory: &Path, durability: Durability) -> anyhow::Result<Store> {
    let entropy = Arc::new(System);
    #[cfg(debug_assertions)]
    if let Some(failpoints) = std::env::var_os("FAILPOINTS") {
        std::fs::create_dir_all(directory)?;
        let disk = Arc::new(crate::failpoints::FailingDisk::new(failpoints.into()));
        return Ok(Store::open_on(disk, directory.to_path_buf(), durability, entropy)?);
    }
    Store::open(directory.to_path_buf(), durability, entropy)
        .with_context(|| format!("the store in {} cannot be opened", directory.display()))
}
