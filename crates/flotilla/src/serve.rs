//! `flotilla serve`: one replica, from its settings to its ordered end.

use crate::listen::listen;
use crate::settings::Settings;
use crate::system::{System, open_store};
use anyhow::Context;
use coordination::Ports;
use coordination_redis::{Agreement, RedisPorts, RedisSettings};
use engine::Engine;
use std::collections::HashMap;
use std::ffi::OsString;
use std::sync::Arc;
use std::time::Duration;
use storage::{DirectoryLock, Store, StoreError};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use wire::clock::Entropy;
use wire::ids::IdSource;
use wire::tenant::Tenant;

/// The time between heartbeats of event streams, as OpenCode has it.
const HEARTBEAT: Duration = Duration::from_secs(10);
/// Attempts without a completed step before a turn ends in an error.
const ATTEMPTS: u32 = 3;
/// Prompts that may wait in one session.
const QUEUE_LIMIT: u64 = 100;
/// How long before the drain's deadline what still runs is interrupted and who still waits is told, at most: recording and
/// telling take a moment, and the process is to be gone at its deadline.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// The pace of the demo's answers, per word.
const DEMO_DELAY: Duration = Duration::from_millis(40);

/// Runs a replica until SIGTERM or SIGINT, then drains it. A second signal ends it at once.
///
/// Errors: one line when it cannot start, and when it was ended before it was drained.
pub async fn run(settings: Settings) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let listener = listen(&settings.hostname, settings.port).await?;
    let address = listener.local_addr()?;
    let entropy: Arc<dyn Entropy> = Arc::new(System);
    let store = open_store(&settings.data_dir, settings.durability.into())?;
    store.keep_at_most(usize::try_from(settings.store_memory).unwrap_or(usize::MAX));
    let (ports, _directory) = coordinate(&settings, &store, &entropy).await?;
    let surroundings = surroundings(&settings);
    let engine = start_engine(&settings, ports, store, surroundings.clone()).await?;

    let limits = server::Limits {
        shutdown: settings.drain_deadline.saturating_sub(settings.drain_notice),
        bodies: usize::try_from(settings.body_memory).unwrap_or(usize::MAX),
        body_idle: settings.client_timeout,
        header_timeout: settings.client_timeout.min(server::Limits::default().header_timeout),
        ..server::Limits::default()
    };
    let drain = CancellationToken::new();
    let shutdown = CancellationToken::new();
    let app = server::App {
        engine: engine.clone(),
        auth: settings.password.as_ref().map(|password| server::Credentials {
            username: settings.username.clone(),
            password: password.expose().to_owned(),
        }),
        cors: settings.cors.clone(),
        default_directory: settings.directory.clone(),
        surroundings,
        heartbeat: HEARTBEAT,
        limits,
        answer_keepalive: settings.answer_keepalive,
        trust_request_id: settings.trust_request_id,
        entropy,
        drain: drain.clone(),
        tenant: Tenant::default(),
    };
    let serving = tokio::spawn(server::serve(listener, app, shutdown.clone()));
    println!("flotilla listening on http://{address}");
    tracing::info!(replica = engine.replica(), version = env!("CARGO_PKG_VERSION"), "ready");

    let mut asked = async || {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    asked().await;
    tokio::select! {
        stopped = stop(&settings, engine, serving, shutdown, drain) => stopped,
        // Somebody is in a hurry. Others find what it had, as after any death.
        () = asked() => Err(anyhow::anyhow!("asked to stop twice: ended at once")),
    }
}

/// Drains, and ends what serves.
async fn stop(
    settings: &Settings,
    engine: Engine,
    mut serving: JoinHandle<()>,
    shutdown: CancellationToken,
    drain: CancellationToken,
) -> anyhow::Result<()> {
    tracing::info!("draining");
    let deadline = Instant::now() + settings.drain_deadline;
    let last_call = Instant::now() + last_call(settings);
    let handing_over = tokio::spawn({
        let engine = engine.clone();
        async move { engine.drain().await }
    });
    // The balancer learns it from the readiness first; then nobody new comes in.
    tokio::time::sleep(settings.drain_notice).await;
    shutdown.cancel();
    handing_over.await?;
    // The streams have what happened here, and are cut, never ended.
    drain.cancel();
    match tokio::time::timeout_at(last_call, &mut serving).await {
        Ok(served) => served?,
        Err(_) => {
            engine.leave();
            serving.await?;
        }
    }
    if tokio::time::timeout_at(deadline, engine.stop()).await.is_err() {
        tracing::warn!("the fleet could not be told of the end");
    }
    tracing::info!("stopped");
    Ok(())
}

/// How long after its begin a drain interrupts what still runs, and tells who still waits.
fn last_call(settings: &Settings) -> Duration {
    settings.drain_deadline - LAST_WORDS.min(settings.drain_deadline / 4)
}

/// The coordination that the settings ask for. Without Redis this is the only replica: it locks the directory. A fleet
/// shares it, so that nobody serves it alone meanwhile, who would take the fleet's runs.
async fn coordinate(
    settings: &Settings,
    store: &Store,
    entropy: &Arc<dyn Entropy>,
) -> anyhow::Result<(Ports, Option<DirectoryLock>)> {
    match &settings.redis_url {
        None => {
            let lock = store.lock_directory().with_context(|| {
                format!("{} is used by another replica; several need --redis-url", settings.data_dir.display())
            })?;
            Ok((coordination::memory::ports(entropy.clone()), Some(lock)))
        }
        Some(url) => {
            let mut redis = RedisSettings::new(url.expose(), entropy.clone());
            redis.lock_urls = settings.lock_urls.iter().map(|url| url.expose().to_owned()).collect();
            redis.authorities = settings.redis_ca.clone();
            redis.prefix = settings.redis_prefix.clone();
            let alike = [
                ("data-dir", store.id()?),
                ("lease-ttl", format!("{}ms", settings.lease_ttl.as_millis())),
                ("tick", format!("{}ms", settings.tick.as_millis())),
            ];
            redis.agreement = Agreement::new(settings.lease_ttl, alike);
            let lock = match store.share_directory() {
                Err(error @ StoreError::Locked(_)) => {
                    let text = format!("{} is used by a replica without --redis-url", settings.data_dir.display());
                    return Err(anyhow::Error::new(error).context(text));
                }
                Err(error) => {
                    tracing::warn!(%error, "nobody is kept from serving the data directory alone");
                    None
                }
                Ok(lock) => Some(lock),
            };
            Ok((RedisPorts::connect(redis).await?, lock))
        }
    }
}

fn surroundings(settings: &Settings) -> agents::Surroundings {
    let environment: HashMap<String, String> =
        settings.environment.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
    agents::Surroundings::new(environment, settings.data_dir.clone(), settings.demo)
}

async fn start_engine(
    settings: &Settings,
    ports: Ports,
    store: Store,
    surroundings: agents::Surroundings,
) -> anyhow::Result<Engine> {
    let keys: Vec<&str> = settings.environment.keys().map(String::as_str).filter(|name| is_secret(name)).collect();
    let all = settings.environment.iter().map(|(name, value)| (OsString::from(name), OsString::from(value)));
    let mut child_env = sandbox::ChildEnv::cleaned(all, keys);
    child_env.hide(settings.passwords().iter().map(String::as_str));
    let exe = std::env::current_exe().context("the own executable cannot be found")?;
    let mut tools = tools::ToolSettings::new(exe, settings.data_dir.join("tool-output"), child_env);
    tools.limits = settings.command_limits;
    tools.fetch_allowed = settings.webfetch_allow.clone().into();
    let models = models::Limits {
        first_byte: settings.model_timeout,
        silence: settings.model_timeout,
        ..models::Limits::default()
    };
    let parts = engine::Parts {
        ports,
        store,
        ids: Arc::new(IdSource::new(Arc::new(System), Arc::new(System))),
        provider: Arc::new(models::OpenAiCompatible::new(models)?),
        demo: Arc::new(models::demo::Demo::new(DEMO_DELAY)),
        tools: Arc::new(tools::Registry::builtin()),
        settings: engine::Settings {
            name: settings.environment.get("HOSTNAME").cloned().unwrap_or_else(|| "replica".into()),
            lease_ttl: settings.lease_ttl,
            tick: settings.tick,
            drain_deadline: last_call(settings),
            attempts: ATTEMPTS,
            queue_limit: QUEUE_LIMIT,
            surroundings,
            tools: Arc::new(tools),
        },
    };
    Ok(Engine::start(parts).await?)
}

/// Names of variables that a command must not see, beside the server's own.
fn is_secret(name: &str) -> bool {
    name.ends_with("_API_KEY")
        || ["OPENCODE_CONFIG_CONTENT", "OPENCODE_AUTH_CONTENT", "OPENCODE_SERVER_"]
            .iter()
            .any(|own| name.starts_with(own))
}
