//! The nginx of a local fleet.

use super::program::Program;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The configuration that is used everywhere; it has two places to fill in.
const TEMPLATE: &str = include_str!("../../../../deploy/nginx.conf");

/// How nginx is started in front of the replicas at these ports. Writes its configuration into `run_dir`.
pub fn program(file: PathBuf, run_dir: &Path, port: u16, replicas: &[u16]) -> std::io::Result<Program> {
    let config = run_dir.join("nginx.conf");
    std::fs::write(&config, render(port, replicas))?;
    // In one process: a master that is killed leaves its workers behind.
    let args = ["-e", "stderr", "-g", "daemon off; master_process off;", "-p"].map(Into::into);
    Ok(Program {
        name: "nginx".to_owned(),
        file,
        args: args.into_iter().chain([run_dir.into(), "-c".into(), config.into()]).collect(),
        env: Vec::new(),
        without_env: Vec::new(),
        input: String::new(),
        logs_by_itself: false,
        grace: Duration::from_secs(5),
    })
}

fn render(port: u16, replicas: &[u16]) -> String {
    let mut servers = String::new();
    for replica in replicas {
        // Writing to a string does not fail.
        let _ = write!(servers, "server 127.0.0.1:{replica} max_fails=0; ");
    }
    TEMPLATE
        .replace("${FLOTILLA_LISTEN}", &format!("127.0.0.1:{port}"))
        .replace("${FLOTILLA_SERVERS}", servers.trim_end())
}
