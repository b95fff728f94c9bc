//! The order in which jobs are looked at: a tree of indexed heaps, queue -> tenant -> bucket -> job.
//!
//! A *bucket* holds the queued jobs of one kind: same shape, same longest stay. They fit or do not fit together, so when the first of a
//! bucket finds no room the whole bucket is put aside for the rest of the pass.
//!
//! Keys are static. Without ageing a job's key is (priority, due time, sequence). With linear ageing a job that is due at `d` with
//! priority `p` has at time `t` the priority `p + (t - d) / a`, `a` being the time that is worth one point; of two jobs the one with the
//! smaller `d - p * a` is ahead at every `t`, so that difference is the key. Between queues, which may age differently, heads
//! are compared by their priority at `now`. Sequence ends every tie: the heaps themselves are not FIFO.
//!
//! The order between tenants is at present that of their first jobs; a weighted share takes the place of that key later, in
//! [`Tree::settle`], and nothing else changes.

use std::cmp::Reverse;
use std::hash::Hash;

use hashbrown::HashMap;
use priority_queue::PriorityQueue;

use crate::hash::Build;
use crate::ids::{Name, Seq};
use crate::job::{Policy, Shape};
use crate::scheduler::config::QueueConfig;
use crate::scheduler::place::Demand;
use crate::scheduler::table::{JobIx, ShapeIx};
use crate::slab::{Slab, index};
use crate::state::StateKind;
use crate::time::{Span, Timestamp};

index! {
    /// A queue.
    QueueIx
}
index! {
    /// A namespace within a queue.
    TenantIx
}
index! {
    /// A kind of job within a tenant.
    BucketIx
}

/// Where a job stands in its queue; the smallest is first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Key {
    /// Without ageing the priority, negated; with ageing the due time less what the priority is worth.
    primary: i64,
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

type Heap<I> = PriorityQueue<I, Reverse<Key>, Build>;

/// A queue. Those that are only known from restored jobs accept nothing new.
pub(crate) struct Queue {
    pub(crate) config: QueueConfig,
    pub(crate) configured: bool,
    /// Unfinished jobs by state.
    pub(crate) counts: [u64; 5],
    tenants: Heap<TenantIx>,
}

struct Tenant {
    queue: QueueIx,
    namespace: Name,
    /// Number of its buckets, with queued jobs or without.
    refs: u32,
    buckets: Heap<BucketIx>,
}

/// Jobs of one kind.
pub(crate) struct Bucket {
    tenant: TenantIx,
    pub(crate) queue: QueueIx,
    pub(crate) shape: ShapeIx,
    /// The longest time that a job of it holds resources: time limit and grace.
    pub(crate) stay: Option<Span>,
    pub(crate) demand: Demand,
    /// Unfinished jobs of this kind in any state.
    refs: u32,
    /// Put aside for the rest of a pass.
    parked: bool,
    jobs: Heap<JobIx>,
}

/// All queues.
pub(crate) struct Tree {
    queues: Vec<Queue>,
    by_name: HashMap<Name, QueueIx, Build>,
    tenants: Slab<TenantIx, Tenant>,
    by_namespace: HashMap<(QueueIx, Name), TenantIx, Build>,
    buckets: Slab<BucketIx, Bucket>,
    by_kind: HashMap<(ShapeIx, Option<Span>), BucketIx, Build>,
}

/// Longest time that a job of this policy holds resources once its tasks run.
pub(crate) fn stay(policy: &Policy) -> Option<Span> {
    policy.time_limit.map(|limit| Span(limit.0.saturating_add(policy.stop.grace.0)))
}

impl Queue {
    /// Where a job stands in it.
    pub(crate) fn key(&self, priority: i32, due: Timestamp, seq: Seq) -> Key {
        let points = i64::from(self.config.priority) + i64::from(priority);
        let primary = match self.config.age_per_point {
            None => -points,
            Some(age) => due.0.saturating_sub(points.saturating_mul(age.0 as i64)),
        };
        Key { primary, due, seq }
    }

    fn rank(&self, key: &Key, now: Timestamp) -> Rank {
        let priority = match self.config.age_per_point {
            None => -i128::from(key.primary) << 32,
            Some(age) => ((i128::from(now.0) - i128::from(key.primary)) << 32) / i128::from(age.0.max(1)),
        };
        Rank { priority, due: Reverse(key.due), seq: Reverse(key.seq) }
    }
}

impl Bucket {
    /// Number of its queued jobs.
    pub(crate) fn len(&self) -> usize {
        self.jobs.len()
    }

    /// Number of its unfinished jobs in any state.
    pub(crate) const fn refs(&self) -> u32 {
        self.refs
    }
}

impl Tree {
    /// The caller has checked that names are unique.
    pub(crate) fn new(configs: &[QueueConfig]) -> Self {
        let mut tree = Self {
            queues: Vec::new(),
            by_name: HashMap::default(),
            tenants: Slab::new(),
            by_namespace: HashMap::default(),
            buckets: Slab::new(),
            by_kind: HashMap::default(),
        };
        for config in configs {
            tree.add_queue(config.clone(), true);
        }
        tree
    }

    fn add_queue(&mut self, config: QueueConfig, configured: bool) -> QueueIx {
        let index = <QueueIx as crate::slab::Index>::new(self.queues.len());
        self.by_name.insert(config.name.clone(), index);
        self.queues.push(Queue { config, configured, counts: [0; 5], tenants: Heap::with_default_hasher() });
        index
    }

    pub(crate) fn queues(&self) -> &[Queue] {
        &self.queues
    }

    pub(crate) fn queue(&self, index: QueueIx) -> &Queue {
        &self.queues[crate::slab::Index::position(index)]
    }

    fn queue_mut(&mut self, index: QueueIx) -> &mut Queue {
        &mut self.queues[crate::slab::Index::position(index)]
    }

    pub(crate) fn is_configured(&self, name: &Name) -> bool {
        self.by_name.get(name).is_some_and(|&queue| self.queue(queue).configured)
    }

    pub(crate) fn bucket(&self, index: BucketIx) -> &Bucket {
        &self.buckets[index]
    }

    /// The bucket of this kind, with one job more. True if it is new: it then keeps a reference to the shape.
    pub(crate) fn acquire(&mut self, shape_ix: ShapeIx, shape: &Shape, stay: Option<Span>) -> (BucketIx, bool) {
        if let Some(&bucket) = self.by_kind.get(&(shape_ix, stay)) {
            self.buckets[bucket].refs += 1;
            return (bucket, false);
        }
        let queue = self.by_name.get(&shape.queue).copied().unwrap_or_else(|| {
            // A restored job's queue is gone from the configuration: the job keeps its place, at base priority 0.
            let config = QueueConfig { name: shape.queue.clone(), priority: 0, preemptible: false, age_per_point: None };
            self.add_queue(config, false)
        });
        let key = (queue, shape.namespace.clone());
        let tenant = self.by_namespace.get(&key).copied().unwrap_or_else(|| {
            let namespace = shape.namespace.clone();
            let tenant = self.tenants.insert(Tenant { queue, namespace, refs: 0, buckets: Heap::with_default_hasher() });
            self.by_namespace.insert(key, tenant);
            tenant
        });
        self.tenants[tenant].refs += 1;
        let bucket = self.buckets.insert(Bucket {
            tenant,
            queue,
            shape: shape_ix,
            stay,
            demand: Demand::of(shape),
            refs: 1,
            parked: false,
            jobs: Heap::with_default_hasher(),
        });
        self.by_kind.insert((shape_ix, stay), bucket);
        (bucket, true)
    }

    /// One job of this kind less; with the last one the bucket is freed, and the shape that it had a reference to is returned.
    pub(crate) fn release(&mut self, index: BucketIx) -> Option<ShapeIx> {
        let bucket = &mut self.buckets[index];
        bucket.refs -= 1;
        if bucket.refs > 0 {
            return None;
        }
        let bucket = self.buckets.remove(index)?;
        self.by_kind.remove(&(bucket.shape, bucket.stay));
        let tenant = &mut self.tenants[bucket.tenant];
        tenant.refs -= 1;
        if tenant.refs == 0
            && let Some(tenant) = self.tenants.remove(bucket.tenant)
        {
            self.by_namespace.remove(&(tenant.queue, tenant.namespace));
        }
        Some(bucket.shape)
    }

    /// Puts a job into its bucket.
    pub(crate) fn push(&mut self, index: BucketIx, job: JobIx, priority: i32, due: Timestamp, seq: Seq) {
        let key = self.queue(self.buckets[index].queue).key(priority, due, seq);
        self.buckets[index].jobs.push(job, Reverse(key));
        self.settle(index);
    }

    /// Takes a job out of its bucket.
    pub(crate) fn remove(&mut self, index: BucketIx, job: JobIx) {
        self.buckets[index].jobs.remove(&job);
        self.settle(index);
    }

    /// Puts a bucket aside, or back.
    pub(crate) fn park(&mut self, index: BucketIx, parked: bool) {
        self.buckets[index].parked = parked;
        self.settle(index);
    }

    /// Brings the heaps above a bucket up to date with its first job.
    fn settle(&mut self, index: BucketIx) {
        let bucket = &self.buckets[index];
        let first = if bucket.parked { None } else { bucket.jobs.peek().map(|(_, key)| *key) };
        let tenant_ix = bucket.tenant;
        let tenant = &mut self.tenants[tenant_ix];
        if !set(&mut tenant.buckets, index, first) {
            return;
        }
        let first = tenant.buckets.peek().map(|(_, key)| *key);
        let queue = tenant.queue;
        set(&mut self.queue_mut(queue).tenants, tenant_ix, first);
    }

    /// The first job of a queue that is not put aside.
    pub(crate) fn first(&self, queue: QueueIx) -> Option<(BucketIx, JobIx)> {
        let (tenant, _) = self.queue(queue).tenants.peek()?;
        let (bucket, _) = self.tenants[*tenant].buckets.peek()?;
        let (job, _) = self.buckets[*bucket].jobs.peek()?;
        Some((*bucket, *job))
    }

    /// Where the first job of a queue stands among the first jobs of all queues.
    pub(crate) fn rank(&self, queue: QueueIx, now: Timestamp) -> Option<Rank> {
        let queue = self.queue(queue);
        queue.tenants.peek().map(|(_, Reverse(key))| queue.rank(key, now))
    }

    pub(crate) fn indexes(&self) -> impl Iterator<Item = QueueIx> + use<> {
        (0..self.queues.len()).map(<QueueIx as crate::slab::Index>::new)
    }

    /// How many jobs of a queue are ahead of this queued one. Walks the queue's jobs once.
    pub(crate) fn ahead(&self, bucket: BucketIx, job: JobIx) -> u64 {
        let Some((_, Reverse(own))) = self.buckets[bucket].jobs.get(&job) else { return 0 };
        let queue = self.buckets[bucket].queue;
        let tenants = self.queue(queue).tenants.iter().map(|(tenant, _)| &self.tenants[*tenant]);
        let buckets = tenants.flat_map(|tenant| tenant.buckets.iter().map(|(bucket, _)| &self.buckets[*bucket]));
        buckets.flat_map(|bucket| bucket.jobs.iter()).filter(|(_, Reverse(key))| key < own).count() as u64
    }

    /// Counts a job of this kind into or out of a state.
    pub(crate) fn count(&mut self, bucket: BucketIx, state: StateKind, up: bool) {
        let queue = self.buckets[bucket].queue;
        if let Some(count) = self.queue_mut(queue).counts.get_mut(state as usize) {
            *count = if up { *count + 1 } else { *count - 1 };
        }
    }

    /// Every kind of job that there is.
    pub(crate) fn buckets(&self) -> impl Iterator<Item = (BucketIx, &Bucket)> {
        self.buckets.iter()
    }

    /// Where a job stands, if it is queued.
    pub(crate) fn key(&self, bucket: BucketIx, job: JobIx) -> Option<Key> {
        self.buckets[bucket].jobs.get_priority(&job).map(|Reverse(key)| *key)
    }

    /// True when every heap holds exactly what the level below has first, nothing is put aside, and all tables agree.
    pub(crate) fn is_consistent(&self) -> bool {
        let buckets = self.buckets.iter().all(|(index, bucket)| {
            let first = bucket.jobs.peek().map(|(_, key)| *key);
            !bucket.parked
                && self.tenants[bucket.tenant].buckets.get_priority(&index).copied() == first
                && self.by_kind.get(&(bucket.shape, bucket.stay)) == Some(&index)
        });
        let tenants = self.tenants.iter().all(|(index, tenant)| {
            let first = tenant.buckets.peek().map(|(_, key)| *key);
            let own = self.buckets.iter().filter(|(_, bucket)| bucket.tenant == index).count();
            self.queue(tenant.queue).tenants.get_priority(&index).copied() == first && own == tenant.refs as usize
        });
        let queued: usize = self.tenants.iter().map(|(_, tenant)| tenant.buckets.len()).sum();
        let filled = self.buckets.iter().filter(|(_, bucket)| !bucket.jobs.is_empty()).count();
        buckets
            && tenants
            && queued == filled
            && self.by_kind.len() == self.buckets.len()
            && self.by_namespace.len() == self.tenants.len()
    }
}

/// Sets or removes an entry; true if that changed anything.
fn set<I: Copy + Eq + Hash>(heap: &mut Heap<I>, item: I, key: Option<Reverse<Key>>) -> bool {
    let before = match key {
        Some(key) => heap.push(item, key),
        None => heap.remove(&item).map(|(_, key)| key),
    };
    before != key
}
