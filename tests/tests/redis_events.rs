//! same-events while what carries them breaks: readers on all replicas get the same events, none lost, none twice, or are
//! healed.

use serde_json::json;
use std::time::Duration;
use suite::screen::{published, saw_each_once, shows_what_is_stored};
use testkit::outline::joined_deltas;
use testkit::{Answer, BOUND, EventReader, Mode, World, WorldSpec, eventually};

/// How many pieces the answer has that is under way while something breaks.
const PIECES: usize = 150;

fn quick() -> WorldSpec {
    let args = ["--lease-ttl", "6s", "--tick", "300ms"].map(str::to_owned).to_vec();
    WorldSpec { args, proxied: true, ..WorldSpec::default() }
}

fn pieces() -> Vec<String> {
    (0..PIECES).map(|number| format!("w{number} ")).collect()
}

/// A reader on each replica, and an answer under way.
struct Told {
    world: World,
    readers: Vec<EventReader>,
    session: String,
}

impl Told {
    async fn start() -> Self {
        let world = World::start_with(quick()).await;
        world.model.respond_with(|_| Answer::new().text_chunks(pieces(), Duration::from_millis(20)).stop());
        let mut readers = Vec::new();
        for number in 0..3 {
            readers.push(world.faithful_events(number).await);
        }
        let session = world.session().await;
        world.at(0).prompt_async(&session, "go").await;
        let mut told = Self { world, readers, session };
        told.until(5).await;
        told
    }

    /// Waits until every reader has this piece.
    async fn until(&mut self, piece: usize) {
        for reader in &mut self.readers {
            let delta = format!("w{piece} ");
            reader.until(BOUND, &delta, |event| event.properties()["delta"] == *delta).await;
        }
    }

    /// Waits for the end, and checks that all readers were told the same, each event once, and over how many connections.
    async fn ends_the_same(mut self, connections: usize) {
        for reader in &mut self.readers {
            reader.until_idle(BOUND, &self.session).await;
        }
        // What comes after the end, such as the title, comes too.
        let last = json!({"title": "the last event"});
        self.world.client().patch(&format!("/session/{}", self.session), &last).await.ok();
        for reader in &mut self.readers {
            let is_last = |event: &testkit::Event| event.properties()["info"]["title"] == "the last event";
            reader.until(BOUND, "the last event", is_last).await;
            assert_eq!(reader.connections(), connections);
            assert_eq!(joined_deltas(&reader.collected()), pieces().concat(), "none lost, none twice");
            saw_each_once(reader);
        }
        let told: Vec<_> = self.readers.iter().map(|reader| published(&reader.collected())).collect();
        assert_eq!(told[0], told[1]);
        assert_eq!(told[0], told[2]);
    }

    /// Waits for the end, and checks that all screens show what is stored.
    async fn ends_healed(self) {
        for (number, reader) in self.readers.iter().enumerate() {
            shows_what_is_stored(reader, &self.world.at(number), &self.session).await;
        }
    }
}

#[tokio::test]
async fn a_pub_sub_connection_that_is_cut_loses_nothing() {
    if !Mode::is_fleet_or_skip() {
        return;
    }
    let mut told = Told::start().await;
    for piece in [10, 30, 50] {
        told.until(piece).await;
        let killed = told.world.redis().command(&["CLIENT", "KILL", "TYPE", "pubsub"]);
        assert!(killed.parse::<usize>().is_ok_and(|killed| killed > 0), "{killed}");
    }
    told.ends_the_same(1).await;
}

#[tokio::test]
async fn a_pub_sub_connection_that_is_half_open_loses_nothing() {
    if !Mode::is_fleet_or_skip() {
        return;
    }
    let mut told = Told::start().await;
    told.world.redis_proxy(1).hold_subscribers();
    told.world.redis_proxy(2).hold_subscribers();
    // Over the tick alone, and then over a new connection.
    told.until(PIECES / 2).await;
    told.world.redis_proxy(1).heal();
    told.ends_the_same(1).await;
}

#[tokio::test]
async fn a_subscriber_whose_buffer_overruns_loses_nothing() {
    if !Mode::is_fleet_or_skip() {
        return;
    }
    let mut told = Told::start().await;
    // Messages that are larger than what a connection may owe: Redis drops whoever listens.
    told.world.redis().command(&["CONFIG", "SET", "client-output-buffer-limit", "pubsub 20kb 20kb 1"]);
    let mut dropped = Vec::new();
    for number in 0..5 {
        told.until(10 + 10 * number).await;
        let text = format!("{number} {}", "x".repeat(100_000));
        let prompt = json!({"noReply": true, "parts": [{"type": "text", "text": text}]});
        let session = told.world.session().await;
        told.world.at(number).post(&format!("/session/{session}/message"), &prompt).await.ok();
        dropped.push(text);
    }
    for reader in &mut told.readers {
        for text in &dropped {
            let has_it = |event: &testkit::Event| event.properties()["part"]["text"] == **text;
            eventually(BOUND, "a large text", || async { reader.collected().iter().any(has_it).then_some(()) }).await;
        }
    }
    told.ends_the_same(1).await;
}

#[tokio::test]
async fn a_log_that_is_trimmed_under_its_readers_heals_them() {
    if !Mode::is_fleet_or_skip() {
        return;
    }
    let mut told = Told::start().await;
    let log = "flotilla:1:{0}:log:default";
    // A replica that hears nothing while what it has not read goes, and a reader that was away meanwhile.
    told.world.redis_proxy(2).hold();
    told.readers[0].cut();
    let beyond = |event: &testkit::Event| event.properties()["delta"] == "w40 ";
    told.readers[1].until(BOUND, "a delta", beyond).await;
    assert_ne!(told.world.redis().command(&["XTRIM", log, "MAXLEN", "3"]), "0");
    told.world.redis_proxy(2).heal();
    let url = format!("{}{}", told.world.url(0), told.world.event_path());
    told.readers[0].reconnect(&url).await;
    told.ends_healed().await;
}

#[tokio::test]
async fn a_log_that_is_lost_heals_its_readers() {
    if !Mode::is_fleet_or_skip() {
        return;
    }
    let mut told = Told::start().await;
    told.until(30).await;
    told.world.redis().command(&["DEL", "flotilla:1:{0}:log:default", "flotilla:1:{0}:meta:default"]);
    told.ends_healed().await;
}
