//! What the machine can do at best, measured beside the daemon: nothing that it does can be faster than this.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::stats::{Latencies, per_second};

/// The `true` of this machine, named by its path so that nobody searches for it.
pub(crate) fn true_program() -> Result<&'static str> {
    ["/usr/bin/true", "/bin/true"].into_iter().find(|path| Path::new(path).is_file()).context("this machine has no `true`")
}

/// Threads that spawn `true` (std uses posix_spawn) and wait for it.
pub(crate) fn spawn(count: u32, threads: u32) -> Result<Value> {
    let program = true_program()?;
    let left = AtomicU32::new(count);
    let begun = Instant::now();
    let one_thread = || -> Result<()> {
        while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok() {
            let status = Command::new(program).status().with_context(|| format!("starting {program}"))?;
            if !status.success() {
                bail!("{program} ended with {status}");
            }
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let running: Vec<_> = (0..threads).map(|_| scope.spawn(one_thread)).collect();
        for thread in running {
            thread.join().map_err(|_| anyhow::anyhow!("a spawning thread panicked"))??;
        }
        Ok::<(), anyhow::Error>(())
    })?;
    let seconds = begun.elapsed().as_secs_f64();
    Ok(json!({"mode": "spawn", "count": count, "threads": threads, "seconds": seconds,
        "per_s": per_second(u64::from(count), seconds)}))
}

/// Appends 4 KiB and syncs the data, again and again.
pub(crate) fn fsync(count: u32, dir: Option<&Path>) -> Result<Value> {
    let dir = dir.map_or_else(std::env::temp_dir, Path::to_path_buf);
    let path = dir.join(format!("loadgen-fsync-{}", std::process::id()));
    let mut file =
        OpenOptions::new().create_new(true).append(true).open(&path).with_context(|| format!("creating {}", path.display()))?;
    let page = [7_u8; 4_096];
    let mut latencies = Latencies::new()?;
    let begun = Instant::now();
    for _ in 0..count {
        let at = Instant::now();
        file.write_all(&page).with_context(|| format!("writing {}", path.display()))?;
        file.sync_data().with_context(|| format!("syncing {}", path.display()))?;
        latencies.add(at.elapsed());
    }
    let seconds = begun.elapsed().as_secs_f64();
    std::fs::remove_file(&path).with_context(|| format!("removing {}", path.display()))?;
    Ok(json!({"mode": "fsync", "count": count, "seconds": seconds, "per_s": per_second(u64::from(count), seconds),
        "latency_ms": latencies.summary()}))
}
