//! What a command may use at most.

/// Resource limits of a command and of all that it starts. The core file size is always zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Open files per process.
    pub open_files: u64,
    /// Bytes of one file that a process writes; `None` leaves it unlimited.
    pub file_bytes: Option<u64>,
}

impl Default for Limits {
    fn default() -> Self {
        Self { open_files: 4096, file_bytes: None }
    }
}
