//! The runner's clocks: wall time for records, the boot clock for everything that is waited for or compared.
//!
//! The boot clock never jumps, is the same for all processes of a boot, and is what the kernel stamps processes with: a deadline or a
//! start time that one runner has journalled means the same to the next.

use std::io;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};
use scheduler_core::time::Timestamp;

/// Length of the ticks in `/proc/PID/stat`, in microseconds. `USER_HZ` is 100 wherever this runs; it is part of the kernel's ABI.
const TICK_US: u64 = 10_000;

/// Wall time.
pub(super) fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    Timestamp(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
}

/// Microseconds since boot.
pub(super) fn boot_us() -> u64 {
    let time = clock_gettime(ClockId::Boottime);
    time.tv_sec.cast_unsigned() * 1_000_000 + time.tv_nsec.cast_unsigned() / 1_000
}

/// A boot time as `/proc/PID/stat` would show it.
pub(super) const fn ticks(boot_us: u64) -> u64 {
    boot_us / TICK_US
}

/// The name of this boot of the machine.
pub(super) fn boot_id() -> io::Result<String> {
    Ok(std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}
