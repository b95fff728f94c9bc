//! Who is ahead of a job, and by what rule.

use std::cmp::Ordering;

use crate::scheduler::Scheduler;
use crate::scheduler::explain::why::{Ahead, JobRef, Position, Rule};
use crate::scheduler::table::JobIx;
use crate::state::StateKind;
use crate::time::{Span, Timestamp};

/// So many of those ahead are named.
pub(in crate::scheduler) const NAMED: usize = 5;

impl Scheduler {
    pub(in crate::scheduler) fn job_ref(&self, index: JobIx) -> JobRef {
        let job = &self.jobs[index];
        JobRef { id: job.id, seq: job.seq }
    }

    /// Where a queued job stands in its queue. Walks that queue's jobs once.
    pub(super) fn position(&self, index: JobIx, now: Timestamp) -> Option<Position> {
        let bucket = self.jobs[index].bucket;
        let ahead = self.tree.ahead(bucket, self.key_of(index)?, NAMED);
        let queue = self.tree.queue(self.tree.bucket(bucket).queue);
        Some(Position {
            place: ahead.count + 1,
            queued: queue.counts[StateKind::Queued as usize],
            queue: queue.config.name.clone(),
            ahead: ahead.first.iter().map(|&other| self.is_ahead(other, index, now)).collect(),
        })
    }

    /// A queued job that is ahead of another one.
    pub(super) fn is_ahead(&self, other: JobIx, own: JobIx, now: Timestamp) -> Ahead {
        let shape = self.shape_of(&self.jobs[other]);
        let rule = self.rule_between(other, own, now);
        Ahead { job: self.job_ref(other), namespace: shape.namespace.clone(), queue: shape.queue.clone(), rule }
    }

    fn rule_between(&self, other: JobIx, own: JobIx, now: Timestamp) -> Rule {
        let (theirs, ours) = (self.jobs[other].bucket, self.jobs[own].bucket);
        let queues = [theirs, ours].map(|bucket| self.tree.bucket(bucket).queue);
        if let Some((theirs, own, half_life)) = self.tree.tenant_shares(theirs, ours).filter(|(one, two, _)| one != two) {
            return Rule::TenantShare { theirs: part(theirs, half_life), own: part(own, half_life) };
        }
        if let Some((theirs, own, half_life)) = self.tree.queue_shares(queues[0], queues[1]).filter(|(one, two, _)| one != two) {
            return Rule::QueueShare { theirs: part(theirs, half_life), own: part(own, half_life) };
        }
        let standing = |job: JobIx| {
            let bucket = self.tree.bucket(self.jobs[job].bucket);
            let config = &self.tree.queue(bucket.queue).config;
            let points = i64::from(config.priority) + i64::from(self.policies.get(self.jobs[job].policy).priority);
            (points, self.key_of(job).map(|key| key.rank(config, now)))
        };
        let ((theirs, their_rank), (own, own_rank)) = (standing(other), standing(own));
        if queues[0] != queues[1] && their_rank < own_rank {
            // It can only be ahead because the other one would borrow.
            return Rule::Guarantee;
        }
        match theirs.cmp(&own) {
            Ordering::Greater => Rule::Priority { theirs, own },
            Ordering::Less => Rule::Age,
            Ordering::Equal => Rule::Fifo,
        }
    }
}

/// A weighted share, which is a time over which all nodes were used, as ten-thousandths of what it would be if all of them were always used.
fn part(share: u128, half_life: Span) -> u32 {
    /// `ln 2`, in ten-thousandths.
    const LN_2: u128 = 6931;
    let part = (share >> 16).saturating_mul(LN_2) / u128::from(half_life.0.max(1));
    u32::try_from(part).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_for_ever_is_the_whole() {
        let hour = Span::from_secs(3600);
        let all = (hour.0 as f64 / std::f64::consts::LN_2) as u128;
        assert_eq!(part(all << 16, hour), 9999);
        assert_eq!(part(0, hour), 0);
        assert_eq!(part(u128::MAX, Span(1)), u32::MAX);
    }
}
