//! The connection of an answer: its bytes, its waits, its end.

use super::answer::Answer;
use super::{Patience, transport_error};
use crate::sse::Decoder;
use crate::{Limits, ModelError, ModelEvent, ModelStream};
use futures_util::stream;
use reqwest::Response;
use serde_json::Value;
use std::collections::VecDeque;

/// What marks the end of a stream.
const DONE: &str = "[DONE]";
/// So many bytes are kept of an answer that holds no event.
const OPENING: usize = 64 << 10;

/// An answer in progress. The response lives in here, so that dropping the stream closes its connection.
pub(super) struct ChatStream {
    response: Response,
    decoder: Decoder,
    answer: Answer,
    limits: Limits,
    patience: Patience,
    url: String,
    /// Bytes read so far.
    read: usize,
    /// The first bytes, until the first event: an error may come without the form of an event.
    opening: Vec<u8>,
    /// The first event has come.
    has_opened: bool,
    /// Events that are ready.
    ready: VecDeque<ModelEvent>,
    /// What comes after the ready ones, once the answer has ended.
    end: Option<Result<(), ModelError>>,
}

impl ChatStream {
    pub(super) fn new(response: Response, limits: Limits, patience: Patience, url: String) -> Self {
        Self {
            response,
            decoder: Decoder::new(limits.line),
            answer: Answer::new(limits),
            limits,
            patience,
            url,
            read: 0,
            opening: Vec::new(),
            has_opened: false,
            ready: VecDeque::new(),
            end: None,
        }
    }

    pub(super) fn into_stream(self) -> ModelStream {
        ModelStream::new(stream::unfold(self, |mut this| async move { this.next().await.map(|event| (event, this)) }))
    }

    async fn next(&mut self) -> Option<Result<ModelEvent, ModelError>> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(Ok(event));
            }
            match self.end.take() {
                Some(Ok(())) => return None,
                Some(Err(error)) => return Some(Err(error)),
                None => self.end = self.read_more().await.transpose(),
            }
        }
    }

    /// Waits for the next bytes and takes them in. `Some` when the answer has ended.
    async fn read_more(&mut self) -> Result<Option<()>, ModelError> {
        let silence = self.limits.silence;
        let broken = match self.patience.wait(silence, "sent nothing", self.response.chunk()).await {
            Ok(Ok(Some(bytes))) => return self.take_in(&bytes),
            Ok(Ok(None)) => self.ended_early(),
            Ok(Err(error)) => transport_error(&error, &self.url),
            Err(late) => late.error(self.url.clone()),
        };
        // A connection that breaks after the provider gave its reason to finish took nothing with it but the usage.
        if self.answer.has_finished() { self.finish() } else { Err(broken) }
    }

    fn take_in(&mut self, bytes: &[u8]) -> Result<Option<()>, ModelError> {
        self.read += bytes.len();
        if self.read > self.limits.stream {
            return Err(ModelError::TooLarge { what: "stream", limit: self.limits.stream });
        }
        let mut events = Vec::new();
        let fed = self.decoder.feed(bytes, &mut events);
        if self.has_opened || !events.is_empty() {
            self.has_opened = true;
            self.opening = Vec::new();
        } else {
            let room = OPENING.saturating_sub(self.opening.len());
            self.opening.extend_from_slice(&bytes[..bytes.len().min(room)]);
        }
        for data in events {
            if data.trim() == DONE {
                return self.finish();
            }
            self.answer.chunk(&data, &mut self.ready)?;
        }
        fed.map_err(|_| ModelError::TooLarge { what: "one line", limit: self.limits.line })?;
        Ok(None)
    }

    fn finish(&mut self) -> Result<Option<()>, ModelError> {
        self.answer.finish(&mut self.ready);
        Ok(Some(()))
    }

    /// The error of a stream that ended, and properly, before the answer did.
    fn ended_early(&self) -> ModelError {
        match serde_json::from_slice::<Value>(&self.opening) {
            Ok(plain) => match plain.get("error") {
                Some(error) if !error.is_null() => ModelError::from_stream(error),
                _ => ModelError::malformed(&plain.to_string(), "the answer is not an event stream"),
            },
            Err(_) => ModelError::Cut { url: self.url.clone() },
        }
    }
}
