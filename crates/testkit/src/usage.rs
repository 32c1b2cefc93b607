//! What a process takes of the machine, by `/proc`.

/// What a process takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// Bytes of memory that are its own and resident now.
    pub resident: u64,
    /// The most that were resident since the last [`forget_peak`].
    pub peak: u64,
    /// Open files, connections among them; nothing where only root may count them.
    pub files: Option<usize>,
}

/// What the process takes now.
///
/// # Panics
/// When it is gone.
pub fn of(process: u32) -> Usage {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).expect("the process lives");
    let bytes = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("Linux tells it");
        line.trim_start_matches(':').trim().trim_end_matches(" kB").parse::<u64>().expect("a number") * 1024
    };
    // A replica is closed to others: its files are root's to see.
    let files = std::fs::read_dir(format!("/proc/{process}/fd")).ok().map(Iterator::count);
    Usage { resident: bytes("VmRSS"), peak: bytes("VmHWM"), files }
}

/// Begins the peak anew, where one may; else it is that of the whole life.
pub fn forget_peak(process: u32) {
    let _closed_to_others = std::fs::write(format!("/proc/{process}/clear_refs"), "5");
}
