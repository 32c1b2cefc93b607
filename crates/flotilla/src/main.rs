//! The binary: arguments, settings, choice of backends, signals, ordered shutdown.

mod cli;
#[cfg(debug_assertions)]
mod failpoints;
mod health;
mod import;
mod lines;
mod listen;
mod logging;
mod serve;
mod settings;
mod system;
mod telemetry;
mod up;

use crate::cli::Request;
use crate::settings::{Environment, FleetSettings, ImportSettings, SettingError, Settings, Sources, table::Scope};
use crate::telemetry::Telemetry;
use rustix::process::{Resource, getrlimit, setrlimit};
use std::env;
use std::future::Future;
use std::process::ExitCode;
use tokio::runtime::Builder;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // Processes that Flotilla starts of itself come first: they must have one thread only.
    let mut args = env::args_os().skip(1);
    match args.next().as_deref().and_then(|word| word.to_str()) {
        Some("supervise") => return sandbox::supervisor::main(args),
        Some(up::tether::WORD) => return up::tether::main(args),
        Some(up::caretaker::WORD) => return up::caretaker::main(args),
        _ => {}
    }
    let request = match cli::parse(env::args_os()) {
        Ok(request) => request,
        Err(code) => return code,
    };
    match run(request) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("flotilla: {}", format!("{error:#}").replace('\n', " "));
            ExitCode::FAILURE
        }
    }
}

fn run(request: Request) -> anyhow::Result<()> {
    // An error means that there is a provider already, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    match request {
        Request::Serve(flags) => {
            let settings = Settings::load(&flags, environment()?)?;
            let telemetry = Telemetry::start(&settings.environment)?;
            logging::start(settings.log_format, settings.log_level, telemetry.tracer());
            spare_memory();
            close_to_others();
            raise_open_files();
            let mut runtime = Builder::new_multi_thread();
            runtime.max_blocking_threads(BLOCKING_THREADS);
            let ended = block_on(runtime, serve::run(settings));
            telemetry.end();
            ended
        }
        Request::Up(flags) => {
            let settings = FleetSettings::load(&flags, environment()?)?;
            // Nothing of the fleet's own is traced: each replica exports by itself.
            let telemetry = Telemetry::start(&Environment::new())?;
            logging::start(settings.each.log_format, settings.each.log_level, telemetry.tracer());
            raise_open_files();
            // Its children die with the thread that started them: with one thread that is the process.
            block_on(Builder::new_current_thread(), up::run(settings))
        }
        Request::Config(flags) => {
            let environment = environment()?;
            let sources = Sources::merge(Scope::Serve, &flags, &environment)?;
            Settings::load(&flags, environment)?;
            print!("{}", settings::show(&sources));
            Ok(())
        }
        Request::Import(flags, files) => import::run(&ImportSettings::load(&flags, &environment()?)?, &files),
        Request::Health(url) => block_on(Builder::new_current_thread(), health::check(&url)),
    }
}

/// Threads for what blocks on the store: enough to keep a disk busy, few enough not to fight for the cores.
const BLOCKING_THREADS: usize = 32;

/// Huge pages under thousands of small, short-lived allocations multiply the resident memory. A kernel that does not know
/// the switch leaves it as it is.
fn spare_memory() {
    if let Err(error) = rustix::thread::disable_transparent_huge_pages(true) {
        tracing::debug!(%error, "transparent huge pages stay on");
    }
}

/// Commands run as the same user. They must not read the server's secrets where the kernel shows environment and memory
/// of a process to its user; nothing helps against root. The price: no core dumps, no debugger without rights.
fn close_to_others() {
    if let Err(error) = rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable) {
        tracing::warn!(%error, "other processes of this user can read the environment of this one");
    }
}

/// Event streams are open files, two for each in a balancer. A limit that can't be raised is not worth a word.
fn raise_open_files() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    let _ = setrlimit(Resource::Nofile, limit);
}

fn block_on(mut runtime: Builder, work: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    runtime.enable_all().build()?.block_on(work)
}

/// The environment. Variables that are not text can only be somebody else's, unless they bear our name.
fn environment() -> Result<Environment, SettingError> {
    let mut environment = Environment::new();
    for (name, value) in env::vars_os() {
        match (name.into_string(), value.into_string()) {
            (Ok(name), Ok(value)) => drop(environment.insert(name, value)),
            (Ok(name), Err(_)) if name.starts_with("FLOTILLA_") => return Err(SettingError::new(name, "is not text")),
            _ => {}
        }
    }
    Ok(environment)
}
