//! The real server, unmodified: `opencode serve`.

use std::path::Path;
use std::time::Duration;

use crate::install::ALONE;
use crate::process::{Launch, Process};

/// How long a server may take until it says that it listens.
const START_BOUND: Duration = Duration::from_secs(60);

/// A running `opencode serve`. Dropping it ends it.
#[derive(Debug)]
pub struct Opencode {
    url: String,
    process: Process,
}

impl Opencode {
    /// Starts the program on a free port, with this home and working directory, and waits until it says that it listens.
    ///
    /// # Errors
    /// It ended, or said nothing of it in a minute; the text holds what it wrote.
    pub async fn serve(program: &Path, home: &Path, directory: &Path) -> anyhow::Result<Self> {
        let port = crate::polling::free_port();
        let mut launch = Launch::new("opencode", program)
            .args(["serve", "--hostname", "127.0.0.1", "--port", &port.to_string()])
            .args(["--print-logs", "--log-level", "ERROR"])
            .directory(directory)
            .env("HOME", home.to_string_lossy())
            .env("OPENCODE_DISABLE_LSP_DOWNLOAD", "1");
        launch.env.extend(ALONE.map(|(key, value)| (key.to_string(), value.to_string())));
        let mut process = launch.start();
        let pick = |line: &str| Some(line.split("listening on ").nth(1)?.trim().to_string());
        let url = process.wait_line(START_BOUND, pick).await?;
        Ok(Self { url, process })
    }

    /// The address: `http://127.0.0.1:PORT`.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// What it logged so far (the newest half megabyte).
    pub fn stderr(&self) -> String {
        self.process.stderr()
    }
}
