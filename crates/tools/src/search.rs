//! Going through the files of a directory, as `glob`, `grep` and people do.
//!
//! What `.gitignore` and its kin exclude is left out, and so is `.git`. Links are not followed.

use crate::ToolError;
use ignore::WalkBuilder;
use ignore::overrides::OverrideBuilder;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::time::SystemTime;
use tokio_util::sync::CancellationToken;

/// So many files are looked at; what lies beyond is not found.
const MAX_FILES: usize = 200_000;

/// So many results are shown.
pub(crate) const MAX_RESULTS: usize = 100;

/// Which files are looked for.
pub(crate) struct Wanted {
    /// A glob as in a line of `.gitignore`: without a slash it fits a name at any depth. It may name what is ignored
    /// otherwise; with a leading `!` it excludes.
    pub(crate) glob: Option<String>,
    /// Whether names that begin with a dot are found.
    pub(crate) hidden: bool,
}

/// What was found.
pub(crate) struct Found {
    /// The paths below the directory, the newest first.
    pub(crate) files: Vec<PathBuf>,
    /// There may be others: some could not be looked at, or there are too many.
    pub(crate) is_partial: bool,
}

/// The way through everything below `root`, an absolute path without links.
pub(crate) fn walk(root: &Path, hidden: bool) -> WalkBuilder {
    let mut walk = WalkBuilder::new(root);
    walk.hidden(!hidden)
        // Whose rules that would be depends on the server's environment.
        .git_global(false)
        .filter_entry(|entry| entry.file_name() != OsStr::new(".git"));
    walk
}

/// The files below `root`, an absolute path without links.
///
/// # Errors
/// A glob that cannot be understood, and when `stop` is cancelled.
pub(crate) fn files(root: &Path, wanted: &Wanted, stop: &CancellationToken) -> Result<Found, ToolError> {
    let mut overrides = OverrideBuilder::new(root);
    if let Some(glob) = &wanted.glob {
        overrides.add(glob).map_err(explain)?;
    }
    let walk = walk(root, wanted.hidden).overrides(overrides.build().map_err(explain)?).build();
    let mut files: Vec<(SystemTime, PathBuf)> = Vec::new();
    let mut is_partial = false;
    for entry in walk {
        if stop.is_cancelled() {
            return Err(ToolError::Aborted);
        }
        let Ok(entry) = entry else {
            is_partial = true;
            continue;
        };
        if !entry.file_type().is_some_and(|kind| kind.is_file()) {
            continue;
        }
        if files.len() == MAX_FILES {
            is_partial = true;
            break;
        }
        let modified = entry.metadata().ok().and_then(|metadata| metadata.modified().ok());
        let Ok(path) = entry.path().strip_prefix(root) else { continue };
        files.push((modified.unwrap_or(SystemTime::UNIX_EPOCH), path.to_owned()));
    }
    files.sort_unstable_by(|(a_time, a), (b_time, b)| b_time.cmp(a_time).then_with(|| a.cmp(b)));
    Ok(Found { files: files.into_iter().map(|(_, path)| path).collect(), is_partial })
}

fn explain(error: ignore::Error) -> ToolError {
    ToolError::Failed(error.to_string())
}
