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

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use scheduler_core::scheduler::{Config, FairShare, QueueConfig, UsageRecord};
    use scheduler_core::time::Span;

    use super::*;

    const NOW: Timestamp = Timestamp(1_700_000_000_000_000);

    fn core(used: bool) -> Scheduler {
        let fair_share = Some(FairShare::equal(Span::from_secs(3_600)));
        let queues = vec![QueueConfig { fair_share, ..QueueConfig::named("q".into()) }];
        let mut core = Scheduler::new(Config { queues, ..Config::default() }).unwrap();
        let record = UsageRecord {
            queue: "q".into(),
            namespace: Some("a".into()),
            at: NOW,
            cpu_milli_seconds: 7_000,
            memory_mib_seconds: 0,
            gpu_seconds: 0,
        };
        assert_eq!(core.restore_usage(&if used { vec![record] } else { Vec::new() }), 0);
        core
    }

    #[tokio::test(start_paused = true)]
    async fn what_changed_is_written_once_a_period() {
        let (core, mut clock) = (core(true), UsageClock::new());
        assert!(clock.due().is_none() && clock.object(&core, NOW, false).is_none(), "nothing has changed");
        clock.touch();
        assert!(clock.object(&core, NOW, false).is_none(), "it is not time");
        tokio::time::advance(PERIOD).await;
        assert!(clock.due().unwrap() <= Instant::now());
        let object = clock.object(&core, NOW, false).unwrap();
        let records: Vec<UsageRecord> = serde_json::from_slice(&object.value.unwrap()).unwrap();
        assert_eq!((records.len(), records[0].cpu_milli_seconds), (1, 7_000));
        assert!(clock.due().is_none() && clock.object(&core, NOW, true).is_none(), "it is written");
        // Whatever comes after a long quiet is written at once: a later restart counts from there.
        tokio::time::advance(PERIOD * 9).await;
        clock.touch();
        assert!(clock.object(&core, NOW, false).is_some());
        clock.touch();
        assert!(clock.object(&core, NOW, false).is_none());
        assert!(clock.object(&core, NOW, true).is_some(), "the end does not wait");
    }

    #[tokio::test(start_paused = true)]
    async fn where_nobody_shares_what_is_stored_is_cleared_once() {
        let (core, mut clock) = (core(false), UsageClock::new());
        for cleared in [true, false, false] {
            clock.touch();
            tokio::time::advance(PERIOD).await;
            let object = clock.object(&core, NOW, false);
            assert_eq!(object.is_some_and(|object| object.value.is_none()), cleared);
        }
    }
}
