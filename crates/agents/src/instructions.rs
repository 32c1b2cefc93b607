//! Files with rules for agents: `AGENTS.md` and its kin, and what the config's `instructions` name.

use crate::files::{Files, upwards};
use crate::surroundings::Surroundings;
use globset::{GlobBuilder, GlobMatcher};
use serde_json::{Map, Value};
use std::path::{Component, Path, PathBuf};

/// Names of the project's rules; only the first that is found anywhere counts.
const PROJECT_FILES: [&str; 3] = ["AGENTS.md", "CLAUDE.md", "CONTEXT.md"];
/// A pattern looks into at most this many folders.
const MOST_FOLDERS: usize = 2_000;
/// No more files than this are taken.
const MOST_FILES: usize = 100;

/// Rules beside a file are no longer than this, in bytes.
const LARGEST_NEAR: u64 = 256 << 10;

/// A file with rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instruction {
    /// Where it stands.
    pub path: PathBuf,
    /// What it says.
    pub text: String,
}

/// Reads the user's own rules, the project's from the directory upwards, then those that the config names.
///
/// An entry of `instructions` is a path or pattern, looked for from the directory upwards, or one from the root or from
/// `~/`. Addresses (`https://...`) are not fetched here, since nothing here knows a network; they are logged.
pub(crate) fn read(
    config: &Map<String, Value>,
    directory: &Path,
    worktree: &Path,
    surroundings: &Surroundings,
    files: &mut Files,
) -> Vec<Instruction> {
    let mut found = Vec::new();
    let own = [surroundings.config_dir.join("AGENTS.md"), surroundings.home.join(".claude/CLAUDE.md")];
    for path in own {
        if take(path, files, &mut found) {
            break;
        }
    }
    for name in PROJECT_FILES {
        let before = found.len();
        for at in upwards(directory, worktree) {
            take(at.join(name), files, &mut found);
        }
        if found.len() > before {
            break;
        }
    }
    let entries = config.get("instructions").and_then(Value::as_array);
    for entry in entries.into_iter().flatten().filter_map(Value::as_str) {
        if entry.starts_with("https://") || entry.starts_with("http://") {
            tracing::warn!(address = entry, "instructions from the network are not fetched");
            continue;
        }
        let pattern = surroundings.expand_home(entry);
        if Path::new(&pattern).is_absolute() {
            take_matching(Path::new("/"), pattern.trim_start_matches('/'), files, &mut found);
        } else {
            // Without a repository a pattern for any depth would lead through the whole disk.
            let everywhere = pattern.contains("**") && worktree == Path::new("/");
            let top = if everywhere { directory } else { worktree };
            for at in upwards(directory, top) {
                take_matching(at, &pattern, files, &mut found);
            }
        }
    }
    found
}

/// The files with rules in the folders between the instance's directory and a file below it, the outermost first: one of
/// each folder. Those of the directory itself are an instance's own.
///
/// Blocks. A link that leads out of the directory, what is no regular file and what is too large is left out.
pub fn near(directory: &Path, file: &Path) -> Vec<Instruction> {
    let Ok(below) = file.strip_prefix(directory) else { return Vec::new() };
    let mut folder = directory.to_owned();
    let mut found = Vec::new();
    for name in below.parent().into_iter().flat_map(Path::components) {
        folder.push(name);
        let here = PROJECT_FILES.iter().map(|name| folder.join(name)).find(|path| path.exists());
        if let Some(path) = here.filter(|path| path != file)
            && let Some(text) = read_within(directory, &path)
        {
            found.push(Instruction { path, text });
        }
    }
    found
}

fn read_within(directory: &Path, path: &Path) -> Option<String> {
    let (top, real) = (directory.canonicalize().ok()?, path.canonicalize().ok()?);
    let about = real.metadata().ok()?;
    let is_fine = real.starts_with(top) && about.is_file() && about.len() <= LARGEST_NEAR;
    is_fine.then(|| std::fs::read_to_string(real).ok()).flatten()
}

/// Takes a file, once; true if it is there. One that cannot be read is left out.
fn take(path: PathBuf, files: &mut Files, found: &mut Vec<Instruction>) -> bool {
    if found.iter().any(|known| known.path == path) {
        return true;
    }
    match files.read(&path) {
        Ok(Some(text)) if found.len() < MOST_FILES => {
            found.push(Instruction { path, text });
            true
        }
        Ok(Some(_)) => true,
        Ok(None) => false,
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "instructions cannot be read");
            false
        }
    }
}

/// Takes all files below `base` that match a relative pattern. The part without wildcards is walked straight.
fn take_matching(base: &Path, pattern: &str, files: &mut Files, found: &mut Vec<Instruction>) {
    let parts: Vec<_> = Path::new(pattern).components().filter(|part| *part != Component::CurDir).collect();
    let is_plain = |part: &&Component| !part.as_os_str().to_string_lossy().contains(['*', '?', '[', '{']);
    let plain: PathBuf = parts.iter().take_while(is_plain).collect();
    let wild: PathBuf = parts.iter().skip_while(is_plain).collect();
    let start = base.join(plain);
    if wild.as_os_str().is_empty() {
        take(start, files, found);
        return;
    }
    let glob = GlobBuilder::new(&wild.to_string_lossy()).literal_separator(true).build();
    match glob.map(|glob| glob.compile_matcher()) {
        Ok(matcher) => {
            let deep = wild.components().any(|part| part.as_os_str().to_string_lossy().contains("**"));
            let depth = if deep { usize::MAX } else { wild.components().count() };
            walk(&start, depth, &matcher, files, found);
        }
        Err(error) => tracing::warn!(pattern, %error, "a pattern of instructions is invalid"),
    }
}

/// Visits folders breadth first, without following links and without what nobody writes rules into.
fn walk(start: &Path, depth: usize, matcher: &GlobMatcher, files: &mut Files, found: &mut Vec<Instruction>) {
    let mut folders = std::collections::VecDeque::from([(start.to_owned(), depth)]);
    let mut visited = 0;
    while let Some((folder, depth)) = folders.pop_front() {
        visited += 1;
        if visited > MOST_FOLDERS {
            tracing::warn!(folder = %start.display(), "a pattern of instructions covers too many folders; the rest is left out");
            return;
        }
        for path in files.list(&folder) {
            let skipped = path.file_name().is_some_and(|name| name == ".git" || name == "node_modules");
            if path.is_dir() {
                if depth > 1 && !skipped && !path.is_symlink() {
                    folders.push_back((path, depth - 1));
                }
            } else if path.strip_prefix(start).is_ok_and(|inner| matcher.is_match(inner)) {
                take(path, files, found);
            }
        }
    }
}
