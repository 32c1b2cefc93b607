//! The processes below this one, as `/proc` shows them.

use rustix::process::{Pid, PidfdFlags, Signal, getpid, getuid, pidfd_open, pidfd_send_signal};
use std::collections::HashMap;
use std::fs;

/// A process.
pub(crate) struct Process {
    pub pid: Pid,
    /// Its process group.
    pub group: Option<Pid>,
    parent: i32,
    /// When it began, in ticks since the machine did.
    began: u64,
    /// Bytes of memory that it has at the moment; what it shares with others is counted for each of them.
    resident: u64,
}

/// What a family has at the moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Use {
    pub processes: u64,
    pub resident: u64,
}

/// All processes below this one: its children first, then theirs, and so on. Looked up in every process's parent, since not
/// every kernel lists children.
pub(crate) fn below() -> Vec<Process> {
    let mut by_parent: HashMap<i32, Vec<Process>> = HashMap::new();
    for process in all() {
        by_parent.entry(process.parent).or_default().push(process);
    }
    let mut found = by_parent.remove(&getpid().as_raw_nonzero().get()).unwrap_or_default();
    let mut at = 0;
    while let Some(process) = found.get(at) {
        let theirs = by_parent.remove(&process.pid.as_raw_nonzero().get());
        found.extend(theirs.into_iter().flatten());
        at += 1;
    }
    found
}

/// What all processes below this one have together.
pub(crate) fn in_use() -> Use {
    let family = below();
    Use { processes: family.len() as u64, resident: family.iter().map(|process| process.resident).sum() }
}

/// Tasks of this process's user, as the kernel counts them against its limit.
pub(crate) fn tasks_of_user() -> u64 {
    let own = getuid().as_raw();
    let Ok(processes) = fs::read_dir("/proc") else { return 0 };
    let status = processes.flatten().filter_map(|entry| {
        let is_process = entry.file_name().to_str()?.parse::<u32>().is_ok();
        is_process.then(|| fs::read_to_string(entry.path().join("status")).ok()).flatten()
    });
    let field = |status: &str, name: &str| -> Option<u64> {
        status.lines().find_map(|line| line.strip_prefix(name)?.split_whitespace().next()?.parse().ok())
    };
    let own = status.filter(|status| field(status, "Uid:") == Some(u64::from(own)));
    own.map(|status| field(&status, "Threads:").unwrap_or(1)).sum()
}

impl Process {
    /// Whether it is a child of this process: then its number cannot pass to a stranger before it is reaped.
    pub(crate) fn is_child(&self) -> bool {
        self.parent == getpid().as_raw_nonzero().get()
    }

    /// Kills it, and nobody who has got its number meanwhile.
    pub(crate) fn kill(&self) {
        let Ok(handle) = pidfd_open(self.pid, PidfdFlags::empty()) else { return };
        // The handle is of whoever bears the number now. If that began when this one did, it is this one.
        if self.is_child() || read(self.pid, 1).is_some_and(|now| now.began == self.began) {
            let _ = pidfd_send_signal(&handle, Signal::KILL);
        }
    }
}

fn all() -> Vec<Process> {
    let Ok(processes) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = processes.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok().and_then(Pid::from_raw));
    let page = rustix::param::page_size() as u64;
    pids.filter_map(|pid| read(pid, page)).collect()
}

fn read(pid: Pid, page: u64) -> Option<Process> {
    parse(pid, &fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).ok()?, page)
}

/// From `/proc/<pid>/stat`, whose second field, a name in parentheses, may hold anything. `None` for a process that was
/// reaped while its file was read: its group is shown as -1.
fn parse(pid: Pid, stat: &str, page: u64) -> Option<Process> {
    let (_, behind_name) = stat.rsplit_once(')')?;
    let mut fields = behind_name.split_whitespace().skip(1);
    let parent = fields.next()?.parse().ok()?;
    let group = Pid::from_raw(fields.next()?.parse().ok().filter(|group| *group >= 0)?);
    let began = fields.nth(16)?.parse().ok()?;
    let pages: u64 = fields.nth(1)?.parse().unwrap_or_default();
    Some(Process { pid, group, parent, began, resident: pages * page })
}

/// What the whole machine has at the moment: much cheaper to read than what a family has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Machine {
    /// Threads of all processes.
    pub tasks: u64,
    /// Bytes of memory that can still be had.
    pub available: u64,
}

impl Machine {
    pub(crate) fn look() -> Self {
        let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
        let tasks = load.split_whitespace().nth(3).and_then(|field| field.split_once('/')?.1.parse().ok());
        let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let available = memory.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
        let available = available.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
        Self { tasks: tasks.unwrap_or_default(), available: available.unwrap_or_default() * 1024 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_was_reaped_while_its_file_was_read_is_none() {
        let pid = getpid();
        let stat = fs::read_to_string("/proc/self/stat").unwrap();
        assert!(parse(pid, &stat, 1).is_some_and(|own| own.group.is_some() && own.resident > 0));
        let reaped =
            "29016 (a (name) Z) X 0 -1 -1 0 -1 4227084 98 0 0 0 0 0 0 0 20 0 0 0 2349830 0 0 18446744073709551615 0 0";
        assert!(parse(pid, reaped, 1).is_none());
        let of_the_kernel =
            "2 (kthreadd) S 0 0 0 0 -1 2129984 0 0 0 0 0 1 0 0 20 0 1 0 31 0 0 18446744073709551615 0 0";
        assert!(parse(pid, of_the_kernel, 1).is_some_and(|process| process.group.is_none()));
    }
}
