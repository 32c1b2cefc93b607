//! The configuration of each directory, kept while the files that it came from stay as they were.

use crate::api::EngineError;
use crate::engine::blocking;
use agents::{Instance, Surroundings};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::time::Instant;
use wire::message::MessageError;

/// How long a configuration is used without looking at its files again.
const UNLOOKED: Duration = Duration::from_millis(250);
/// Directories whose configuration is kept.
const KEPT: usize = 256;

pub(crate) struct Instances {
    surroundings: Arc<Surroundings>,
    kept: Mutex<HashMap<PathBuf, (Arc<Instance>, Instant)>>,
}

impl Instances {
    pub(crate) fn new(surroundings: Surroundings) -> Self {
        Self { surroundings: Arc::new(surroundings), kept: Mutex::default() }
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, HashMap<PathBuf, (Arc<Instance>, Instant)>> {
        self.kept.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    pub(crate) async fn get(&self, directory: &Path) -> Result<Arc<Instance>, EngineError> {
        let known = self.kept().get(directory).cloned();
        if let Some((instance, looked)) = &known
            && looked.elapsed() < UNLOOKED
        {
            return Ok(instance.clone());
        }
        let (surroundings, path) = (self.surroundings.clone(), directory.to_owned());
        let instance = blocking(move || match known {
            Some((instance, _)) if instance.is_fresh() => Ok(instance),
            _ => match agents::load(&path, &surroundings) {
                Ok(instance) => Ok(Arc::new(instance)),
                Err(error) => Err(EngineError::Config(MessageError {
                    name: error.name().into(),
                    data: error.body()["data"].take(),
                })),
            },
        })
        .await?;
        let mut kept = self.kept();
        if kept.len() >= KEPT && !kept.contains_key(directory) {
            kept.clear();
        }
        kept.insert(directory.to_owned(), (instance.clone(), Instant::now()));
        Ok(instance)
    }

    /// The directories whose configuration is kept.
    pub(crate) fn directories(&self) -> Vec<PathBuf> {
        self.kept().keys().cloned().collect()
    }

    /// Forgets the configuration of a directory, or of all: whoever asks next is given what the files say then.
    pub(crate) fn forget(&self, directory: Option<&Path>) {
        let mut kept = self.kept();
        match directory {
            Some(directory) => drop(kept.remove(directory)),
            None => kept.clear(),
        }
    }
}
