//! Where the programs of other people are.

use anyhow::Context;
use std::env;
use std::path::PathBuf;

/// Debian keeps servers here, which is not in every user's `PATH`.
const ALSO: [&str; 3] = ["/usr/local/sbin", "/usr/sbin", "/sbin"];

/// The file of this program. The error is one line that tells how to install it.
pub fn find(program: &str) -> anyhow::Result<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(ALSO.map(PathBuf::from))
        .map(|directory| directory.join(program))
        .find(|file| file.is_file())
        .with_context(|| format!("{program} is not installed; run: apt-get install -y redis-server nginx"))
}
