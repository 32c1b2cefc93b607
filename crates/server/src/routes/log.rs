//! Lines that clients want in the log.

use crate::decode::Node;
use crate::errors::Error;
use crate::extract::Payload;
use axum::Json;

/// Characters of a line, and of what goes with it.
const LONGEST: usize = 4096;

#[derive(Clone, Copy)]
enum Level {
    Debug,
    Info,
    Warn,
    Error,
}

const LEVELS: [(&str, Level); 4] =
    [("debug", Level::Debug), ("info", Level::Info), ("error", Level::Error), ("warn", Level::Warn)];

fn short(text: &str) -> &str {
    text.char_indices().nth(LONGEST).map_or(text, |(end, _)| &text[..end])
}

pub(crate) async fn write(Payload(body, _room): Payload) -> Result<Json<bool>, Error> {
    let body = Node::root(body.as_ref());
    body.object()?;
    let (service, level, message) = (body.field("service"), body.field("level"), body.field("message"));
    let (service, level, message) = (short(service.text()?), level.word(&LEVELS)?, short(message.text()?));
    let extra = body.field("extra").maybe_object()?.map(|extra| serde_json::json!(extra).to_string());
    let extra = extra.as_deref().map(short).unwrap_or_default();
    match level {
        Level::Debug => tracing::debug!(client = service, extra, "{message}"),
        Level::Info => tracing::info!(client = service, extra, "{message}"),
        Level::Warn => tracing::warn!(client = service, extra, "{message}"),
        Level::Error => tracing::error!(client = service, extra, "{message}"),
    }
    Ok(Json(true))
}
