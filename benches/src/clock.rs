//! The clock of the core's benches.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Processor time of this thread: what other programs do meanwhile disturbs it least. The core is one thread and never waits, so on a
/// machine of its own it is the time that passes.
pub fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.cast_unsigned(), time.tv_nsec as u32)
}

/// How long something takes, and what it gives.
pub fn timed<T>(what: impl FnOnce() -> T) -> (Duration, T) {
    let start = processor_time();
    let made = what();
    (processor_time().saturating_sub(start), made)
}
