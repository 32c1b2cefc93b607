//! An HTTP/1.1 client that costs next to nothing, so that what is measured is the server.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// The longest that a server may take for one answer, or be silent on a stream of events.
const PATIENCE: Duration = Duration::from_secs(120);
const READ_BYTES: usize = 64 << 10;

/// An answer, read to its end.
#[derive(Debug)]
pub struct Reply {
    /// The status.
    pub status: u16,
    /// The body.
    pub body: Vec<u8>,
}

impl Reply {
    /// The body as JSON of an answer with a status of success.
    pub fn json(&self) -> Result<serde_json::Value> {
        self.ok()?;
        Ok(serde_json::from_slice(&self.body)?)
    }

    /// An error if the status is not one of success.
    pub fn ok(&self) -> Result<()> {
        let text = String::from_utf8_lossy(&self.body);
        ensure!((200..300).contains(&self.status), "status {}: {text:.500}", self.status);
        Ok(())
    }
}

/// One connection to a server, kept between requests and opened again when the server closed it.
#[derive(Debug)]
pub struct Connection {
    address: String,
    socket: Option<TcpStream>,
    buffer: Vec<u8>,
}

impl Connection {
    /// A connection to `http://HOST:PORT`, opened with the first request.
    pub fn to(url: &str) -> Self {
        Self { address: url.trim_start_matches("http://").to_string(), socket: None, buffer: Vec::new() }
    }

    /// GET.
    pub async fn get(&mut self, path: &str) -> Result<Reply> {
        self.send("GET", path, "").await
    }

    /// POST with a JSON body.
    pub async fn post(&mut self, path: &str, body: &str) -> Result<Reply> {
        self.send("POST", path, body).await
    }

    async fn send(&mut self, method: &str, path: &str, body: &str) -> Result<Reply> {
        let request = self.request(method, path, body, "application/json");
        let kept = self.socket.is_some();
        let sent = timeout(PATIENCE, self.exchange(request.as_bytes()))
            .await
            .unwrap_or_else(|_| Err(anyhow::anyhow!("no answer within {PATIENCE:?}")));
        match sent {
            // A kept connection may have been closed meanwhile: then not a byte was answered, and a new one is tried.
            Err(_) if kept && self.buffer.is_empty() => {
                self.socket = None;
                timeout(PATIENCE, self.exchange(request.as_bytes())).await?
            }
            other => other,
        }
        .with_context(|| format!("{method} {path} at {}", self.address))
    }

    /// Opens a stream of server-sent events.
    pub async fn events(mut self, path: &str) -> Result<EventStream> {
        let request = self.request("GET", path, "", "text/event-stream");
        self.write(request.as_bytes()).await?;
        let head = timeout(PATIENCE, self.head()).await??;
        ensure!(head.status == 200, "status {} for {path}", head.status);
        let Some(socket) = self.socket else { bail!("the connection is gone") };
        let mut stream =
            EventStream { socket, chunks: (head.length == Length::Chunked).then(Chunks::default), text: Vec::new() };
        stream.take(&self.buffer)?;
        Ok(stream)
    }

    fn request(&self, method: &str, path: &str, body: &str, accept: &str) -> String {
        format!(
            "{method} {path} HTTP/1.1\r\nhost: {}\r\naccept: {accept}\r\ncontent-type: application/json\r\n\
             content-length: {}\r\n\r\n{body}",
            self.address,
            body.len()
        )
    }

    async fn write(&mut self, request: &[u8]) -> Result<()> {
        self.buffer.clear();
        let mut socket = match self.socket.take() {
            Some(socket) => socket,
            None => {
                let socket = TcpStream::connect(&self.address).await?;
                socket.set_nodelay(true)?;
                socket
            }
        };
        socket.write_all(request).await?;
        self.socket = Some(socket);
        Ok(())
    }

    async fn exchange(&mut self, request: &[u8]) -> Result<Reply> {
        self.write(request).await?;
        let head = self.head().await?;
        let mut body = Vec::new();
        match head.length {
            Length::Fixed(length) => {
                while self.buffer.len() < length {
                    self.more().await?;
                }
                body = std::mem::take(&mut self.buffer);
            }
            Length::Chunked => {
                let mut chunks = Chunks::default();
                while !chunks.push(&self.buffer, &mut body)? {
                    self.buffer.clear();
                    self.more().await?;
                }
            }
        }
        if head.closes {
            self.socket = None;
        }
        self.buffer.clear();
        Ok(Reply { status: head.status, body })
    }

    /// Reads until the head of an answer is complete, and leaves in the buffer what follows it.
    async fn head(&mut self) -> Result<Head> {
        loop {
            if let Some(end) = find(&self.buffer, b"\r\n\r\n") {
                let head = Head::parse(&String::from_utf8_lossy(&self.buffer[..end]))?;
                self.buffer.drain(..end + 4);
                return Ok(head);
            }
            self.more().await?;
        }
    }

    async fn more(&mut self) -> Result<()> {
        let Some(socket) = &mut self.socket else { bail!("the connection is gone") };
        self.buffer.reserve(READ_BYTES);
        ensure!(socket.read_buf(&mut self.buffer).await? > 0, "the server closed the connection");
        Ok(())
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Length {
    Fixed(usize),
    Chunked,
}

struct Head {
    status: u16,
    length: Length,
    closes: bool,
}

impl Head {
    fn parse(text: &str) -> Result<Self> {
        let status = text.split(' ').nth(1).context("no status")?.parse()?;
        let mut head = Self { status, length: Length::Fixed(0), closes: false };
        for (name, value) in text.lines().skip(1).filter_map(|line| line.split_once(':')) {
            let value = value.trim();
            match name.to_ascii_lowercase().as_str() {
                "content-length" => head.length = Length::Fixed(value.parse()?),
                "transfer-encoding" => head.length = Length::Chunked,
                "connection" => head.closes = value.eq_ignore_ascii_case("close"),
                _ => {}
            }
        }
        Ok(head)
    }
}

/// A stream of server-sent events.
#[derive(Debug)]
pub struct EventStream {
    socket: TcpStream,
    chunks: Option<Chunks>,
    text: Vec<u8>,
}

impl EventStream {
    /// The frames that came together, as text: all that is there, at least one.
    pub async fn frames(&mut self) -> Result<String> {
        let mut bytes = Vec::with_capacity(READ_BYTES);
        loop {
            if let Some(end) = rfind(&self.text, b"\n\n") {
                let rest = self.text.split_off(end + 2);
                return Ok(String::from_utf8_lossy(&std::mem::replace(&mut self.text, rest)).into_owned());
            }
            bytes.clear();
            ensure!(timeout(PATIENCE, self.socket.read_buf(&mut bytes)).await?? > 0, "the stream ended");
            self.take(&bytes)?;
        }
    }

    fn take(&mut self, bytes: &[u8]) -> Result<()> {
        match &mut self.chunks {
            Some(chunks) => ensure!(!chunks.push(bytes, &mut self.text)?, "the stream ended"),
            None => self.text.extend_from_slice(bytes),
        }
        Ok(())
    }
}

/// Takes the framing off a chunked body, however its bytes are cut.
#[derive(Debug, Default)]
struct Chunks {
    line: Vec<u8>,
    left: usize,
    /// The line end after a chunk's bytes is still to come.
    closing: bool,
    last: bool,
}

impl Chunks {
    /// Takes more bytes; returns whether the body is complete.
    fn push(&mut self, mut bytes: &[u8], out: &mut Vec<u8>) -> Result<bool> {
        while !bytes.is_empty() {
            if self.left > 0 {
                let (now, rest) = bytes.split_at(self.left.min(bytes.len()));
                out.extend_from_slice(now);
                self.left -= now.len();
                self.closing = self.left == 0;
                bytes = rest;
                continue;
            }
            let (byte, rest) = (bytes[0], &bytes[1..]);
            bytes = rest;
            if byte != b'\n' {
                self.line.push(byte);
                continue;
            }
            let line = String::from_utf8_lossy(&self.line).trim().to_string();
            self.line.clear();
            if std::mem::take(&mut self.closing) {
                continue;
            }
            if self.last {
                return Ok(true);
            }
            let size = line.split(';').next().unwrap_or_default();
            self.left = usize::from_str_radix(size, 16).with_context(|| format!("a chunk of size {line:?}"))?;
            self.last = self.left == 0;
        }
        Ok(false)
    }
}

/// Where `needle` first stands in `text`.
pub fn find(text: &[u8], needle: &[u8]) -> Option<usize> {
    text.windows(needle.len()).position(|window| window == needle)
}

fn rfind(text: &[u8], needle: &[u8]) -> Option<usize> {
    text.windows(needle.len()).rposition(|window| window == needle)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn chunks_are_joined_however_they_are_cut() {
        let text = b"3\r\nabc\r\n1a\r\nabcdefghijklmnopqrstuvwxyz\r\n0\r\n\r\n";
        for size in 1..text.len() {
            let (mut chunks, mut out) = (Chunks::default(), Vec::new());
            let ends: Vec<bool> = text.chunks(size).map(|piece| chunks.push(piece, &mut out).unwrap()).collect();
            assert_eq!(out, b"abcabcdefghijklmnopqrstuvwxyz");
            assert_eq!(ends.iter().filter(|end| **end).count(), 1, "in pieces of {size}");
        }
    }
}
