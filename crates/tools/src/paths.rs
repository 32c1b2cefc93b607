//! Where a path of a call leads, and whether that needs a permission.

use crate::{Ask, Call, ToolError};
use serde_json::json;
use std::ffi::OsString;
use std::io;
use std::path::{Component, Path, PathBuf};

/// So many symbolic links are followed on the way to one file.
const MAX_LINKS: usize = 40;

/// A path that a model named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    /// Absolute, `.` and `..` taken out: what people are shown.
    pub(crate) shown: PathBuf,
    /// Where it leads once symbolic links are followed. Files are opened and replaced here, so that a link is written
    /// through and not replaced, and so that what was asked for is what is touched.
    pub(crate) real: PathBuf,
}

impl Target {
    /// The path that a model named as `path`, relative to the instance's directory unless absolute.
    pub(crate) async fn locate(call: &Call, path: &str) -> Result<Self, ToolError> {
        if path.is_empty() || path.contains('\0') {
            return Err(ToolError::Failed(format!("Not a usable path: {path:?}")));
        }
        let shown = normalized(&call.directory.join(path));
        let real = real(shown.clone()).await?;
        Ok(Self { shown, real })
    }

    /// Its path relative to the work tree, for titles and permission patterns.
    pub(crate) fn relative(&self, call: &Call) -> String {
        relative(&call.worktree, &self.shown)
    }

    /// The patterns that a permission is asked for: the path as named and, where a link leads elsewhere, that, too.
    pub(crate) async fn patterns(&self, call: &Call) -> Result<Vec<String>, ToolError> {
        let mut patterns = vec![self.relative(call)];
        let linked = relative(&real(call.worktree.clone()).await?, &self.real);
        if !patterns.contains(&linked) {
            patterns.push(linked);
        }
        Ok(patterns)
    }

    /// Asks for `external_directory` if the path, or what it links to, is outside of the instance.
    pub(crate) async fn ask_if_external(&self, call: &Call, is_directory: bool) -> Result<(), ToolError> {
        let outside = outside(call, [&self.shown, &self.real]).await?;
        let folders = outside.iter().map(|path| if is_directory { path } else { path.parent().unwrap_or(path) });
        let folders: Vec<&Path> = folders.collect();
        let Some(parent) = folders.first() else { return Ok(()) };
        let mut patterns: Vec<String> = folders.iter().map(|folder| below(folder)).collect();
        patterns.dedup();
        let metadata = json!({ "filepath": outside[0], "parentDir": parent });
        let ask = Ask { permission: "external_directory".into(), always: patterns.clone(), patterns, metadata };
        call.host.ask(ask).await
    }
}

/// Those of `paths` (as named, and where that leads) that belong neither to the instance's directory nor to its work
/// tree. A work tree `/` is none.
pub(crate) async fn outside<'a>(call: &Call, [shown, real_path]: [&'a Path; 2]) -> Result<Vec<&'a Path>, ToolError> {
    let no_project = call.worktree == Path::new("/");
    let inside = |path: &Path, directory: &Path, worktree: &Path| {
        path.starts_with(directory) || (!no_project && path.starts_with(worktree))
    };
    let mut outside = Vec::new();
    if !inside(shown, &call.directory, &call.worktree) {
        outside.push(shown);
    }
    let (directory, worktree) = (real(call.directory.clone()).await?, real(call.worktree.clone()).await?);
    if real_path != shown && !inside(real_path, &directory, &worktree) {
        outside.push(real_path);
    }
    Ok(outside)
}

/// The pattern for everything below a directory.
pub(crate) fn below(directory: &Path) -> String {
    directory.join("*").display().to_string()
}

/// Where an absolute path leads once symbolic links are followed, also if nothing is there yet.
pub(crate) async fn real(path: PathBuf) -> Result<PathBuf, ToolError> {
    let shown = path.display().to_string();
    match tokio::task::spawn_blocking(move || resolve(path)).await {
        Ok(Ok(real)) => Ok(real),
        Ok(Err(error)) => Err(ToolError::Failed(format!("{shown}: {error}"))),
        Err(_) => Err(ToolError::Aborted),
    }
}

/// The same, on a thread that may block.
pub(crate) fn resolve(mut path: PathBuf) -> io::Result<PathBuf> {
    let mut missing: Vec<OsString> = Vec::new();
    for _ in 0..MAX_LINKS {
        // Up to the deepest folder that exists; a dangling link on the way is followed by hand.
        loop {
            match path.canonicalize() {
                Ok(mut real) => {
                    real.extend(missing.iter().rev());
                    return Ok(real);
                }
                // Below a file there is nothing, either, and what a command names may be a folder by then.
                Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {}
                Err(error) => return Err(error),
            }
            if let Ok(target) = path.read_link() {
                path.pop();
                path = normalized(&path.canonicalize()?.join(target));
                break;
            }
            match path.file_name().map(OsString::from) {
                Some(name) => missing.push(name),
                None => return Err(io::ErrorKind::NotFound.into()),
            }
            path.pop();
        }
    }
    Err(io::Error::other("too many levels of symbolic links"))
}

/// Takes `.` and `..` out of an absolute path without looking at the disk.
pub(crate) fn normalized(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => {
                out.pop();
            }
            other => out.push(other),
        }
    }
    out
}

/// The way from `base` to `path`, both absolute; `..` for each folder to leave.
pub(crate) fn relative(base: &Path, path: &Path) -> String {
    let shared = base.components().zip(path.components()).take_while(|(a, b)| a == b).count();
    let up = base.components().skip(shared).map(|_| Component::ParentDir);
    let way: PathBuf = up.chain(path.components().skip(shared)).collect();
    way.display().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ways_lead_up_and_down() {
        assert_eq!(relative(Path::new("/a/b"), Path::new("/a/b/c/d")), "c/d");
        assert_eq!(relative(Path::new("/a/b"), Path::new("/etc/x")), "../../etc/x");
        assert_eq!(relative(Path::new("/"), Path::new("/etc/x")), "etc/x");
        assert_eq!(relative(Path::new("/a"), Path::new("/a")), "");
    }

    #[test]
    fn links_are_followed_where_they_dangle_and_where_they_turn_in_circles() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        std::os::unix::fs::symlink("far/away", root.join("dangling")).unwrap();
        std::os::unix::fs::symlink("circle", root.join("circle")).unwrap();
        assert_eq!(resolve(root.join("dangling/x")).unwrap(), root.join("far/away/x"));
        assert_eq!(resolve(root.join("new/dir/x")).unwrap(), root.join("new/dir/x"));
        assert!(resolve(root.join("circle")).is_err());
        std::fs::write(root.join("file"), "").unwrap();
        assert_eq!(resolve(root.join("file/x")).unwrap(), root.join("file/x"));
    }
}
