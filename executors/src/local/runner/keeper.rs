//! Keeps the deadlines: of runs that are being ended, and of the runner itself, which ends when nobody needs it.

use super::clock;
use super::shared::{Shared, wait_for};

/// Longest wait, in microseconds: the boot clock goes on while the machine is suspended, a wait does not.
const LONGEST_US: u64 = 60_000_000;
/// While there are tasks, orphans of theirs are looked for this often, in microseconds: who ended long ago must not stay a zombie. Where
/// somebody waits for orphans to end, the main thread does without this.
const LOOK_US: u64 = 1_000_000;

/// The thread. It ends with the process.
pub(super) fn keep_time(shared: &Shared) {
    let idle_us = shared.options.idle_exit.as_micros() as u64;
    let mut idle_since = None;
    let mut look = 0;
    let mut table = shared.lock();
    loop {
        let now = clock::boot_us();
        while let Some((_, run)) = table.timers.first().copied().filter(|(due, _)| *due <= now) {
            table.timers.pop_first();
            table.grace_is_over(shared, run);
        }
        let mut next = now + LONGEST_US;
        if let Some((due, _)) = table.timers.first() {
            next = next.min(*due);
        }
        if table.orphans_may_come {
            if now >= look {
                table.orphans_may_come = !table.pids.is_empty();
                table.look_for_orphans(shared);
                look = now + LOOK_US;
            }
            next = next.min(look);
        }
        idle_since = if table.is_idle() { idle_since.or(Some(now)) } else { None };
        if let Some(since) = idle_since {
            if now >= since + idle_us {
                // While the lock is held nobody can connect any more; who comes now finds no socket, and starts another runner.
                table.closing = true;
                let _ = std::fs::remove_file(&shared.socket);
                shared.children.notify_all();
                return;
            }
            next = next.min(since + idle_us);
        }
        table = wait_for(&shared.timer, table, next.saturating_sub(now).max(1));
    }
}
