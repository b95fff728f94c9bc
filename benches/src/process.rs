//! What a process weighs, as `/proc` says it.

/// One process, from `/proc`. What is gone weighs nothing.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Process {
    /// Resident.
    pub(crate) rss_mib: f64,
    /// Resident and not of a file.
    pub(crate) anon_mib: f64,
    /// Open descriptors.
    pub(crate) fds: f64,
    /// Threads.
    pub(crate) threads: f64,
    /// Processor time since its start, in hundredths of a second.
    pub(crate) cpu_s: f64,
}

impl Process {
    /// The process of this number; of none, nothing.
    pub(crate) fn of(pid: Option<u32>) -> Self {
        let Some(pid) = pid else { return Self::default() };
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            line.and_then(|rest| rest.split_whitespace().next()?.parse::<f64>().ok()).unwrap_or_default()
        };
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // utime and stime, in ticks of 10 ms; the name in field 2 ends with the last `)`.
        let ticks: f64 = stat.rsplit_once(')').map_or(0.0, |(_, rest)| {
            rest.split_whitespace().skip(11).take(2).filter_map(|field| field.parse::<f64>().ok()).sum()
        });
        let fds = std::fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count);
        Self {
            rss_mib: field("VmRSS") / 1_024.0,
            anon_mib: field("RssAnon") / 1_024.0,
            fds: fds as f64,
            threads: field("Threads"),
            cpu_s: ticks / 100.0,
        }
    }
}
