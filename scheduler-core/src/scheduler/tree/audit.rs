//! The tree, audited: what heaps and tables hold is worked out again from the level below.

use crate::scheduler::config::Resource;
use crate::scheduler::tree::key::Turn;
use crate::scheduler::tree::{Bucket, Queue, Stay, Tree, Unit};
use crate::slab::Index;

impl Tree {
    /// True when every heap holds exactly what the level below has first, nothing is put aside, and all tables agree.
    pub(crate) fn is_consistent(&self) -> bool {
        self.buckets_agree() && self.tenants_agree() && self.queues_agree()
    }

    fn buckets_agree(&self) -> bool {
        let filled = self.buckets.iter().filter(|(_, bucket)| bucket.jobs.len() > 0).count();
        let queued: usize = self.tenants.iter().map(|(_, tenant)| tenant.buckets.len()).sum();
        let sound = self.buckets.iter().all(|(index, bucket)| {
            let first = bucket.jobs.first().map(|(key, _)| key);
            bucket.upto == Some(Stay::UNLIMITED)
                && bucket.front == bucket.jobs.first()
                && bucket.jobs.is_consistent()
                && self.tenants[bucket.tenant].buckets.get(bucket.slot) == first
                && self.by_shape[bucket.shape.position()] == Some(index)
        });
        let smallest = |bucket: &Bucket| {
            bucket
                .demand
                .groups
                .iter()
                .all(|group| Resource::ALL.iter().zip(self.smallest).all(|(of, least)| group.of(*of) >= least))
        };
        let sound = sound && self.buckets.iter().all(|(_, bucket)| smallest(bucket));
        sound && queued == filled && self.by_shape.iter().flatten().count() == self.buckets.len()
    }

    fn tenants_agree(&self) -> bool {
        let sound = self.tenants.iter().all(|(index, tenant)| {
            let turn = tenant.buckets.first().map(|(_, key)| Turn { share: tenant.share, key });
            let own = self.buckets.iter().filter(|(_, bucket)| bucket.tenant == index).count();
            let queue = self.queue(tenant.queue);
            !tenant.parked
                && tenant.buckets.is_consistent()
                && queue.tenants.get(tenant.slot) == turn
                && own == tenant.refs as usize
                && (tenant.share == 0 || queue.config.fair_share.is_some())
                && self.by_namespace.get(&(tenant.queue, tenant.namespace.clone())) == Some(&index)
        });
        sound && self.by_namespace.len() == self.tenants.len()
    }

    fn queues_agree(&self) -> bool {
        let mut held = vec![[0_u128; 3]; self.cohorts.len()];
        let sound = self.queues.iter().enumerate().all(|(at, queue)| {
            for cohort in self.chain(queue.cohort) {
                for (sum, own) in held[cohort.position()].iter_mut().zip(queue.held) {
                    *sum += own;
                }
            }
            let tenants = self.tenants.iter().filter(|(_, tenant)| tenant.queue.position() == at);
            let sums = tenants.fold(([0; 3], 0), |(sums, jobs), (_, tenant)| {
                (std::array::from_fn(|resource| sums[resource] + tenant.held[resource]), jobs + u64::from(tenant.jobs))
            });
            let fair_root = queue.root.map(|root| self.cohort(root)).filter(|root| root.config.fair_share.is_some());
            let turn = fair_root.zip(queue.slot).and_then(|(root, slot)| root.queues.get(slot));
            let wanted = if fair_root.is_some() { queue.turn() } else { None };
            !queue.parked && queue.tenants.is_consistent() && sums == (queue.held, queue.active()) && turn == wanted
        });
        let cohorts = self.cohorts.iter().zip(held).all(|(cohort, held)| cohort.held == held);
        let grouped = |queue: usize| self.queues[queue].root.is_some_and(|root| self.cohort(root).config.fair_share.is_some());
        let units = self
            .units
            .iter()
            .all(|unit| matches!(unit, Unit::Cohort(_)) || matches!(unit, Unit::Queue(queue) if !grouped(queue.position())));
        let named =
            |(at, queue): (usize, &Queue)| self.find_queue(&queue.config.name).is_some_and(|found| found.position() == at);
        let names = self.by_name.len() == self.queues.len() && self.queues.iter().enumerate().all(named);
        sound && cohorts && units && names
    }
}
