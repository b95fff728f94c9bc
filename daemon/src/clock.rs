//! The only place in the daemon where the wall clock becomes a [`Timestamp`].

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use scheduler_core::time::Timestamp;

static LATEST: AtomicI64 = AtomicI64::new(i64::MIN);

/// Now, UTC. Never earlier than an instant given out before: a clock that is set back must not reorder decisions.
pub fn now() -> Timestamp {
    let wall = match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(since) => i64::try_from(since.as_micros()).unwrap_or(i64::MAX),
        Err(before) => -i64::try_from(before.duration().as_micros()).unwrap_or(i64::MAX),
    };
    Timestamp(LATEST.fetch_max(wall, Ordering::Relaxed).max(wall))
}
