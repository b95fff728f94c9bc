//! The main thread: takes the exits of all children, tasks and orphans alike.

use super::note;
use super::shared::{Shared, wait};
use super::sys;

/// Runs until the runner is to end.
pub(super) fn reap_all(shared: &Shared) {
    let mut table = shared.lock();
    while !table.closing {
        let spawned = table.spawned;
        drop(table);
        let ended = sys::wait_for_child();
        table = shared.lock();
        match ended {
            // Under the lock, and not before: whoever holds it may signal, by number, what was not reaped.
            Ok(Some(pid)) => {
                if let Ok(Some(exit)) = sys::reap(pid) {
                    table.reaped(shared, pid, exit);
                }
            }
            Ok(None) => {}
            Err(error) => {
                if error.raw_os_error() != Some(libc::ECHILD) {
                    note(&format!("waiting for children: {error}"));
                }
                // There is no child; one more must be made before there can be.
                while table.spawned == spawned && !table.closing {
                    table = wait(&shared.children, table);
                }
            }
        }
    }
}
