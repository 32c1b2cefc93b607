//! Work that takes a while, on threads that may.

use crate::{Call, ToolError};
use tokio_util::sync::CancellationToken;

/// Does something on a thread that may block. It is told to stop by an abort, and when the call is dropped.
pub(crate) async fn blocking<T: Send + 'static>(
    call: &Call,
    work: impl FnOnce(&CancellationToken) -> Result<T, ToolError> + Send + 'static,
) -> Result<T, ToolError> {
    let stop = call.cancel.child_token();
    let _dropped = stop.clone().drop_guard();
    match tokio::task::spawn_blocking(move || work(&stop)).await {
        Ok(result) => result,
        Err(error) => Err(ToolError::Failed(error.to_string())),
    }
}
