//! Looking for processes that should be gone.

use std::path::Path;
use std::time::{Duration, Instant};

/// Every process whose working directory is `directory` or below it: its id and its command line.
pub fn processes_in(directory: &Path) -> Vec<(u32, String)> {
    let Ok(directory) = directory.canonicalize() else { return Vec::new() };
    let Ok(processes) = std::fs::read_dir("/proc") else { return Vec::new() };
    processes
        .flatten()
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse::<u32>().ok()?, entry.path())))
        .filter(|(_, path)| std::fs::read_link(path.join("cwd")).is_ok_and(|cwd| cwd.starts_with(&directory)))
        .map(|(id, path)| {
            let line = std::fs::read(path.join("cmdline")).unwrap_or_default();
            (id, String::from_utf8_lossy(&line).replace('\0', " ").trim().to_string())
        })
        .collect()
}

/// Waits, without an async runtime, until no process works in `directory`; returns those that stayed.
pub fn still_in(directory: &Path, bound: Duration) -> Vec<(u32, String)> {
    let began = Instant::now();
    loop {
        let left = processes_in(directory);
        if left.is_empty() || began.elapsed() > bound {
            return left;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}
