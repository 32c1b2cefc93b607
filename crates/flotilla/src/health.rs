//! `flotilla health`: for health checks of containers, which have no other HTTP client.

use anyhow::{bail, ensure};
use std::time::Duration;

/// How long a server may take to say that it lives.
const PATIENCE: Duration = Duration::from_secs(2);

/// Asks the server at `url` whether it lives.
pub async fn check(url: &str) -> anyhow::Result<()> {
    let client = reqwest::Client::builder().no_proxy().timeout(PATIENCE).build()?;
    let url = format!("{}/livez", url.trim_end_matches('/'));
    let Ok(response) = client.get(&url).send().await else { bail!("{url} does not answer") };
    ensure!(response.status().is_success(), "{url} answers {}", response.status());
    Ok(())
}
