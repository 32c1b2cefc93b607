//! What hangs, floods or never ends costs a bounded amount, gets a clear error, and harms nobody beside it.
#![allow(clippy::unwrap_used)]

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::json;
use suite::figures::rounds;
use testkit::client::{text_of, text_prompt};
use testkit::sse::SseParser;
use testkit::{Answer, BOUND, EventReader, Mode, Usage, World, WorldSpec, eventually, usage};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

const MIB: u64 = 1 << 20;

async fn world(args: &[&str]) -> World {
    let args = args.iter().map(|arg| (*arg).to_owned()).collect();
    World::start_with(WorldSpec { args, ..WorldSpec::default() }).await
}

fn usages(world: &World) -> Vec<Usage> {
    world.replicas().iter().map(testkit::Replica::usage).collect()
}

/// Connects without reading, with little room in the kernel.
async fn connect(port: u16) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    socket.connect(([127, 0, 0, 1], port).into()).await.unwrap()
}

async fn open_stream(port: u16, path: &str) -> TcpStream {
    let mut stream = connect(port).await;
    let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    stream
}

/// The open event streams of a replica.
async fn streams(world: &World, number: usize) -> usize {
    let metrics = world.at(number).get("/metrics").await.text();
    let line = metrics.lines().find_map(|line| line.strip_prefix("flotilla_event_streams ")).unwrap();
    line.parse().unwrap()
}

async fn until_streams(world: &World, number: usize, count: usize) {
    eventually(BOUND * 2, &format!("{count} event streams"), || async {
        (streams(world, number).await == count).then_some(())
    })
    .await;
}

/// Stores a prompt that nobody answers, with a text of so many bytes.
async fn say(world: &World, session: &str, bytes: usize) {
    let body = json!({"noReply": true, "parts": [{"type": "text", "text": "x".repeat(bytes)}]});
    world.at(1).post(&format!("/session/{session}/message"), &body).await.ok();
}

#[tokio::test]
async fn a_thousand_readers_that_never_read_are_cut_and_harm_nobody() {
    let world = world(&["--client-timeout", "3s"]).await;
    let count = if Mode::from_env() == Mode::ThreeReplicas { 990 } else { 300 };
    let port = world.replicas()[0].port();
    let id = world.session().await;
    let mut neighbour = world.events(0).await;
    let before = world.replicas()[0].usage();
    let mut readers = Vec::new();
    for _ in 0..count {
        readers.push(open_stream(port, &world.event_path()).await);
    }
    until_streams(&world, 0, count + 1).await;
    let opened = world.replicas()[0].usage();
    usage::forget_peak(world.replicas()[0].id());
    // More than the kernel keeps for them all.
    let began = Instant::now();
    let mut said = 0;
    while streams(&world, 0).await > 1 {
        assert!(began.elapsed() < BOUND * 3, "{} are still open", streams(&world, 0).await);
        say(&world, &id, 30_000).await;
        said += 1;
    }
    let flooded = world.replicas()[0].usage();
    let per_reader = |usage: Usage| usage.peak.saturating_sub(before.resident) / count as u64 / 1024;
    println!(
        "figure {count} readers that never read: {} KiB each when open, {} KiB each at most, all cut after {:.1} s",
        opened.resident.saturating_sub(before.resident) / count as u64 / 1024,
        per_reader(flooded),
        began.elapsed().as_secs_f64()
    );
    assert!(per_reader(flooded) < 200, "{before:?} {opened:?} {flooded:?}");
    // The one that reads was told all of it.
    let is_text =
        |event: &testkit::Event| event.properties()["part"]["text"].as_str().is_some_and(|t| t.len() == 30_000);
    eventually(BOUND, "all events", || async {
        (neighbour.collected().iter().filter(|event| is_text(event)).count() == said).then_some(())
    })
    .await;
    assert!(neighbour.ended().is_none());
    neighbour.cut();
    // One of those that were cut reads what the kernel has for it, and goes on from there.
    let mut heard = Vec::new();
    let mut reader = readers.pop().unwrap();
    let _cut = tokio::time::timeout(BOUND, reader.read_to_end(&mut heard)).await.unwrap();
    let frames = SseParser::default().push(&heard);
    let last = frames.iter().rev().find_map(|frame| frame.id.clone());
    assert!(last.is_some(), "{} bytes", heard.len());
    let url = format!("{}{}", world.url(1), world.event_path());
    let resumed = EventReader::begin(&url, world.headers(), last);
    let end = neighbour.last_id();
    // More may follow: what it had not been told yet when it was cut.
    eventually(BOUND, "the rest", || async { resumed.collected().iter().any(|event| event.id == end).then_some(()) })
        .await;
    let texts = |events: &[testkit::Event]| events.iter().filter(|event| is_text(event)).count();
    let frames: Vec<_> = frames.iter().filter_map(|frame| frame.data.as_ref()).collect();
    let had = frames.iter().filter(|data| data.len() > 30_000).count();
    assert_eq!(had + texts(&resumed.collected()), said, "nothing lost, nothing twice");
}

#[tokio::test]
async fn fifteen_hundred_streams_come_and_go_and_leave_nothing() {
    let world = world(&[]).await;
    let replicas = world.replicas().len();
    let each = if replicas == 3 { 500 } else { 300 };
    let mut after = Vec::new();
    for round in 0..rounds(2).max(2) {
        let mut open = Vec::new();
        for number in 0..each * replicas {
            open.push(open_stream(world.replicas()[number % replicas].port(), "/global/event").await);
        }
        for number in 0..replicas {
            until_streams(&world, number, each).await;
        }
        if round == 0 {
            let refused = world.at(0).post("/session", &json!({})).await;
            assert_eq!(refused.status, 200, "others are served: {}", refused.text());
        }
        drop(open);
        for number in 0..replicas {
            until_streams(&world, number, 0).await;
        }
        after.push(usages(&world));
    }
    let first = &after[0];
    let last = &after[after.len() - 1];
    for (first, last) in first.iter().zip(last) {
        println!(
            "figure {each} streams opened and cut, {} times: {} MiB then, {} MiB now; {:?} files then, {:?} now",
            after.len(),
            first.resident / MIB,
            last.resident / MIB,
            first.files,
            last.files
        );
        assert!(last.files <= first.files.map(|files| files + 8), "{first:?} {last:?}");
        assert!(last.resident < first.resident + 24 * MIB, "{first:?} {last:?}");
    }
}

#[tokio::test]
async fn a_reader_too_many_is_told_to_come_back() {
    if Mode::from_env() != Mode::ThreeReplicas {
        return;
    }
    let world = world(&[]).await;
    let port = world.replicas()[0].port();
    let mut open = Vec::new();
    for _ in 0..1000 {
        open.push(open_stream(port, "/global/event").await);
    }
    until_streams(&world, 0, 1000).await;
    let refused = world.at(0).get("/global/event").await;
    assert_eq!(refused.status, 503, "{}", refused.text());
    assert!(!refused.header("retry-after").is_empty());
    let elsewhere = world.global_events(1).await;
    assert!(elsewhere.ended().is_none());
}

/// The peak of each replica above what it took before, in bytes.
async fn peak_during<T>(world: &World, work: impl Future<Output = T>) -> (T, Vec<u64>) {
    let before: Vec<Usage> = usages(world);
    world.replicas().iter().for_each(|replica| usage::forget_peak(replica.id()));
    let done = work.await;
    let after = usages(world);
    let peaks = after.iter().zip(&before).map(|(after, before)| after.peak.saturating_sub(before.resident)).collect();
    (done, peaks)
}

#[tokio::test]
async fn a_prompt_of_many_megabytes_takes_a_small_multiple_of_itself() {
    let world = world(&[]).await;
    world.model.respond_with(|_| Answer::say("that was long"));
    let warm = world.session().await;
    for _ in 0..3 {
        world.prompt(&warm, "hello").await;
    }
    let id = world.session().await;
    // In a debug build a megabyte takes a second of a busy machine.
    let size = rounds(4).clamp(4, 60) as u64 * MIB;
    let text = "a long text ".repeat(size as usize / 12);
    let mut reader = world.events(2).await;
    let began = Instant::now();
    let (answer, peaks) = peak_during(&world, async {
        let answer = world.at(0).post(&format!("/session/{id}/message"), &text_prompt(&text)).await.ok();
        // A neighbour is served meanwhile.
        reader.until_idle(BOUND * 2, &id).await;
        answer
    })
    .await;
    assert_eq!(text_of(&answer), "that was long");
    let multiples: Vec<f64> = peaks.iter().map(|peak| *peak as f64 / size as f64).collect();
    let took = began.elapsed().as_secs_f64();
    println!("figure a prompt of {} MiB: {multiples:.1?} times itself at most, {took:.1} s", size / MIB);
    assert!(peaks.iter().all(|peak| *peak <= 4 * size + 16 * MIB), "{multiples:?}");
    // Whole for the model, for those who read the session, and for those who follow the events.
    assert_eq!(testkit::transcript::last_user_text(&world.model.main_requests().pop().unwrap().body), text);
    let is_it = |event: &testkit::Event| event.properties()["part"]["text"].as_str() == Some(&text);
    let told = eventually(BOUND * 2, "the event", || async {
        Some(reader.collected().iter().filter(|event| is_it(event)).count()).filter(|told| *told > 0)
    })
    .await;
    assert_eq!(told, 1);
    let mut newcomer = world.global_events(1).await;
    newcomer.until(BOUND * 2, "the long part", is_it).await;
    let messages = world.at(1).messages(&id).await;
    assert_eq!(text_of(&messages[0]), text);
    // And it stays no longer than it is needed.
    drop(messages);
    eventually(BOUND, "the memory to come back", || async {
        usages(&world).iter().all(|usage| usage.resident < 150 * MIB).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_model_that_hangs_is_given_up_asked_again_and_told_of() {
    let world = world(&["--model-timeout", "1s"]).await;
    world.model.push(Answer::new().hang());
    world.model.push(Answer::new().text("half an ").hang());
    world.model.push(Answer::say("a whole answer"));
    let id = world.session().await;
    let mut events = world.events(1).await;
    let began = Instant::now();
    let prompt = world.spawn_prompt(0, &id, "go");
    let is_retry = |event: &testkit::Event| event.properties()["status"]["type"] == "retry";
    for attempt in 1..=2 {
        let retry = events.until(BOUND, "a retry", is_retry).await;
        let status = &retry.properties()["status"];
        assert_eq!(status["attempt"], attempt);
        let message = status["message"].as_str().unwrap();
        assert!(message.contains("within 1 seconds"), "it says what was waited for: {message}");
        assert!(status["next"].as_u64().unwrap() > testkit::polling::now_ms() - 10_000);
        if attempt == 1 {
            // A neighbour is answered meanwhile.
            world.model.title_with(|_| Answer::say("title"));
            let other = world.session().await;
            assert_eq!(world.at(1).get(&format!("/session/{other}/message")).await.ok(), json!([]));
        }
    }
    let answer = prompt.await.unwrap();
    assert!(text_of(&answer).ends_with("a whole answer"), "{answer}");
    assert!(began.elapsed() < BOUND, "{:?}", began.elapsed());
    let asked = world.model.main_requests();
    assert!(asked[..2].iter().all(|request| request.disconnected), "the connections that hung are dropped");
    assert_eq!(asked.len(), 3);
    assert_eq!(world.status(&id).await, "idle");
}

#[tokio::test]
async fn an_abort_reaches_a_run_whose_model_hangs() {
    let world = world(&[]).await;
    world.model.push(Answer::new().hang());
    let id = world.session().await;
    let prompt = world.spawn_prompt(0, &id, "go");
    world.model.wait_main_requests(1, BOUND).await;
    world.at(1).abort(&id).await;
    assert_eq!(prompt.await.unwrap()["info"]["error"]["name"], "MessageAbortedError");
}

#[tokio::test]
async fn a_tool_that_prints_without_end_is_ended_and_takes_little() {
    let world = world(&[]).await;
    world.model.respond_with(|body| match body["messages"].as_array().unwrap().iter().any(|m| m["role"] == "tool") {
        true => Answer::say("enough"),
        false => Answer::call("call_1", "bash", json!({"command": "yes", "description": "d", "timeout": 1500})),
    });
    let id = world.session().await;
    let (answer, peaks) = peak_during(&world, async { world.at(0).prompt(&id, "go").await }).await;
    assert_eq!(text_of(&answer), "enough");
    println!("figure a tool that prints without end: {} MiB at most", peaks.iter().max().unwrap() / MIB);
    assert!(peaks.iter().all(|peak| *peak < 64 * MIB), "{peaks:?}");
    let asked = world.model.main_requests().pop().unwrap().body.to_string();
    assert!(asked.len() < 200_000 && asked.contains("1500 ms"), "the model is told, in short: {} bytes", asked.len());
    let kept = std::fs::read_dir(world.data_dir().join("tool-output")).unwrap().flatten();
    assert!(kept.map(|file| file.metadata().unwrap().len()).all(|size| size <= 256 * MIB));
}

/// Clients that send a byte now and then, or half a body and nothing more.
#[tokio::test]
async fn clients_that_dawdle_are_sent_away_and_take_little() {
    let world = world(&["--client-timeout", "2s"]).await;
    let port = world.replicas()[0].port();
    let id = world.session().await;
    let before = world.replicas()[0].usage();
    let mut slow = Vec::new();
    for number in 0..400 {
        let mut client = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
        client.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let head = match number % 2 {
            0 => "GET /session HTTP/1.1\r\nhost: loc".to_owned(),
            _ => format!(
                "POST /session/{id}/message HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{{",
                60 * MIB
            ),
        };
        client.write_all(head.as_bytes()).unwrap();
        slow.push(client);
    }
    // Others are served.
    let began = Instant::now();
    assert_eq!(world.at(0).get("/session").await.status, 200);
    assert!(began.elapsed() < Duration::from_secs(5));
    let during = world.replicas()[0].usage();
    let answers = tokio::task::spawn_blocking(move || {
        let mut answers = Vec::new();
        for (number, mut client) in slow.into_iter().enumerate() {
            // One more byte, too late to matter for most.
            let _sent_away = client.write_all(b"a");
            let mut answer = Vec::new();
            let _cut = client.read_to_end(&mut answer);
            answers.push((number, String::from_utf8_lossy(&answer).into_owned()));
        }
        answers
    });
    let answers = answers.await.unwrap();
    for (number, answer) in answers {
        match number % 2 {
            0 => assert!(answer.is_empty() || testkit::raw::status(&answer) == 408, "{answer}"),
            _ => assert_eq!(testkit::raw::status(&answer), 408, "{answer}"),
        }
    }
    let after = world.replicas()[0].usage();
    println!(
        "figure 400 clients that dawdle: {} KiB each, {:?} files before, {:?} during, {:?} after",
        during.resident.saturating_sub(before.resident) / 400 / 1024,
        before.files,
        during.files,
        after.files
    );
    assert!(during.resident < before.resident + 64 * MIB, "{before:?} {during:?}");
    assert!(after.files <= before.files.map(|files| files + 16), "{before:?} {after:?}");
    assert!(world.at(0).messages(&id).await.is_empty(), "nothing of it was stored");
}

/// The bytes of large requests that a replica holds.
async fn body_bytes(world: &World, number: usize) -> u64 {
    metric(world, number, "flotilla_body_bytes ").await
}

async fn metric(world: &World, number: usize, name: &str) -> u64 {
    let metrics = world.at(number).get("/metrics").await.text();
    metrics.lines().find_map(|line| line.strip_prefix(name)).unwrap().parse().unwrap()
}

/// More is stored than a replica may keep of it.
#[tokio::test]
async fn what_is_kept_of_the_store_has_a_bound_and_the_rest_is_read_again() {
    let world = world(&["--store-memory", "6MiB"]).await;
    let mut sessions = Vec::new();
    for number in 0..12 {
        let id = world.session().await;
        let text = format!("{number} ").repeat(MIB as usize / 4);
        let body = json!({"noReply": true, "parts": [{"type": "text", "text": text}]});
        assert_eq!(world.at(0).post(&format!("/session/{id}/message"), &body).await.status, 200);
        sessions.push((id, text));
    }
    let mut most = 0;
    for (id, text) in sessions.iter().chain(&sessions) {
        let messages = world.at(0).messages(id).await;
        assert!(messages[0]["parts"][0]["text"] == **text, "it is what was said");
        most = most.max(metric(&world, 0, "flotilla_kept_bytes ").await);
    }
    assert!((MIB..=6 * MIB).contains(&most), "{most}");
}

/// Requests that ask for more memory together than there is.
#[tokio::test]
async fn large_requests_at_once_find_room_or_are_asked_to_come_again() {
    let world = world(&["--body-memory", "64MiB"]).await;
    let port = world.replicas()[0].port();
    let path = format!("/session/{}/message", world.session().await);
    // Its last field is wrong: what is tried is the body, not the message.
    let text = "a long text ".repeat(8 * MIB as usize / 12);
    let body = json!({"parts": [{"type": "text", "text": text}], "agent": 1}).to_string();
    let ((), peaks) = peak_during(&world, async {
        // Eight that have sent all but their last byte leave no room for a ninth.
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        let mut held = Vec::new();
        for _ in 0..8 {
            let mut client = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
            client.write_all(head.as_bytes()).await.unwrap();
            client.write_all(&body.as_bytes()[..body.len() - 1]).await.unwrap();
            held.push(client);
        }
        let all = 8 * (body.len() as u64 - 1 - 64 * 1024);
        eventually(BOUND, "all of them to be held", || async { (body_bytes(&world, 0).await == all).then_some(()) })
            .await;
        let mut ninth = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        ninth.write_all(head.as_bytes()).await.unwrap();
        // The answer comes before all is taken: then nobody reads the rest.
        let _nobody_reads = ninth.write_all(&body.as_bytes()[..2 * MIB as usize]).await;
        let mut answer = Vec::new();
        let _cut = tokio::time::timeout(BOUND, ninth.read_to_end(&mut answer)).await.unwrap();
        let answer = String::from_utf8_lossy(&answer).to_ascii_lowercase();
        assert!(answer.starts_with("http/1.1 503") && answer.contains("retry-after: 1"), "{answer}");
        assert_eq!(world.at(0).post("/session", &json!({})).await.status, 200, "who asks for little is served");
        // Those that go away leave their room to the next.
        drop(held);
        eventually(BOUND, "their room to be given back", || async { (body_bytes(&world, 0).await == 0).then_some(()) })
            .await;
        let json = [("content-type", "application/json")];
        let taken = world.at(0).send(Method::POST, &path, &json, Some(body.into_bytes())).await;
        assert_eq!(taken.status, 400, "{}", taken.text());
    })
    .await;
    println!("figure 64 MiB of bodies on their way: {} MiB at most", peaks[0] / MIB);
    assert!(peaks[0] < 256 * MIB, "{peaks:?}");
    assert_eq!(body_bytes(&world, 0).await, 0, "all room is given back");
}
