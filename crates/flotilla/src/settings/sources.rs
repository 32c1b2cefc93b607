//! Where settings come from: flag, environment, TOML file, default, in this order.

use super::error::SettingError;
use super::table::{Fallback, Kind, Place, Row, Scope, TABLE};
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::path::{Path, PathBuf};

/// The TOML files that are looked for when none is named.
const USUAL_FILES: [&str; 2] = ["./flotilla.toml", "/etc/flotilla/flotilla.toml"];

/// Flags that were given: the name of the setting and its values (`true` for a switch).
pub type Flags = HashMap<&'static str, Vec<String>>;

/// The environment of the process.
pub type Environment = HashMap<String, String>;

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The flag of this name.
    Flag(&'static str),
    /// This environment variable.
    Variable(String),
    /// This key of this TOML file.
    File(String, PathBuf),
    /// Nobody gave it: the default of the setting of this name.
    Default(&'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(name) | Self::Default(name) => write!(f, "--{name}"),
            Self::Variable(name) => f.write_str(name),
            Self::File(key, path) => write!(f, "{key} in {}", path.display()),
        }
    }
}

/// The value of a setting as it was given: not yet parsed.
#[derive(Clone, Debug)]
pub struct Given {
    /// One value, or any number of a setting that takes many. Empty: the setting is absent.
    pub texts: Vec<String>,
    /// Where it came from.
    pub origin: Origin,
}

/// Every setting of a command line with its effective value.
pub struct Sources {
    given: BTreeMap<&'static str, Given>,
}

impl Sources {
    /// Merges what was given. `flags` are those of `scope`; settings of other command lines may stand in the
    /// environment and in the file, where they are ignored.
    pub fn merge(scope: Scope, flags: &Flags, env: &Environment) -> Result<Self, SettingError> {
        refuse_unknown_variables(env)?;
        let file = read_file(flags, env)?;
        let mut given = BTreeMap::new();
        for row in TABLE.iter().filter(|row| row.scopes.contains(&scope) || row.scopes.contains(&Scope::Serve)) {
            let from_flag = flags.get(row.name).filter(|_| row.is_flag_of(scope));
            let value = match from_flag {
                Some(texts) => Given { texts: texts.clone(), origin: Origin::Flag(row.name) },
                None => match from_environment(row, env)? {
                    Some(value) => value,
                    None => match row.key().and_then(|key| file.get(&key)) {
                        Some(value) => value.clone(),
                        None => default(row, scope, env)?,
                    },
                },
            };
            given.insert(row.name, value);
        }
        Ok(Self { given })
    }

    /// The value of the setting of this name; absent if the command line does not know it.
    pub fn get(&self, name: &'static str) -> Given {
        let absent = || Given { texts: Vec::new(), origin: Origin::Default(name) };
        self.given.get(name).cloned().unwrap_or_else(absent)
    }
}

/// A `FLOTILLA_*` variable that nobody knows is a mistake that would otherwise go unnoticed.
fn refuse_unknown_variables(env: &Environment) -> Result<(), SettingError> {
    let known = |name: &str| {
        TABLE.iter().any(|row| row.variable() == name || row.file_variable().is_some_and(|variable| variable == name))
    };
    match env.keys().filter(|name| name.starts_with("FLOTILLA_") && !known(name)).min() {
        Some(name) => Err(SettingError::new(name, "there is no such setting")),
        None => Ok(()),
    }
}

/// An empty variable counts as absent, as it does for OpenCode.
fn from_environment(row: &Row, env: &Environment) -> Result<Option<Given>, SettingError> {
    let get = |name: String| env.get(&name).filter(|value| !value.is_empty()).map(|value| (name, value));
    let direct = get(row.variable());
    let by_file = row.file_variable().and_then(get);
    let (name, text) = match (direct, by_file) {
        (None, None) => return Ok(None),
        (Some((name, value)), None) => (name, value.clone()),
        (None, Some((name, path))) => {
            let text =
                std::fs::read_to_string(path).map_err(|error| SettingError::new(&name, format!("{path}: {error}")))?;
            (name, text.trim_end_matches(['\r', '\n']).to_owned())
        }
        (Some((name, _)), Some((file, _))) => return Err(SettingError::new(name, format!("{file} is given, too"))),
    };
    let texts = match row.kind {
        Kind::Many => {
            text.split([',', '\n']).map(str::trim).filter(|part| !part.is_empty()).map(str::to_owned).collect()
        }
        Kind::One | Kind::Switch => vec![text],
    };
    Ok(Some(Given { texts, origin: Origin::Variable(name) }))
}

fn default(row: &Row, scope: Scope, env: &Environment) -> Result<Given, SettingError> {
    let text = match (row.fallback, scope) {
        (Fallback::Nothing, _) => None,
        (Fallback::Fixed(text), _) => Some(text.to_owned()),
        (Fallback::Port, Scope::Up) => Some("4096".to_owned()),
        (Fallback::Port, _) => Some("0".to_owned()),
        (Fallback::DataHome, _) => Some(data_home(env)?),
        (Fallback::WorkingDirectory, _) => Some(working_directory()?),
    };
    Ok(Given { texts: text.into_iter().collect(), origin: Origin::Default(row.name) })
}

fn working_directory() -> Result<String, SettingError> {
    let wrong = |reason: String| SettingError::new("--directory", reason);
    let here = std::env::current_dir().map_err(|error| wrong(error.to_string()))?;
    here.into_os_string().into_string().map_err(|here| wrong(format!("{} is not text", here.display())))
}

fn data_home(env: &Environment) -> Result<String, SettingError> {
    let get = |name: &str| env.get(name).filter(|path| Path::new(path).is_absolute());
    match (get("XDG_DATA_HOME"), get("HOME")) {
        (Some(data), _) => Ok(format!("{data}/flotilla")),
        (None, Some(home)) => Ok(format!("{home}/.local/share/flotilla")),
        (None, None) => Err(SettingError::new("--data-dir", "is required, because HOME is not set")),
    }
}

/// The settings of the TOML file by key: of the one that was named, else of the first usual one that there is.
fn read_file(flags: &Flags, env: &Environment) -> Result<HashMap<String, Given>, SettingError> {
    let named = match flags.get("config").and_then(|texts| texts.first()) {
        Some(path) => Some((Origin::Flag("config"), path.clone())),
        None => {
            let variable = env.get("FLOTILLA_CONFIG").filter(|path| !path.is_empty());
            variable.map(|path| (Origin::Variable("FLOTILLA_CONFIG".to_owned()), path.clone()))
        }
    };
    let (path, text) = match named {
        Some((origin, path)) => {
            let text = std::fs::read_to_string(&path)
                .map_err(|error| SettingError::new(origin, format!("{path}: {error}")))?;
            (path, text)
        }
        None => match USUAL_FILES.iter().find(|path| Path::new(path).exists()) {
            None => return Ok(HashMap::new()),
            Some(path) => {
                let text = std::fs::read_to_string(path).map_err(|error| SettingError::new(path, error))?;
                ((*path).to_owned(), text)
            }
        },
    };
    parse_file(Path::new(&path), &text)
}

fn parse_file(path: &Path, text: &str) -> Result<HashMap<String, Given>, SettingError> {
    let table: toml::Table = text.parse().map_err(|error: toml::de::Error| {
        let line =
            error.span().and_then(|span| text.get(..span.start)).map_or(1, |before| before.matches('\n').count() + 1);
        SettingError::new(format!("{} line {line}", path.display()), error.message())
    })?;
    let mut values = HashMap::new();
    for (key, value) in table {
        let origin = Origin::File(key.clone(), path.to_owned());
        let row = TABLE.iter().find(|row| row.place == Place::Everywhere && row.key().as_ref() == Some(&key));
        let Some(row) = row else { return Err(SettingError::new(origin, "there is no such setting")) };
        let texts = match value {
            toml::Value::Array(values) if row.kind == Kind::Many => values.into_iter().map(scalar).collect(),
            value => scalar(value).map(|text| vec![text]),
        };
        let Some(texts) = texts else { return Err(SettingError::new(origin, "is of the wrong type")) };
        values.insert(key, Given { texts, origin });
    }
    Ok(values)
}

fn scalar(value: toml::Value) -> Option<String> {
    match value {
        toml::Value::String(text) => Some(text),
        toml::Value::Integer(number) => Some(number.to_string()),
        toml::Value::Boolean(on) => Some(on.to_string()),
        _ => None,
    }
}
