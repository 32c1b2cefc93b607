//! Commands under a supervisor, from their start to their end.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that fails says where")]

mod support;

use sandbox::{Exceeded, Exit, Limits, SpawnError, Supervised};
use std::time::{Duration, Instant};
use support::{alive, eventually, shell, state};

/// Long enough for a busy machine, short enough to notice that something hangs.
const SOON: Duration = Duration::from_secs(10);

async fn everything(command: &mut Supervised) -> (String, Exit) {
    let mut text = Vec::new();
    while let Some(chunk) = command.output().await {
        text.extend_from_slice(&chunk);
    }
    (String::from_utf8(text).unwrap(), command.wait().await)
}

fn ended(code: Option<i32>, signal: Option<i32>) -> Exit {
    Exit { code, signal, exceeded: None }
}

async fn run_within(limits: Limits, text: &str) -> (String, Exit) {
    let dir = tempfile::tempdir().unwrap();
    let mut spec = shell(text, dir.path());
    spec.limits = limits;
    everything(&mut Supervised::spawn(spec).await.unwrap()).await
}

async fn run(text: &str) -> (String, Exit) {
    let dir = tempfile::tempdir().unwrap();
    let mut command = Supervised::spawn(shell(text, dir.path())).await.unwrap();
    everything(&mut command).await
}

/// Reads a number that a command prints as its first line.
async fn first_line(command: &mut Supervised) -> String {
    let mut text = String::new();
    while !text.ends_with('\n') {
        text.push_str(std::str::from_utf8(&command.output().await.unwrap()).unwrap());
    }
    text.trim().into()
}

#[tokio::test]
async fn output_and_errors_come_merged_and_the_exit_is_told() {
    let (text, exit) = run("echo out; echo err >&2; cat; exit 3").await;
    assert_eq!(text, "out\nerr\n");
    assert_eq!(exit, ended(Some(3), None));
    let (_, exit) = run("kill -9 $$").await;
    assert_eq!(exit, ended(None, Some(9)));
}

#[tokio::test]
async fn a_command_has_its_directory_its_environment_and_its_limits_only() {
    let dir = tempfile::tempdir().unwrap();
    let mut spec = shell(
        "pwd; echo $HELLO; ulimit -n; ulimit -c; ulimit -f; ls -l /proc/$$/fd | grep -cF \"$(readlink /proc/$$/fd/1)\"",
        dir.path(),
    );
    spec.env.set("HELLO", "there");
    spec.limits = Limits { open_files: 99, file_bytes: 1024 * 512, ..Limits::default() };
    let (text, _) = everything(&mut Supervised::spawn(spec).await.unwrap()).await;
    let lines: Vec<&str> = text.lines().collect();
    let cwd = dir.path().canonicalize().unwrap();
    // The last one: its output is held by standard output and error alone.
    assert_eq!(lines, [cwd.to_str().unwrap(), "there", "99", "0", "512", "2"]);
}

#[tokio::test]
async fn what_cannot_start_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let mut spec = shell("", dir.path());
    spec.program = "no-such-program".into();
    let error = Supervised::spawn(spec).await.err().unwrap();
    assert!(matches!(&error, SpawnError::Command(text) if text.contains("no-such-program")), "{error}");
    let mut spec = shell("", dir.path());
    spec.supervisor_exe = "/no/such/supervisor".into();
    assert!(matches!(Supervised::spawn(spec).await.err().unwrap(), SpawnError::Supervisor(_)));
}

#[tokio::test]
async fn stop_terminates_and_then_kills() {
    let dir = tempfile::tempdir().unwrap();
    let mut polite = Supervised::spawn(shell("echo; exec sleep 600", dir.path())).await.unwrap();
    first_line(&mut polite).await;
    polite.stop();
    assert_eq!(everything(&mut polite).await.1, ended(None, Some(15)));

    // A signal that meets the shell between fork and exec is lost with the child: the next sleep must be a short one.
    let deaf = "trap 'echo told' TERM; echo; while true; do sleep 0.1; done";
    let mut deaf = Supervised::spawn(shell(deaf, dir.path())).await.unwrap();
    first_line(&mut deaf).await;
    let begin = Instant::now();
    deaf.stop();
    let (text, exit) = everything(&mut deaf).await;
    assert!(text.ends_with("told\n"), "{text}");
    assert_eq!(exit, ended(None, Some(9)));
    assert!(begin.elapsed() >= Duration::from_secs(3) && begin.elapsed() < SOON, "{:?}", begin.elapsed());
}

#[tokio::test]
async fn a_dropped_command_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = Supervised::spawn(shell("echo $$; exec sleep 600", dir.path())).await.unwrap();
    let pid = first_line(&mut command).await;
    assert!(alive(&pid));
    drop(command);
    eventually("it is gone", SOON, || !alive(&pid)).await;
}

#[tokio::test]
async fn what_a_command_leaves_in_the_background_ends_with_it() {
    let begin = Instant::now();
    let (text, exit) = run("setsid sleep 600 & echo $!").await;
    assert_eq!(exit.code, Some(0));
    assert!(!alive(text.trim()));
    assert!(begin.elapsed() < SOON);
}

#[tokio::test]
async fn a_command_that_closes_its_output_is_still_waited_for() {
    let (text, exit) = run("echo before; exec >&- 2>&-; sleep 0.3; exit 4").await;
    assert_eq!((text.as_str(), exit.code), ("before\n", Some(4)));
}

#[tokio::test]
async fn a_flood_of_output_waits_for_its_reader() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = Supervised::spawn(shell("echo $$; exec yes", dir.path())).await.unwrap();
    let pid = first_line(&mut command).await.lines().next().unwrap().to_owned();
    // It sleeps for good once everything that may hold output is full.
    let mut asleep = 0;
    eventually("it waits in its write", SOON, || {
        asleep = if state(&pid) == Some('S') { asleep + 1 } else { 0 };
        asleep > 20
    })
    .await;
    // Gone before its output is read: what comes now is what was held, and no more.
    assert!(std::process::Command::new("kill").args(["-9", &pid]).status().unwrap().success());
    eventually("it is gone", SOON, || !alive(&pid)).await;
    let (text, _) = everything(&mut command).await;
    assert!(text.len() < 1 << 20, "{} bytes were held", text.len());
}

#[tokio::test]
async fn without_its_supervisor_a_command_is_killed() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = Supervised::spawn(shell("echo $PPID $$; exec sleep 600", dir.path())).await.unwrap();
    let line = first_line(&mut command).await;
    let (supervisor, pid) = line.split_once(' ').unwrap();
    assert!(std::process::Command::new("kill").args(["-9", supervisor]).status().unwrap().success());
    assert_eq!(everything(&mut command).await.1, Exit::default());
    eventually("it is gone", SOON, || !alive(pid)).await;
}

/// How many processes bear this word in their command line.
fn bearing(word: &str) -> usize {
    let lines = std::fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| {
        let is_process = entry.file_name().to_str()?.parse::<u32>().is_ok();
        is_process.then(|| std::fs::read(entry.path().join("cmdline")).unwrap_or_default())
    });
    lines.filter(|line| line.windows(word.len()).any(|piece| piece == word.as_bytes())).count()
}

#[tokio::test]
async fn a_fork_bomb_is_killed_as_a_whole() {
    let limits = Limits { processes: 60, ..Limits::default() };
    // Of this process alone: another that runs these tests has bombs of its own.
    let words = ["one", "two"].map(|name| format!("bomb-{name}-{}", std::process::id()));
    // Both end by themselves after some generations and a time, should nobody kill them: a time that a machine which stands
    // still for a while does not reach.
    let bombs = [
        format!(
            "bomb() {{ [ $1 -gt 7 ] && exec sleep 50; sleep 0.02; bomb $(($1 + 1)) & bomb $(($1 + 1)) & wait; }}; bomb 0; : {}",
            words[0]
        ),
        // These leave their group and their parent.
        format!(
            "cat > b.sh <<'X'\n[ $1 -gt 7 ] && exec sleep 50\nsleep 0.02\n\
             for n in 1 2; do setsid bash b.sh $(($1 + 1)) {0} & done\nX\nbash b.sh 0 {0}; sleep 50",
            words[1]
        ),
    ];
    for (bomb, word) in bombs.iter().zip(&words) {
        let began = Instant::now();
        let (text, exit) = run_within(limits, bomb).await;
        let took = began.elapsed();
        assert_eq!(exit.exceeded, Some(Exceeded::Processes), "{bomb}\nafter {took:?}: {exit:?} {text}");
        assert_eq!(bearing(word), 0, "nothing of it is left");
        assert!(took < Duration::from_secs(40), "{took:?}");
    }
    let (text, exit) = run_within(limits, "for n in $(seq 40); do sleep 0.3 & done; wait; echo fine").await;
    assert_eq!((text.as_str(), exit), ("fine\n", ended(Some(0), None)), "what stays within its limit is left alone");
}

#[tokio::test]
async fn a_family_that_has_too_much_memory_is_killed() {
    let limits = Limits { memory_bytes: 192 << 20, ..Limits::default() };
    let hold = "hold() { head -c $1 /dev/zero | tail | sleep 600; }";
    let alone = format!("{hold}; hold 400M");
    let together = format!("{hold}; for n in 1 2 3 4 5; do hold 60M & done; wait");
    for text in [alone, together] {
        let (_, exit) = run_within(limits, &text).await;
        assert_eq!(exit.exceeded, Some(Exceeded::Memory), "{text}");
    }
    let (text, exit) = run_within(limits, "head -c 30M /dev/zero | tail | wc -c").await;
    assert_eq!((text.trim(), exit), ("31457280", ended(Some(0), None)));
}

#[tokio::test]
async fn a_file_that_grows_too_large_and_too_many_open_files_fail_where_they_are() {
    let limits = Limits { file_bytes: 1 << 20, open_files: 32, ..Limits::default() };
    let (text, exit) = run_within(limits, "head -c 5M /dev/zero > big; echo $?; stat -c %s big").await;
    let lines: Vec<&str> = text.lines().collect();
    // 128 and SIGXFSZ.
    assert_eq!((lines[lines.len() - 2], lines[lines.len() - 1]), ("153", "1048576"), "{text}");
    assert_eq!(exit, ended(Some(0), None));
    let open = "for n in $(seq 3 100); do eval \"exec $n</dev/null\" || break; done; echo $n";
    let (text, exit) = run_within(limits, open).await;
    let last: u64 = text.lines().last().unwrap_or_default().parse().unwrap_or(99);
    assert!(last <= 32 && text.contains("Too many open files") || exit.code != Some(0), "{text} {exit:?}");
}
