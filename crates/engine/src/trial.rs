//! Trials: a run whose former attempts failed may be what makes replicas die. One at a time is tried, and everybody can see
//! which, so that one replica dies at most, and the death is not blamed on the runs beside it.

use crate::engine::Engine;
use coordination::SessionKey;
use std::time::Duration;
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::task::AbortOnDropHandle;

/// For so long a run is on trial at most: others wait for theirs.
const LONGEST: Duration = Duration::from_secs(30);

/// A run's trial. It ends with this value, or by itself.
pub(crate) struct Trial {
    _under_way: AbortOnDropHandle<()>,
}

/// The one place that a replica has for a run on trial.
struct Place {
    engine: Engine,
    permit: Option<OwnedSemaphorePermit>,
}

impl Trial {
    /// Waits for its turn. None once the replica ends.
    pub(crate) async fn begin(engine: &Engine, key: &SessionKey) -> Option<Self> {
        let place = Place { engine: engine.clone(), permit: Some(engine.0.runs.trial().await?) };
        tell(engine, Some(key)).await;
        let under_way = engine.0.tasks.spawn(async move {
            tokio::time::sleep(LONGEST).await;
            drop(place);
        });
        Some(Self { _under_way: AbortOnDropHandle::new(under_way) })
    }
}

impl Drop for Place {
    /// The next trial begins after everybody could see that this one is over.
    fn drop(&mut self) {
        let (engine, permit) = (self.engine.clone(), self.permit.take());
        self.engine.0.tasks.spawn(async move {
            tell(&engine, None).await;
            drop(permit);
        });
    }
}

async fn tell(engine: &Engine, run: Option<&SessionKey>) {
    if let Err(error) = engine.0.ports.registry.set_trial(&engine.0.replica.id(), run).await {
        tracing::warn!(%error, "nobody could be told of a trial: should the replica die, its other runs are blamed, too");
    }
}
