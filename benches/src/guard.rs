//! Nothing that a measurement started outlives it, whatever way it ends.
//!
//! What must hold: this process is the parent of last resort of all that it starts, daemons that detach themselves included; at its
//! end, at SIGINT, SIGTERM, and when its time is over, every descendant is killed. What a SIGKILL leaves undone is the caller's part:
//! `cargo xtask bench` gives each measurement a process namespace of its own where that is permitted.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, WaitOptions, getpid, kill_process, set_child_subreaper, wait};
use tokio::signal::unix::{SignalKind, signal};

/// How often it is looked for descendants: each look kills what is there, and a process may have started another meanwhile.
const LOOKS: u32 = 50;

/// Kills what is left when it goes.
pub(crate) struct Guard {
    /// Everything is being ended from outside, and the exit code is decided.
    ending: Arc<AtomicBool>,
}

impl Guard {
    /// Becomes the parent of last resort, and watches for signals and for the end of `limit`.
    pub(crate) fn new(limit: Duration) -> Result<Self> {
        set_child_subreaper(Some(getpid())).context("becoming the parent of orphans")?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build();
        let runtime = runtime.context("starting the runtime")?;
        let signals = {
            let _inside = runtime.enter();
            (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
        };
        let (mut interrupt, mut terminate) = (signals.0.context("handling SIGINT")?, signals.1.context("handling SIGTERM")?);
        let ending = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&ending);
        std::thread::spawn(move || {
            let code = runtime.block_on(async {
                tokio::select! {
                    _ = interrupt.recv() => 130,
                    _ = terminate.recv() => 143,
                    () = tokio::time::sleep(limit) => {
                        eprintln!("not done within {} s; ending everything", limit.as_secs());
                        124
                    }
                }
            });
            told.store(true, Ordering::SeqCst);
            end_descendants();
            std::process::exit(code);
        });
        Ok(Self { ending })
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        // A measurement whose server was just killed fails; what it says of that is not why it ends.
        while self.ending.load(Ordering::SeqCst) {
            std::thread::park();
        }
        end_descendants();
    }
}

/// Parent and state of every process, from `/proc`.
fn processes() -> BTreeMap<i32, (i32, u8)> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return BTreeMap::new() };
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
    pids.filter_map(|pid| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name in field 2 may hold anything; it ends with the last `)`.
        let mut fields = stat.rsplit_once(") ")?.1.split(' ');
        let state = *fields.next()?.as_bytes().first()?;
        Some((pid, (fields.next()?.parse().ok()?, state)))
    })
    .collect()
}

/// Living descendants of this process.
fn descendants() -> Vec<i32> {
    let all = processes();
    let own = getpid().as_raw_nonzero().get();
    let descends = |mut pid: i32| {
        // A chain of parents is never longer than there are processes.
        for _ in 0..all.len() {
            match all.get(&pid) {
                Some((parent, _)) if *parent == own => return true,
                Some((parent, _)) => pid = *parent,
                None => return false,
            }
        }
        false
    };
    all.iter().filter(|(pid, (_, state))| *state != b'Z' && descends(**pid)).map(|(pid, _)| *pid).collect()
}

fn end_descendants() {
    for _ in 0..LOOKS {
        let left = descendants();
        if left.is_empty() {
            return;
        }
        for pid in left.into_iter().filter_map(Pid::from_raw) {
            // An error means that it is gone already.
            kill_process(pid, Signal::KILL).ok();
        }
        while let Ok(Some(_)) = wait(WaitOptions::NOHANG) {}
        std::thread::sleep(Duration::from_millis(10));
    }
    eprintln!("processes that could not be ended: {:?}", descendants());
}
