//! The order in which jobs are looked at: a tree of indexed heaps, cohort -> queue -> tenant -> bucket, over lines of jobs.
//!
//! A *bucket* holds the queued jobs of one shape. They fit or do not fit together, so when the first of a bucket finds no room the whole
//! bucket is put aside for the rest of the pass; and when it fits but stays too long, all that stay longer than allowed are
//! ([`narrow`](Tree::narrow)). Within it jobs stand in a [`Line`].
//!
//! Between the tenants of a queue the order is that of their first jobs, unless the queue shares fairly: then a tenant's weighted share
//! goes before. Queues stand beside each other by the rank of their first jobs. The queues of a cohort that shares fairly stand there as one,
//! represented by the queue whose turn it is. What moves with time or use has its place in these heaps and is updated there when a job
//! starts or ends, and once in a while for the passing of time ([`ledger`]); keys of jobs never change.

mod ahead;
mod audit;
mod cohort;
mod copy;
mod fetch;
mod grow;
mod heap;
pub(crate) mod key;
pub(crate) mod ledger;
pub(crate) mod line;
pub(crate) mod share;
pub(crate) mod standing;
mod strays;

use hashbrown::HashMap;

use crate::hash::Build;
use crate::ids::{Name, Seq};
use crate::job::Policy;
use crate::scheduler::config::QueueConfig;
use crate::scheduler::place::Demand;
use crate::scheduler::policy::{CohortConfig, Weight};
use crate::scheduler::table::{JobIx, ShapeIx};
use crate::scheduler::tree::cohort::{Cohort, CohortIx};
use crate::scheduler::tree::heap::{Heap, Slot};
use crate::scheduler::tree::key::{Key, QueueTurn, Rank, Turn};
use crate::scheduler::tree::line::Line;
use crate::scheduler::tree::share::{Amounts, Usage};
use crate::slab::{Index, Slab, index};
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
    /// The jobs of a shape.
    BucketIx
}

/// A job and where it stands; no two are equal.
type Order = (Key, JobIx);

/// Runs are taken to last this long until some have ended.
const FIRST_MEAN: Span = Span::from_secs(1);

/// Who is compared with whom at the top.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Unit {
    /// A queue by itself.
    Queue(QueueIx),
    /// The queues under a root that shares fairly.
    Cohort(CohortIx),
}

/// A queue. Those that are only known from restored jobs accept nothing new.
#[derive(Clone)]
pub(crate) struct Queue {
    pub(crate) config: QueueConfig,
    pub(crate) configured: bool,
    /// Unfinished jobs by state.
    pub(crate) counts: [u64; 5],
    pub(crate) cohort: Option<CohortIx>,
    pub(crate) root: Option<CohortIx>,
    /// Whether anything but room on nodes can keep its jobs from starting.
    limited: bool,
    /// What its jobs hold.
    pub(crate) held: Amounts,
    /// Jobs for which something is kept during a pass, less those that are taken to be gone.
    reserved: i64,
    /// How long its runs took lately.
    mean_run: Span,
    /// Kept where it is one of several that share fairly.
    usage: Usage,
    share: u128,
    /// The step of time that shares were last brought up to date for.
    step: i64,
    /// Put aside for the rest of a pass.
    parked: bool,
    /// Its place among the queues of its cohort, where those share fairly.
    slot: Option<Slot>,
    tenants: Heap<TenantIx, Turn>,
}

/// A namespace's part of a queue.
#[derive(Clone)]
pub(crate) struct Tenant {
    pub(crate) queue: QueueIx,
    pub(crate) namespace: Name,
    /// Number of its buckets, with queued jobs or without.
    refs: u32,
    /// Its jobs that hold resources.
    pub(crate) jobs: u32,
    /// What they hold.
    pub(crate) held: Amounts,
    weight: Weight,
    /// Kept where the queue shares fairly.
    usage: Usage,
    share: u128,
    parked: bool,
    /// Its place in its queue.
    slot: Slot,
    buckets: Heap<(BucketIx, JobIx), Key>,
}

/// Jobs of one shape.
pub(crate) struct Bucket {
    pub(crate) tenant: TenantIx,
    pub(crate) queue: QueueIx,
    pub(crate) shape: ShapeIx,
    /// The part of all nodes that a job of it holds, in millionths. Kept, because keys must not change while jobs wait.
    part: u32,
    pub(crate) demand: Demand,
    /// Unfinished jobs of this shape in any state.
    refs: u32,
    /// Who is looked at in the rest of a pass: those that stay no longer; nobody, if it is put aside.
    upto: Option<Stay>,
    /// The first of these.
    front: Option<Order>,
    /// Its place in its tenant.
    slot: Slot,
    jobs: Line,
}

/// All queues.
pub(crate) struct Tree {
    queues: Vec<Queue>,
    by_name: HashMap<Name, QueueIx, Build>,
    cohorts: Vec<Cohort>,
    units: Vec<Unit>,
    /// Whether a queue in a cohort is guaranteed anything.
    lends: bool,
    /// What all nodes have: what shares are parts of.
    capacity: Amounts,
    tenants: Slab<TenantIx, Tenant>,
    by_namespace: HashMap<(QueueIx, Name), TenantIx, Build>,
    buckets: Slab<BucketIx, Bucket>,
    by_shape: Vec<Option<BucketIx>>,
    /// Of each resource no task asks for less.
    smallest: [u64; 3],
    /// Buckets that were freed since that was worked out.
    freed: usize,
}

/// The longest time that a job holds resources once its tasks run: its time limit and its grace.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Stay(Span);

impl Stay {
    /// Of a job without a time limit: longer than all others.
    pub(crate) const UNLIMITED: Self = Self(Span(u64::MAX));

    pub(crate) fn of(policy: &Policy) -> Self {
        policy.time_limit.map_or(Self::UNLIMITED, |limit| Self(Span(limit.0.saturating_add(policy.stop.grace.0))))
    }

    /// At most this long.
    pub(crate) const fn within(time: Span) -> Self {
        Self(time)
    }

    /// How long, if it has an end.
    pub(crate) fn span(self) -> Option<Span> {
        (self != Self::UNLIMITED).then_some(self.0)
    }

    #[cfg(test)]
    pub(crate) const fn test(micros: u64) -> Self {
        Self(Span(micros))
    }
}

impl Queue {
    /// Where it stands in its cohort, if it has somebody to start.
    fn turn(&self) -> Option<QueueTurn> {
        let (_, turn) = self.tenants.first().filter(|_| !self.parked)?;
        Some(turn.key.queue_turn(&self.config, self.share))
    }
}

impl Bucket {
    /// Number of its queued jobs.
    pub(crate) fn len(&self) -> usize {
        self.jobs.len()
    }

    /// Whether a job with this key would not be its first.
    pub(crate) fn is_behind(&self, key: Key) -> bool {
        self.jobs.first().is_some_and(|(first, _)| first < key)
    }

    /// Number of its unfinished jobs in any state.
    pub(crate) const fn refs(&self) -> u32 {
        self.refs
    }

    fn find_front(&self) -> Option<Order> {
        match self.upto? {
            Stay::UNLIMITED => self.jobs.first(),
            stay => self.jobs.first_within(stay),
        }
    }
}

impl Tree {
    /// The caller has checked that queues and cohorts can be as they are.
    pub(crate) fn new(queues: &[QueueConfig], cohorts: &[CohortConfig], capacity: Amounts) -> Self {
        let mut tree = Self {
            queues: Vec::new(),
            by_name: HashMap::default(),
            cohorts: Vec::new(),
            units: Vec::new(),
            lends: false,
            capacity,
            tenants: Slab::new(),
            by_namespace: HashMap::default(),
            buckets: Slab::new(),
            by_shape: Vec::new(),
            smallest: [u64::MAX; 3],
            freed: 0,
        };
        for config in queues {
            tree.add_queue(config.clone(), true);
        }
        tree.relate(cohorts.to_vec(), Timestamp(0));
        tree
    }

    pub(crate) fn queues(&self) -> &[Queue] {
        &self.queues
    }

    pub(crate) fn queue(&self, index: QueueIx) -> &Queue {
        &self.queues[index.position()]
    }

    fn queue_mut(&mut self, index: QueueIx) -> &mut Queue {
        &mut self.queues[index.position()]
    }

    pub(crate) fn is_configured(&self, name: &Name) -> bool {
        self.by_name.get(name).is_some_and(|&queue| self.queue(queue).configured)
    }

    pub(crate) fn find_queue(&self, name: &Name) -> Option<QueueIx> {
        self.by_name.get(name).copied()
    }

    pub(crate) fn bucket(&self, index: BucketIx) -> &Bucket {
        &self.buckets[index]
    }

    /// Of each resource as much as every task asks for at least.
    pub(crate) const fn smallest(&self) -> [u64; 3] {
        self.smallest
    }

    /// Puts a job into its bucket.
    pub(crate) fn push(&mut self, index: BucketIx, job: JobIx, key: Key, stay: Stay, now: Timestamp) {
        let bucket = &mut self.buckets[index];
        bucket.jobs.push(key, job, stay);
        // Whoever joins behind the first changes nothing above.
        if bucket.front.is_none_or(|front| (key, job) < front) {
            self.arrive(index, now);
            self.settle(index);
        }
    }

    /// Takes a job out of its bucket.
    pub(crate) fn remove(&mut self, index: BucketIx, job: JobIx, key: Key, stay: Stay) {
        let bucket = &mut self.buckets[index];
        bucket.jobs.remove(key, job, stay);
        if bucket.front == Some((key, job)) {
            self.settle(index);
        }
    }

    /// Where a job of this shape stands in its queue.
    pub(crate) fn key(&self, index: BucketIx, priority: i32, stay: Stay, due: Timestamp, seq: Seq) -> Key {
        let bucket = &self.buckets[index];
        let config = &self.queue(bucket.queue).config;
        let later = config.short_first.map_or(Span(0), |rule| rule.later(stay.span(), bucket.part.into()));
        Key::new(config, priority, due + later, seq)
    }

    /// The part of all nodes that this is, in millionths.
    fn part(&self, demand: &Demand) -> u32 {
        let part = |at: usize| (demand.total[at].saturating_mul(1_000_000)).checked_div(self.capacity[at]).unwrap_or(0);
        part(0).max(part(1)).max(part(2)).min(1_000_000) as u32
    }

    /// From now on only those of a bucket are looked at that stay no longer; or nobody. True if so far everybody was.
    pub(crate) fn narrow(&mut self, index: BucketIx, upto: Option<Stay>) -> bool {
        let before = std::mem::replace(&mut self.buckets[index].upto, upto);
        self.settle(index);
        before == Some(Stay::UNLIMITED)
    }

    /// Whether jobs of a bucket are looked at that stay longer.
    pub(crate) fn is_wider(&self, index: BucketIx, stay: Stay) -> bool {
        self.buckets[index].upto > Some(stay)
    }

    /// Puts a tenant aside, or back.
    pub(crate) fn park_tenant(&mut self, index: TenantIx, parked: bool) {
        self.tenants[index].parked = parked;
        self.settle_tenant(index);
    }

    /// Puts a queue aside, or back.
    pub(crate) fn park_queue(&mut self, index: QueueIx, parked: bool) {
        self.queue_mut(index).parked = parked;
        self.settle_queue(index);
    }

    /// Brings the heaps above a bucket up to date with its first job.
    fn settle(&mut self, index: BucketIx) {
        let bucket = &mut self.buckets[index];
        bucket.front = bucket.find_front();
        let (tenant, slot) = (bucket.tenant, bucket.slot);
        let front = bucket.front.map(|(key, job)| ((index, job), key));
        if self.tenants[tenant].buckets.set(slot, front) {
            self.settle_tenant(tenant);
        }
    }

    /// Brings the heaps above a tenant up to date with its first job and its share.
    fn settle_tenant(&mut self, index: TenantIx) {
        let tenant = &self.tenants[index];
        let first = if tenant.parked { None } else { tenant.buckets.first() };
        let turn = first.map(|(_, key)| (index, Turn { share: tenant.share, key }));
        let (queue, slot) = (tenant.queue, tenant.slot);
        if self.queue_mut(queue).tenants.set(slot, turn) {
            self.settle_queue(queue);
        }
    }

    /// Brings the heap above a queue up to date, where there is one.
    fn settle_queue(&mut self, index: QueueIx) {
        let queue = self.queue(index);
        let (Some(root), Some(slot)) = (queue.root, queue.slot) else { return };
        let turn = queue.turn().map(|turn| (index, turn));
        self.cohorts[root.position()].queues.set(slot, turn);
    }

    /// Whether anybody shares fairly: whoever starts then changes whose turn it is.
    pub(crate) fn shares(&self) -> bool {
        self.queues.iter().any(|queue| queue.config.fair_share.is_some())
            || self.cohorts.iter().any(|cohort| cohort.config.fair_share.is_some())
    }

    /// Who is compared with whom at the top.
    pub(crate) fn units(&self) -> &[Unit] {
        &self.units
    }

    /// The queue whose turn it is in a unit.
    fn front(&self, unit: Unit) -> Option<QueueIx> {
        match unit {
            Unit::Queue(queue) => Some(queue).filter(|queue| !self.queue(*queue).parked),
            Unit::Cohort(root) => self.cohort(root).queues.first().map(|(queue, _)| queue),
        }
    }

    /// The first job of a unit that is not put aside.
    pub(crate) fn first(&self, unit: Unit) -> Option<(BucketIx, JobIx)> {
        let (tenant, _) = self.queue(self.front(unit)?).tenants.first()?;
        self.tenants[tenant].buckets.first().map(|(front, _)| front)
    }

    /// Where the first job of a unit stands among the first jobs of all.
    pub(crate) fn rank(&self, unit: Unit, now: Timestamp) -> Option<Rank> {
        let queue = self.queue(self.front(unit)?);
        queue.tenants.first().map(|(_, turn)| turn.key.rank(&queue.config, now))
    }

    /// Every tenant of a queue that has queued jobs which are not put aside, in no particular order.
    fn waiting_tenants(&self, queue: QueueIx) -> impl Iterator<Item = (TenantIx, &Tenant)> {
        self.queue(queue).tenants.iter().map(|tenant| (tenant, &self.tenants[tenant]))
    }

    /// Counts a job of this kind into or out of a state.
    pub(crate) fn count(&mut self, bucket: BucketIx, state: StateKind, up: bool) {
        let queue = self.buckets[bucket].queue;
        if let Some(count) = self.queue_mut(queue).counts.get_mut(state as usize) {
            *count = if up { *count + 1 } else { *count - 1 };
        }
    }

    /// Every shape that there is.
    pub(crate) fn buckets(&self) -> impl Iterator<Item = (BucketIx, &Bucket)> {
        self.buckets.iter()
    }

    /// Whether a job is queued under this key and stay.
    pub(crate) fn has(&self, bucket: BucketIx, key: Key, job: JobIx, stay: Stay) -> bool {
        self.buckets[bucket].jobs.contains(key, job, stay)
    }
}
