//! The settings of a local fleet.

use super::sources::Origin;
use super::table::Scope;
use super::{Environment, Flags, Port, SettingError, Settings, Sources, parse};

/// The settings of `flotilla up`, checked.
pub struct FleetSettings {
    /// How many replicas there are.
    pub replicas: usize,
    /// The port of the balancer.
    pub port: Port,
    /// The TOML file that was named as a flag; the replicas read it, too.
    pub config: Option<String>,
    /// How a shell of the user's finds the password: for the lines that `up` proposes.
    pub password_in_shell: String,
    /// What holds for every replica, apart from its own port and the fleet's Redis.
    pub each: Settings,
}

impl FleetSettings {
    /// The settings of `flotilla up`. What the replicas read from the environment and the file is checked, too, so that
    /// a mistake is told once and not by each of them.
    pub fn load(flags: &Flags, environment: Environment) -> Result<Self, SettingError> {
        let sources = Sources::merge(Scope::Up, flags, &environment)?;
        let password_in_shell = match environment.get("OPENCODE_SERVER_PASSWORD_FILE") {
            Some(path) if !path.is_empty() => format!("$(cat '{path}')"),
            _ => "$OPENCODE_SERVER_PASSWORD".to_owned(),
        };
        let config = sources.get("config");
        Ok(Self {
            replicas: parse::number(&sources.get("replicas"), 1..=32)?,
            port: parse::port(&sources.get("port"))?,
            config: config.texts.into_iter().next().filter(|_| matches!(config.origin, Origin::Flag(_))),
            password_in_shell,
            each: Settings::from_sources(&sources, environment)?,
        })
    }
}
