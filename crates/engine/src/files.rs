//! What people are shown of the files of a directory.

use crate::api::{EngineError, Scope};
use crate::engine::{Engine, blocking};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tools::browse::{self, BrowseError, FileContent, FileNode, LineMatch, Names};

/// So many look at files at the same time: they have one disk.
const AT_ONCE: usize = 4;

/// One after the other has its turn. All engines of a process share the disk.
static LOOKING: Semaphore = Semaphore::const_new(AT_ONCE);

/// How long one looks, before what was found until then must do.
const LONGEST: Duration = Duration::from_secs(5);

/// How long is waited for a turn, and for somebody whom the disk keeps.
const PATIENCE: Duration = Duration::from_secs(20);

impl Engine {
    /// The files and folders of a directory whose names resemble what somebody types; see [`browse::names`].
    ///
    /// # Errors
    /// [`EngineError::BadRequest`] where there is no such directory, [`EngineError::Unavailable`] where too many look.
    pub async fn find_files(&self, scope: &Scope, wanted: Names) -> Result<Vec<String>, EngineError> {
        look(scope, move |directory, stop| browse::names(directory, &wanted, stop)).await
    }

    /// The files and folders in a folder of the directory; see [`browse::list`].
    ///
    /// # Errors
    /// As of [`Self::find_files`], and [`EngineError::BadRequest`] where there is no such folder in the directory.
    pub async fn list_files(&self, scope: &Scope, path: String) -> Result<Vec<FileNode>, EngineError> {
        look(scope, move |directory, _| browse::list(directory, &path)).await
    }

    /// The content of a file of the directory; see [`browse::content`].
    ///
    /// # Errors
    /// As of [`Self::find_files`], and [`EngineError::BadRequest`] where it is no file, or not in the directory.
    pub async fn read_file(&self, scope: &Scope, path: String) -> Result<FileContent, EngineError> {
        look(scope, move |directory, _| browse::content(directory, &path)).await
    }

    /// The first lines of the directory's files that fit a regular expression; see [`browse::lines`].
    ///
    /// # Errors
    /// As of [`Self::find_files`], and [`EngineError::BadRequest`] where it is none.
    pub async fn find_lines(&self, scope: &Scope, pattern: String) -> Result<Vec<LineMatch>, EngineError> {
        look(scope, move |directory, stop| browse::lines(directory, &pattern, stop)).await
    }
}

/// Looks at the files of a directory, on a thread that may block. Whoever looks too long, or for somebody who is gone, is
/// told to stop.
async fn look<T: Send + 'static>(
    scope: &Scope,
    at: impl FnOnce(&Path, &CancellationToken) -> Result<T, BrowseError> + Send + 'static,
) -> Result<T, EngineError> {
    let busy = || EngineError::Unavailable("too many look at files: ask again later".into());
    let turn = timeout(PATIENCE, LOOKING.acquire()).await.ok().and_then(Result::ok).ok_or_else(busy)?;
    let stop = CancellationToken::new();
    let _gone = stop.clone().drop_guard();
    let (directory, stopped): (PathBuf, _) = (scope.directory.clone(), stop.clone());
    let work = blocking(move || {
        let _turn = turn;
        at(&directory, &stopped).map_err(|BrowseError::Refused(reason)| EngineError::BadRequest(reason))
    });
    tokio::pin!(work);
    if let Ok(found) = timeout(LONGEST, &mut work).await {
        return found;
    }
    stop.cancel();
    timeout(PATIENCE, work).await.unwrap_or_else(|_| Err(busy()))
}
