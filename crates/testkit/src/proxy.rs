//! A TCP proxy that fails on command.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{oneshot, watch};

/// No limit on the bytes that may pass.
const NO_LIMIT: u64 = u64::MAX;

/// What happens to bytes that arrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Traffic {
    Flows,
    /// Nothing passes in either direction; the connections stay open.
    Held,
    /// Each piece waits so long before it passes on, in either direction.
    Slow(Duration),
    /// The server's side is closed, the client's stays open and silent.
    HalfOpen,
}

#[derive(Debug, Clone, Copy)]
struct Command {
    traffic: Traffic,
    /// Grows with each cut: a connection older than that ends.
    cuts: u64,
    /// The same for the connections that carry a stream of events.
    event_cuts: u64,
    /// Whether new connections are closed at once.
    refuses: bool,
    /// Whether nothing passes on connections that have subscribed to a channel of Redis.
    holds_subscribers: bool,
}

/// A proxy in front of one address. It runs on a thread of its own and ends with its value.
#[derive(Debug)]
pub struct CuttingProxy {
    address: SocketAddr,
    command: watch::Sender<Command>,
    budget: Arc<AtomicU64>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl CuttingProxy {
    /// Starts a proxy on a free loopback port in front of a loopback port.
    pub fn start(target_port: u16) -> Self {
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a free loopback port");
        listener.set_nonblocking(true).expect("a socket can be non-blocking");
        let address = listener.local_addr().expect("a bound socket has an address");
        let (command, commands) = watch::channel(Command {
            traffic: Traffic::Flows,
            cuts: 0,
            event_cuts: 0,
            refuses: false,
            holds_subscribers: false,
        });
        let budget = Arc::new(AtomicU64::new(NO_LIMIT));
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::spawn({
            let budget = budget.clone();
            move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
                runtime.block_on(async {
                    tokio::select! {
                        () = accept(listener, SocketAddr::from(([127, 0, 0, 1], target_port)), commands, budget) => {}
                        _ = stopped => {}
                    }
                });
            }
        });
        Self { address, command, budget, stop: Some(stop), thread: Some(thread) }
    }

    /// The port that it listens on.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Its address as a URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Drops every connection that is open now, both sides.
    pub fn cut(&self) {
        self.command.send_modify(|c| c.cuts += 1);
    }

    /// Drops every connection whose newest request asks for a stream of events; the others stay.
    pub fn cut_events(&self) {
        self.command.send_modify(|c| c.event_cuts += 1);
    }

    /// Lets so many more bytes pass from the server to clients, over all connections, then drops whatever carries the
    /// next one. Connections made afterwards are dropped at their first byte, until [`heal`](Self::heal).
    pub fn cut_after(&self, bytes: u64) {
        self.budget.store(bytes, Ordering::SeqCst);
    }

    /// Holds all bytes back, in both directions, on present and future connections.
    pub fn hold(&self) {
        self.command.send_modify(|c| c.traffic = Traffic::Held);
    }

    /// Lets each piece wait so long before it passes on, in either direction: what one connection says comes late, and after
    /// what another one says later.
    pub fn slow(&self, delay: Duration) {
        self.command.send_modify(|c| c.traffic = Traffic::Slow(delay));
    }

    /// Holds back all bytes of connections that have subscribed to a channel of Redis, as soon as they have.
    pub fn hold_subscribers(&self) {
        self.command.send_modify(|c| c.holds_subscribers = true);
    }

    /// Closes the servers' side of all connections, while the clients' stay open and silent; new ones are like that too.
    pub fn half_open(&self) {
        self.command.send_modify(|c| c.traffic = Traffic::HalfOpen);
    }

    /// Closes new connections at once, as a port where nobody listens any more.
    pub fn refuse(&self) {
        self.command.send_modify(|c| c.refuses = true);
    }

    /// Lets everything pass again; what was held back goes on.
    pub fn heal(&self) {
        self.budget.store(NO_LIMIT, Ordering::SeqCst);
        self.command.send_modify(|c| {
            c.traffic = Traffic::Flows;
            c.refuses = false;
            c.holds_subscribers = false;
        });
    }
}

impl Drop for CuttingProxy {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _already_ended = stop.send(());
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn accept(
    listener: std::net::TcpListener,
    target: SocketAddr,
    commands: watch::Receiver<Command>,
    budget: Arc<AtomicU64>,
) {
    let listener = TcpListener::from_std(listener).expect("a listening socket");
    while let Ok((client, _)) = listener.accept().await {
        if commands.borrow().refuses {
            continue;
        }
        tokio::spawn(connection(client, target, commands.clone(), budget.clone()));
    }
}

async fn connection(
    mut client: TcpStream,
    target: SocketAddr,
    mut commands: watch::Receiver<Command>,
    budget: Arc<AtomicU64>,
) {
    let Command { cuts: born, event_cuts, .. } = *commands.borrow();
    let mut carries_events = false;
    let Ok(server) = TcpStream::connect(target).await else { return };
    let _ = client.set_nodelay(true);
    let _ = server.set_nodelay(true);
    let mut server = Some(server);
    let mut has_subscribed = false;
    let mut up = vec![0; 16 * 1024];
    let mut down = vec![0; 16 * 1024];
    loop {
        let command = *commands.borrow_and_update();
        if command.cuts > born || (carries_events && command.event_cuts > event_cuts) {
            return;
        }
        if command.traffic == Traffic::HalfOpen {
            server = None;
        }
        let delay = match command.traffic {
            Traffic::Slow(delay) => delay,
            _ => Duration::ZERO,
        };
        let flows = matches!(command.traffic, Traffic::Flows | Traffic::Slow(_))
            && !(has_subscribed && command.holds_subscribers);
        let (true, Some(server)) = (flows, server.as_mut()) else {
            if commands.changed().await.is_err() {
                return;
            }
            continue;
        };
        tokio::select! {
            changed = commands.changed() => if changed.is_err() { return },
            read = client.read(&mut up) => match read {
                Ok(n) if n > 0 && late(delay, server.write_all(&up[..n])).await.is_ok() => {
                    has_subscribed |= up[..n].windows(9).any(|word| word == b"SUBSCRIBE");
                    carries_events = asks_for_events(&up[..n]).unwrap_or(carries_events);
                }
                _ => return,
            },
            read = server.read(&mut down) => match read {
                Ok(n) if n > 0 => {
                    let allowed = take(&budget, n);
                    if late(delay, client.write_all(&down[..allowed])).await.is_err() || allowed < n {
                        return;
                    }
                }
                _ => return,
            },
        }
    }
}

/// Does something after a delay.
async fn late<T>(delay: Duration, what: impl Future<Output = T>) -> T {
    if !delay.is_zero() {
        tokio::time::sleep(delay).await;
    }
    what.await
}

/// Whether a request that begins here asks for a stream of events; nothing if none begins.
fn asks_for_events(bytes: &[u8]) -> Option<bool> {
    let is_request = [&b"GET /"[..], b"POST /", b"PATCH /", b"DELETE /"].iter().any(|head| bytes.starts_with(head));
    is_request.then(|| bytes.starts_with(b"GET /event") || bytes.starts_with(b"GET /global/event"))
}

/// Takes up to `wanted` bytes from the budget.
fn take(budget: &AtomicU64, wanted: usize) -> usize {
    let wanted = wanted as u64;
    let before = budget
        .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| {
            Some(if left == NO_LIMIT { left } else { left.saturating_sub(wanted) })
        })
        .unwrap_or(NO_LIMIT);
    usize::try_from(before.min(wanted)).unwrap_or(usize::MAX)
}
