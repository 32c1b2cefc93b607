//! The connection that Pub/Sub messages come over: reconnects, and subscribes again.

use crate::backoff::Backoff;
use crate::connection::LinkSettings;
use crate::server::{Server, Target};
use bytes::Bytes;
use coordination::{CoordinationError, Result};
use futures_util::StreamExt;
use redis::aio::{PubSubSink, PubSubStream};
use redis::{Msg, RedisResult};
use std::collections::HashMap;
use std::future::Future;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, MissedTickBehavior};

/// How many messages wait for a subscriber before they are dropped.
pub const MESSAGES: usize = 256;

/// How many subscriptions wait for the connection before the next one does.
const REQUESTS: usize = 64;

/// One message: the channel's name and what it carries.
pub type Message = (std::sync::Arc<str>, Bytes);

/// Subscribes to channels over one connection. Its task ends when this is dropped.
pub struct Channels {
    requests: mpsc::Sender<Request>,
    answer_within: Duration,
}

/// A wish to get what comes over some channels.
struct Request {
    channels: Vec<String>,
    messages: mpsc::Sender<Message>,
    confirmed: oneshot::Sender<()>,
}

impl Channels {
    /// Begins to connect in the background.
    pub fn open(server: Server, settings: &LinkSettings) -> Self {
        let (requests, requested) = mpsc::channel(REQUESTS);
        let answer_within = settings.answer_within;
        let backoff = Backoff::new(settings.entropy.clone());
        let task = Task { answer_within, heartbeat: settings.heartbeat, requested, subscribers: HashMap::new() };
        tokio::spawn(task.run(server, backoff));
        Self { requests, answer_within }
    }

    /// Subscribes; returns when the server has confirmed. A receiver that is full loses messages; dropping it ends the
    /// subscription. Errors: `Unavailable` within the time-out.
    pub async fn subscribe(&self, channels: Vec<String>) -> Result<mpsc::Receiver<Message>> {
        let (messages, receiver) = mpsc::channel(MESSAGES);
        let (confirmed, confirmation) = oneshot::channel();
        let subscribe = async {
            self.requests.send(Request { channels, messages, confirmed }).await.ok()?;
            confirmation.await.ok()
        };
        match tokio::time::timeout(self.answer_within, subscribe).await {
            Ok(Some(())) => Ok(receiver),
            _ => Err(CoordinationError::Unavailable("Redis did not confirm a subscription in time".into())),
        }
    }
}

struct Task {
    answer_within: Duration,
    heartbeat: Duration,
    requested: mpsc::Receiver<Request>,
    subscribers: HashMap<std::sync::Arc<str>, Vec<mpsc::Sender<Message>>>,
}

/// Why a connection was given up.
enum End {
    Broken,
    Unneeded,
}

impl Task {
    async fn run(mut self, server: Server, mut backoff: Backoff) {
        while !self.requested.is_closed() {
            let mut target = server.target();
            let client = target.client.clone();
            let connect = async { Ok(client.get_async_pubsub().await?.split()) };
            let connected = tokio::select! {
                connected = within(self.answer_within * 2, connect) => connected,
                () = target.moved() => None,
            };
            if let Some((sink, stream)) = connected {
                backoff.reset();
                if let End::Unneeded = self.serve(sink, stream, target).await {
                    return;
                }
            }
            backoff.wait().await;
        }
    }

    /// Serves until the connection breaks.
    async fn serve(&mut self, mut sink: PubSubSink, mut stream: PubSubStream, mut target: Target) -> End {
        self.forget_closed();
        let known: Vec<String> = self.subscribers.keys().map(|channel| channel.to_string()).collect();
        if !known.is_empty() && within(self.answer_within, sink.subscribe(&known)).await.is_none() {
            return End::Broken;
        }
        let mut heartbeat = tokio::time::interval_at(Instant::now() + self.heartbeat, self.heartbeat);
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let is_well = tokio::select! {
                message = stream.next() => match message {
                    Some(message) => { self.deliver(&message); true }
                    None => false,
                },
                request = self.requested.recv() => match request {
                    Some(request) => self.add(&mut sink, request).await,
                    None => return End::Unneeded,
                },
                _ = heartbeat.tick() => self.beat(&mut sink).await,
                () = target.moved() => false,
            };
            if !is_well {
                return End::Broken;
            }
        }
    }

    /// Subscribes before the subscriber is told, and knows it before the server does: no message falls in between.
    /// False if the connection is broken; the wish then is fulfilled over the next one, but its caller has given up.
    async fn add(&mut self, sink: &mut PubSubSink, request: Request) -> bool {
        for channel in &request.channels {
            self.subscribers.entry(channel.as_str().into()).or_default().push(request.messages.clone());
        }
        let is_well = within(self.answer_within, sink.subscribe(&request.channels)).await.is_some();
        if is_well {
            let _ = request.confirmed.send(());
        }
        is_well
    }

    fn deliver(&self, message: &Msg) {
        let Some((channel, subscribers)) = self.subscribers.get_key_value(message.get_channel_name()) else { return };
        let payload = Bytes::copy_from_slice(message.get_payload_bytes());
        for subscriber in subscribers {
            let _ = subscriber.try_send((channel.clone(), payload.clone()));
        }
    }

    /// A hung server shows by a ping without an answer. Channels without subscribers are left here.
    async fn beat(&mut self, sink: &mut PubSubSink) -> bool {
        let left = self.forget_closed();
        if !left.is_empty() && within(self.answer_within, sink.unsubscribe(&left)).await.is_none() {
            return false;
        }
        within(self.answer_within, sink.ping::<redis::Value>()).await.is_some()
    }

    fn forget_closed(&mut self) -> Vec<String> {
        let mut left = Vec::new();
        self.subscribers.retain(|channel, subscribers| {
            subscribers.retain(|subscriber| !subscriber.is_closed());
            if subscribers.is_empty() {
                left.push(channel.to_string());
            }
            !subscribers.is_empty()
        });
        left
    }
}

/// What comes of the work, unless it fails or takes longer than the limit.
async fn within<T>(limit: Duration, work: impl Future<Output = RedisResult<T>>) -> Option<T> {
    tokio::time::timeout(limit, work).await.ok()?.ok()
}
