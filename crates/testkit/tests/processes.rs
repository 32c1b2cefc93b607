//! Processes: Redis, nginx, and that none outlives its test.

use std::time::Duration;

use testkit::nginx::Nginx;
use testkit::process::Launch;
use testkit::{Client, RedisServer, eventually, leftovers};

const BOUND: Duration = Duration::from_secs(10);

#[tokio::test]
async fn redis_forgets_when_it_is_restarted_and_stays_silent_while_paused() {
    let mut redis = RedisServer::start().await;
    assert_eq!(redis.command(&["SET", "a", "1"]), "OK");
    redis.pause();
    let port = redis.port();
    let mut socket = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(150))).unwrap();
    std::io::Write::write_all(&mut socket, b"PING\r\n").unwrap();
    assert!(std::io::Read::read(&mut socket, &mut [0; 8]).is_err(), "a paused server is silent");
    redis.resume();
    assert_eq!(redis.command(&["GET", "a"]), "1");
    redis.restart_empty().await;
    assert_eq!(redis.port(), port);
    assert_eq!(redis.command(&["GET", "a"]), "");
    redis.kill();
    assert!(std::net::TcpStream::connect(("127.0.0.1", port)).is_err());
}

#[tokio::test]
async fn a_group_is_killed_with_its_process() {
    let directory = tempfile::tempdir().unwrap();
    let mut shell =
        Launch::new("a shell", "sh").args(["-c", "sleep 600 & echo ready; wait"]).directory(directory.path()).start();
    shell.wait_line(BOUND, |line| (line == "ready").then_some(())).await.unwrap();
    assert_eq!(leftovers::processes_in(directory.path()).len(), 2);
    drop(shell);
    assert_eq!(leftovers::still_in(directory.path(), BOUND), Vec::new());
}

#[tokio::test]
async fn a_process_ends_when_the_thread_that_started_it_is_gone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().to_path_buf();
    let starter = std::thread::spawn(move || {
        let launch = Launch::new("a sleep", "sh").args(["-c", "echo ready; exec sleep 600"]).directory(path);
        let shell = launch.start();
        // The signal is set by the time that the program runs.
        while !shell.stdout().contains("ready") {
            std::thread::yield_now();
        }
        std::mem::forget(shell);
    });
    starter.join().unwrap();
    assert_eq!(leftovers::still_in(directory.path(), BOUND), Vec::new());
}

#[tokio::test]
async fn a_process_that_ends_early_tells_what_it_wrote() {
    let mut shell = Launch::new("a shell", "sh").args(["-c", "echo to stdout; echo to stderr >&2; exit 3"]).start();
    let error = shell.wait_line(BOUND, |line| line.strip_prefix("ready")?.parse::<u8>().ok()).await.unwrap_err();
    let text = error.to_string();
    assert!(text.contains("to stdout") && text.contains("to stderr") && text.contains('3'), "{text}");
}

#[tokio::test]
async fn nginx_takes_turns_among_the_servers() {
    let models = [testkit::ScriptedModel::start().await, testkit::ScriptedModel::start().await];
    let port = |model: &testkit::ScriptedModel| model.url().split([':', '/']).nth(4).unwrap().parse::<u16>().unwrap();
    let mut nginx = Nginx::start(models.iter().map(port)).await;
    for model in &models {
        model.respond_with(|_| testkit::Answer::say("hello"));
    }
    let client = Client::new([nginx.url()]);
    let messages =
        [("system", "s"), ("user", "u")].map(|(role, text)| serde_json::json!({"role": role, "content": text}));
    let body = serde_json::json!({"model": "m", "stream": true, "messages": messages});
    for _ in 0..4 {
        assert_eq!(client.post("/v1/chat/completions", &body).await.status, 200, "{}", nginx.stderr());
    }
    assert_eq!(models.each_ref().map(|model| model.requests().len()), [2, 2]);
    nginx.stop().await;
    eventually(BOUND, "the port to be free", || async {
        std::net::TcpStream::connect(("127.0.0.1", nginx.port())).is_err().then_some(())
    })
    .await;
}
