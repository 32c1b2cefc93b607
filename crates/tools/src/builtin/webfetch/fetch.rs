//! Getting a page, and only from where that is allowed.
//!
//! The names of hosts are resolved here, and what is not allowed is left out of what a connection is made to: it goes to an
//! address that was looked at, whatever the name stands for a moment later. Each redirect is looked at in the same way.

use super::network::{Network, may_reach};
use crate::ToolError;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderMap, LOCATION, USER_AGENT};
use reqwest::{Client, Response, Url, redirect};
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// A larger page is not read.
const MAX_BYTES: usize = 5 * 1024 * 1024;

/// So many redirects are followed.
const MAX_REDIRECTS: usize = 10;

/// Connecting takes no longer than this.
const CONNECT: Duration = Duration::from_secs(15);

/// What servers are told to be asked by.
const AGENT: &str = concat!("Mozilla/5.0 (compatible; flotilla/", env!("CARGO_PKG_VERSION"), ")");

/// A page as it came.
#[derive(Debug)]
pub(super) struct Page {
    /// The header's value; empty if there is none.
    pub(super) content_type: String,
    /// The bytes.
    pub(super) body: Vec<u8>,
}

impl Page {
    /// The content type without its parameters.
    pub(super) fn mime(&self) -> &str {
        self.content_type.split(';').next().unwrap_or_default().trim()
    }

    /// Whether it is HTML.
    pub(super) fn is_html(&self) -> bool {
        let mime = self.mime();
        mime.eq_ignore_ascii_case("text/html") || mime.eq_ignore_ascii_case("application/xhtml+xml")
    }
}

/// The address of a page.
pub(super) fn address(text: &str) -> Result<Url, ToolError> {
    if !["http://", "https://"].iter().any(|scheme| text.starts_with(scheme)) {
        return Err(ToolError::Failed("URL must start with http:// or https://".into()));
    }
    Url::parse(text).map_err(|error| ToolError::Failed(format!("{text}: {error}")))
}

/// Gets pages. Its connections are shared by all calls.
#[derive(Default)]
pub(super) struct Fetcher(OnceLock<Client>);

impl Fetcher {
    /// Gets a page. The caller bounds the time.
    pub(super) async fn fetch(&self, mut url: Url, accept: &str, allowed: &[Network]) -> Result<Page, ToolError> {
        let client = self.client(allowed)?;
        for _ in 0..=MAX_REDIRECTS {
            check_host(&url, allowed)?;
            let request = client.get(url.clone()).header(ACCEPT, accept).header(USER_AGENT, AGENT);
            let response = request.send().await.map_err(|error| explain(&error, &url))?;
            if response.status().is_redirection()
                && let Some(next) = target(&url, response.headers())
            {
                url = next?;
                continue;
            }
            if !response.status().is_success() {
                let status = response.status().as_u16();
                return Err(ToolError::Failed(format!("StatusCode: non 2xx status code ({status} GET {url})")));
            }
            return read(response, &url).await;
        }
        Err(ToolError::Failed(format!("More than {MAX_REDIRECTS} redirects, the last one to {url}")))
    }

    fn client(&self, allowed: &[Network]) -> Result<&Client, ToolError> {
        if let Some(client) = self.0.get() {
            return Ok(client);
        }
        let built = Client::builder()
            .connect_timeout(CONNECT)
            // Each is checked before it is followed.
            .redirect(redirect::Policy::none())
            // What a proxy reaches cannot be checked.
            .no_proxy()
            .dns_resolver(Arc::new(Resolver { allowed: allowed.into() }))
            .build();
        let client = built.map_err(|error| ToolError::Failed(format!("No connection can be made: {error}")))?;
        Ok(self.0.get_or_init(|| client))
    }
}

/// Refuses an address in numbers, for which no name is resolved.
fn check_host(url: &Url, allowed: &[Network]) -> Result<(), ToolError> {
    let host = url.host_str().unwrap_or_default();
    let literal = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    match literal.parse() {
        Ok(address) if !may_reach(address, allowed) => Err(ToolError::Failed(Refused(host.to_owned()).to_string())),
        _ => Ok(()),
    }
}

/// Where a redirect leads.
fn target(url: &Url, headers: &HeaderMap) -> Option<Result<Url, ToolError>> {
    let location = String::from_utf8_lossy(headers.get(LOCATION)?.as_bytes()).into_owned();
    let next = url.join(&location).map_err(|error| ToolError::Failed(format!("Redirected to {location}: {error}")));
    Some(next.and_then(|next| address(next.as_str())))
}

async fn read(mut response: Response, url: &Url) -> Result<Page, ToolError> {
    let too_large = || ToolError::Failed(format!("Response too large (exceeds {} MB): {url}", MAX_BYTES >> 20));
    if response.content_length().is_some_and(|length| length > MAX_BYTES as u64) {
        return Err(too_large());
    }
    let content_type = response.headers().get(CONTENT_TYPE).map(|value| String::from_utf8_lossy(value.as_bytes()));
    let content_type = content_type.unwrap_or_default().into_owned();
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| explain(&error, url))? {
        if body.len() + chunk.len() > MAX_BYTES {
            return Err(too_large());
        }
        body.extend_from_slice(&chunk);
    }
    Ok(Page { content_type, body })
}

fn explain(error: &reqwest::Error, url: &Url) -> ToolError {
    let mut cause: Option<&dyn std::error::Error> = Some(error);
    let mut last = error.to_string();
    while let Some(error) = cause {
        if error.is::<Refused>() {
            return ToolError::Failed(error.to_string());
        }
        last = error.to_string();
        cause = error.source();
    }
    ToolError::Failed(format!("Transport error (GET {url}): {last}"))
}

/// The host may not be reached.
#[derive(Debug, thiserror::Error)]
#[error(
    "{0} is an address of a private network or of this machine, which may not be fetched here. The setting \
     --webfetch-allow names networks that may."
)]
struct Refused(String);

struct Resolver {
    allowed: Arc<[Network]>,
}

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let (host, allowed) = (name.as_str().to_owned(), self.allowed.clone());
        Box::pin(async move {
            let found: Vec<SocketAddr> = tokio::net::lookup_host((host.as_str(), 0)).await?.collect();
            let open: Vec<SocketAddr> = found.iter().copied().filter(|found| may_reach(found.ip(), &allowed)).collect();
            if open.is_empty() && !found.is_empty() {
                return Err(Refused(host).into());
            }
            Ok(Box::new(open.into_iter()) as Addrs)
        })
    }
}
