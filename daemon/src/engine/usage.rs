//! Use that outlives the daemon: what tenants and queues have used is written down now and then, and put back at a start.
//!
//! Never a commit for each job: what has changed is written once a [`PERIOD`], with whatever else is committed then, and at the end. What
//! is held is not lost between two writings, because a run that is still there counts from the last one on; so a daemon that is killed
//! forgets at most a period of what ended in it.

use std::time::Duration;

use bytes::Bytes;
use scheduler_core::Scheduler;
use scheduler_core::time::Timestamp;
use store::{ObjectChange, ObjectKind};
use tokio::time::Instant;

use crate::objects::USAGE;

/// Longest time that a change of use stays unwritten.
pub(super) const PERIOD: Duration = Duration::from_secs(60);

/// When use is written next.
#[derive(Debug)]
pub(super) struct UsageClock {
    /// Something started or ended since it was written.
    changed: bool,
    due: Instant,
    /// There was nothing to write, and still is not: nobody shares fairly.
    empty: bool,
}

impl UsageClock {
    pub(super) fn new() -> Self {
        // Whether something is stored is not known: the first writing clears away what is there.
        Self { changed: false, due: Instant::now() + PERIOD, empty: false }
    }

    /// Use has changed.
    pub(super) const fn touch(&mut self) {
        self.changed = true;
    }

    /// When it has to be written, if anything has changed.
    pub(super) fn due(&self) -> Option<Instant> {
        self.changed.then_some(self.due)
    }

    /// What is to be written now, if it is time; at the end it is always time.
    pub(super) fn object(&mut self, core: &Scheduler, now: Timestamp, at_end: bool) -> Option<ObjectChange> {
        let begun = Instant::now();
        if !self.changed || (begun < self.due && !at_end) {
            return None;
        }
        (self.changed, self.due) = (false, begun + PERIOD);
        let records = core.usage_snapshot(now);
        if records.is_empty() && std::mem::replace(&mut self.empty, true) {
            return None;
        }
        self.empty = records.is_empty();
        // Names and numbers: it cannot fail to be written, and if it did, what is stored would stay.
        let value = if records.is_empty() { None } else { Some(Bytes::from(serde_json::to_vec(&records).ok()?)) };
        Some(ObjectChange { kind: ObjectKind::Usage, name: USAGE.into(), value })
    }
}
