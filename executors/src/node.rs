//! What this machine has, as far as this process may use it.

use std::path::{Path, PathBuf};

/// Label of every node with its name: a machine's own, and that of a node of a cluster in our books.
pub const HOSTNAME: &str = "flash-sched.io/hostname";

/// The machine.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Machine {
    /// Its name.
    pub hostname: String,
    /// Processor time that this process and its children may use, in thousandths of a core: affinity and cgroup quota count.
    pub cpu_millis: u64,
    /// Memory in bytes: the machine's, or the limit of our cgroup if that is less. 0 if neither can be read.
    pub memory_bytes: u64,
    /// Name of this boot; empty if it cannot be read.
    pub boot_id: String,
}

/// Looks.
pub fn inventory() -> Machine {
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    Machine {
        hostname: rustix::system::uname().nodename().to_string_lossy().into_owned(),
        cpu_millis: cpus as u64 * 1_000,
        memory_bytes: memory_bytes(),
        boot_id: boot_id.trim().to_owned(),
    }
}

fn memory_bytes() -> u64 {
    let total = std::fs::read_to_string("/proc/meminfo").ok().and_then(|text| parse_meminfo(&text)).unwrap_or(0);
    let groups = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let limits = limit_files(&groups, Path::new("/sys/fs/cgroup")).into_iter();
    // "max", where there is no limit, is not a number; v1 says so with one that is larger than any machine.
    let limit = limits.filter_map(|file| std::fs::read_to_string(file).ok()?.trim().parse::<u64>().ok()).min();
    match limit {
        Some(limit) if total == 0 || limit < total => limit,
        _ => total,
    }
}

fn parse_meminfo(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1_024)
}

/// Where limits that apply to us stand: those of our cgroup and of every group above it.
fn limit_files(groups: &str, tree: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for line in groups.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(group)) = (parts.next(), parts.next()) else { continue };
        let (root, file) = match controllers {
            "" => (tree.to_owned(), "memory.max"),
            "memory" => (tree.join("memory"), "memory.limit_in_bytes"),
            _ => continue,
        };
        let group = Path::new(group.trim_start_matches('/'));
        files.extend(group.ancestors().map(|above| root.join(above).join(file)));
    }
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_something() {
        let machine = inventory();
        assert!(machine.cpu_millis >= 1_000 && machine.memory_bytes > 1 << 20, "{machine:?}");
        assert!(!machine.hostname.is_empty() && !machine.boot_id.is_empty(), "{machine:?}");
    }

    #[test]
    fn limits_of_all_groups_above_count() {
        let files = limit_files("0::/a/b\n", Path::new("/t"));
        let expected = ["/t/a/b/memory.max", "/t/a/memory.max", "/t/memory.max"];
        assert_eq!(files, expected.map(PathBuf::from));
        let files = limit_files("4:memory:/x\n3:cpu,cpuacct:/y\n", Path::new("/t"));
        assert_eq!(files, ["/t/memory/x/memory.limit_in_bytes", "/t/memory/memory.limit_in_bytes"].map(PathBuf::from));
    }

    #[test]
    fn memory_is_given_in_bytes() {
        assert_eq!(parse_meminfo("MemFree: 1 kB\nMemTotal:       16316412 kB\n"), Some(16_316_412 * 1_024));
        assert_eq!(parse_meminfo("nothing"), None);
    }
}
