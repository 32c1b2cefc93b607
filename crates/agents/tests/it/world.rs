//! A folder with a home and a work tree, gone at the end of the test.

use agents::{ConfigError, Instance, Surroundings, load};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::Command;

pub struct World {
    pub ws: PathBuf,
    pub surroundings: Surroundings,
    folder: tempfile::TempDir,
}

impl World {
    /// A work tree that is no repository, and a home without configuration.
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        let env = [
            ("HOME", root.join("home").to_string_lossy().into_owned()),
            ("PATH", std::env::var("PATH").unwrap()),
            ("TMPDIR", "/tmp".into()),
        ];
        let env = env.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        let mut surroundings = Surroundings::new(env, root.join("home/.local/share/opencode"), false);
        surroundings.managed_dir = root.join("etc");
        let ws = root.join("ws");
        std::fs::create_dir_all(&ws).unwrap();
        std::fs::create_dir_all(root.join("home")).unwrap();
        Self { ws, surroundings, folder }
    }

    /// A work tree that is a repository with one commit, and the given configuration.
    pub fn with(config: Value) -> Self {
        let world = Self::new();
        world.write("ws/opencode.json", &config.to_string());
        git(&world.ws, &["init", "-q", "-b", "main"]);
        commit(&world.ws);
        world
    }

    /// Writes a file, by its path below the folder that holds `ws` and `home`.
    pub fn write(&self, path: &str, text: &str) {
        let path = self.folder.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    pub fn try_load(&self, below: &str) -> Result<Instance, ConfigError> {
        load(&self.ws.join(below), &self.surroundings)
    }

    pub fn load(&self) -> Instance {
        load(&self.ws, &self.surroundings).unwrap()
    }

    pub fn set(&mut self, name: &str, value: &str) {
        self.surroundings.env.insert(name.into(), value.into());
    }
}

/// The configuration that the recordings were made with.
pub fn recorded() -> Value {
    json!({
        "$schema": "https://opencode.ai/config.json", "model": "fake/m", "small_model": "fake/small",
        "enabled_providers": ["fake"],
        "provider": { "fake": {
            "npm": "@ai-sdk/openai-compatible", "name": "Fake",
            "options": { "baseURL": "http://127.0.0.1:4310/v1", "apiKey": "k" },
            "models": {
                "m": { "name": "M", "limit": { "context": 100000, "output": 4000 } },
                "small": { "name": "Small", "limit": { "context": 100000, "output": 4000 } },
            },
        } },
    })
}

/// The recorded configuration with more fields.
pub fn recorded_and(more: Value) -> Value {
    let mut config = recorded();
    config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    config
}

pub fn git(at: &Path, arguments: &[&str]) -> String {
    let mut command = Command::new("git");
    for who in ["AUTHOR", "COMMITTER"] {
        command.env(format!("GIT_{who}_NAME"), "t").env(format!("GIT_{who}_EMAIL"), "t@example.org");
    }
    let output = command.args(arguments).current_dir(at).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

pub fn commit(at: &Path) -> String {
    git(at, &["-c", "commit.gpgsign=false", "commit", "-qm", "init", "--allow-empty"]);
    git(at, &["rev-parse", "HEAD"])
}
