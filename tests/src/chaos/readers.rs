//! Readers of all events that come back whenever they are cut.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use serde_json::Value;
use testkit::sse::SseParser;
use tokio::task::JoinHandle;

use super::history::{Cursor, Seen};

/// How long a reader that was cut waits.
const RETRY: Duration = Duration::from_millis(200);
/// How long a reader waits for anything, heartbeats included, before it comes anew.
const SILENCE: Duration = Duration::from_secs(13);

/// A reader of `/global/event`.
#[derive(Debug)]
pub struct Reader {
    seen: Arc<Mutex<Vec<Seen>>>,
    task: JoinHandle<()>,
}

impl Reader {
    /// Reads from the address, until it is dropped.
    pub fn start(url: &str, start: Instant) -> Self {
        let seen = Arc::<Mutex<Vec<Seen>>>::default();
        let (url, told) = (format!("{url}/global/event"), seen.clone());
        let task = tokio::spawn(async move {
            let mut last = None;
            loop {
                let _however = read(&url, start, &told, &mut last).await;
                tokio::time::sleep(RETRY).await;
            }
        });
        Self { seen, task }
    }

    /// What it was told.
    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn read(url: &str, start: Instant, told: &Mutex<Vec<Seen>>, last: &mut Option<String>) -> reqwest::Result<()> {
    let client = reqwest::Client::builder().no_proxy().read_timeout(SILENCE).build()?;
    let mut request = client.get(url).header("accept", "text/event-stream");
    if let Some(last) = &*last {
        request = request.header("last-event-id", last);
    }
    let mut bytes = request.send().await?.error_for_status()?.bytes_stream();
    let mut parser = SseParser::default();
    while let Some(piece) = bytes.next().await {
        for frame in parser.push(&piece?) {
            let cursor = frame.id.as_deref().and_then(Cursor::parse);
            *last = frame.id.or(last.take());
            let Some(data) = frame.data.and_then(|data| serde_json::from_str::<Value>(&data).ok()) else { continue };
            let event = &data["payload"];
            let is_of_the_stream = event["type"].as_str().is_none_or(|kind| kind.starts_with("server."));
            if let Some(id) = event["id"].as_str().filter(|_| !is_of_the_stream) {
                let seen = Seen { at: start.elapsed(), id: id.to_owned(), cursor };
                told.lock().unwrap_or_else(PoisonError::into_inner).push(seen);
            }
        }
    }
    Ok(())
}
