//! Order keys: where a job stands in its queue, a tenant among the tenants of a queue, a queue among all queues.
//!
//! Keys of jobs are static. Without ageing a job's key is (priority, due time, sequence). With linear ageing a job that is due at `d` with
//! priority `p` has at time `t` the priority `p + (t - d) / a`, `a` being the time that is worth one point; of two jobs the one with the
//! smaller `d - p * a` is ahead at every `t`, so that difference is the key. Between queues, which may age differently, heads
//! are compared by their priority at `now`. Sequence ends every tie: heaps themselves are not FIFO.

use std::cmp::Reverse;

use crate::ids::Seq;
use crate::scheduler::config::QueueConfig;
use crate::time::Timestamp;

/// Where a job stands in its queue; the smallest is first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Key {
    /// Without ageing the priority, negated; with ageing the due time less what the priority is worth.
    primary: i64,
    due: Timestamp,
    seq: Seq,
}

/// Where a tenant stands in its queue; the smallest is first. The share is 0 where the queue does not share fairly.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Turn {
    /// Weighted dominant share.
    pub(crate) share: u128,
    /// Of its first job.
    pub(crate) key: Key,
}

/// Where a queue stands among those of a cohort that shares fairly; the smallest is first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct QueueTurn {
    share: u128,
    priority: Reverse<i32>,
    due: Timestamp,
    seq: Seq,
}

/// Where the head of a queue stands among the heads of all queues; the largest is first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Rank {
    /// Priority at `now`, with 32 binary places.
    priority: i128,
    due: Reverse<Timestamp>,
    seq: Reverse<Seq>,
}

impl Key {
    /// Of a job of this priority in this queue.
    pub(crate) fn new(queue: &QueueConfig, priority: i32, due: Timestamp, seq: Seq) -> Self {
        let points = i64::from(queue.priority) + i64::from(priority);
        let primary = match queue.age_per_point {
            None => -points,
            Some(age) => due.0.saturating_sub(points.saturating_mul(age.0 as i64)),
        };
        Self { primary, due, seq }
    }

    /// Among the heads of all queues.
    pub(crate) fn rank(&self, queue: &QueueConfig, now: Timestamp) -> Rank {
        let priority = match queue.age_per_point {
            None => -i128::from(self.primary) << 32,
            Some(age) => ((i128::from(now.0) - i128::from(self.primary)) << 32) / i128::from(age.0.max(1)),
        };
        Rank { priority, due: Reverse(self.due), seq: Reverse(self.seq) }
    }

    /// Of its queue among those of a cohort.
    pub(crate) const fn queue_turn(&self, queue: &QueueConfig, share: u128) -> QueueTurn {
        QueueTurn { share, priority: Reverse(queue.priority), due: self.due, seq: self.seq }
    }

    #[cfg(test)]
    pub(crate) const fn test(primary: i64, seq: u64) -> Self {
        Self { primary, due: Timestamp(0), seq: Seq(seq) }
    }
}
