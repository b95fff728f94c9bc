//! The main thread: takes the exits of orphans. As a subreaper's, it is the parent of every process whose own parent has ended.
//!
//! Tasks are children of spawn threads, and waited for elsewhere ([`watch`](super::watch)), so their exits do not wake this thread. While it
//! has no children it cannot wait for any; whoever finds that there are orphans says so ([`Table::look_for_orphans`]), and the
//! [`keeper`](super::keeper) looks every now and then.

use super::note;
use super::procfs::Orphans;
use super::shared::{Shared, wait};
use super::sys;
use super::table::Table;

/// Runs until the runner is to end.
pub(super) fn reap_all(shared: &Shared) {
    loop {
        let ended = sys::wait_for_own_child();
        let mut table = shared.lock();
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
                while !table.has_orphans && !table.closing {
                    table = wait(&shared.children, table);
                }
                table.has_orphans = false;
            }
        }
        if table.closing {
            return;
        }
    }
}

impl Table {
    /// Has the main thread wait for its children, if it has any. Gives them.
    pub(super) fn look_for_orphans(&mut self, shared: &Shared) -> Orphans {
        let orphans = shared.orphans.list();
        if !orphans.is_empty() && !self.has_orphans {
            self.has_orphans = true;
            shared.children.notify_one();
        }
        orphans
    }
}
