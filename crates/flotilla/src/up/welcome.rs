//! What `up` prints when the fleet answers.

use crate::settings::{FleetSettings, Secret};
use serde_json::Value;
use std::io::{Write, stdout};
use std::time::Duration;

/// What to do without a model.
const NO_PROVIDER: &str = "No model provider is configured. Add one to opencode.json, or start again with --demo,\n\
                           which offers a built-in provider that needs no key and has no model behind it.\n\n";

/// How long the fleet may take to tell which models it has.
const PATIENCE: Duration = Duration::from_secs(10);

/// Prints where the fleet is and lines to try.
pub async fn print(settings: &FleetSettings, port: u16) -> anyhow::Result<()> {
    let url = format!("http://127.0.0.1:{port}");
    let each = &settings.each;
    let (attach, curl) = match &each.password {
        None => (format!("opencode attach {url}"), "curl -s".to_owned()),
        Some(_) => {
            let (user, password) = (&each.username, &settings.password_in_shell);
            let attach = format!("opencode attach {url} --username '{user}' --password \"{password}\"");
            (attach, format!("curl -s -u '{user}':\"{password}\""))
        }
    };
    let advice = if has_provider(&url, &each.username, each.password.as_ref()).await? { "" } else { NO_PROVIDER };
    let text = format!(
        "flotilla is up: {replicas} behind {url}\n\
         data directory:    {data}\n\
         working directory: {directory}\n\n\
         Try it:\n  {attach}\n  {curl} {url}/global/health\n  \
         {curl} {url}/session -H 'content-type: application/json' -d '{{\"title\":\"First\"}}'\n\n\
         {advice}Ctrl-C ends the fleet; sessions stay.\n",
        replicas = replicas(settings.replicas),
        data = each.data_dir.display(),
        directory = each.directory.display(),
    );
    // Who has closed stdout does not want to read it.
    let _ = stdout().write_all(text.as_bytes());
    Ok(())
}

fn replicas(count: usize) -> String {
    if count == 1 { "1 replica".to_owned() } else { format!("{count} replicas") }
}

/// Whether the fleet has a model to talk to. A fleet that does not tell is taken to have one: nothing wrong is said.
async fn has_provider(url: &str, username: &str, password: Option<&Secret>) -> anyhow::Result<bool> {
    let client = reqwest::Client::builder().no_proxy().timeout(PATIENCE).build()?;
    let mut request = client.get(format!("{url}/config/providers"));
    if let Some(password) = password {
        request = request.basic_auth(username, Some(password.expose()));
    }
    let Ok(response) = request.send().await else { return Ok(true) };
    let Ok(body) = response.text().await else { return Ok(true) };
    let providers =
        serde_json::from_str::<Value>(&body).ok().and_then(|body| Some(body.get("providers")?.as_array()?.len()));
    Ok(providers != Some(0))
}
