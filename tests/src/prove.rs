//! The long proof: tests of the suite with many rounds, or many times, and what came of them.
//!
//! `tests/prove.toml` lists them, and a test holds the list to the suite; `make prove` runs them.

use std::path::Path;

use anyhow::{Context, ensure};
use serde::Deserialize;

/// A test that is run with many rounds, or many times.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Proof {
    /// What it does, in a few words.
    pub what: String,
    /// The file of `tests/tests` without `.rs`, and the test's name.
    pub test: [String; 2],
    /// How often it does its fault: its `FLOTILLA_TEST_ROUNDS`.
    #[serde(default = "once")]
    pub rounds: usize,
    /// How often it is run: for a test that does its fault once.
    #[serde(default = "once")]
    pub times: usize,
}

fn once() -> usize {
    1
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct List {
    proof: Vec<Proof>,
}

impl Proof {
    /// The proofs of a repository, in their order.
    ///
    /// # Errors
    /// `tests/prove.toml` cannot be read, is none, or is empty.
    pub fn all(root: &Path) -> anyhow::Result<Vec<Self>> {
        let path = root.join("tests/prove.toml");
        let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let list: List = toml::from_str(&text).with_context(|| path.display().to_string())?;
        ensure!(!list.proof.is_empty(), "{} lists nothing", path.display());
        Ok(list.proof)
    }
}
