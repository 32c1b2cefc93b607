//! The environment that a command sees.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};

/// Variables that begin so belong to the server.
const SECRET_PREFIXES: [&str; 2] = ["FLOTILLA_", "OTEL_"];

/// Variables that belong to the server by their whole name.
const SECRET_NAMES: [&str; 2] = ["OPENCODE_SERVER_PASSWORD", "OPENCODE_SERVER_USERNAME"];

/// A value that is at least so long, in bytes, does not stand in another one by chance.
const TELLING: usize = 8;

/// The environment of a command: the server's own without what is the server's alone.
///
/// A command sees exactly what stands here; nothing is inherited behind its back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChildEnv(BTreeMap<OsString, OsString>);

impl ChildEnv {
    /// Takes over `from`, except the server's own settings and secrets (`FLOTILLA_*`, `OTEL_*`, the server's user name
    /// and password) and every variable named in `secrets`, such as the keys of model providers.
    pub fn cleaned<'a>(
        from: impl IntoIterator<Item = (OsString, OsString)>,
        secrets: impl IntoIterator<Item = &'a str>,
    ) -> Self {
        let secrets: Vec<&str> = secrets.into_iter().collect();
        let private = |name: &OsStr| {
            let name = name.to_string_lossy();
            SECRET_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
                || SECRET_NAMES.contains(&&*name)
                || secrets.contains(&&*name)
        };
        Self(from.into_iter().filter(|(name, _)| !private(name)).collect())
    }

    /// Takes away every variable whose value is one of these secrets, bears one, or is a piece of one. Values shorter than
    /// [`TELLING`] may stand in others by chance: they must be the same.
    pub fn hide<'a>(&mut self, secrets: impl IntoIterator<Item = &'a str>) -> &mut Self {
        for secret in secrets {
            self.0.retain(|_, value| {
                let value = value.to_string_lossy();
                let bears = secret.len() >= TELLING && value.contains(secret);
                let is_piece = value.len() >= TELLING && secret.contains(&*value);
                !(value == secret || bears || is_piece)
            });
        }
        self
    }

    /// Sets a variable, also one that was cleaned away.
    pub fn set(&mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> &mut Self {
        self.0.insert(name.into(), value.into());
        self
    }

    /// The value of a variable.
    pub fn get(&self, name: &str) -> Option<&OsStr> {
        self.0.get(OsStr::new(name)).map(OsString::as_os_str)
    }

    /// All variables, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&OsStr, &OsStr)> {
        self.0.iter().map(|(name, value)| (name.as_os_str(), value.as_os_str()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_the_servers_does_not_reach_a_command() {
        let own = [
            ("PATH", "/bin"),
            ("FLOTILLA_REDIS_URL", "redis://:secret@host"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "key=secret"),
            ("OPENCODE_SERVER_PASSWORD", "secret"),
            ("OPENCODE_SERVER_USERNAME", "me"),
            ("OPENAI_API_KEY", "secret"),
            ("OPENCODE_CLIENT", "cli"),
        ];
        let env = ChildEnv::cleaned(own.map(|(k, v)| (k.into(), v.into())), ["OPENAI_API_KEY"]);
        let names: Vec<_> = env.iter().map(|(name, _)| name.to_string_lossy().into_owned()).collect();
        assert_eq!(names, ["OPENCODE_CLIENT", "PATH"]);
    }

    #[test]
    fn a_secret_is_known_by_its_value_under_any_name() {
        let own = [
            ("PATH", "/bin"),
            ("HUB_TOKEN", "token-of-the-hub"),
            ("CACHE_URL", "redis://:password-of-redis@host"),
            ("SHORT", "k"),
            ("TASK", "walk"),
            ("EMPTY", ""),
        ];
        let mut env = ChildEnv::cleaned(own.map(|(k, v)| (k.into(), v.into())), []);
        env.hide(["Bearer token-of-the-hub", "password-of-redis", "k"]);
        let names: Vec<_> = env.iter().map(|(name, _)| name.to_string_lossy().into_owned()).collect();
        assert_eq!(names, ["EMPTY", "PATH", "TASK"]);
    }
}
