//! Settings: parsed once, here; nothing below reads the environment.

mod error;
mod fleet;
mod parse;
mod secret;
mod show;
mod sources;
pub mod table;

pub use error::SettingError;
pub use fleet::FleetSettings;
pub use parse::Port;
pub use secret::Secret;
pub use show::show;
pub use sources::{Environment, Flags, Sources};

use crate::logging::{Format, Level};
use std::collections::HashSet;
use std::path::PathBuf;
use std::time::Duration;
use table::Scope;

/// The least of `--store-memory`.
const LEAST_STORE_MEMORY: u64 = 6 << 20;

/// What an acknowledged write survives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// A power cut.
    Disk,
    /// The death of any process.
    Os,
}

impl Durability {
    fn of(sources: &Sources) -> Result<Self, SettingError> {
        parse::choice(&sources.get("durability"), &[("disk", Self::Disk), ("os", Self::Os)])
    }
}

impl From<Durability> for storage::Durability {
    fn from(durability: Durability) -> Self {
        match durability {
            Durability::Disk => Self::Disk,
            Durability::Os => Self::Os,
        }
    }
}

/// The settings of `flotilla import`, checked.
pub struct ImportSettings {
    /// Where sessions are kept.
    pub data_dir: PathBuf,
    /// What a session survives that was taken in.
    pub durability: Durability,
}

impl ImportSettings {
    /// The settings of `flotilla import`.
    pub fn load(flags: &Flags, environment: &Environment) -> Result<Self, SettingError> {
        let sources = Sources::merge(Scope::Import, flags, environment)?;
        Ok(Self { data_dir: parse::path(&sources.get("data-dir"))?, durability: Durability::of(&sources)? })
    }
}

/// The settings of one replica, checked.
#[derive(Clone)]
pub struct Settings {
    /// The name or address to listen on.
    pub hostname: String,
    /// The port to listen on.
    pub port: Port,
    /// The Redis that coordinates the fleet; without it this is the only replica.
    pub redis_url: Option<Secret>,
    /// Independent Redis masters for locks; empty: locks live in `redis_url`.
    pub lock_urls: Vec<Secret>,
    /// The certificates, in PEM, that Redis servers with TLS are checked against; without them those of the system.
    pub redis_ca: Option<String>,
    /// What every key and channel in Redis begins with.
    pub redis_prefix: String,
    /// Where sessions are kept. Absolute; made by the store if it does not exist.
    pub data_dir: PathBuf,
    /// The working directory of requests that name none. Absolute, and it exists.
    pub directory: PathBuf,
    /// What an acknowledged write survives.
    pub durability: Durability,
    /// How long a silent replica keeps its runs.
    pub lease_ttl: Duration,
    /// How often a replica tells that it lives.
    pub tick: Duration,
    /// How long a stopping replica says so before it begins to stop.
    pub drain_notice: Duration,
    /// How long a stopping replica waits for its runs to reach their next step.
    pub drain_deadline: Duration,
    /// Whether `X-Request-ID` names a request that the balancer may send again.
    pub trust_request_id: bool,
    /// How long a prompt's answer may be silent before white space is sent.
    pub answer_keepalive: Duration,
    /// What a command of a tool may use.
    pub command_limits: sandbox::Limits,
    /// How long a model may be silent.
    pub model_timeout: Duration,
    /// Bytes of request bodies that are held at the same time.
    pub body_memory: u64,
    /// Bytes of what is stored that are kept in memory.
    pub store_memory: u64,
    /// How long a client may send or take nothing in the middle of a request.
    pub client_timeout: Duration,
    /// Web origins whose pages may call this server.
    pub cors: Vec<String>,
    /// Networks that the tool `webfetch` may reach although they are not of the public internet.
    pub webfetch_allow: Vec<tools::Network>,
    /// The form of log lines.
    pub log_format: Format,
    /// How much is logged.
    pub log_level: Level,
    /// Offer the built-in provider that has no model behind it.
    pub demo: bool,
    /// The user name that goes with the password.
    pub username: String,
    /// The password that every request must bear, if there is one.
    pub password: Option<Secret>,
    /// The environment, in which agents and providers look for their configuration and keys.
    pub environment: Environment,
}

impl Settings {
    /// The settings of `flotilla serve`.
    pub fn load(flags: &Flags, environment: Environment) -> Result<Self, SettingError> {
        let sources = Sources::merge(Scope::Serve, flags, &environment)?;
        let settings = Self::from_sources(&sources, environment)?;
        let hidden = parse::is_loopback(&settings.hostname) || settings.password.is_some();
        if !hidden && !parse::switch(&sources.get("insecure-no-auth"))? {
            let reason = format!(
                "{} is beyond loopback: set OPENCODE_SERVER_PASSWORD, or say --insecure-no-auth",
                settings.hostname
            );
            return Err(SettingError::new(sources.get("hostname").origin, reason));
        }
        Ok(settings)
    }

    /// The passwords among the settings, those in addresses as they stand there and as they are meant: no command may see one
    /// under any name.
    pub fn passwords(&self) -> Vec<String> {
        let urls = || self.redis_url.iter().chain(&self.lock_urls).map(Secret::expose);
        let of_users = urls().filter_map(|url| Some(url.rsplit_once('@')?.0.rsplit_once(':')?.1));
        let of_sentinels = urls().filter_map(|url| url.split_once("sentinel_password=")?.1.split('&').next());
        let in_urls = of_users.chain(of_sentinels).flat_map(|password| {
            [password.to_owned(), percent_encoding::percent_decode_str(password).decode_utf8_lossy().into_owned()]
        });
        let own = self.password.iter().map(|password| password.expose().to_owned());
        in_urls.chain(own).filter(|password| !password.is_empty()).collect()
    }

    fn from_sources(sources: &Sources, mut environment: Environment) -> Result<Self, SettingError> {
        let get = |name| sources.get(name);
        if let Some(text) = get("opencode-config-content").texts.first() {
            // It may have come from a file; those who look for it know the variable only.
            environment.insert("OPENCODE_CONFIG_CONTENT".to_owned(), text.clone());
        }
        let settings = Self {
            hostname: parse::text(&get("hostname"))?,
            port: parse::port(&get("port"))?,
            redis_url: parse::redis_url(&get("redis-url"))?,
            lock_urls: parse::redis_servers(&get("lock-url"))?,
            redis_ca: parse::certificates(&get("redis-ca"))?,
            redis_prefix: parse::prefix(&get("redis-prefix"))?,
            data_dir: parse::path(&get("data-dir"))?,
            directory: parse::directory(&get("directory"))?,
            durability: Durability::of(sources)?,
            lease_ttl: parse::duration(&get("lease-ttl"))?,
            tick: parse::duration(&get("tick"))?,
            drain_notice: parse::duration(&get("drain-notice"))?,
            drain_deadline: parse::duration(&get("drain-deadline"))?,
            trust_request_id: parse::switch(&get("trust-request-id"))?,
            answer_keepalive: parse::duration(&get("answer-keepalive"))?,
            command_limits: sandbox::Limits {
                processes: parse::number(&get("command-processes"), 1..=1_000_000)? as u64,
                memory_bytes: parse::size(&get("command-memory"))?,
                open_files: parse::number(&get("command-open-files"), 16..=1_000_000)? as u64,
                file_bytes: parse::size(&get("command-file-size"))?,
            },
            model_timeout: parse::duration(&get("model-timeout"))?,
            body_memory: parse::size(&get("body-memory"))?,
            store_memory: parse::size(&get("store-memory"))?,
            client_timeout: parse::duration(&get("client-timeout"))?,
            cors: parse::origins(&get("cors"))?,
            webfetch_allow: parse::networks(&get("webfetch-allow"))?,
            log_format: parse::choice(&get("log-format"), &Format::NAMES)?,
            log_level: parse::choice(&get("log-level"), &Level::NAMES)?,
            demo: parse::switch(&get("demo"))?,
            username: parse::text(&get("username"))?,
            password: get("password").texts.first().map(|text| Secret::from(text.as_str())),
            environment,
        };
        settings.check(sources)?;
        Ok(settings)
    }

    /// What two settings demand of each other.
    fn check(&self, sources: &Sources) -> Result<(), SettingError> {
        let wrong = |name, reason| Err(SettingError::new(sources.get(name).origin, reason));
        if self.tick.is_zero() || self.tick * 3 > self.lease_ttl {
            return wrong("tick", "must be more than 0 and at most a third of --lease-ttl");
        }
        let waits = [
            ("answer-keepalive", self.answer_keepalive),
            ("model-timeout", self.model_timeout),
            ("client-timeout", self.client_timeout),
        ];
        if let Some((name, _)) = waits.into_iter().find(|(_, wait)| wait.is_zero()) {
            return wrong(name, "must be more than 0");
        }
        if self.body_memory < server::Limits::default().body as u64 {
            return wrong("body-memory", "must be at least 64MiB, which one body may have");
        }
        if self.store_memory < LEAST_STORE_MEMORY {
            return wrong("store-memory", "must be at least 6MiB, or each read goes to the disk");
        }
        if self.redis_url.is_none() && !self.lock_urls.is_empty() {
            return wrong("lock-url", "is of no use without --redis-url");
        }
        let locks: HashSet<&str> = self.lock_urls.iter().map(Secret::expose).collect();
        if locks.len() < self.lock_urls.len() {
            return wrong("lock-url", "names one server twice: its locks would stand in each other's way");
        }
        if !locks.is_empty() && locks.len().is_multiple_of(2) {
            return wrong("lock-url", "must name an odd number of servers, such as 3 or 5");
        }
        if self.drain_notice >= self.drain_deadline {
            return wrong("drain-notice", "must be less than --drain-deadline");
        }
        let mut urls = self.redis_url.iter().chain(&self.lock_urls);
        if self.redis_ca.is_some() && !urls.any(|url| url.expose().starts_with("rediss")) {
            return wrong("redis-ca", "is of no use: no Redis address begins with rediss");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
