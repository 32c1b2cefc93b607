//! A model that answers at once and costs next to nothing.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Result;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::http::find;

/// How many deltas an ordinary answer has.
pub const DELTAS: usize = 20;
const HEAD: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n";

/// What the model does with a request that is not for a title.
#[derive(Debug, Clone, Copy)]
pub enum Manner {
    /// The whole answer in one write.
    AtOnce,
    /// So many deltas, each marked (see [`marks`]), one each time this long has passed.
    Paced(usize, Duration),
    /// One delta, and then nothing until the client goes away.
    Hold,
}

/// What became of a request that is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Held {
    /// Its first delta was sent.
    Begun,
    /// Its connection was dropped, at this moment.
    Dropped(Instant),
}

struct State {
    manner: Mutex<Manner>,
    sent: Mutex<Vec<Instant>>,
    held: UnboundedSender<Held>,
    request_bytes: AtomicUsize,
}

/// A running model, on a thread of its own for as long as the program runs.
pub struct Model {
    url: String,
    state: Arc<State>,
    held: UnboundedReceiver<Held>,
}

impl Model {
    /// Starts it on a free loopback port.
    pub fn start() -> Result<Self> {
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0))?;
        listener.set_nonblocking(true)?;
        let url = format!("http://{}/v1", listener.local_addr()?);
        let (sender, held) = unbounded_channel();
        let state = Arc::new(State {
            manner: Mutex::new(Manner::AtOnce),
            sent: Mutex::default(),
            held: sender,
            request_bytes: AtomicUsize::new(0),
        });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let served = Arc::clone(&state);
        std::thread::spawn(move || runtime.block_on(serve(listener, served)));
        Ok(Self { url, state, held })
    }

    /// The base URL for a provider's configuration.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Answers in this manner from now on.
    pub fn answers(&self, manner: Manner) {
        *lock(&self.state.manner) = manner;
    }

    /// When each mark was sent, in order, since the last call.
    pub fn take_sent(&self) -> Vec<Instant> {
        std::mem::take(&mut lock(&self.state.sent))
    }

    /// What becomes next of a request that is held.
    pub async fn held(&mut self) -> Held {
        self.held.recv().await.unwrap_or(Held::Begun)
    }

    /// The length of the newest request in bytes.
    pub fn request_bytes(&self) -> usize {
        self.state.request_bytes.load(Ordering::Relaxed)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn serve(listener: std::net::TcpListener, state: Arc<State>) -> Result<()> {
    let listener = TcpListener::from_std(listener)?;
    let mut ordinary = chunk(r#"{"role":"assistant","content":""}"#);
    ordinary.extend((0..DELTAS).map(|_| delta("a word ")));
    ordinary += END;
    let ordinary: Arc<str> = format!("{HEAD}content-length: {}\r\n\r\n{ordinary}", ordinary.len()).into();
    loop {
        let (socket, _) = listener.accept().await?;
        socket.set_nodelay(true)?;
        // A client that goes away in the middle is nothing to report.
        tokio::spawn(converse(socket, Arc::clone(&state), Arc::clone(&ordinary)));
    }
}

async fn converse(mut socket: TcpStream, state: Arc<State>, ordinary: Arc<str>) -> Result<()> {
    let mut buffer = Vec::with_capacity(64 << 10);
    while let Some(is_for_title) = request(&mut socket, &mut buffer, &state).await? {
        let manner = if is_for_title { Manner::AtOnce } else { *lock(&state.manner) };
        match manner {
            Manner::AtOnce => socket.write_all(ordinary.as_bytes()).await?,
            Manner::Paced(count, every) => {
                socket.write_all(format!("{HEAD}transfer-encoding: chunked\r\n\r\n").as_bytes()).await?;
                let mut ticks = tokio::time::interval(every);
                for number in 0..count {
                    ticks.tick().await;
                    lock(&state.sent).push(Instant::now());
                    socket.write_all(framed(&delta(&format!("~{number:06}~ "))).as_bytes()).await?;
                }
                socket.write_all(format!("{}0\r\n\r\n", framed(END)).as_bytes()).await?;
            }
            Manner::Hold => {
                let begin = format!("{HEAD}transfer-encoding: chunked\r\n\r\n{}", framed(&delta("a word ")));
                socket.write_all(begin.as_bytes()).await?;
                // Nobody listens once the measurement is over.
                let _ = state.held.send(Held::Begun);
                let _closed_or_reset = socket.read(&mut [0; 64]).await;
                let _ = state.held.send(Held::Dropped(Instant::now()));
                return Ok(());
            }
        }
    }
    Ok(())
}

/// Reads a request and says whether it asks for a title; nothing if the client closed the connection.
async fn request(socket: &mut TcpStream, buffer: &mut Vec<u8>, state: &State) -> Result<Option<bool>> {
    buffer.clear();
    let (mut head, mut length) = (None, 0);
    loop {
        if head.is_none()
            && let Some(end) = find(buffer, b"\r\n\r\n")
        {
            let text = String::from_utf8_lossy(&buffer[..end]).to_ascii_lowercase();
            length = text
                .split("content-length:")
                .nth(1)
                .and_then(|rest| rest.lines().next()?.trim().parse().ok())
                .unwrap_or(0);
            head = Some(end + 4);
        }
        if let Some(head) = head
            && buffer.len() >= head + length
        {
            state.request_bytes.store(length, Ordering::Relaxed);
            let body = &buffer[head..];
            let (first, last) = (&body[..body.len().min(4096)], &body[body.len().saturating_sub(4096)..]);
            return Ok(Some([first, last].iter().any(|piece| find(piece, br#""model":"small""#).is_some())));
        }
        if socket.read_buf(buffer).await? == 0 {
            return Ok(None);
        }
    }
}

const END: &str = concat!(
    r#"data: {"id":"c","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,"delta":{},"#,
    r#""finish_reason":"stop"}],"usage":{"prompt_tokens":100,"completion_tokens":20,"total_tokens":120}}"#,
    "\n\ndata: [DONE]\n\n"
);

fn chunk(delta: &str) -> String {
    format!(
        "data: {{\"id\":\"c\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"m\",\
         \"choices\":[{{\"index\":0,\"delta\":{delta},\"finish_reason\":null}}]}}\n\n"
    )
}

fn delta(text: &str) -> String {
    chunk(&format!("{{\"content\":\"{text}\"}}"))
}

fn framed(text: &str) -> String {
    format!("{:x}\r\n{text}\r\n", text.len())
}

/// The numbers of the marks that stand in the deltas of these event frames, in order.
pub fn marks(frames: &str) -> Vec<usize> {
    let deltas = frames.split("\n\n").filter(|frame| frame.contains("message.part.delta"));
    deltas
        .flat_map(|frame| frame.split('~').filter(|piece| piece.len() == 6).filter_map(|piece| piece.parse().ok()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_found_in_deltas_only() {
        let frames = "data: {\"type\":\"message.part.delta\",\"delta\":\"~000001~ ~000002~ \"}\n\ndata: {\"text\":\"~000003~\"}\n\n";
        assert_eq!(marks(frames), [1, 2]);
    }
}
