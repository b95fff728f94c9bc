//! A pass over the queue: who starts now, and where.
//!
//! A pass takes the first job of the order, starts it if limits and room allow, and goes on. The first job for which there is no room is
//! the *blocked head*: it gets a reservation ([`Shadow`]) and its part of the limits, and from then on a job starts only if that cannot
//! delay the head (EASY backfill). Every further job that does not fit, or would delay the head, has its bucket put aside: its
//! followers ask for the same and stay no shorter. A job that a limit keeps back closes that gate for those behind it
//! ([`ledger`](crate::scheduler::tree::ledger)); it reserves no room, because room is not what it waits for. Queues whose first job would
//! borrow come after all that stay within their guarantees: what is lent would only have to be taken back.
//!
//! So a pass costs O(started x log n + kinds), and not O(queued); and it gives up after `scan_limit` kinds that found no room, and on a
//! queue after as many kinds that limits kept back. The head is always looked at first, so giving up delays only backfill.
//!
//! Where preemption is on, runs are ended for the blocked head and for the first job at a gate, if that lets it start
//! ([`preempt`](crate::scheduler::preempt)); it starts when they are gone, and until then its place is kept as that of any head.
//!
//! Under [`Discipline::Strict`] a pass ends at the blocked head instead.
//!
//! When a pass found nothing to start, the next one has nothing to look at until something is given back or another kind is queued.

use std::collections::BinaryHeap;

use hashbrown::HashMap;
use smallvec::SmallVec;

use crate::event::{Event, Transition};
use crate::hash::Build;
use crate::scheduler::Scheduler;
use crate::scheduler::backfill::Shadow;
use crate::scheduler::config::Discipline;
use crate::scheduler::place::{Demand, Packing};
use crate::scheduler::preempt::Claim;
use crate::scheduler::runs::{Active, End};
use crate::scheduler::table::{Job, JobIx};
use crate::scheduler::tree::key::Rank;
use crate::scheduler::tree::ledger::{Barrier, Counted, Gate};
use crate::scheduler::tree::share::Amounts;
use crate::scheduler::tree::{BucketIx, QueueIx, TenantIx, Tree, Unit};
use crate::state::{JobState, StateKind};
use crate::time::Timestamp;

/// For so many jobs a pass looks for victims at most.
const PREEMPTORS: usize = 16;

/// What a pass knows of the first job that did not fit.
enum Head {
    /// Nobody was blocked so far.
    None,
    /// This one; its reservation is worked out when somebody behind it would fit.
    Blocked(BucketIx),
    /// This is held for it.
    Reserved(Shadow),
    /// Nothing can be held for it.
    Hopeless,
}

/// What becomes of the first job of the order.
enum Verdict {
    Start(Packing),
    NoRoom,
    /// A limit is in the way.
    Limited(Barrier),
    /// Somebody ahead waits for the same limit.
    KeptBack,
    /// It would borrow, and others have not had what is theirs yet.
    Later,
}

/// What a pass has found so far.
struct Pass {
    head: Head,
    /// What is kept of the limits: for the head, and for those for whom runs are being ended.
    kept: Vec<(BucketIx, Amounts)>,
    closed: SmallVec<[Gate; 4]>,
    buckets: Vec<BucketIx>,
    tenants: Vec<TenantIx>,
    queues: Vec<QueueIx>,
    /// Queues whose first jobs would borrow, while those within their guarantees are looked at.
    later: Option<Vec<QueueIx>>,
    no_room: usize,
    /// Jobs for which victims were looked for.
    preemptors: usize,
    /// Kinds of a queue that limits kept back.
    limited: HashMap<QueueIx, usize, Build>,
    /// Somebody was kept back who may not be next time, though nothing was given back.
    undecided: bool,
}

impl Scheduler {
    /// Starts queued jobs, at most `limit`, and ends runs to make room where that is on; what is returned is entered already.
    pub fn plan(&mut self, now: Timestamp, limit: usize) -> Vec<Transition> {
        let mut made = Vec::new();
        if limit == 0 || self.exhausted || self.counts[StateKind::Queued as usize] == 0 {
            return made;
        }
        self.tree.pass_time(now);
        let mut fronts = self.fronts(now);
        let mut pass = Pass::new();
        let mut exhausted = false;
        while made.len() < limit && pass.no_room < self.scan_limit {
            let Some((_, unit)) = fronts.pop() else {
                let later = pass.later.take().unwrap_or_default();
                if later.is_empty() {
                    exhausted = true;
                    break;
                }
                for queue in later {
                    self.tree.park_queue(queue, false);
                }
                fronts = self.fronts(now);
                continue;
            };
            let Some((bucket, job)) = self.tree.first(unit) else { continue };
            let started = match self.judge(bucket, now, &mut pass) {
                Verdict::Start(packing) => self.start(job, bucket, &packing, now),
                Verdict::NoRoom if self.discipline == Discipline::Strict && !matches!(pass.head, Head::None) => break,
                verdict => {
                    if self.wants_room(bucket, &verdict, &mut pass) {
                        made.extend(self.make_room(job, now, &mut pass));
                    }
                    self.put_aside(bucket, &verdict, &mut pass);
                    None
                }
            };
            made.extend(started);
            if let Some(rank) = self.tree.rank(unit, now) {
                fronts.push((rank, unit));
            }
        }
        // A reservation is only worked out when somebody fits; those that it held back may be let go by time alone.
        self.exhausted = exhausted && !pass.undecided && !matches!(pass.head, Head::Reserved(_));
        self.end_pass(pass);
        made
    }

    /// Everybody who has a first job, by its rank.
    fn fronts(&self, now: Timestamp) -> BinaryHeap<(Rank, Unit)> {
        self.tree.units().iter().filter_map(|&unit| Some((self.tree.rank(unit, now)?, unit))).collect()
    }

    /// Whether the jobs of a bucket can start now, without delaying the blocked head and without passing anybody at a gate.
    fn judge(&mut self, bucket: BucketIx, now: Timestamp, pass: &mut Pass) -> Verdict {
        let kind = self.tree.bucket(bucket);
        if self.tree.is_limited(kind.queue) {
            if pass.later.is_some() && self.tree.would_borrow(bucket, &kind.demand.total) {
                return Verdict::Later;
            }
            if let Some(barrier) = self.tree.barriers(bucket, &kind.demand.total).into_iter().next() {
                return Verdict::Limited(barrier);
            }
            if pass.closed.iter().any(|&gate| self.tree.concerns(gate, bucket, &kind.demand.total)) {
                return Verdict::KeptBack;
            }
        }
        match self.find_place(bucket, now, pass) {
            Some(packing) => Verdict::Start(packing),
            None => Verdict::NoRoom,
        }
    }

    /// Where the jobs of a bucket can start now without delaying the blocked head. The first one that cannot becomes the head.
    fn find_place(&mut self, bucket: BucketIx, now: Timestamp, pass: &mut Pass) -> Option<Packing> {
        let kind = self.tree.bucket(bucket);
        let fits = self.nodes.find(&kind.demand);
        let Ok(packing) = fits else {
            // What would not fit even if nothing else ran waits for other nodes, not for other jobs: it reserves nothing.
            if matches!(pass.head, Head::None) && self.nodes.pack(&kind.demand, self.nodes.idle()).is_ok() {
                let total = kind.demand.total;
                pass.head = Head::Blocked(bucket);
                pass.kept.push((bucket, total));
                self.tree.reserve(bucket, &total);
            }
            return None;
        };
        self.reserve_for_head(now, pass);
        let kind = self.tree.bucket(bucket);
        match &mut pass.head {
            Head::Reserved(shadow) => shadow.admit(&kind.demand, kind.stay, packing, &self.nodes, now),
            Head::None | Head::Blocked(_) | Head::Hopeless => Some(packing),
        }
    }

    /// Works out the reservation of the blocked head, if that was not needed so far.
    fn reserve_for_head(&mut self, now: Timestamp, pass: &mut Pass) {
        if let Head::Blocked(blocked) = pass.head {
            let Self { active, jobs, tree, .. } = self;
            active.know_ends(|active| latest_end(&jobs[active.job], tree));
            pass.head = match self.shadow(&self.tree.bucket(blocked).demand, now) {
                Some(shadow) => Head::Reserved(shadow),
                None => Head::Hopeless,
            };
        }
    }

    fn start(&mut self, job: JobIx, bucket: BucketIx, packing: &Packing, now: Timestamp) -> Option<Transition> {
        let placement = self.nodes.placement(&self.tree.bucket(bucket).demand, packing);
        self.change(job, Event::Place { placement: Box::new(placement) }, now).ok()
    }

    /// Whether runs may be ended for this job: it is the blocked head, or passes nobody at the gates.
    fn wants_room(&self, bucket: BucketIx, verdict: &Verdict, pass: &mut Pass) -> bool {
        let first = match verdict {
            Verdict::NoRoom => matches!(pass.head, Head::Blocked(head) if head == bucket),
            Verdict::Limited(barrier) => {
                let total = &self.tree.bucket(bucket).demand.total;
                barrier.can_open() && !pass.closed.iter().any(|&gate| self.tree.concerns(gate, bucket, total))
            }
            Verdict::Start(_) | Verdict::KeptBack | Verdict::Later => false,
        };
        let wants = first && self.may_preempt() && pass.preemptors < PREEMPTORS;
        pass.preemptors += usize::from(wants);
        wants
    }

    /// Ends runs so that a job can start once they are gone. What it will take then is kept for it, so that nobody counts on the same room.
    fn make_room(&mut self, job: JobIx, now: Timestamp, pass: &mut Pass) -> Vec<Transition> {
        let bucket = self.jobs[job].bucket;
        let own = pass.kept.pop_if(|(kept, _)| *kept == bucket);
        if let Some((_, amounts)) = &own {
            self.tree.unreserve(bucket, amounts);
        }
        let before: SmallVec<[BucketIx; 4]> = pass.kept.iter().map(|(bucket, _)| *bucket).collect();
        if own.is_none() {
            self.reserve_for_head(now, pass);
        }
        let beside = if let Head::Reserved(shadow) = &pass.head { Some(shadow.extra()) } else { None };
        let made = self.preempt_for(Claim { job, before: &before, beside, first_round: pass.later.is_some(), now });
        if own.is_some() || made.is_some() {
            let total = self.tree.bucket(bucket).demand.total;
            self.tree.reserve(bucket, &total);
            pass.kept.push((bucket, total));
        }
        let made = made.unwrap_or_default();
        pass.undecided |= !made.is_empty();
        made
    }

    /// Takes those out of the pass for whom the verdict stands.
    fn put_aside(&mut self, bucket: BucketIx, verdict: &Verdict, pass: &mut Pass) {
        let queue = self.tree.bucket(bucket).queue;
        match verdict {
            Verdict::Limited(barrier) => {
                if barrier.can_open() {
                    pass.close(barrier.gate);
                    if let Gate::Pool(_, resource) = barrier.gate {
                        pass.close(Gate::Queue(queue, Counted::Amount(resource)));
                    }
                    // Nobody else gets through a gate that counts jobs.
                    match barrier.gate {
                        Gate::Tenant(tenant, Counted::Jobs) => return self.put_tenant_aside(tenant, pass),
                        Gate::Queue(queue, Counted::Jobs) => return self.put_queue_aside(queue, pass),
                        Gate::Tenant(..) | Gate::Queue(..) | Gate::Pool(..) => {}
                    }
                }
            }
            Verdict::Later => {
                self.tree.park_queue(queue, true);
                pass.later.get_or_insert_default().push(queue);
                return;
            }
            Verdict::KeptBack => pass.undecided = true,
            Verdict::Start(_) | Verdict::NoRoom => pass.no_room += 1,
        }
        self.tree.park(bucket, true);
        pass.buckets.push(bucket);
        if matches!(verdict, Verdict::Limited(_) | Verdict::KeptBack) {
            let kinds = pass.limited.entry(queue).or_default();
            *kinds += 1;
            if *kinds >= self.scan_limit {
                pass.undecided = true;
                self.put_queue_aside(queue, pass);
            }
        }
    }

    fn put_tenant_aside(&mut self, tenant: TenantIx, pass: &mut Pass) {
        self.tree.park_tenant(tenant, true);
        pass.tenants.push(tenant);
    }

    fn put_queue_aside(&mut self, queue: QueueIx, pass: &mut Pass) {
        self.tree.park_queue(queue, true);
        pass.queues.push(queue);
    }

    fn end_pass(&mut self, pass: Pass) {
        for (bucket, amounts) in pass.kept {
            self.tree.unreserve(bucket, &amounts);
        }
        pass.queues.into_iter().chain(pass.later.into_iter().flatten()).for_each(|queue| self.tree.park_queue(queue, false));
        pass.tenants.into_iter().for_each(|tenant| self.tree.park_tenant(tenant, false));
        pass.buckets.into_iter().for_each(|bucket| self.tree.park(bucket, false));
    }

    /// What is held for a job that does not fit now. `None` if it would not fit even after everything that runs has ended.
    pub(super) fn shadow(&self, demand: &Demand, now: Timestamp) -> Option<Shadow> {
        let end = |active: &Active| latest_end(&self.jobs[active.job], &self.tree);
        Shadow::new(demand, &self.nodes, self.active.by_end(now, end))
    }
}

/// When a job that holds resources has given them back at the latest, if its limits say so.
pub(super) fn latest_end(job: &Job, tree: &Tree) -> End {
    match (&job.lifecycle.state, tree.bucket(job.bucket).stay) {
        (JobState::Stopping { deadline, .. }, _) => End::At(*deadline),
        (JobState::Running { since, .. }, Some(stay)) => End::At(*since + stay),
        (_, Some(stay)) => End::In(stay),
        (_, None) => End::Never,
    }
}

impl Pass {
    fn new() -> Self {
        Self {
            head: Head::None,
            kept: Vec::new(),
            closed: SmallVec::new(),
            buckets: Vec::new(),
            tenants: Vec::new(),
            queues: Vec::new(),
            later: Some(Vec::new()),
            no_room: 0,
            preemptors: 0,
            limited: HashMap::default(),
            undecided: false,
        }
    }

    fn close(&mut self, gate: Gate) {
        if !self.closed.contains(&gate) {
            self.closed.push(gate);
        }
    }
}
