//! Who is ahead of a queued job in its queue, and by what rule.

use crate::scheduler::table::JobIx;
use crate::scheduler::tree::key::Key;
use crate::scheduler::tree::line::Line;
use crate::scheduler::tree::{BucketIx, QueueIx, Tenant, Tree};
use crate::time::Span;

/// Jobs of a queue that are ahead of one.
pub(crate) struct Ahead {
    /// How many.
    pub(crate) count: u64,
    /// The first of them, in order.
    pub(crate) first: Vec<JobIx>,
}

/// Keeps the smallest of what it is given.
struct Smallest<T> {
    kept: Vec<T>,
    most: usize,
}

impl<T: Ord + Copy> Smallest<T> {
    fn give(&mut self, value: T) {
        if self.kept.len() == self.most && self.kept.last().is_none_or(|last| *last <= value) {
            return;
        }
        let at = self.kept.partition_point(|other| *other < value);
        self.kept.insert(at, value);
        self.kept.truncate(self.most);
    }
}

impl Tree {
    /// Who of its queue is ahead of a job of this bucket and key. Walks the queue's jobs once.
    ///
    /// Where the queue shares fairly, a tenant whose turn comes before counts as one job: how many of its jobs start then depends on what
    /// they use.
    pub(crate) fn ahead(&self, bucket: BucketIx, own: Key, most: usize) -> Ahead {
        let own_tenant = &self.tenants[self.buckets[bucket].tenant];
        let fair = self.queue(own_tenant.queue).config.fair_share.is_some();
        let mut count = 0;
        let mut others = Smallest { kept: Vec::new(), most };
        let mut peers = Smallest { kept: Vec::new(), most };
        for (_, tenant) in self.waiting_tenants(own_tenant.queue) {
            let lines = tenant.buckets.iter().map(|(bucket, _)| &self.buckets[bucket].jobs);
            if fair && !std::ptr::eq(tenant, own_tenant) {
                let Some((key, job)) = Self::first_of(tenant) else { continue };
                let own_first = Self::first_of(own_tenant).map_or(own, |(key, _)| key);
                if (tenant.share, key) < (own_tenant.share, own_first) {
                    count += 1;
                    others.give((tenant.share, key, job));
                }
                continue;
            }
            for ((key, job), _) in lines.flat_map(Line::iter).filter(|&((key, _), _)| key < own) {
                count += 1;
                peers.give((key, job));
            }
        }
        let turns = others.kept.into_iter().map(|(.., job)| job);
        let first = turns.chain(peers.kept.into_iter().map(|(_, job)| job)).take(most).collect();
        Ahead { count, first }
    }

    fn first_of(tenant: &Tenant) -> Option<(Key, JobIx)> {
        tenant.buckets.first().map(|((_, job), key)| (key, job))
    }

    /// Whether use decides between two kinds of jobs, whatever their priority and age: of two tenants, or of two queues, that share fairly.
    pub(crate) fn take_turns(&self, one: BucketIx, other: BucketIx) -> bool {
        let queue = |of: BucketIx| self.buckets[of].queue;
        self.tenant_shares(one, other).is_some() || self.queue_shares(queue(one), queue(other)).is_some()
    }

    /// The weighted shares of two tenants of a queue that shares fairly.
    pub(crate) fn tenant_shares(&self, one: BucketIx, other: BucketIx) -> Option<(u128, u128, Span)> {
        let (one, other) = (&self.buckets[one], &self.buckets[other]);
        let half_life = self.queue(one.queue).config.fair_share.as_ref()?.half_life;
        let apart = one.queue == other.queue && one.tenant != other.tenant;
        apart.then(|| (self.tenants[one.tenant].share, self.tenants[other.tenant].share, half_life))
    }

    /// The weighted shares of two queues of a cohort that shares fairly.
    pub(crate) fn queue_shares(&self, one: QueueIx, other: QueueIx) -> Option<(u128, u128, Span)> {
        let root = self.queue(one).root.filter(|root| self.queue(other).root == Some(*root) && one != other)?;
        let half_life = self.cohort(root).config.fair_share?;
        Some((self.queue(one).share, self.queue(other).share, half_life))
    }
}
