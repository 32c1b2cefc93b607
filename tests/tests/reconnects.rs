//! same-events: readers that are cut, in the middle of a frame too, and come back to another replica.

use std::collections::HashSet;
use std::time::Duration;
use suite::figures::{Draws, rounds};
use testkit::outline::published;
use testkit::{Answer, BOUND, Client, CuttingProxy, EventReader, Mode, World, eventually};

/// How many readers are cut beside each other.
const READERS: usize = 5;
/// How many bytes a reader may get until it is cut.
const BYTES: usize = 4000;

/// A reader that reaches each replica by a proxy of its own.
struct Reader {
    events: EventReader,
    proxies: Vec<CuttingProxy>,
    path: String,
    draws: Draws,
}

impl Reader {
    async fn open(world: &World, draws: Draws) -> Self {
        let proxies: Vec<CuttingProxy> = world.replicas().iter().map(|r| CuttingProxy::start(r.port())).collect();
        let events = Client::new([proxies[0].url()]).events(&world.event_path()).await;
        Self { events, proxies, path: world.event_path(), draws }
    }

    /// Is cut so often, each time after some bytes, and comes back to a replica that is drawn, too.
    async fn endure(&mut self, cuts: usize) {
        let mut at = 0;
        for _ in 0..cuts {
            self.proxies[at].cut_after(1 + self.draws.below(BYTES) as u64);
            eventually(BOUND, "the cut", || async { self.events.ended().filter(Result::is_err).map(drop) }).await;
            at = self.draws.below(self.proxies.len());
            self.proxies[at].heal();
            self.events.reconnect(&format!("{}{}", self.proxies[at].url(), self.path)).await;
        }
    }
}

#[tokio::test]
async fn readers_that_are_cut_at_any_byte_miss_no_event_and_see_none_twice() {
    if !Mode::is_fleet_or_skip() {
        return;
    }
    let world = World::start().await;
    let words: Vec<String> = (0..100).map(|n| format!("w{n} ")).collect();
    world.model.respond_with(move |_| Answer::new().text_chunks(words.clone(), Duration::from_millis(3)).stop());
    let mut control = world.events(0).await;
    let (mut draws, mut readers) = (Draws::seeded(), Vec::new());
    for _ in 0..READERS {
        let seed = draws.below(usize::MAX);
        readers.push(Reader::open(&world, Draws::from_seed(seed as u64)).await);
    }
    let cuts = rounds(50).div_ceil(READERS);
    // Something is said all the time, until the last of them was cut often enough.
    let talking = tokio::spawn({
        let client = world.client();
        async move {
            loop {
                let id = client.titled_session().await;
                client.prompt(&id, "talk").await;
            }
        }
    });
    let mut enduring = tokio::task::JoinSet::new();
    for mut reader in readers {
        enduring.spawn(async move {
            eventually(BOUND, "the first event", || async { reader.events.last_id() }).await;
            reader.endure(cuts).await;
            reader
        });
    }
    let readers = enduring.join_all().await;
    talking.abort();
    let last = serde_json::json!({"title": "the last event"});
    let id = world.session().await;
    world.client().patch(&format!("/session/{id}"), &last).await.ok();
    let is_last = |event: &testkit::Event| event.properties()["info"]["title"] == "the last event";
    control.until(BOUND, "the last event", is_last).await;
    let until_last = |events: &EventReader| {
        let mut told = events.collected();
        told.truncate(told.iter().position(is_last).map_or(told.len(), |place| place + 1));
        published(&told)
    };
    let all = until_last(&control);
    let (mut lost, mut doubled) = (0, 0);
    for reader in &readers {
        let events = &reader.events;
        eventually(BOUND, "the last event", || async { events.collected().iter().any(is_last).then_some(()) }).await;
        let told = until_last(events);
        let known: HashSet<_> = told.iter().map(|(id, _)| id).collect();
        lost += all.iter().filter(|(id, _)| !known.contains(id)).count();
        doubled += told.len() - known.len();
    }
    let count = READERS * cuts;
    println!(
        "figure events resumed: {count} reconnects, {lost} lost, {doubled} doubled, of {} for each reader",
        all.len()
    );
    assert_eq!((lost, doubled), (0, 0));
    for reader in &readers {
        assert!(until_last(&reader.events) == all, "the order, or a body, is another");
    }
}
