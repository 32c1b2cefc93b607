//! What the tests of this crate share.

use sandbox::{ChildEnv, Identity, Lifeline, Limits, SpawnSpec};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// An example of this crate, which the test build made beside the tests.
pub fn example(name: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let path = test.parent().and_then(Path::parent).unwrap().join("examples").join(name);
    assert!(path.exists(), "build the examples first: {}", path.display());
    path
}

/// A shell text in a directory.
#[allow(dead_code, reason = "not every test file starts commands itself")]
pub fn shell(text: &str, cwd: &Path) -> SpawnSpec {
    SpawnSpec {
        program: "bash".into(),
        args: vec!["-c".into(), text.into()],
        cwd: cwd.into(),
        env: ChildEnv::cleaned(std::env::vars_os(), []),
        limits: Limits::default(),
        lifeline: Lifeline::new(Instant::now() + Duration::from_secs(60)),
        supervisor_exe: example("sandbox-supervise"),
        identity: Identity { session: "ses_x".into(), attempt: "a".into(), fence: 7 },
    }
}

/// Waits until `condition` holds; the test fails after `bound`.
pub async fn eventually(what: &str, bound: Duration, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + bound;
    while !condition() {
        assert!(Instant::now() < end, "not within {bound:?}: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// The letter that the kernel gives a process's state; `None` when there is no such process.
pub fn state(pid: &str) -> Option<char> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
}

/// Whether a process is there and no zombie.
pub fn alive(pid: &str) -> bool {
    state(pid).is_some_and(|state| state != 'Z')
}
