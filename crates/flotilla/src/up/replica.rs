//! A replica of a local fleet.

use super::program::Program;
use super::redis::Redis;
use crate::settings::FleetSettings;
use std::ffi::OsString;
use std::time::Duration;

/// How much longer than its drain a replica may take to end.
const MARGIN: Duration = Duration::from_secs(5);

/// How replica `number` is started on this port of 127.0.0.1.
///
/// It reads the same environment and TOML file as `up` did; what makes it one of the fleet comes as flags. The address of
/// Redis holds a password and goes by the environment, which other users can't see.
pub fn program(number: usize, port: u16, redis: &Redis, settings: &FleetSettings) -> std::io::Result<Program> {
    let each = &settings.each;
    let mut args: Vec<OsString> =
        ["serve", "--hostname", "127.0.0.1", "--drain-notice", "0s", "--trust-request-id", "--port"]
            .map(Into::into)
            .into();
    args.push(port.to_string().into());
    args.extend(["--data-dir".into(), each.data_dir.clone().into()]);
    args.extend(["--directory".into(), each.directory.clone().into()]);
    args.extend(["--log-format".into(), each.log_format.to_string().into()]);
    args.extend(["--log-level".into(), each.log_level.to_string().into()]);
    if each.demo {
        args.push("--demo".into());
    }
    if let Some(config) = &settings.config {
        args.extend(["--config".into(), config.into()]);
    }
    Ok(Program {
        name: format!("replica {number}"),
        file: std::env::current_exe()?,
        args,
        env: vec![("FLOTILLA_REDIS_URL".to_owned(), redis.url())],
        without_env: vec!["FLOTILLA_REDIS_URL_FILE".to_owned()],
        input: String::new(),
        logs_by_itself: true,
        grace: each.drain_deadline + MARGIN,
    })
}
