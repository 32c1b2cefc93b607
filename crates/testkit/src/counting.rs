//! A proxy before Redis that counts what replicas ask.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::install::repository;
use crate::redis::RedisServer;

/// How often each command was sent. A script counts once, whatever it calls; so does each command of a pipeline.
#[derive(Debug, Clone, Default)]
pub struct Counts {
    commands: BTreeMap<String, u64>,
    locks: u64,
    /// The sources of the scripts that were loaded.
    scripts: Vec<String>,
}

impl Counts {
    fn add(&mut self, words: &[&[u8]]) {
        let text = |at: usize| words.get(at).map(|word| String::from_utf8_lossy(word).into_owned()).unwrap_or_default();
        if words.iter().any(|word| find(word, b":lock:").is_some() && word.len() < 1000) {
            self.locks += 1;
            return;
        }
        let name = text(0).to_ascii_uppercase();
        match name.as_str() {
            "SCRIPT" | "EVAL" => self
                .scripts
                .extend(words.iter().map(|w| String::from_utf8_lossy(w).into_owned()).max_by_key(String::len)),
            "EVALSHA" => *self.commands.entry(text(1)).or_default() += 1,
            _ => *self.commands.entry(name).or_default() += 1,
        }
    }

    /// All commands but those about locks.
    pub fn total(&self) -> u64 {
        self.commands.values().sum()
    }

    /// The commands that take or release locks.
    pub fn locks(&self) -> u64 {
        self.locks
    }

    /// The commands since an earlier count, most frequent first.
    pub fn since(&self, earlier: &Self) -> Self {
        let mut commands = self.commands.clone();
        for (name, count) in &earlier.commands {
            *commands.entry(name.clone()).or_default() -= count;
        }
        commands.retain(|_, count| *count > 0);
        Self { commands, locks: self.locks - earlier.locks, scripts: self.scripts.clone() }
    }

    /// The counts by name, most frequent first; scripts by the name of their file.
    pub fn named(&self, redis: &RedisServer) -> Vec<(String, u64)> {
        let names = script_names(&self.scripts, redis);
        let mut named: Vec<(String, u64)> =
            self.commands.iter().map(|(name, count)| (names.get(name).unwrap_or(name).clone(), *count)).collect();
        named.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        named
    }
}

/// Digest to file name: Redis says the digest of each source, and each source ends with its file.
fn script_names(sources: &[String], redis: &RedisServer) -> BTreeMap<String, String> {
    let files = repository().join("crates/coordination-redis/lua");
    let files: Vec<(String, String)> = std::fs::read_dir(files)
        .into_iter()
        .flatten()
        .filter_map(|entry| {
            let path = entry.ok()?.path();
            Some((path.file_stem()?.to_string_lossy().into_owned(), std::fs::read_to_string(path).ok()?))
        })
        .collect();
    let mut names = BTreeMap::new();
    for source in sources {
        let ends = |text: &str| source.trim_end().ends_with(text.trim_end());
        if let Some((name, _)) = files.iter().filter(|(_, text)| ends(text)).max_by_key(|(_, text)| text.len()) {
            names.insert(redis.command(&["SCRIPT", "LOAD", source]), name.clone());
        }
    }
    names
}

/// A running proxy; it ends with the runtime that it was started on.
#[derive(Debug)]
pub struct CountingProxy {
    url: String,
    counts: Arc<Mutex<Counts>>,
}

impl CountingProxy {
    /// Starts a proxy before the Redis server on this port.
    pub async fn start(port: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free loopback port");
        let url = format!("redis://{}", listener.local_addr().expect("a bound socket has an address"));
        let counts = Arc::new(Mutex::new(Counts::default()));
        tokio::spawn({
            let counts = Arc::clone(&counts);
            async move {
                while let Ok((client, _)) = listener.accept().await {
                    tokio::spawn(relay(client, port, Arc::clone(&counts)));
                }
            }
        });
        Self { url, counts }
    }

    /// The address as a URL.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// What was counted so far.
    pub fn counts(&self) -> Counts {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

async fn relay(client: TcpStream, port: u16, counts: Arc<Mutex<Counts>>) -> std::io::Result<()> {
    let server = TcpStream::connect(("127.0.0.1", port)).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    tokio::spawn(async move { tokio::io::copy(&mut from_server, &mut to_client).await });
    let (mut piece, mut unread) = (vec![0; 64 << 10], Vec::new());
    loop {
        let count = from_client.read(&mut piece).await?;
        if count == 0 {
            return Ok(());
        }
        to_server.write_all(&piece[..count]).await?;
        unread.extend_from_slice(&piece[..count]);
        let mut at = 0;
        while let Some((words, end)) = command(&unread[at..]) {
            counts.lock().unwrap_or_else(PoisonError::into_inner).add(&words);
            at += end;
        }
        unread.drain(..at);
    }
}

/// Where `needle` first stands in `text`.
fn find(text: &[u8], needle: &[u8]) -> Option<usize> {
    text.windows(needle.len()).position(|window| window == needle)
}

/// The first whole command in these bytes: its words and where it ends.
fn command(bytes: &[u8]) -> Option<(Vec<&[u8]>, usize)> {
    let (count, mut at) = number(bytes, b'*', 0)?;
    let mut words = Vec::with_capacity(count);
    for _ in 0..count {
        let (length, begin) = number(bytes, b'$', at)?;
        words.push(bytes.get(begin..begin + length)?);
        at = begin + length + 2;
        (at <= bytes.len()).then_some(())?;
    }
    Some((words, at))
}

/// The number of a header line that begins here with this mark, and where the next line begins.
fn number(bytes: &[u8], mark: u8, at: usize) -> Option<(usize, usize)> {
    (*bytes.get(at)? == mark).then_some(())?;
    let length = find(&bytes[at..], b"\r\n")?;
    let number = std::str::from_utf8(&bytes[at + 1..at + length]).ok()?.parse().ok()?;
    Some((number, at + length + 2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_counted_once_and_locks_apart() {
        let bytes = b"*1\r\n$4\r\nPING\r\n*3\r\n$3\r\nSET\r\n$10\r\na:{0}:lock\r\n$1\r\nx\r\n*2\r\n$3\r\nGET\r\n$8\r\na:lock:b\r\n*1\r\n$4\r\nPI";
        let (mut counts, mut at) = (Counts::default(), 0);
        while let Some((words, end)) = command(&bytes[at..]) {
            counts.add(&words);
            at += end;
        }
        assert_eq!((counts.total(), counts.locks()), (2, 1));
        assert_eq!(&bytes[at..], b"*1\r\n$4\r\nPI");
    }
}
