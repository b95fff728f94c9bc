//! Waits for tasks that have no descriptor: those beyond the number that is kept, and all of them on kernels before Linux 5.2.
//!
//! A descriptor for each task would be copied for every process that is made, and closed in it again: with thousands of tasks that
//! costs more than the process. So only so many are kept ([`RunnerOptions::descriptors`](super::RunnerOptions::descriptors)),
//! and one thread waits for all the others at once. The kernel wakes it for every exit, whoever's it is; those of others it leaves to them.

use std::collections::HashSet;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use super::shared::{Shared, wait_for};
use super::sys;
use super::table::Pid;
use super::watch::take_exit;

/// Longest wait for somebody else to reap what is theirs, in microseconds: not everybody says that he has.
const OTHERS_US: u64 = 1_000;

/// The tasks that one thread waits for.
#[derive(Default)]
pub(super) struct Crowd {
    tasks: Mutex<HashSet<Pid>>,
    grown: Condvar,
}

impl Crowd {
    fn tasks(&self) -> MutexGuard<'_, HashSet<Pid>> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has a task waited for from now on. Nobody else may reap it.
    pub(super) fn join(&self, pid: Pid) {
        self.tasks().insert(pid);
        self.grown.notify_one();
    }
}

/// The thread. It ends with the process.
pub(super) fn wait_for_all(shared: &Shared) {
    let crowd = &shared.crowd;
    loop {
        let mut tasks = crowd.tasks();
        while tasks.is_empty() {
            tasks = crowd.grown.wait(tasks).unwrap_or_else(PoisonError::into_inner);
        }
        drop(tasks);
        match sys::wait_for_any_child() {
            Ok(Some(pid)) if crowd.tasks().remove(&pid) => take_exit(shared, pid),
            // The next look would find the same again.
            Ok(Some(pid)) => leave_to_others(shared, pid),
            Ok(None) => {}
            // Not possible; but their ends must not be missed.
            Err(_) => std::mem::take(&mut *crowd.tasks()).into_iter().for_each(|pid| take_exit(shared, pid)),
        }
    }
}

/// Waits until whoever waits for this process, too, has reaped it.
fn leave_to_others(shared: &Shared, pid: Pid) {
    let mut table = shared.lock();
    if !table.pids.contains_key(&pid) {
        table.look_for_orphans(shared);
    }
    table.crowd_waits = true;
    table = wait_for(&shared.reaped, table, OTHERS_US);
    table.crowd_waits = false;
}
