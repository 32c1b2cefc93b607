//! The work tree of a world, and its configuration.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use tempfile::TempDir;

/// The ordinary configuration: provider `fake` with the models `m` and `small`, at this address.
pub fn config(model_url: &str) -> Value {
    let model = |name: &str| {
        json!({
            "name": name,
            "tool_call": true,
            "limit": {"context": 100_000, "output": 4_000},
            "cost": {"input": 3, "output": 15, "cache_read": 0.3, "cache_write": 3.75},
        })
    };
    json!({
        "$schema": "https://opencode.ai/config.json",
        "model": "fake/m",
        "small_model": "fake/small",
        "provider": {
            "fake": {
                "name": "Fake",
                "npm": "@ai-sdk/openai-compatible",
                "options": {"baseURL": model_url, "apiKey": "k"},
                "models": {"m": model("M"), "small": model("Small")},
            },
        },
    })
}

/// A git work tree with one commit: the configuration, with this laid over it, a README and more files (path, text).
pub fn work_tree(model_url: &str, overlay: &Value, more: &[(String, String)]) -> TempDir {
    let mut config = config(model_url);
    lay_over(&mut config, overlay);
    let mut files = vec![
        ("opencode.json".to_string(), serde_json::to_vec_pretty(&config).expect("a value can be written")),
        ("README.md".to_string(), "# A project\n\nIt is small.\n".into()),
    ];
    files.extend(more.iter().map(|(path, text)| (path.clone(), text.clone().into_bytes())));
    repository(&files)
}

/// A directory with these files: path and bytes.
pub fn folder(files: &[(String, Vec<u8>)]) -> TempDir {
    let work = tempfile::tempdir().expect("a temporary directory");
    for (path, bytes) in files {
        let path = work.path().join(path);
        std::fs::create_dir_all(path.parent().expect("a file is in a directory")).expect("a directory can be made");
        std::fs::write(path, bytes).expect("a file can be written");
    }
    work
}

/// A git work tree with one commit of these files.
pub fn repository(files: &[(String, Vec<u8>)]) -> TempDir {
    let work = folder(files);
    git(work.path(), &["init", "-q", "-b", "main"]);
    git(work.path(), &["add", "-A"]);
    git(work.path(), &["commit", "-q", "-m", "first"]);
    work
}

fn git(directory: &Path, args: &[&str]) {
    let done = Command::new("git")
        .args(["-c", "user.name=Test", "-c", "user.email=test@localhost", "-c", "commit.gpgsign=false"])
        .args(args)
        .current_dir(directory)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_SYSTEM", "/dev/null")
        .status()
        .expect("git is installed");
    assert!(done.success(), "git {args:?} failed");
}

fn lay_over(below: &mut Value, above: &Value) {
    match (below, above) {
        (_, Value::Null) => {}
        (Value::Object(below), Value::Object(above)) => {
            for (key, value) in above {
                lay_over(below.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
        (below, above) => *below = above.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_is_laid_over_object_by_object() {
        let mut below = json!({"a": {"b": 1, "c": 2}, "d": [1]});
        lay_over(&mut below, &json!({"a": {"c": 3}, "d": [2]}));
        assert_eq!(below, json!({"a": {"b": 1, "c": 3}, "d": [2]}));
    }
}
