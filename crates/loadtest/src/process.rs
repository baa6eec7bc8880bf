//! Processor time and memory of processes and of the machine, read from `/proc`. Linux only.

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

/// The same for user space on all common architectures.
const TICKS_PER_SECOND: u64 = 100;

/// The processor time of the whole machine since it was started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MachineTime {
    /// Including stolen time.
    pub(crate) busy: Duration,
    pub(crate) total: Duration,
}

/// The parts of `/proc/PID/stat` that are used here.
#[derive(Debug, PartialEq, Eq)]
struct ProcessStat {
    parent: u32,
    user: u64,
    system: u64,
    /// Time of children that have ended and were waited for.
    children: u64,
}

/// Returns the user and system time of this process, without that of its children.
pub(crate) fn own_cpu_time() -> Option<Duration> {
    let stat = ProcessStat::parse(&std::fs::read_to_string("/proc/self/stat").ok()?)?;
    Some(from_ticks(stat.user + stat.system))
}

/// Returns the processor time of a process with all its descendants. The time of descendants that have ended is part of their
/// parents' time, so the difference of two readings is exact for services that wait for their children.
pub(crate) fn tree_cpu_time(root: u32) -> Duration {
    let stats = all_stats();
    let ticks = tree(root, &stats)
        .into_iter()
        .filter_map(|pid| stats.get(&pid))
        .map(|stat| stat.user + stat.system + stat.children)
        .sum();
    from_ticks(ticks)
}

/// Returns the present memory of a process with all its descendants, in MB. Shared pages count once, by their share (PSS).
pub(crate) fn tree_memory_mb(root: u32) -> u64 {
    let kilobytes: u64 = tree(root, &all_stats())
        .into_iter()
        .filter_map(|pid| read_kilobytes(&format!("/proc/{pid}/smaps_rollup"), "Pss:"))
        .sum();
    kilobytes / 1024
}

/// Returns the peak memory of a single process, in MB.
pub(crate) fn peak_memory_mb(pid: u32) -> u64 {
    read_kilobytes(&format!("/proc/{pid}/status"), "VmHWM:").unwrap_or(0) / 1024
}

impl MachineTime {
    /// Returns the present reading, or `None` where there is no `/proc`.
    pub(crate) fn now() -> Option<MachineTime> {
        MachineTime::parse(&std::fs::read_to_string("/proc/stat").ok()?)
    }

    fn parse(stat: &str) -> Option<MachineTime> {
        let mut fields = stat.lines().next()?.strip_prefix("cpu ")?.split_ascii_whitespace();
        let mut next = || fields.next()?.parse::<u64>().ok();
        let (user, nice, system, idle, io_wait) = (next()?, next()?, next()?, next()?, next()?);
        let (interrupts, soft_interrupts, stolen) = (next()?, next()?, next()?);
        let busy = user + nice + system + interrupts + soft_interrupts + stolen;
        Some(MachineTime { busy: from_ticks(busy), total: from_ticks(busy + idle + io_wait) })
    }
}

impl ProcessStat {
    fn parse(stat: &str) -> Option<ProcessStat> {
        // The name, in parentheses, may contain anything. It is the second field; the state is the third, the parent the
        // fourth, and utime, stime, cutime and cstime are fields 14 to 17.
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_ascii_whitespace().collect();
        let ticks = |index: usize| fields.get(index)?.parse::<u64>().ok();
        Some(ProcessStat {
            parent: fields.get(1)?.parse().ok()?,
            user: ticks(11)?,
            system: ticks(12)?,
            children: ticks(13)? + ticks(14)?,
        })
    }
}

/// Reads the state of all processes. One that ends meanwhile is missing.
fn all_stats() -> HashMap<u32, ProcessStat> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter_map(|pid| Some((pid, read_stat(pid)?))).collect()
}

fn read_stat(pid: u32) -> Option<ProcessStat> {
    ProcessStat::parse(&std::fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("stat")).ok()?)
}

/// Returns a process and all its descendants.
fn tree(root: u32, stats: &HashMap<u32, ProcessStat>) -> Vec<u32> {
    let mut members = vec![root];
    let mut next = 0;
    while let Some(parent) = members.get(next).copied() {
        members.extend(stats.iter().filter(|(_, stat)| stat.parent == parent).map(|(pid, _)| *pid));
        next += 1;
    }
    members
}

fn read_kilobytes(file: &str, key: &str) -> Option<u64> {
    kilobytes(&std::fs::read_to_string(file).ok()?, key)
}

fn kilobytes(text: &str, key: &str) -> Option<u64> {
    let value = text.lines().find_map(|line| line.strip_prefix(key))?;
    value.trim().strip_suffix("kB")?.trim().parse().ok()
}

fn from_ticks(ticks: u64) -> Duration {
    Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stat_of(parent: u32) -> ProcessStat {
        ProcessStat { parent, user: 1, system: 2, children: 4 }
    }

    #[test]
    fn a_name_may_contain_spaces_and_parentheses() {
        let stat = "42 (a) (b c) S 7 42 42 0 -1 4194304 100 0 0 0 11 22 33 44 20 0 1 0 5000 1000 10";
        let expected = ProcessStat { parent: 7, user: 11, system: 22, children: 77 };
        assert_eq!(ProcessStat::parse(stat), Some(expected));
        assert_eq!(ProcessStat::parse("42 (a) S 7"), None);
    }

    #[test]
    fn stolen_time_is_busy_and_waiting_for_io_is_not() {
        let machine = MachineTime::parse("cpu  10 20 30 400 50 6 7 8 0 0\ncpu0 1 2 3\n").expect("a reading");
        assert_eq!((machine.busy.as_millis(), machine.total.as_millis()), (810, 5310));
        assert_eq!(MachineTime::parse("cpu  10 20"), None);
    }

    #[test]
    fn a_tree_contains_all_descendants_and_nothing_else() {
        let stats = [(1, 0), (2, 1), (3, 2), (4, 3), (5, 1), (6, 2)]
            .map(|(pid, parent)| (pid, stat_of(parent)))
            .into();
        let mut members = tree(2, &stats);
        members.sort_unstable();
        assert_eq!(members, [2, 3, 4, 6]);
        assert_eq!(tree(99, &stats), [99]);
    }

    #[test]
    fn memory_is_read_in_kilobytes() {
        let text = "Rss:   5000 kB\nPss:   1234 kB\nPss_Dirty:  7 kB\n";
        assert_eq!(kilobytes(text, "Pss:"), Some(1234));
        assert_eq!(kilobytes(text, "VmHWM:"), None);
    }

    #[test]
    fn this_process_has_times_and_memory() {
        let own = std::process::id();
        assert!(own_cpu_time().is_some() && MachineTime::now().is_some());
        assert!(
            tree_cpu_time(own) >= own_cpu_time().unwrap_or_default().saturating_sub(Duration::from_secs(1))
        );
        assert!(peak_memory_mb(own) > 0);
    }
}
