//! Mutants: faults put into the source on purpose, each with the test that must catch it.
//!
//! A file of `tests/mutants` is one mutant. It is kept applicable by a test; `make mutants` shows that it is caught.

use anyhow::{Context, bail, ensure};
use serde::Deserialize;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A fault and the test that must catch it.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mutant {
    /// The file's name without `.toml`.
    #[serde(skip)]
    pub name: String,
    /// The guarantee that it breaks.
    pub guarantee: String,
    /// The fault, in a sentence.
    pub what: String,
    /// The source file, from the root of the repository.
    pub file: PathBuf,
    /// A text that stands in it exactly once.
    pub before: String,
    /// What stands there in the mutant.
    pub after: String,
    /// The arguments of `cargo test`, the last of them the test's name.
    pub test: Vec<String>,
}

impl Mutant {
    /// The mutants of a repository, by name.
    ///
    /// # Errors
    /// A file that cannot be read or is none.
    pub fn all(root: &Path) -> anyhow::Result<Vec<Self>> {
        let mut all = Vec::new();
        for entry in std::fs::read_dir(root.join("tests/mutants"))? {
            let path = entry?.path();
            let text = std::fs::read_to_string(&path)?;
            let mutant: Self = toml::from_str(&text).with_context(|| path.display().to_string())?;
            let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            all.push(Self { name, ..mutant });
        }
        all.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(all)
    }

    /// Those of these names; all if there are none.
    ///
    /// # Errors
    /// There is none of a name, and those of [`Mutant::all`].
    pub fn chosen(root: &Path, names: &[String]) -> anyhow::Result<Vec<Self>> {
        let mut mutants = Self::all(root)?;
        if let Some(unknown) = names.iter().find(|name| !mutants.iter().any(|mutant| mutant.name == **name)) {
            bail!("there is no mutant {unknown}");
        }
        mutants.retain(|mutant| names.is_empty() || names.contains(&mutant.name));
        Ok(mutants)
    }

    /// Does something while the fault is in a tree.
    ///
    /// # Errors
    /// It fails, or the fault cannot be put in.
    pub fn put_in<T>(&self, tree: &Path, work: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<T> {
        let path = tree.join(&self.file);
        let source = std::fs::read_to_string(&path)?;
        std::fs::write(&path, self.mutated(tree)?)?;
        let done = work();
        std::fs::write(&path, source)?;
        done
    }

    /// The source with the fault in it.
    ///
    /// # Errors
    /// The text to replace does not stand there exactly once.
    pub fn mutated(&self, root: &Path) -> anyhow::Result<String> {
        let source = std::fs::read_to_string(root.join(&self.file)).with_context(|| self.name.clone())?;
        let found = source.matches(&self.before).count();
        ensure!(found == 1, "{}: its text stands {found} times in {}", self.name, self.file.display());
        ensure!(self.before != self.after, "{} changes nothing", self.name);
        Ok(source.replace(&self.before, &self.after))
    }
}

/// The repository as it is committed, in a tree of its own. One that is there is brought up to it: what has not changed is
/// not built again.
///
/// # Errors
/// git cannot do it.
pub fn clone(root: &Path, target: &Path) -> anyhow::Result<PathBuf> {
    let tree = target.join("tree");
    let git = |arguments: &[&str], directory: &Path| -> anyhow::Result<()> {
        let done = Command::new("git").args(arguments).current_dir(directory).status()?;
        ensure!(done.success(), "git {arguments:?} failed");
        Ok(())
    };
    std::fs::create_dir_all(target)?;
    let from = root.to_string_lossy();
    if tree.join(".git").exists() {
        git(&["fetch", "-q", &from, "HEAD"], &tree)?;
        git(&["reset", "-q", "--hard", "FETCH_HEAD"], &tree)?;
        git(&["clean", "-q", "-ffdx"], &tree)?;
    } else {
        git(&["clone", "-q", &from, "tree"], target)?;
    }
    Ok(tree)
}
