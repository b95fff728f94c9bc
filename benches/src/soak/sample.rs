//! What a daemon weighs while it works: its process and its runner's, its database, its logs, and what its users felt meanwhile.

use std::path::Path;

use super::book::Counts;
use crate::process::Process;

/// Bytes in a MiB.
const MIB: f64 = 1_048_576.0;

/// Names of the columns, in the order of [`Sample::values`].
pub(crate) const COLUMNS: [&str; 22] = [
    "seconds",
    "crashes",
    "daemon_rss_mib",
    "daemon_anon_mib",
    "daemon_fds",
    "daemon_threads",
    "daemon_cpu_s",
    "runner_rss_mib",
    "runner_fds",
    "runner_threads",
    "runner_cpu_s",
    "database_mib",
    "wal_mib",
    "runner_dir_mib",
    "log_files",
    "log_mib",
    "acknowledged",
    "finished",
    "submit_p50_ms",
    "submit_p99_ms",
    "read_p50_ms",
    "read_p99_ms",
];

fn mib(path: &Path) -> f64 {
    std::fs::metadata(path).map_or(0.0, |meta| meta.len() as f64 / MIB)
}

/// Files in a folder, and MiB that they hold.
fn folder(path: &Path) -> (f64, f64) {
    let Ok(entries) = std::fs::read_dir(path) else { return (0.0, 0.0) };
    entries
        .filter_map(|entry| entry.ok()?.metadata().ok())
        .fold((0.0, 0.0), |(files, size), meta| (files + 1.0, size + meta.len() as f64 / MIB))
}

/// One row.
#[derive(Clone, Debug)]
pub(crate) struct Sample([f64; COLUMNS.len()]);

impl Sample {
    /// Weighs now. The latencies are p50 and p99 of submits, then of reads, in ms.
    pub(crate) fn take(
        seconds: f64,
        crashes: u32,
        pids: (Option<u32>, Option<u32>),
        data: &Path,
        counts: Counts,
        latencies: [f64; 4],
    ) -> Self {
        let (daemon, runner) = (Process::of(pids.0), Process::of(pids.1));
        let (log_files, log_mib) = folder(&data.join("logs"));
        let (_, runner_dir) = folder(&data.join("runner"));
        Self([
            seconds,
            f64::from(crashes),
            daemon.rss_mib,
            daemon.anon_mib,
            daemon.fds,
            daemon.threads,
            daemon.cpu_s,
            runner.rss_mib,
            runner.fds,
            runner.threads,
            runner.cpu_s,
            mib(&data.join("flash.db")),
            mib(&data.join("flash.db-wal")),
            runner_dir,
            log_files,
            log_mib,
            counts.acknowledged as f64,
            counts.finished as f64,
            latencies[0],
            latencies[1],
            latencies[2],
            latencies[3],
        ])
    }

    /// The values, in the order of [`COLUMNS`].
    pub(crate) fn values(&self) -> &[f64] {
        &self.0
    }

    /// The value of a column.
    pub(crate) fn get(&self, column: &str) -> f64 {
        COLUMNS.iter().position(|name| *name == column).map_or(f64::NAN, |index| self.0[index])
    }
}

/// Least squares of a column over time: what it grows by in an hour.
pub(crate) fn slope_per_hour(samples: &[Sample], column: &str) -> f64 {
    let points: Vec<(f64, f64)> = samples.iter().map(|sample| (sample.get("seconds") / 3_600.0, sample.get(column))).collect();
    let count = points.len().max(1) as f64;
    let (mean_x, mean_y) = points.iter().fold((0.0, 0.0), |(x, y), point| (x + point.0 / count, y + point.1 / count));
    let (over, under) = points
        .iter()
        .fold((0.0, 0.0), |(over, under), (x, y)| (over + (x - mean_x) * (y - mean_y), under + (x - mean_x) * (x - mean_x)));
    if under > 0.0 { over / under } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::{COLUMNS, Sample, slope_per_hour};

    #[test]
    fn a_line_has_its_slope_and_noise_has_none() {
        let row = |minute: u32, value: f64| {
            let mut values = [0.0; COLUMNS.len()];
            values[0] = f64::from(minute) * 60.0;
            values[2] = value;
            Sample(values)
        };
        let line: Vec<Sample> = (0..30).map(|minute| row(minute, 100.0 + f64::from(minute))).collect();
        assert!((slope_per_hour(&line, "daemon_rss_mib") - 60.0).abs() < 1e-6);
        let flat: Vec<Sample> = (0..30).map(|minute| row(minute, if minute % 2 == 0 { 99.0 } else { 101.0 })).collect();
        assert!(slope_per_hour(&flat, "daemon_rss_mib").abs() < 1.0);
        assert!(slope_per_hour(&[], "daemon_rss_mib").abs() < f64::EPSILON);
    }
}
