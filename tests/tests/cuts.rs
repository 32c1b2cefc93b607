//! Event streams that are cut, at any byte, on any way to the fleet: nothing is lost, nothing comes twice.

use std::time::Duration;

use serde_json::Value;
use suite::figures::rounds;
use testkit::events::names_session;
use testkit::haproxy::Haproxy;
use testkit::nginx::Nginx;
use testkit::{Answer, BOUND, CuttingProxy, Event, EventReader, World, eventually};

fn words(count: usize) -> Vec<String> {
    (0..count).map(|n| format!("w{n} ")).collect()
}

/// A way to the replicas, whose connections to them can be cut.
struct Way {
    name: &'static str,
    /// In front of each replica.
    proxies: Vec<CuttingProxy>,
    /// Where requests go, one after the other.
    urls: Vec<String>,
    asked: usize,
    _balancer: Balancer,
}

enum Balancer {
    None,
    Nginx { _it: Nginx },
    Haproxy { _it: Haproxy },
}

impl Way {
    /// Directly, through nginx, and through HAProxy.
    async fn all(world: &World) -> [Self; 3] {
        let proxies = || world.replicas().iter().map(|replica| CuttingProxy::start(replica.port())).collect();
        let ports = |proxies: &Vec<CuttingProxy>| proxies.iter().map(CuttingProxy::port).collect::<Vec<_>>();
        let direct: Vec<CuttingProxy> = proxies();
        let urls = direct.iter().map(CuttingProxy::url).collect();
        let direct = Self { name: "directly", proxies: direct, urls, asked: 0, _balancer: Balancer::None };
        let behind = proxies();
        let it = Nginx::start(ports(&behind)).await;
        let urls = vec![it.url()];
        let balancer = Balancer::Nginx { _it: it };
        let nginx = Self { name: "through nginx", proxies: behind, urls, asked: 0, _balancer: balancer };
        let behind = proxies();
        let it = Haproxy::start(ports(&behind)).await;
        let urls = vec![it.url()];
        let balancer = Balancer::Haproxy { _it: it };
        let haproxy = Self { name: "through HAProxy", proxies: behind, urls, asked: 0, _balancer: balancer };
        [direct, nginx, haproxy]
    }

    /// The next address of a stream: another replica than before.
    fn next(&mut self, world: &World) -> String {
        self.asked += 1;
        format!("{}{}", self.urls[self.asked % self.urls.len()], world.event_path())
    }

    fn cut_after(&self, bytes: u64) {
        self.proxies.iter().for_each(|proxy| proxy.cut_after(bytes));
    }

    fn heal(&self) {
        self.proxies.iter().for_each(CuttingProxy::heal);
    }

    /// Waits until a reader is cut. Cut it must be, not ended: a client takes a clean end for the end of all events.
    async fn is_cut(&self, reader: &EventReader) {
        let ended = eventually(BOUND, "the cut", || async { reader.ended() }).await;
        assert!(ended.is_err(), "the stream ended cleanly {}", self.name);
    }
}

/// How many bytes pass before a running stream is cut, at most: some twenty events.
const FEW_BYTES: u64 = 6_000;

/// What was published: ids and bodies, without what belongs to a stream alone.
fn published(events: &[Event]) -> Vec<(Option<String>, Value)> {
    events.iter().filter(|e| !e.is_of_the_stream()).map(|e| (e.id.clone(), e.data.clone())).collect()
}

/// How many of the events are lost, and how many came twice.
fn lost_and_doubled(heard: &[Event], whole: &[(Option<String>, Value)]) -> (usize, usize) {
    let heard = published(heard);
    let lost = whole.iter().filter(|event| !heard.contains(event)).count();
    let mut ids: Vec<_> = heard.iter().map(|(id, _)| id).collect();
    ids.sort();
    ids.dedup();
    (lost, heard.len() - ids.len())
}

async fn until_last(reader: &EventReader, last: &Option<String>) {
    eventually(BOUND, "the last event", || async { (reader.last_id() == *last).then_some(()) }).await;
}

#[tokio::test]
async fn a_stream_that_is_cut_at_any_byte_goes_on_elsewhere_without_loss_or_repetition() {
    let world = World::start().await;
    world.model.push(Answer::new().text_chunks(words(6), Duration::ZERO).stop());
    let mut control = world.events(0).await;
    let id = world.session().await;
    world.prompt(&id, "go").await;
    control.until_idle(BOUND, &id).await;
    // The last of what follows the end of a turn.
    control.until_kind(BOUND, "message.updated").await;
    let whole = published(&control.collected());
    let (first, last) = (whole[0].0.clone(), whole[whole.len() - 1].0.clone());
    let rest = &whole[1..];
    // As many bytes as the stream has after its first event, and some for the head.
    let bytes: usize = rest.iter().map(|(id, data)| id.as_ref().map_or(0, String::len) + data.to_string().len()).sum();
    for mut way in Way::all(&world).await {
        let cuts = rounds(20).min(bytes);
        let (mut lost, mut doubled) = (0, 0);
        for cut in 0..cuts {
            way.cut_after((cut * bytes / cuts) as u64);
            let mut reader = EventReader::begin(&way.next(&world), world.headers(), first.clone());
            way.is_cut(&reader).await;
            way.heal();
            reader.resume(&way.next(&world));
            until_last(&reader, &last).await;
            let (l, d) = lost_and_doubled(&reader.collected(), rest);
            assert_eq!(published(&reader.collected()), rest, "cut after {} bytes {}", cut * bytes / cuts, way.name);
            (lost, doubled) = (lost + l, doubled + d);
        }
        println!("figure a stream cut at a byte, {}: {lost} lost, {doubled} doubled of {cuts} cuts", way.name);
    }
}

#[tokio::test]
async fn a_stream_that_is_cut_again_and_again_in_mid_answer_loses_and_repeats_nothing() {
    let world = World::start().await;
    let count = rounds(250).max(250);
    world.model.push(Answer::new().text_chunks(words(count), Duration::from_millis(4)).stop());
    let mut control = world.events(2).await;
    let mut opened = Vec::new();
    for mut way in Way::all(&world).await {
        let reader = EventReader::open(&way.next(&world), world.headers()).await;
        opened.push((way, reader));
    }
    let id = world.session().await;
    let mut readers = Vec::new();
    for (mut way, mut reader) in opened {
        let (path, session) = (world.event_path(), id.clone());
        readers.push(tokio::spawn(async move {
            let (mut cuts, mut random) = (0_u64, 1_u64);
            let is_idle = |reader: &EventReader| {
                reader.has(|event| event.kind() == "session.idle" && names_session(event, &session))
            };
            let (mut most, mut last) = (FEW_BYTES, None);
            let began = std::time::Instant::now();
            while !is_idle(&reader) {
                assert!(began.elapsed() < BOUND * 4, "the session did not become idle {}", way.name);
                // Numbers that look random, and are the same in every run.
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                way.cut_after(400 + (random >> 33) % most);
                eventually(BOUND, "a cut, or the end", || async {
                    (reader.ended().is_some() || is_idle(&reader)).then_some(())
                })
                .await;
                way.heal();
                if let Some(ended) = reader.ended() {
                    assert!(ended.is_err(), "the stream ended cleanly {}", way.name);
                    cuts += 1;
                    way.asked += 1;
                    // An event may be longer than what passes: the last ones bear the whole text.
                    most = if reader.last_id() == last { most * 2 } else { FEW_BYTES };
                    last = reader.last_id();
                    reader.resume(&format!("{}{path}", way.urls[way.asked % way.urls.len()]));
                }
            }
            (way.name, reader, cuts)
        }));
    }
    world.at(0).prompt_async(&id, "go").await;
    control.until_idle(BOUND * 4, &id).await;
    let whole = published(testkit::outline::to_idle(&control.of_session(&id)));
    for reader in readers {
        let (name, reader, cuts) = reader.await.unwrap();
        let heard = reader.of_session(&id);
        let heard = testkit::outline::to_idle(&heard);
        let (lost, doubled) = lost_and_doubled(heard, &whole);
        println!("figure a stream cut in mid-answer, {name}: {lost} lost, {doubled} doubled of {cuts} cuts");
        assert_eq!(published(heard), whole, "{name}");
        assert!(cuts > 3, "{cuts} cuts {name}");
    }
}

#[tokio::test]
async fn streams_outlive_the_silence_that_balancers_allow() {
    let world = World::start().await;
    let ports = || world.replicas().iter().map(testkit::Replica::port);
    // Longer than the time between two heartbeats, and no more.
    let nginx =
        Nginx::start_edited(ports(), |text| text.replace("proxy_read_timeout 2m", "proxy_read_timeout 14s")).await;
    let haproxy = Haproxy::start_edited(ports(), |text| {
        text.replace("timeout client 1h", "timeout client 14s").replace("timeout server 2m", "timeout server 14s")
    })
    .await;
    let mut readers = Vec::new();
    for url in [nginx.url(), haproxy.url()] {
        readers.push(EventReader::open(&format!("{url}{}", world.event_path()), world.headers()).await);
    }
    for reader in &mut readers {
        reader.until_kind(BOUND, "server.heartbeat").await;
        reader.until_kind(BOUND, "server.heartbeat").await;
    }
    let id = world.session().await;
    for reader in &mut readers {
        let created = reader.until_kind(BOUND, "session.created").await;
        assert_eq!(created.properties()["info"]["id"], id.as_str());
        assert!(reader.ended().is_none());
    }
}
