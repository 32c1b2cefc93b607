//! Where the programs under test and the clients are found.

use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::process::{Finished, Launch};
use crate::terminal::Terminal;

/// The `flotilla` binary: `FLOTILLA_BIN`, or the one beside the test executable, built if it is missing.
pub fn flotilla_binary() -> PathBuf {
    if let Some(path) = std::env::var_os("FLOTILLA_BIN") {
        return PathBuf::from(path);
    }
    let test = std::env::current_exe().expect("a test knows its executable");
    let profile = test.parent().and_then(|deps| deps.parent()).expect("a test executable is in target/<profile>/deps");
    let binary = profile.join("flotilla");
    if !binary.exists() {
        // Several test processes may get here at once: cargo's own lock makes one build and the others wait.
        let mut build = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        build.args(["build", "--quiet", "-p", "flotilla", "--target-dir"]);
        build.arg(profile.parent().expect("a profile directory is in a target directory"));
        if profile.ends_with("release") {
            build.arg("--release");
        }
        let built = build.current_dir(repository()).status().expect("cargo can be started");
        assert!(built.success(), "cargo build -p flotilla failed");
    }
    binary
}

/// The binary of a replica that starts: [`flotilla_binary`], or in turn with it the one that `FLOTILLA_OTHER_BIN` names. So a
/// fleet is of two builds, and a replica that starts again is of the other.
pub(crate) fn next_replica_binary() -> PathBuf {
    static STARTED: AtomicUsize = AtomicUsize::new(0);
    let other = std::env::var_os("FLOTILLA_OTHER_BIN").filter(|_| STARTED.fetch_add(1, Ordering::Relaxed) % 2 == 1);
    other.map_or_else(flotilla_binary, PathBuf::from)
}

/// The root of the repository.
pub fn repository() -> PathBuf {
    let here = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).expect("crates/testkit is two below the root").to_path_buf()
}

/// What starts a program whose clock goes wrong by so many seconds, while the monotonic one, and the clock of the file
/// system, stay right: see [`crate::ReplicaSpec::wrapper`].
///
/// Returns nothing, and says so, where libfaketime is missing; with `CI=true` that is a failure.
pub fn with_wrong_clock(seconds: i64) -> Option<Vec<String>> {
    let libraries = std::fs::read_dir("/usr/lib").ok()?.flatten().map(|entry| entry.path());
    let library = libraries.map(|path| path.join("faketime/libfaketimeMT.so.1")).find(|path| path.exists());
    let Some(library) = library else {
        let text = "libfaketime is missing: `make test` installs it";
        assert!(std::env::var("CI").as_deref() != Ok("true"), "{text}");
        eprintln!("skipped: {text}");
        return None;
    };
    let variables = [
        format!("LD_PRELOAD={}", library.display()),
        format!("FAKETIME={seconds:+}"),
        "FAKETIME_DONT_FAKE_MONOTONIC=1".to_owned(),
        "NO_FAKE_STAT=1".to_owned(),
    ];
    Some(std::iter::once("env".to_owned()).chain(variables).collect())
}

/// The environment in which `opencode` fetches nothing by itself.
pub(crate) const ALONE: [(&str, &str); 5] = [
    ("OPENCODE_DISABLE_AUTOUPDATE", "1"),
    ("OPENCODE_DISABLE_MODELS_FETCH", "1"),
    ("SHELL", "/bin/bash"),
    ("TERM", "xterm-256color"),
    ("LANG", "C.UTF-8"),
];

/// The real clients that the suite drives.
#[derive(Debug, Clone)]
pub struct Clients {
    /// The `opencode` program.
    pub opencode: PathBuf,
    /// The `node_modules` that holds `@opencode-ai/sdk`.
    pub node_modules: PathBuf,
}

impl Clients {
    /// Finds the clients in `FLOTILLA_TEST_CLIENTS`, by default `target/clients`: a directory with
    /// `node_modules/@opencode-ai/sdk` and `node_modules/opencode-linux-x64/bin/opencode`.
    ///
    /// Returns nothing, and says so, if one is missing; with `CI=true` that is a failure.
    pub fn find() -> Option<Self> {
        let directory = std::env::var_os("FLOTILLA_TEST_CLIENTS")
            .map_or_else(|| repository().join("target/clients"), PathBuf::from);
        let node_modules = directory.join("node_modules");
        let opencode = node_modules.join("opencode-linux-x64/bin/opencode");
        let missing =
            [&opencode, &node_modules.join("@opencode-ai/sdk")].into_iter().find(|path| !path.exists()).cloned();
        let Some(missing) = missing else { return Some(Self { opencode, node_modules }) };
        let text = format!("{} is missing: `make test` installs the clients", missing.display());
        assert!(std::env::var("CI").as_deref() != Ok("true"), "{text}");
        eprintln!("skipped: {text}");
        None
    }

    /// Starts the terminal client, attached to the server at this address.
    pub async fn attach(&self, url: &str) -> Terminal {
        Terminal::start(&self.opencode, &["attach", url], &ALONE).await
    }

    /// Runs `opencode` with these arguments to its end, in an empty directory.
    ///
    /// # Panics
    /// When it does not end within `bound`.
    pub async fn opencode(&self, args: &[&str], bound: Duration) -> Finished {
        let home = tempfile::tempdir().expect("a temporary directory");
        let mut launch = Launch::new("opencode", &self.opencode).args(args).directory(home.path());
        launch.env.extend(ALONE.map(|(key, value)| (key.to_string(), value.to_string())));
        launch.env("HOME", home.path().to_string_lossy()).finish(bound).await
    }

    /// Runs a script of `tests/sdk` with node to its end.
    ///
    /// # Panics
    /// When it does not end within `bound`.
    pub async fn node(&self, args: &[&str], env: &[(&str, &str)], bound: Duration) -> Finished {
        let mut launch = Launch::new("node", "node").args(args).directory(repository().join("tests/sdk"));
        launch.env.extend(env.iter().map(|(k, v)| (k.to_string(), v.to_string())));
        launch.env("NODE_MODULES", self.node_modules.to_string_lossy()).finish(bound).await
    }
}
