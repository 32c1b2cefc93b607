//! From the text of a setting to its value. No error repeats the text of a secret.

use super::error::SettingError;
use super::secret::Secret;
use super::sources::Given;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

/// The port to listen on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Port {
    /// 4096 if it is free, else any.
    Any,
    /// This one; the start fails if it is taken.
    Exactly(u16),
}

fn wrong<T>(given: &Given, reason: impl ToString) -> Result<T, SettingError> {
    Err(SettingError::new(&given.origin, reason))
}

/// The one text of a setting that has a value in any case.
pub fn text(given: &Given) -> Result<String, SettingError> {
    match given.texts.as_slice() {
        [text] if !text.is_empty() => Ok(text.clone()),
        [] | [_] => wrong(given, "must not be empty"),
        _ => wrong(given, "takes one value"),
    }
}

/// One of a few words.
pub fn choice<T: Copy>(given: &Given, choices: &[(&str, T)]) -> Result<T, SettingError> {
    let text = text(given)?;
    match choices.iter().find(|(word, _)| *word == text) {
        Some((_, value)) => Ok(*value),
        None => {
            let words: Vec<_> = choices.iter().map(|(word, _)| *word).collect();
            wrong(given, format!("\"{text}\" is none of {}", words.join(", ")))
        }
    }
}

/// On or off.
pub fn switch(given: &Given) -> Result<bool, SettingError> {
    choice(given, &[("true", true), ("false", false), ("1", true), ("0", false)])
}

/// A port number.
pub fn port(given: &Given) -> Result<Port, SettingError> {
    let text = text(given)?;
    match text.parse() {
        Ok(0) => Ok(Port::Any),
        Ok(port) => Ok(Port::Exactly(port)),
        Err(_) => wrong(given, format!("\"{text}\" is not a port (0 to 65535)")),
    }
}

/// A number between two bounds.
pub fn number(given: &Given, bounds: std::ops::RangeInclusive<usize>) -> Result<usize, SettingError> {
    let text = text(given)?;
    match text.parse() {
        Ok(number) if bounds.contains(&number) => Ok(number),
        _ => wrong(given, format!("\"{text}\" is not a number from {} to {}", bounds.start(), bounds.end())),
    }
}

/// A time with its unit. A day is the longest that makes sense for any setting here.
pub fn duration(given: &Given) -> Result<Duration, SettingError> {
    let text = text(given)?;
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match &text[digits.len()..] {
        "ms" => Some(1),
        "s" => Some(1_000),
        "m" => Some(60_000),
        "h" => Some(3_600_000),
        _ => None,
    };
    let millis = digits.parse().ok().zip(unit).and_then(|(count, unit): (u64, u64)| count.checked_mul(unit));
    match millis {
        Some(millis) if millis <= 24 * 3_600_000 => Ok(Duration::from_millis(millis)),
        Some(_) => wrong(given, format!("\"{text}\" is more than a day")),
        None => wrong(given, format!("\"{text}\" is not a time such as 500ms, 15s or 2m")),
    }
}

/// A number of bytes with its unit.
pub fn size(given: &Given) -> Result<u64, SettingError> {
    let text = text(given)?;
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let shift = match &text[digits.len()..] {
        "KiB" => Some(10),
        "MiB" => Some(20),
        "GiB" => Some(30),
        "TiB" => Some(40),
        _ => None,
    };
    let bytes = digits.parse().ok().zip(shift).and_then(|(count, shift): (u64, u32)| count.checked_mul(1 << shift));
    match bytes {
        Some(bytes) if bytes > 0 => Ok(bytes),
        _ => wrong(given, format!("\"{text}\" is not a size such as 512MiB or 8GiB")),
    }
}

/// An absolute path; relative ones begin where the process was started.
pub fn path(given: &Given) -> Result<PathBuf, SettingError> {
    let text = text(given)?;
    std::path::absolute(&text).or_else(|error| wrong(given, format!("{text}: {error}")))
}

/// The absolute path of a directory that exists, without symbolic links: clients compare directories as text.
pub fn directory(given: &Given) -> Result<PathBuf, SettingError> {
    let path = path(given)?;
    match path.canonicalize() {
        Ok(real) if real.is_dir() => Ok(real),
        Ok(_) => wrong(given, format!("{} is not a directory", path.display())),
        Err(error) => wrong(given, format!("{}: {error}", path.display())),
    }
}

/// The schemes of addresses of one Redis server.
const SERVER: [&str; 4] = ["redis://", "rediss://", "redis+unix://", "unix://"];
/// The schemes of addresses of sentinels.
const SENTINELS: [&str; 2] = ["redis+sentinel://", "rediss+sentinel://"];

fn begins_with(text: &str, schemes: &[&str]) -> bool {
    schemes.iter().any(|scheme| text.starts_with(scheme))
}

/// The address of a Redis server, or of the sentinels that know where it is.
pub fn redis_url(given: &Given) -> Result<Option<Secret>, SettingError> {
    match given.texts.as_slice() {
        [] => Ok(None),
        [text] if begins_with(text, &SERVER) || begins_with(text, &SENTINELS) => Ok(Some(Secret::from(text.as_str()))),
        _ => wrong(given, "is not an address such as redis://HOST:6379 or redis+sentinel://HOST:26379,HOST:26379/NAME"),
    }
}

/// Addresses of Redis servers. Each is one server: a lock's majority is of servers that know nothing of each other.
pub fn redis_servers(given: &Given) -> Result<Vec<Secret>, SettingError> {
    if given.texts.iter().any(|text| begins_with(text, &SENTINELS)) {
        wrong(given, "names sentinels: each lock master is one server")
    } else if given.texts.iter().all(|text| begins_with(text, &SERVER)) {
        Ok(given.texts.iter().map(|text| Secret::from(text.as_str())).collect())
    } else {
        wrong(given, "is not an address such as redis://HOST:6379")
    }
}

/// The text of a file of certificates in PEM.
pub fn certificates(given: &Given) -> Result<Option<String>, SettingError> {
    if given.texts.is_empty() {
        return Ok(None);
    }
    let path = path(given)?;
    match std::fs::read_to_string(&path) {
        Ok(pem) if pem.contains("-----BEGIN CERTIFICATE-----") => Ok(Some(pem)),
        Ok(_) => wrong(given, format!("{} holds no certificate in PEM", path.display())),
        Err(error) => wrong(given, format!("{}: {error}", path.display())),
    }
}

/// A name that can stand in front of every key.
pub fn prefix(given: &Given) -> Result<String, SettingError> {
    let text = text(given)?;
    if text.len() <= 64 && text.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c)) {
        Ok(text)
    } else {
        wrong(given, "may hold letters, digits, dots, dashes and underscores, 64 at most")
    }
}

/// Web origins.
pub fn origins(given: &Given) -> Result<Vec<String>, SettingError> {
    match given
        .texts
        .iter()
        .find(|text| text.split_once("://").is_none_or(|(_, host)| host.is_empty() || host.contains('/')))
    {
        Some(text) => wrong(given, format!("\"{text}\" is not an origin such as https://example.com")),
        None => Ok(given.texts.clone()),
    }
}

/// Ranges of IP addresses.
pub fn networks(given: &Given) -> Result<Vec<tools::Network>, SettingError> {
    let parsed = given.texts.iter().map(|text| text.parse().or_else(|why| wrong(given, format!("\"{text}\" {why}"))));
    parsed.collect()
}

/// Whether only this machine can connect. A name other than `localhost` may resolve to anything.
pub fn is_loopback(hostname: &str) -> bool {
    hostname == "localhost" || hostname.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}
