//! What queues, tenants and cohorts hold, what they have used, and whether limits let a job start.
//!
//! A limit that is in the way of a job closes its *gate* for the rest of the pass: later jobs of those who share the limit may not take
//! what the one ahead of them waits for. So a large job is not starved by small ones that always find a little quota. Jobs whom the gate
//! does not concern go on: other resources, other tenants, other queues, and, where a cohort's pool is exhausted, everybody who stays
//! within his own guarantee. A job that could not start even if nothing else ran closes nothing.

use smallvec::SmallVec;

use crate::ids::Name;
use crate::scheduler::config::Resource;
use crate::scheduler::errors::Whose;
use crate::scheduler::tree::cohort::CohortIx;
use crate::scheduler::tree::share::{Amounts, STEPS, Usage};
use crate::scheduler::tree::{Bucket, BucketIx, Queue, QueueIx, Tenant, TenantIx, Tree};
use crate::slab::Index;
use crate::time::{Span, Timestamp};

/// What a limit counts.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Counted {
    /// Jobs that hold resources.
    Jobs,
    /// What they hold.
    Amount(Resource),
}

/// A limit of somebody: what is closed when it is in the way.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Gate {
    Tenant(TenantIx, Counted),
    Queue(QueueIx, Counted),
    /// Closed for those who would borrow.
    Pool(CohortIx, Resource),
}

/// A limit that keeps a job from starting.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Barrier {
    pub(crate) gate: Gate,
    pub(crate) held: u128,
    pub(crate) asked: u128,
    pub(crate) bound: u128,
}

impl Barrier {
    /// False where the job could not start even if nothing else ran.
    pub(crate) const fn can_open(&self) -> bool {
        self.asked <= self.bound
    }

    pub(crate) const fn whose(&self) -> Whose {
        match self.gate {
            Gate::Tenant(..) => Whose::Tenant,
            Gate::Queue(..) => Whose::Queue,
            Gate::Pool(..) => Whose::Cohort,
        }
    }

    pub(crate) const fn counted(&self) -> Counted {
        match self.gate {
            Gate::Tenant(_, counted) | Gate::Queue(_, counted) => counted,
            Gate::Pool(_, resource) => Counted::Amount(resource),
        }
    }
}

impl Queue {
    /// Jobs of it that hold resources, or have them kept during a pass.
    pub(crate) const fn active(&self) -> u64 {
        (self.counts[2] + self.counts[3] + self.counts[4]).saturating_add_signed(self.reserved)
    }

    /// Whether it would hold more of a resource than it is guaranteed.
    pub(crate) fn borrows(&self, resource: Resource, more: u128) -> bool {
        let own = self.config.guaranteed.of(resource).map_or(0, u128::from);
        self.held[resource as usize] + more > own
    }
}

impl Tree {
    /// The limits that keep a job that asks for this much from starting, nearest first, whatever is on the nodes.
    pub(crate) fn barriers(&self, index: BucketIx, asks: &Amounts) -> SmallVec<[Barrier; 2]> {
        let bucket = &self.buckets[index];
        let (tenant, queue) = (&self.tenants[bucket.tenant], self.queue(bucket.queue));
        let mut found = SmallVec::new();
        if !queue.limited {
            return found;
        }
        let mut check = |gate, held: u128, asked: u128, bound: Option<u128>| {
            if let Some(bound) = bound.filter(|bound| asked > 0 && held + asked > *bound) {
                found.push(Barrier { gate, held, asked, bound });
            }
        };
        let limits = &queue.config.tenant;
        check(Gate::Tenant(bucket.tenant, Counted::Jobs), tenant.jobs.into(), 1, limits.jobs.map(u128::from));
        check(Gate::Queue(bucket.queue, Counted::Jobs), queue.active().into(), 1, queue.config.max_concurrent.map(u128::from));
        for resource in Resource::ALL {
            let (at, counted) = (resource as usize, Counted::Amount(resource));
            let bound = limits.amounts.of(resource).map(u128::from);
            check(Gate::Tenant(bucket.tenant, counted), tenant.held[at], asks[at], bound);
            let bound = queue.config.limit.of(resource).map(u128::from);
            check(Gate::Queue(bucket.queue, counted), queue.held[at], asks[at], bound);
        }
        for above in self.chain(queue.cohort) {
            let cohort = self.cohort(above);
            for resource in Resource::ALL {
                let at = resource as usize;
                check(Gate::Pool(above, resource), cohort.held[at], asks[at], cohort.bound[at]);
            }
        }
        found
    }

    /// The limit, if there is one, that a job of a queue could never keep: of which resource, how much, and whose.
    pub(crate) fn over_limit(&self, queue: &Name, asks: &Amounts) -> Option<(Resource, u128, Whose)> {
        let queue = self.queue(self.find_queue(queue)?);
        Resource::ALL.into_iter().find_map(|resource| {
            let over = |limit: &u128| asks[resource as usize] > *limit;
            let of = |limit: Option<u64>| limit.map(u128::from).filter(over);
            let tenant = of(queue.config.tenant.amounts.of(resource)).map(|limit| (resource, limit, Whose::Tenant));
            let own = || of(queue.config.limit.of(resource)).map(|limit| (resource, limit, Whose::Queue));
            let pool = || {
                let mut bounds = self.chain(queue.cohort).filter_map(|above| self.cohort(above).bound[resource as usize]);
                bounds.find(over).map(|limit| (resource, limit, Whose::Cohort))
            };
            tenant.or_else(own).or_else(pool)
        })
    }

    /// Whether a closed gate concerns a job that asks for this much.
    pub(crate) fn concerns(&self, gate: Gate, index: BucketIx, asks: &Amounts) -> bool {
        let bucket = &self.buckets[index];
        let uses = |counted| match counted {
            Counted::Jobs => true,
            Counted::Amount(resource) => asks[resource as usize] > 0,
        };
        match gate {
            Gate::Tenant(tenant, counted) => tenant == bucket.tenant && uses(counted),
            Gate::Queue(queue, counted) => queue == bucket.queue && uses(counted),
            Gate::Pool(cohort, resource) => {
                let (queue, asked) = (self.queue(bucket.queue), asks[resource as usize]);
                asked > 0 && queue.borrows(resource, asked) && self.chain(queue.cohort).any(|above| above == cohort)
            }
        }
    }

    /// Whether a job that asks for this much would hold what other queues of its cohort are guaranteed.
    pub(crate) fn would_borrow(&self, index: BucketIx, asks: &Amounts) -> bool {
        self.borrows_beside(index, &self.queue(self.buckets[index].queue).held, asks)
    }

    /// The same where its queue holds that much.
    pub(crate) fn borrows_beside(&self, index: BucketIx, held: &Amounts, asks: &Amounts) -> bool {
        let queue = self.queue(self.buckets[index].queue);
        let Some(root) = queue.root.map(|root| self.cohort(root)) else { return false };
        let borrows = |resource: Resource| {
            let (at, own) = (resource as usize, queue.config.guaranteed.of(resource).map_or(0, u128::from));
            asks[at] > 0 && root.bound[at].is_some() && held[at] + asks[at] > own
        };
        Resource::ALL.into_iter().any(borrows)
    }

    pub(crate) fn is_limited(&self, queue: QueueIx) -> bool {
        self.queue(queue).limited
    }

    /// Enters what a job of this kind holds from now on. One that waits uses none of it before it [begins](Self::begin).
    pub(crate) fn take(&mut self, index: BucketIx, amounts: &Amounts, waits: bool, now: Timestamp) {
        let enter = |usage: &mut Usage| {
            usage.take(amounts);
            if waits {
                usage.wait(amounts);
            }
        };
        self.book(index, now, |held| add(held, amounts), enter);
        self.tenants[self.buckets[index].tenant].jobs += 1;
    }

    /// Enters that a job of this kind, which used this much from one time to another, holds nothing any more.
    pub(crate) fn give_back(&mut self, index: BucketIx, amounts: &Amounts, used: (Timestamp, Timestamp), now: Timestamp) {
        let (since, until) = used;
        let queue = self.queue_mut(self.buckets[index].queue);
        let mean = (u128::from(queue.mean_run.0) * 15 + u128::from(until.since(since).0)) / 16;
        queue.mean_run = Span(u64::try_from(mean).unwrap_or(u64::MAX).max(1000));
        let late = now.since(until);
        let leave = |usage: &mut Usage| {
            usage.give_back(amounts);
            if late.0 > 0 {
                usage.refund(amounts, late);
            }
        };
        self.book(index, now, |held| subtract(held, amounts), leave);
        self.tenants[self.buckets[index].tenant].jobs -= 1;
    }

    /// Enters that a job of this kind which waited has used what it holds for so long.
    pub(crate) fn begin(&mut self, index: BucketIx, amounts: &Amounts, ago: Span, now: Timestamp) {
        self.book(index, now, |_| (), |usage| usage.begin(amounts, ago));
    }

    /// Enters that as much is kept for a job of this kind during a pass, or ends an [`unreserve`](Self::unreserve). Use is not concerned.
    pub(crate) fn reserve(&mut self, index: BucketIx, amounts: &Amounts) {
        self.hold(index, |held| add(held, amounts));
        let Bucket { tenant, queue, .. } = self.buckets[index];
        self.tenants[tenant].jobs += 1;
        self.queue_mut(queue).reserved += 1;
    }

    /// Ends a [`reserve`](Self::reserve), or enters that a job which holds this much is taken to be gone.
    pub(crate) fn unreserve(&mut self, index: BucketIx, amounts: &Amounts) {
        self.hold(index, |held| subtract(held, amounts));
        let Bucket { tenant, queue, .. } = self.buckets[index];
        self.tenants[tenant].jobs -= 1;
        self.queue_mut(queue).reserved -= 1;
    }

    fn hold(&mut self, index: BucketIx, held: impl Fn(&mut Amounts)) {
        let Self { buckets, tenants, queues, cohorts, .. } = self;
        let bucket = &buckets[index];
        let queue = &mut queues[bucket.queue.position()];
        held(&mut tenants[bucket.tenant].held);
        held(&mut queue.held);
        let mut above = queue.cohort;
        while let Some(cohort) = above {
            let cohort = &mut cohorts[cohort.position()];
            held(&mut cohort.held);
            above = cohort.parent;
        }
    }

    fn book(&mut self, index: BucketIx, now: Timestamp, held: impl Fn(&mut Amounts), usage: impl Fn(&mut Usage)) {
        self.hold(index, held);
        let Bucket { tenant, queue, .. } = self.buckets[index];
        if let Some(fair) = &self.queues[queue.position()].config.fair_share {
            let half_life = fair.half_life;
            self.tenants[tenant].usage.settle(now, half_life);
            usage(&mut self.tenants[tenant].usage);
            self.share_tenant(tenant, now);
            self.settle_tenant(tenant);
        }
        if let Some(half_life) = self.root_half_life(queue) {
            self.queue_mut(queue).usage.settle(now, half_life);
            usage(&mut self.queue_mut(queue).usage);
            self.share_queue(queue, now);
            self.settle_queue(queue);
        }
    }

    /// The half-life of a queue's use among others, where it is one of those that share fairly.
    pub(super) fn root_half_life(&self, queue: QueueIx) -> Option<Span> {
        self.cohort(self.queue(queue).root?).config.fair_share
    }

    /// Whoever queues up after a while is compared by what counts now.
    pub(super) fn arrive(&mut self, index: BucketIx, now: Timestamp) {
        let Bucket { tenant, queue, .. } = self.buckets[index];
        if self.tenants[tenant].buckets.is_empty() {
            self.share_tenant(tenant, now);
        }
        if self.queue(queue).tenants.is_empty() {
            self.share_queue(queue, now);
        }
    }

    pub(super) fn share_tenant(&mut self, index: TenantIx, now: Timestamp) {
        let queue = self.tenants[index].queue.position();
        let Queue { config, mean_run, .. } = &self.queues[queue];
        let Some(fair) = &config.fair_share else { return };
        let (mean_run, half_life) = ((*mean_run).min(fair.half_life), fair.half_life);
        let tenant = &mut self.tenants[index];
        tenant.usage.settle(now, half_life);
        tenant.share = tenant.usage.share(&self.capacity, mean_run, tenant.weight);
    }

    pub(super) fn share_queue(&mut self, index: QueueIx, now: Timestamp) {
        let Some(half_life) = self.root_half_life(index) else { return };
        let capacity = self.capacity;
        let queue = self.queue_mut(index);
        queue.usage.settle(now, half_life);
        queue.share = queue.usage.share(&capacity, queue.mean_run.min(half_life), queue.config.weight);
    }

    /// Brings all shares up to date for the time that has passed, where that is a step or more.
    pub(crate) fn pass_time(&mut self, now: Timestamp) {
        for at in 0..self.queues.len() {
            let queue = QueueIx::new(at);
            let fair = self.queues[at].config.fair_share.as_ref().map(|fair| fair.half_life);
            let root = self.root_half_life(queue);
            let Some(shortest) = fair.into_iter().chain(root).min() else { continue };
            let step = now.0.div_euclid((shortest.0 / STEPS).max(1).cast_signed());
            if self.queues[at].step == step {
                continue;
            }
            self.queues[at].step = step;
            if fair.is_some() {
                let own: Vec<_> =
                    self.tenants.iter().filter(|(_, tenant)| tenant.queue == queue).map(|(index, _)| index).collect();
                for tenant in own {
                    self.share_tenant(tenant, now);
                    self.settle_tenant(tenant);
                    self.release_tenant(tenant);
                }
            }
            self.share_queue(queue, now);
            self.settle_queue(queue);
        }
    }

    /// What everybody has used whose use is kept, as it counts at `now`: of tenants, and of queues (without a namespace).
    pub(crate) fn usages(&self, now: Timestamp) -> impl Iterator<Item = (&Name, Option<&Name>, Amounts)> {
        let tenants = self.tenants.iter().filter_map(move |(_, tenant)| {
            let queue = self.queue(tenant.queue);
            let half_life = queue.config.fair_share.as_ref()?.half_life;
            Some((&queue.config.name, Some(&tenant.namespace), tenant.usage.at(now, half_life)))
        });
        let queues = self.queues.iter().enumerate().filter_map(move |(at, queue)| {
            let half_life = self.root_half_life(QueueIx::new(at))?;
            Some((&queue.config.name, None, queue.usage.at(now, half_life)))
        });
        tenants.chain(queues)
    }

    /// Puts back what somebody had used at a time; false where nobody keeps it any more. What is held meanwhile goes on from there.
    pub(crate) fn restore_usage(&mut self, queue: &Name, namespace: Option<&Name>, value: Amounts, at: Timestamp) -> bool {
        let Some(index) = self.find_queue(queue) else { return false };
        match namespace {
            Some(namespace) if self.queue(index).config.fair_share.is_some() => {
                let tenant = self.acquire_tenant(index, namespace);
                let Tenant { usage, held, .. } = &mut self.tenants[tenant];
                usage.restore(value, *held, at);
                self.share_tenant(tenant, at);
                self.settle_tenant(tenant);
            }
            None if self.root_half_life(index).is_some() => {
                let Queue { usage, held, .. } = self.queue_mut(index);
                usage.restore(value, *held, at);
                self.share_queue(index, at);
                self.settle_queue(index);
            }
            _ => return false,
        }
        true
    }
}

fn add(held: &mut Amounts, amounts: &Amounts) {
    for (held, more) in held.iter_mut().zip(amounts) {
        *held += more;
    }
}

fn subtract(held: &mut Amounts, amounts: &Amounts) {
    for (held, less) in held.iter_mut().zip(amounts) {
        *held -= less;
    }
}
