//! The order in which jobs are looked at: a tree of indexed heaps, cohort -> queue -> tenant -> bucket, over lines of jobs.
//!
//! A *bucket* holds the queued jobs of one kind: same shape, same longest stay. They fit or do not fit together, so when the first of a
//! bucket finds no room the whole bucket is put aside for the rest of the pass. Within it jobs stand in a [`Line`].
//!
//! Between the tenants of a queue the order is that of their first jobs, unless the queue shares fairly: then a tenant's weighted share
//! goes before. Queues stand beside each other by the rank of their first jobs. The queues of a cohort that shares fairly stand there as one,
//! represented by the queue whose turn it is. What moves with time or use has its place in these heaps and is updated there when a job
//! starts or ends, and once in a while for the passing of time ([`ledger`]); keys of jobs never change.

mod audit;
mod cohort;
mod grow;
pub(crate) mod key;
pub(crate) mod ledger;
pub(crate) mod line;
pub(crate) mod share;
pub(crate) mod standing;

use std::cmp::Reverse;
use std::hash::Hash;

use hashbrown::HashMap;
use priority_queue::PriorityQueue;

use crate::hash::Build;
use crate::ids::{Name, Seq};
use crate::job::Policy;
use crate::scheduler::config::QueueConfig;
use crate::scheduler::place::Demand;
use crate::scheduler::policy::{CohortConfig, Weight};
use crate::scheduler::table::{JobIx, ShapeIx};
use crate::scheduler::tree::cohort::{Cohort, CohortIx};
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
    /// A kind of job within a tenant.
    BucketIx
}

type Heap<I, P> = PriorityQueue<I, Reverse<P>, Build>;

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
    tenants: Heap<TenantIx, Turn>,
}

/// A namespace's part of a queue.
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
    buckets: Heap<BucketIx, Key>,
}

/// Jobs of one kind.
pub(crate) struct Bucket {
    pub(crate) tenant: TenantIx,
    pub(crate) queue: QueueIx,
    pub(crate) shape: ShapeIx,
    /// The longest time that a job of it holds resources: time limit and grace.
    pub(crate) stay: Option<Span>,
    /// How much later its jobs count than they came.
    later: Span,
    pub(crate) demand: Demand,
    /// Unfinished jobs of this kind in any state.
    refs: u32,
    /// Put aside for the rest of a pass.
    parked: bool,
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
    by_kind: HashMap<(ShapeIx, Option<Span>), BucketIx, Build>,
}

/// Longest time that a job of this policy holds resources once its tasks run.
pub(crate) fn stay(policy: &Policy) -> Option<Span> {
    policy.time_limit.map(|limit| Span(limit.0.saturating_add(policy.stop.grace.0)))
}

impl Queue {
    /// Where it stands in its cohort, if it has somebody to start.
    fn turn(&self) -> Option<QueueTurn> {
        let (_, Reverse(turn)) = self.tenants.peek().filter(|_| !self.parked)?;
        Some(turn.key.queue_turn(&self.config, self.share))
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
            by_kind: HashMap::default(),
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

    /// Puts a job into its bucket.
    pub(crate) fn push(&mut self, index: BucketIx, job: JobIx, key: Key, now: Timestamp) {
        let line = &mut self.buckets[index].jobs;
        line.push(key, job);
        // Whoever joins behind the first changes nothing above.
        if line.first() == Some((key, job)) {
            self.arrive(index, now);
            self.settle(index);
        }
    }

    /// Takes a job out of its bucket.
    pub(crate) fn remove(&mut self, index: BucketIx, job: JobIx, key: Key) {
        let line = &mut self.buckets[index].jobs;
        let was_first = line.first() == Some((key, job));
        line.remove(key, job);
        if was_first {
            self.settle(index);
        }
    }

    /// Where a job of this kind stands in its queue.
    pub(crate) fn key(&self, index: BucketIx, priority: i32, due: Timestamp, seq: Seq) -> Key {
        let bucket = &self.buckets[index];
        Key::new(&self.queue(bucket.queue).config, priority, due + bucket.later, seq)
    }

    /// How much later jobs count that ask for this much and stay so long. Kept in the bucket: keys must not change while jobs wait.
    fn later(&self, queue: QueueIx, demand: &Demand, stay: Option<Span>) -> Span {
        let Some(rule) = self.queue(queue).config.short_first else { return Span(0) };
        let part = |at: usize| (demand.total[at] * 1_000_000).checked_div(self.capacity[at]).unwrap_or(0);
        rule.later(stay, part(0).max(part(1)).max(part(2)))
    }

    /// Puts a bucket aside, or back.
    pub(crate) fn park(&mut self, index: BucketIx, parked: bool) {
        self.buckets[index].parked = parked;
        self.settle(index);
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
        let bucket = &self.buckets[index];
        let first = if bucket.parked { None } else { bucket.jobs.first().map(|(key, _)| key) };
        let tenant = bucket.tenant;
        if set(&mut self.tenants[tenant].buckets, index, first) {
            self.settle_tenant(tenant);
        }
    }

    /// Brings the heaps above a tenant up to date with its first job and its share.
    fn settle_tenant(&mut self, index: TenantIx) {
        let tenant = &self.tenants[index];
        let first = if tenant.parked { None } else { tenant.buckets.peek() };
        let turn = first.map(|(_, Reverse(key))| Turn { share: tenant.share, key: *key });
        let queue = tenant.queue;
        if set(&mut self.queue_mut(queue).tenants, index, turn) {
            self.settle_queue(queue);
        }
    }

    /// Brings the heap above a queue up to date, where there is one.
    fn settle_queue(&mut self, index: QueueIx) {
        let queue = self.queue(index);
        let Some(root) = queue.root.filter(|root| self.cohort(*root).config.fair_share.is_some()) else { return };
        let turn = queue.turn();
        set(&mut self.cohorts[root.position()].queues, index, turn);
    }

    /// Who is compared with whom at the top.
    pub(crate) fn units(&self) -> &[Unit] {
        &self.units
    }

    /// The queue whose turn it is in a unit.
    fn front(&self, unit: Unit) -> Option<QueueIx> {
        match unit {
            Unit::Queue(queue) => Some(queue).filter(|queue| !self.queue(*queue).parked),
            Unit::Cohort(root) => self.cohort(root).queues.peek().map(|(queue, _)| *queue),
        }
    }

    /// The first job of a unit that is not put aside.
    pub(crate) fn first(&self, unit: Unit) -> Option<(BucketIx, JobIx)> {
        let (tenant, _) = self.queue(self.front(unit)?).tenants.peek()?;
        let (bucket, _) = self.tenants[*tenant].buckets.peek()?;
        let (_, job) = self.buckets[*bucket].jobs.first()?;
        Some((*bucket, job))
    }

    /// Where the first job of a unit stands among the first jobs of all.
    pub(crate) fn rank(&self, unit: Unit, now: Timestamp) -> Option<Rank> {
        let queue = self.queue(self.front(unit)?);
        queue.tenants.peek().map(|(_, Reverse(turn))| turn.key.rank(&queue.config, now))
    }

    /// Every tenant of a queue that has queued jobs which are not put aside, in no particular order.
    fn waiting_tenants(&self, queue: QueueIx) -> impl Iterator<Item = (TenantIx, &Tenant)> {
        self.queue(queue).tenants.iter().map(|(tenant, _)| (*tenant, &self.tenants[*tenant]))
    }

    /// How many jobs of its queue are ahead of one of this bucket and key. Walks the queue's jobs once.
    pub(crate) fn ahead(&self, bucket: BucketIx, own: Key) -> u64 {
        let own_tenant = &self.tenants[self.buckets[bucket].tenant];
        let fair = self.queue(own_tenant.queue).config.fair_share.is_some();
        let own_first = own_tenant.buckets.peek().map_or(own, |(_, Reverse(key))| *key);
        let mut count = 0;
        for (_, tenant) in self.waiting_tenants(own_tenant.queue) {
            let first = tenant.buckets.peek().map_or(own, |(_, Reverse(key))| *key);
            let buckets = tenant.buckets.iter().map(|(bucket, _)| &self.buckets[*bucket].jobs);
            count += if !fair || std::ptr::eq(tenant, own_tenant) {
                buckets.flat_map(Line::iter).filter(|&(key, _)| key < own).count()
            } else {
                // Where its turn comes before, how many of its jobs start then depends on what they use: one is what is certain.
                usize::from((tenant.share, first) < (own_tenant.share, own_first))
            };
        }
        count as u64
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

    /// Whether a job is queued under this key.
    pub(crate) fn has(&self, bucket: BucketIx, key: Key, job: JobIx) -> bool {
        self.buckets[bucket].jobs.contains(key, job)
    }
}

/// Sets or removes an entry; true if that changed anything.
fn set<I: Copy + Eq + Hash, P: Copy + Ord>(heap: &mut Heap<I, P>, item: I, priority: Option<P>) -> bool {
    let priority = priority.map(Reverse);
    let before = match priority {
        Some(priority) => heap.push(item, priority),
        None => heap.remove(&item).map(|(_, priority)| priority),
    };
    before != priority
}
