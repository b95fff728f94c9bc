//! How queues, tenants and buckets come and go.
//!
//! A bucket lives as long as it has unfinished jobs, a tenant as long as it has buckets or use that counts, a queue until it is removed. One that
//! only restored jobs name is not shown without them, and goes with the next that is removed.

use crate::ids::Name;
use crate::job::Shape;
use crate::scheduler::config::{QueueConfig, Resource};
use crate::scheduler::place::Demand;
use crate::scheduler::policy::Weight;
use crate::scheduler::table::ShapeIx;
use crate::scheduler::tree::heap::Heap;
use crate::scheduler::tree::line::Line;
use crate::scheduler::tree::share::{Amounts, Usage};
use crate::scheduler::tree::{Bucket, BucketIx, FIRST_MEAN, Queue, QueueIx, Stay, Tenant, TenantIx, Tree, Unit};
use crate::slab::Index;
use crate::time::Timestamp;

impl Tree {
    /// A queue without cohort, until [`relate`](Self::relate) says otherwise.
    pub(super) fn add_queue(&mut self, config: QueueConfig, configured: bool) -> QueueIx {
        let index = QueueIx::new(self.queues.len());
        self.by_name.insert(config.name.clone(), index);
        self.units.push(Unit::Queue(index));
        self.queues.push(Queue {
            config,
            configured,
            counts: [0; 5],
            cohort: None,
            root: None,
            limited: false,
            held: [0; 3],
            reserved: 0,
            mean_run: FIRST_MEAN,
            usage: Usage::default(),
            share: 0,
            step: i64::MIN,
            parked: false,
            slot: None,
            tenants: Heap::default(),
        });
        index
    }

    /// The bucket of this shape, with one job more. True if it is new: it then keeps a reference to the shape, and what jobs of it ask for.
    pub(crate) fn acquire(
        &mut self,
        shape_ix: ShapeIx,
        shape: &Shape,
        demand: impl FnOnce(&Shape) -> Demand,
    ) -> (BucketIx, bool) {
        if let Some(bucket) = self.by_shape.get(shape_ix.position()).copied().flatten() {
            self.buckets[bucket].refs += 1;
            return (bucket, false);
        }
        let queue = self.by_name.get(&shape.queue).copied().unwrap_or_else(|| {
            // A restored job's queue is gone from the configuration: the job keeps its place, at base priority 0.
            self.add_queue(QueueConfig::named(shape.queue.clone()), false)
        });
        let tenant = self.acquire_tenant(queue, &shape.namespace);
        self.tenants[tenant].refs += 1;
        let slot = self.tenants[tenant].buckets.open();
        let demand = demand(shape);
        let part = self.part(&demand);
        lower(&mut self.smallest, &demand);
        let bucket = self.buckets.insert(Bucket {
            tenant,
            queue,
            shape: shape_ix,
            part,
            demand,
            refs: 1,
            upto: Some(Stay::UNLIMITED),
            front: None,
            slot,
            jobs: Line::default(),
        });
        self.set_bucket(shape_ix, Some(bucket));
        (bucket, true)
    }

    /// Enters where the jobs of a shape are.
    pub(super) fn set_bucket(&mut self, shape: ShapeIx, bucket: Option<BucketIx>) {
        if self.by_shape.len() <= shape.position() {
            self.by_shape.resize(shape.position() + 1, None);
        }
        self.by_shape[shape.position()] = bucket;
    }

    /// All nodes together have something else now: shares are worked out anew by the next pass.
    pub(crate) fn set_capacity(&mut self, capacity: Amounts) {
        self.capacity = capacity;
        for queue in &mut self.queues {
            queue.step = i64::MIN;
        }
    }

    pub(super) fn acquire_tenant(&mut self, queue: QueueIx, namespace: &Name) -> TenantIx {
        let key = (queue, namespace.clone());
        if let Some(&tenant) = self.by_namespace.get(&key) {
            return tenant;
        }
        let slot = self.queue_mut(queue).tenants.open();
        let fair = self.queue(queue).config.fair_share.as_ref();
        let tenant = self.tenants.insert(Tenant {
            queue,
            namespace: namespace.clone(),
            refs: 0,
            jobs: 0,
            held: [0; 3],
            weight: fair.map_or(Weight::ONE, |fair| fair.weight(namespace)),
            usage: Usage::default(),
            share: 0,
            parked: false,
            slot,
            buckets: Heap::default(),
        });
        self.by_namespace.insert(key, tenant);
        tenant
    }

    /// One job of this shape less; with the last one the bucket is freed, and what it had is returned: a reference to the shape, and what
    /// jobs of it ask for.
    pub(crate) fn release(&mut self, index: BucketIx) -> Option<(ShapeIx, Demand)> {
        let bucket = &mut self.buckets[index];
        bucket.refs -= 1;
        if bucket.refs > 0 {
            return None;
        }
        let bucket = self.buckets.remove(index)?;
        self.set_bucket(bucket.shape, None);
        self.tenants[bucket.tenant].refs -= 1;
        self.tenants[bucket.tenant].buckets.close(bucket.slot);
        self.release_tenant(bucket.tenant);
        self.freed += 1;
        if self.freed > self.buckets.len() {
            // As many have gone as are looked at now.
            self.freed = 0;
            self.smallest = [u64::MAX; 3];
            self.buckets.iter().for_each(|(_, bucket)| lower(&mut self.smallest, &bucket.demand));
        }
        Some((bucket.shape, bucket.demand))
    }

    /// Frees a tenant that has no jobs and whose use need not be remembered.
    pub(super) fn release_tenant(&mut self, index: TenantIx) {
        let tenant = &self.tenants[index];
        let fair = self.queue(tenant.queue).config.fair_share.as_ref();
        let forgettable = fair.is_none_or(|fair| tenant.usage.is_negligible(&self.capacity, fair.half_life));
        if tenant.refs == 0
            && forgettable
            && let Some(tenant) = self.tenants.remove(index)
        {
            self.queue_mut(tenant.queue).tenants.close(tenant.slot);
            self.by_namespace.remove(&(tenant.queue, tenant.namespace));
        }
    }

    /// Sets a queue that is there up anew, or enters it; its jobs have been taken out of it meanwhile, because their keys change with it.
    pub(crate) fn configure(&mut self, config: QueueConfig, now: Timestamp) {
        let index = match self.find_queue(&config.name) {
            Some(index) => index,
            None => self.add_queue(config.clone(), true),
        };
        let queue = self.queue_mut(index);
        let shared = queue.config.fair_share.is_some();
        let shares = config.fair_share.clone();
        queue.configured = true;
        queue.config = config;
        queue.step = i64::MIN;
        let own: Vec<_> = self.tenants.iter().filter(|(_, tenant)| tenant.queue == index).map(|(tenant, _)| tenant).collect();
        for tenant_ix in own {
            let tenant = &mut self.tenants[tenant_ix];
            tenant.share = 0;
            if let Some(fair) = &shares {
                tenant.weight = fair.weight(&tenant.namespace);
                if !shared {
                    tenant.usage = Usage::new([0; 3], now);
                    tenant.usage.take(&tenant.held);
                }
            }
            self.share_tenant(tenant_ix, now);
            self.release_tenant(tenant_ix);
        }
        let own: Vec<_> = self.buckets.iter().filter(|(_, bucket)| bucket.queue == index).map(|(bucket, _)| bucket).collect();
        for bucket_ix in own {
            self.buckets[bucket_ix].part = self.part(&self.buckets[bucket_ix].demand);
        }
    }

    /// Removes a queue. The caller has checked that it has no jobs, and relates those that are left.
    pub(crate) fn retire(&mut self, index: QueueIx) {
        let queue = self.queue_mut(index);
        // Nobody's use is remembered.
        queue.config.fair_share = None;
        queue.configured = false;
        let own: Vec<_> = self.tenants.iter().filter(|(_, tenant)| tenant.queue == index).map(|(tenant, _)| tenant).collect();
        for tenant in own {
            self.release_tenant(tenant);
        }
        self.close_gaps();
    }

    /// Takes out the queues that are not configured and have no jobs. Those behind them move up, so that their order stays what it is.
    fn close_gaps(&mut self) {
        let mut stays: Vec<bool> = self.queues.iter().map(|queue| queue.configured).collect();
        self.tenants.iter().for_each(|(_, tenant)| stays[tenant.queue.position()] = true);
        let mut before = 0;
        let places: Vec<QueueIx> = stays
            .iter()
            .map(|stays| {
                before += usize::from(*stays);
                QueueIx::new(before.saturating_sub(1))
            })
            .collect();
        let moved = |queue: QueueIx| places[queue.position()];
        self.by_name.retain(|_, queue| stays[queue.position()]);
        self.by_name.values_mut().for_each(|queue| *queue = moved(*queue));
        self.tenants.iter_mut().for_each(|tenant| tenant.queue = moved(tenant.queue));
        self.buckets.iter_mut().for_each(|bucket| bucket.queue = moved(bucket.queue));
        self.by_namespace =
            self.by_namespace.drain().map(|((queue, namespace), tenant)| ((moved(queue), namespace), tenant)).collect();
        let mut stays = stays.into_iter();
        self.queues.retain(|_| stays.next().unwrap_or(true));
        if self.queues.capacity() > 64 && self.queues.len() * 4 < self.queues.capacity() {
            self.queues.shrink_to(self.queues.len() * 2);
        }
    }
}

/// Lowers amounts to what the smallest tasks of a job ask for.
fn lower(smallest: &mut [u64; 3], demand: &Demand) {
    for group in &demand.groups {
        for (least, resource) in smallest.iter_mut().zip(Resource::ALL) {
            *least = group.of(resource).min(*least);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queues_that_are_removed_leave_nothing_behind() {
        let queue = |name: &str| QueueConfig::named(name.into());
        let mut tree = Tree::new(&["first", "gone", "last"].map(queue), &[], [1_000; 3]);
        for round in 0..1_000 {
            let name = if round == 0 { "gone".to_owned() } else { format!("passing-{round}") };
            tree.configure(queue(&name), Timestamp(round));
            tree.retire(tree.find_queue(&name.as_str().into()).unwrap_or(QueueIx::new(0)));
            tree.relate(Vec::new(), Timestamp(round));
            assert!(tree.is_consistent());
        }
        let names: Vec<_> = tree.queues().iter().map(|queue| queue.config.name.as_str()).collect();
        assert_eq!(names, ["first", "last"]);
        assert_eq!((tree.units.len(), tree.by_name.len(), tree.queues.capacity() < 64), (2, 2, true));
    }
}
