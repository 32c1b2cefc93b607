//! `webfetch`: reads a page of the web.

mod fetch;
mod html;
mod network;

use crate::blocking::blocking;
use crate::{Ask, Call, Output, Tool, ToolError, Writes, arguments};
use async_trait::async_trait;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use fetch::{Fetcher, Page};
use html::Form;
pub use network::{Network, NotANetwork};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::time::Duration;

/// How long a page may take where the call says nothing.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a page may take at most.
const MAX_TIMEOUT: Duration = Duration::from_secs(120);

/// Images that models see.
const IMAGES: [&str; 4] = ["image/png", "image/jpeg", "image/gif", "image/webp"];

/// The tool `webfetch`.
#[derive(Default)]
pub(crate) struct WebFetch {
    fetcher: Fetcher,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Format {
    #[default]
    Markdown,
    Text,
    Html,
}

#[derive(Deserialize)]
struct Arguments {
    url: String,
    #[serde(default)]
    format: Format,
    /// Seconds.
    timeout: Option<f64>,
}

#[async_trait]
impl Tool for WebFetch {
    fn name(&self) -> &'static str {
        "webfetch"
    }

    fn description(&self) -> String {
        "Reads a page of the web by its http or https address, without changing anything there.\n\
         A page comes as Markdown unless `format` says `text` or `html`; other texts come as they are, images are \
         attached. At most 5 MB are read; a long page is shortened, and the whole of it kept in a file."
            .into()
    }

    fn parameters(&self) -> Value {
        json!({
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "type": "object",
            "properties": {
                "url": { "type": "string", "description": "The whole address" },
                "format": {
                    "type": "string",
                    "enum": ["text", "markdown", "html"],
                    "description": "What the page is turned into (default: markdown)",
                    "default": "markdown",
                },
                "timeout": { "type": "number", "description": "Seconds to wait, up to 120 (default: 30)" },
            },
            "required": ["url"],
        })
    }

    fn writes(&self) -> Writes {
        Writes::Nothing
    }

    async fn run(&self, input: Value, call: &Call) -> Result<Output, ToolError> {
        let given = input.get("timeout").cloned();
        let Arguments { url, format, timeout } = arguments::parse(self.name(), input)?;
        let address = fetch::address(&url)?;
        let mut metadata =
            Map::from_iter([("url".to_owned(), json!(url)), ("format".to_owned(), json!(format.name()))]);
        metadata.extend(given.map(|timeout| ("timeout".to_owned(), timeout)));
        let (permission, always) = (self.name().into(), vec!["*".into()]);
        call.host.ask(Ask { permission, patterns: vec![url.clone()], always, metadata: metadata.into() }).await?;

        let timeout = timeout.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()).filter(|t| !t.is_zero());
        let limit = timeout.unwrap_or(DEFAULT_TIMEOUT).min(MAX_TIMEOUT);
        let done = async {
            let page = self.fetcher.fetch(address, format.wanted(), &call.settings.fetch_allowed).await?;
            show(&url, page, format, call).await
        };
        tokio::select! {
            done = tokio::time::timeout(limit, done) => {
                done.map_err(|_| ToolError::Failed(format!("Not done within {} s: {url}", limit.as_secs_f64())))?
            }
            () = call.cancel.cancelled() => Err(ToolError::Aborted),
        }
    }
}

impl Format {
    fn name(self) -> &'static str {
        match self {
            Self::Markdown => "markdown",
            Self::Text => "text",
            Self::Html => "html",
        }
    }

    /// The `Accept` header: what comes nearest first.
    fn wanted(self) -> &'static str {
        match self {
            Self::Markdown => "text/markdown, text/html;q=0.8, text/plain;q=0.7, */*;q=0.1",
            Self::Text => "text/plain, text/markdown;q=0.9, text/html;q=0.8, */*;q=0.1",
            Self::Html => "text/html, application/xhtml+xml;q=0.9, text/plain;q=0.7, */*;q=0.1",
        }
    }

    /// The page's text, unless `stop` says that nobody waits for it any longer.
    fn text(self, page: &Page, stop: &dyn Fn() -> bool) -> Option<String> {
        let text = String::from_utf8_lossy(&page.body);
        let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
        match self {
            Self::Markdown if page.is_html() => html::convert(text, Form::Markdown, stop),
            Self::Text if page.is_html() => html::convert(text, Form::Text, stop),
            _ => Some(text.to_owned()),
        }
    }
}

async fn show(url: &str, page: Page, format: Format, call: &Call) -> Result<Output, ToolError> {
    let title = format!("{url} ({})", page.content_type);
    if IMAGES.contains(&page.mime()) {
        let attachment = image(&page);
        let output = "Image fetched successfully".into();
        return Ok(Output { title, output, metadata: json!({}), attachments: Some(vec![attachment]) });
    }
    if page.body.contains(&0) {
        return Err(ToolError::Failed(format!("This is no text: {title}")));
    }
    let output =
        blocking(call, move |stop| format.text(&page, &|| stop.is_cancelled()).ok_or(ToolError::Aborted)).await?;
    Ok(Output { title, output, metadata: json!({}), attachments: None })
}

fn image(page: &Page) -> Value {
    let url = format!("data:{};base64,{}", page.mime(), BASE64_STANDARD.encode(&page.body));
    json!({ "type": "file", "mime": page.mime(), "url": url })
}
