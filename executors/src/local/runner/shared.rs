//! What the runner's threads share, and how they wake one another.

use std::path::PathBuf;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use super::RunnerOptions;
use super::cgroup::Cgroups;
use super::crowd::Crowd;
use super::devices::Gate;
use super::journal::Journal;
use super::output::Late;
use super::procfs::OrphanList;
use super::table::Table;
use super::watch::Watcher;

/// The runner.
pub(super) struct Shared {
    /// As it was started.
    pub options: RunnerOptions,
    /// This boot of the machine.
    pub boot_id: String,
    /// Its memory on disk.
    pub journal: Journal,
    /// Who watches processes.
    pub watcher: Watcher,
    /// Who waits for tasks that nobody watches.
    pub crowd: Crowd,
    /// Where output can be named late.
    pub late: Late,
    /// Where orphans are listed.
    pub orphans: OrphanList,
    /// The folder of cgroups, if there is one.
    pub cgroups: Option<Cgroups>,
    /// What keeps runs from devices.
    pub gate: Gate,
    /// The socket's file, removed at the end.
    pub socket: PathBuf,
    /// Woken: spawn threads, when a run waits.
    pub work: Condvar,
    /// Woken: the order reader, when the queue has room or another connection wants to read.
    pub room: Condvar,
    /// Woken: the main thread, when it has children or the runner is to end.
    pub children: Condvar,
    /// Woken: the crowd's thread, when somebody else has reaped.
    pub reaped: Condvar,
    /// Woken: the committer, when a run settles or the queue runs empty.
    pub settled: Condvar,
    /// Woken: the keeper of timers, when there is an earlier one or the runner may have become idle.
    pub timer: Condvar,
    /// Woken: the writer, when there is something to send.
    pub out: Condvar,
    table: Mutex<Table>,
}

/// Parts of [`Shared`] that are made before it.
pub(super) struct Parts {
    pub options: RunnerOptions,
    pub boot_id: String,
    pub journal: Journal,
    pub watcher: Watcher,
    pub cgroups: Option<Cgroups>,
    pub gate: Gate,
    pub socket: PathBuf,
}

impl Shared {
    /// Nothing is under way.
    pub(super) fn new(parts: Parts, table: Table) -> Self {
        Self {
            options: parts.options,
            boot_id: parts.boot_id,
            journal: parts.journal,
            watcher: parts.watcher,
            crowd: Crowd::default(),
            late: Late::default(),
            orphans: OrphanList::new(),
            cgroups: parts.cgroups,
            gate: parts.gate,
            socket: parts.socket,
            work: Condvar::new(),
            room: Condvar::new(),
            children: Condvar::new(),
            reaped: Condvar::new(),
            settled: Condvar::new(),
            timer: Condvar::new(),
            out: Condvar::new(),
            table: Mutex::new(table),
        }
    }

    /// The table. A thread that panics ends the process, so there is no poison to heed.
    pub(super) fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Waits on a condition variable.
pub(super) fn wait<'a>(condition: &Condvar, table: MutexGuard<'a, Table>) -> MutexGuard<'a, Table> {
    condition.wait(table).unwrap_or_else(PoisonError::into_inner)
}

/// Waits on a condition variable for a limited time.
pub(super) fn wait_for<'a>(condition: &Condvar, table: MutexGuard<'a, Table>, micros: u64) -> MutexGuard<'a, Table> {
    let time = std::time::Duration::from_micros(micros);
    condition.wait_timeout(table, time).unwrap_or_else(PoisonError::into_inner).0
}
