//! The command line: commands, and a flag for each row of the table of settings.

use crate::settings::Flags;
use crate::settings::table::{Fallback, Kind, Row, Scope, TABLE};
use clap::{Arg, ArgAction, ArgMatches, Command};
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

/// What the user asks for.
pub enum Request {
    /// `flotilla serve`.
    Serve(Flags),
    /// `flotilla up`.
    Up(Flags),
    /// `flotilla config`.
    Config(Flags),
    /// `flotilla import` of these files.
    Import(Flags, Vec<PathBuf>),
    /// `flotilla health` of the server at this address.
    Health(String),
}

/// Parses the command line. `Err` is the exit code when all is said: help and version went to stdout, a mistake went to
/// stderr as one line.
pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Request, ExitCode> {
    match command().try_get_matches_from(args) {
        Ok(matches) => request(&matches).ok_or(ExitCode::from(2)),
        Err(error) if error.use_stderr() => {
            let text = error.render().to_string();
            let first: Vec<_> = text.lines().map(str::trim).take_while(|line| !line.is_empty()).collect();
            eprintln!("flotilla: {}", first.join(" ").trim_start_matches("error: "));
            Err(ExitCode::from(2))
        }
        Err(error) => {
            // Nobody reads any more when stdout is closed.
            let _ = error.print();
            Err(ExitCode::SUCCESS)
        }
    }
}

fn request(matches: &ArgMatches) -> Option<Request> {
    let (name, matches) = matches.subcommand()?;
    match name {
        "serve" => Some(Request::Serve(flags(Scope::Serve, matches))),
        "config" => Some(Request::Config(flags(Scope::Serve, matches))),
        "up" => Some(Request::Up(flags(Scope::Up, matches))),
        "import" => {
            let files = matches.get_many("files").into_iter().flatten().cloned().collect();
            Some(Request::Import(flags(Scope::Import, matches), files))
        }
        "health" => matches.get_one::<String>("url").cloned().map(Request::Health),
        _ => None,
    }
}

fn command() -> Command {
    let version = format!("{} (OpenCode API {})", env!("CARGO_PKG_VERSION"), wire::OPENCODE_VERSION);
    let url = Arg::new("url").long("url").value_name("URL").default_value("http://127.0.0.1:4096");
    let files = Arg::new("files").value_name("FILE").num_args(1..).required(true);
    let files = files.value_parser(clap::value_parser!(PathBuf)).help("What `opencode export` wrote");
    Command::new("flotilla")
        .about("An OpenCode server that runs as a fleet")
        .version(version)
        .subcommand_required(true)
        .disable_help_subcommand(true)
        .subcommand(with_settings(Command::new("serve").about("Run one replica"), Scope::Serve))
        .subcommand(with_settings(
            Command::new("up").about("Run a local fleet: Redis, replicas, and nginx in front of them"),
            Scope::Up,
        ))
        .subcommand(with_settings(
            Command::new("config").about("Print the settings that `serve` would have, and where each came from"),
            Scope::Serve,
        ))
        .subcommand(
            with_settings(
                Command::new("import").about("Take in sessions that `opencode export` wrote; replicas may be at work"),
                Scope::Import,
            )
            .arg(files),
        )
        .subcommand(
            Command::new("health")
                .about("Ask a server whether it lives: exit code 0, or 1 and one line")
                .arg(url.help("The address of the server")),
        )
}

fn with_settings(command: Command, scope: Scope) -> Command {
    let after = "Each flag may also be given as FLOTILLA_<FLAG> in the environment (lists by comma), or in the TOML file \
                 (dashes become underscores). A variable that holds a secret may be replaced by <VARIABLE>_FILE. \
                 OPENCODE_SERVER_PASSWORD, OPENCODE_SERVER_USERNAME, OPENCODE_CONFIG and OPENCODE_CONFIG_CONTENT mean \
                 what they mean to OpenCode.";
    let rows = TABLE.iter().filter(|row| row.is_flag_of(scope));
    command.args(rows.map(|row| argument(row, scope))).after_help(after)
}

fn argument(row: &Row, scope: Scope) -> Arg {
    let default = match (row.fallback, scope) {
        (Fallback::Port, Scope::Up) => Some("4096"),
        (Fallback::DataHome, _) => Some("$XDG_DATA_HOME/flotilla"),
        (Fallback::Fixed(text), _) if row.kind != Kind::Switch => Some(text),
        _ => None,
    };
    let help = default.map_or_else(|| row.help.to_owned(), |text| format!("{} [default: {text}]", row.help));
    let argument = Arg::new(row.name).long(row.name).help(help);
    match row.kind {
        Kind::One => argument.value_name(row.value).action(ArgAction::Set),
        Kind::Many => argument.value_name(row.value).action(ArgAction::Append),
        Kind::Switch => argument.action(ArgAction::SetTrue),
    }
}

fn flags(scope: Scope, matches: &ArgMatches) -> Flags {
    let mut flags = Flags::new();
    for row in TABLE.iter().filter(|row| row.is_flag_of(scope)) {
        let texts: Vec<String> = match row.kind {
            Kind::Switch => matches.get_flag(row.name).then(|| "true".to_owned()).into_iter().collect(),
            Kind::One | Kind::Many => matches.get_many(row.name).into_iter().flatten().cloned().collect(),
        };
        if !texts.is_empty() {
            flags.insert(row.name, texts);
        }
    }
    flags
}
