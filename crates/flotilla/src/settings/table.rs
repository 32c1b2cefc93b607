//! The one table of settings: flags, environment, TOML keys, defaults, help and `flotilla config` all come from it.

/// Which command line is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// `flotilla serve`: one replica.
    Serve,
    /// `flotilla up`: a whole local fleet.
    Up,
    /// `flotilla import`: sessions from elsewhere.
    Import,
}

/// What a setting looks like on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// One value.
    One,
    /// Several values: a repeated flag, a list in TOML, commas in the environment.
    Many,
    /// On or off: a flag without a value.
    Switch,
}

/// Where a setting may be given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// As a flag, as `FLOTILLA_*` and in the TOML file.
    Everywhere,
    /// As a flag and as `FLOTILLA_*`: what decides which TOML file is read cannot stand in it.
    NotInFile,
    /// Only as this environment variable, which is OpenCode's own.
    Variable(&'static str),
}

/// What counts when nobody says anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fallback {
    /// Nothing: the setting is absent.
    Nothing,
    /// This value.
    Fixed(&'static str),
    /// Any port for a replica, the well-known one for a fleet.
    Port,
    /// `$XDG_DATA_HOME/flotilla`.
    DataHome,
    /// Where the process was started.
    WorkingDirectory,
}

/// A setting.
#[derive(Debug)]
pub struct Row {
    /// The name: `lease-ttl` is `--lease-ttl`, `FLOTILLA_LEASE_TTL` and `lease_ttl`.
    pub name: &'static str,
    /// What a value looks like in the help.
    pub value: &'static str,
    /// How many values it takes.
    pub kind: Kind,
    /// Where it may be given.
    pub place: Place,
    /// The command lines that know it.
    pub scopes: &'static [Scope],
    /// Whether it may hold a secret: then it is masked, and may be given as the name of a file in `..._FILE`.
    pub secret: bool,
    /// What counts when it is not given.
    pub fallback: Fallback,
    /// One line of help.
    pub help: &'static str,
}

impl Row {
    /// The environment variable.
    pub fn variable(&self) -> String {
        match self.place {
            Place::Variable(name) => name.to_owned(),
            _ => format!("FLOTILLA_{}", self.name.to_uppercase().replace('-', "_")),
        }
    }

    /// The environment variable that names a file with the secret.
    pub fn file_variable(&self) -> Option<String> {
        self.secret.then(|| format!("{}_FILE", self.variable()))
    }

    /// The key in the TOML file.
    pub fn key(&self) -> Option<String> {
        (self.place == Place::Everywhere).then(|| self.name.replace('-', "_"))
    }

    /// Whether this command line has it as a flag.
    pub fn is_flag_of(&self, scope: Scope) -> bool {
        self.scopes.contains(&scope) && !matches!(self.place, Place::Variable(_))
    }
}

/// A setting of a single value that everybody may give: the base of most rows.
const ROW: Row = Row {
    name: "",
    value: "",
    kind: Kind::One,
    place: Place::Everywhere,
    scopes: &[Scope::Serve],
    secret: false,
    fallback: Fallback::Nothing,
    help: "",
};

const BOTH: &[Scope] = &[Scope::Serve, Scope::Up];
const ALL: &[Scope] = &[Scope::Serve, Scope::Up, Scope::Import];

/// Every setting, in the order of the help.
pub const TABLE: &[Row] = &[
    Row {
        name: "config",
        value: "FILE",
        place: Place::NotInFile,
        scopes: ALL,
        help: "The TOML file; else ./flotilla.toml or /etc/flotilla/flotilla.toml is read, the first there is",
        ..ROW
    },
    Row {
        name: "hostname",
        value: "HOST",
        fallback: Fallback::Fixed("127.0.0.1"),
        help: "Where to listen; beyond loopback a password is required",
        ..ROW
    },
    Row {
        name: "port",
        value: "PORT",
        scopes: BOTH,
        fallback: Fallback::Port,
        help: "The port; 0 is 4096 if it is free, else any",
        ..ROW
    },
    Row {
        name: "replicas",
        value: "N",
        scopes: &[Scope::Up],
        fallback: Fallback::Fixed("3"),
        help: "How many replicas the fleet has",
        ..ROW
    },
    Row {
        name: "redis-url",
        value: "URL",
        secret: true,
        help: "The Redis that coordinates the fleet, or sentinels that know it; without it this is the only replica",
        ..ROW
    },
    Row {
        name: "lock-url",
        value: "URL",
        kind: Kind::Many,
        secret: true,
        help: "An independent Redis master for locks, repeated for 3 or 5 of them; else --redis-url is used",
        ..ROW
    },
    Row {
        name: "redis-ca",
        value: "FILE",
        help: "Certificates in PEM that Redis servers with TLS are checked against; else those of the system",
        ..ROW
    },
    Row {
        name: "redis-prefix",
        value: "NAME",
        fallback: Fallback::Fixed("flotilla"),
        help: "What every key and channel in Redis begins with",
        ..ROW
    },
    Row {
        name: "data-dir",
        value: "DIR",
        scopes: ALL,
        fallback: Fallback::DataHome,
        help: "Where sessions are kept, the same for all replicas",
        ..ROW
    },
    Row {
        name: "directory",
        value: "DIR",
        scopes: BOTH,
        fallback: Fallback::WorkingDirectory,
        help: "The working directory of requests that name none",
        ..ROW
    },
    Row {
        name: "durability",
        value: "disk|os",
        scopes: &[Scope::Serve, Scope::Import],
        fallback: Fallback::Fixed("disk"),
        help: "What an acknowledged write survives: a power cut (disk) or the death of any process (os)",
        ..ROW
    },
    Row {
        name: "lease-ttl",
        value: "TIME",
        fallback: Fallback::Fixed("10s"),
        help: "How long a silent replica keeps its runs, the same for all replicas",
        ..ROW
    },
    Row {
        name: "tick",
        value: "TIME",
        fallback: Fallback::Fixed("1s"),
        help: "How often a replica tells that it lives; at most a third of --lease-ttl",
        ..ROW
    },
    Row {
        name: "drain-notice",
        value: "TIME",
        fallback: Fallback::Fixed("2s"),
        help: "How long a stopping replica says so on /readyz before it begins to stop",
        ..ROW
    },
    Row {
        name: "drain-deadline",
        value: "TIME",
        fallback: Fallback::Fixed("15s"),
        help: "How long a stopping replica waits for its runs to reach their next step",
        ..ROW
    },
    Row {
        name: "trust-request-id",
        kind: Kind::Switch,
        fallback: Fallback::Fixed("false"),
        help: "X-Request-ID is the balancer's own and the same when it sends a request again: then it acts once",
        ..ROW
    },
    Row {
        name: "answer-keepalive",
        value: "TIME",
        fallback: Fallback::Fixed("45s"),
        help: "How long an answer may be silent before white space keeps its connection alive",
        ..ROW
    },
    Row {
        name: "command-processes",
        value: "N",
        fallback: Fallback::Fixed("1024"),
        help: "How many processes a command of a tool may have at the same time; with more it is killed",
        ..ROW
    },
    Row {
        name: "command-memory",
        value: "SIZE",
        fallback: Fallback::Fixed("8GiB"),
        help: "How much memory the processes of a command may use together; with more it is killed",
        ..ROW
    },
    Row {
        name: "command-file-size",
        value: "SIZE",
        fallback: Fallback::Fixed("16GiB"),
        help: "How large a file may become that a command writes",
        ..ROW
    },
    Row {
        name: "command-open-files",
        value: "N",
        fallback: Fallback::Fixed("4096"),
        help: "How many files each process of a command may have open",
        ..ROW
    },
    Row {
        name: "model-timeout",
        value: "TIME",
        fallback: Fallback::Fixed("2m"),
        help: "How long a model may be silent, before its answer and within it; then it is asked again",
        ..ROW
    },
    Row {
        name: "body-memory",
        value: "SIZE",
        fallback: Fallback::Fixed("256MiB"),
        help: "How many bytes of large requests are held at once; who finds no room is asked to come again",
        ..ROW
    },
    Row {
        name: "store-memory",
        value: "SIZE",
        fallback: Fallback::Fixed("96MiB"),
        help: "How many bytes of what is stored are kept in memory, about; what was used longest ago goes first",
        ..ROW
    },
    Row {
        name: "client-timeout",
        value: "TIME",
        fallback: Fallback::Fixed("60s"),
        help: "How long a client may send nothing of a request, or take nothing of an answer",
        ..ROW
    },
    Row {
        name: "cors",
        value: "ORIGIN",
        kind: Kind::Many,
        help: "A web origin whose pages may call this server; may be repeated",
        ..ROW
    },
    Row {
        name: "webfetch-allow",
        value: "NETWORK",
        kind: Kind::Many,
        help: "Addresses beyond the public internet that webfetch may reach, such as 10.0.0.0/8; may be repeated",
        ..ROW
    },
    Row {
        name: "log-format",
        value: "human|json",
        scopes: BOTH,
        fallback: Fallback::Fixed("human"),
        help: "The form of log lines on stderr",
        ..ROW
    },
    Row {
        name: "log-level",
        value: "LEVEL",
        scopes: BOTH,
        fallback: Fallback::Fixed("info"),
        help: "error, warn, info, debug or trace",
        ..ROW
    },
    Row {
        name: "insecure-no-auth",
        kind: Kind::Switch,
        fallback: Fallback::Fixed("false"),
        help: "Listen beyond loopback without a password",
        ..ROW
    },
    Row {
        name: "demo",
        kind: Kind::Switch,
        scopes: BOTH,
        fallback: Fallback::Fixed("false"),
        help: "Offer a built-in model provider that needs no key and has no model behind it",
        ..ROW
    },
    Row {
        name: "username",
        place: Place::Variable("OPENCODE_SERVER_USERNAME"),
        scopes: BOTH,
        fallback: Fallback::Fixed("opencode"),
        ..ROW
    },
    Row { name: "password", place: Place::Variable("OPENCODE_SERVER_PASSWORD"), scopes: BOTH, secret: true, ..ROW },
    Row { name: "opencode-config", place: Place::Variable("OPENCODE_CONFIG"), scopes: BOTH, ..ROW },
    Row {
        name: "opencode-config-content",
        place: Place::Variable("OPENCODE_CONFIG_CONTENT"),
        scopes: BOTH,
        secret: true,
        ..ROW
    },
];

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn names_and_variables_are_unique_and_well_formed() {
        let mut seen = HashSet::new();
        for row in TABLE {
            assert!(row.name.chars().all(|c| c.is_ascii_lowercase() || c == '-'), "{}", row.name);
            assert!(seen.insert(row.variable()), "{} stands twice", row.variable());
            assert!(row.file_variable().is_none_or(|name| seen.insert(name)), "{}_FILE stands twice", row.variable());
            assert_eq!(row.help.is_empty(), matches!(row.place, Place::Variable(_)), "{}", row.name);
        }
    }
}
