//! What a pass over the queue has found so far, and what it puts aside.
//!
//! Whatever is taken out of the order, parked, narrowed or reserved while a pass lasts is written down here, and [`Scheduler::end_pass`] gives all
//! of it back: between two passes the tree knows nothing of them.

use hashbrown::HashMap;
use smallvec::SmallVec;

use crate::hash::Build;
use crate::scheduler::Scheduler;
use crate::scheduler::agenda::{Agenda, Reservation};
use crate::scheduler::backfill::Shadow;
use crate::scheduler::config::Discipline;
use crate::scheduler::explain::trace::{Finding, Note};
use crate::scheduler::misfits::Misfits;
use crate::scheduler::place::Packing;
use crate::scheduler::table::JobIx;
use crate::scheduler::tree::ledger::{Barrier, Counted, Gate};
use crate::scheduler::tree::share::Amounts;
use crate::scheduler::tree::{BucketIx, QueueIx, Stay, TenantIx};
use crate::time::{Span, Timestamp};

/// What a pass knows of the first job that did not fit.
#[expect(clippy::large_enum_variant, reason = "there is one a pass")]
pub(super) enum Head {
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
pub(super) enum Verdict {
    Start(Packing),
    NoRoom,
    /// No room, and none can be kept for it: as long as it may stay it would be in the way of those for whom room is kept. For those that stay no
    /// longer than this some may be kept.
    TooLong(Option<Span>),
    /// There is room, but it stays too long to take it from those for whom it is kept. Those that stay no longer than this may still pass.
    WouldDelay(Option<Span>),
    /// Room is kept for it.
    Reserved {
        /// At this time, if it is known.
        at: Option<Timestamp>,
        /// There is room for it now, which it would take from others for whom it is kept.
        fits: bool,
    },
    /// A limit is in the way.
    Limited(Barrier),
    /// Somebody ahead waits for the same limit.
    KeptBack,
    /// It would borrow, and others have not had what is theirs yet.
    Later,
}

/// What a pass has found so far.
pub(super) struct Pass {
    pub(super) head: Head,
    /// Instead of the head, where several jobs have reservations.
    pub(super) agenda: Option<Agenda>,
    /// Those who have, taken out of their buckets.
    pub(super) taken_out: Vec<JobIx>,
    /// What is kept of the limits: for the head, and for those for whom runs are being ended.
    pub(super) kept: Vec<(BucketIx, Amounts)>,
    pub(super) closed: SmallVec<[Gate; 4]>,
    /// Buckets that are put aside or narrowed.
    buckets: Vec<BucketIx>,
    tenants: Vec<TenantIx>,
    queues: Vec<QueueIx>,
    /// Queues whose first jobs would borrow, while those within their guarantees are looked at.
    pub(super) later: Option<Vec<QueueIx>>,
    pub(super) no_room: usize,
    pub(super) misfits: Misfits,
    /// Jobs that found no room since it was last asked whether anybody could.
    pub(super) since_asked: usize,
    /// The buckets whose turn comes next in the units that had theirs last, latest first.
    pub(super) ahead: [Option<BucketIx>; 2],
    /// Jobs for which victims were looked for.
    pub(super) preemptors: usize,
    /// Shapes of a queue that limits kept back.
    limited: HashMap<QueueIx, usize, Build>,
    /// Somebody was kept back who may not be next time, though nothing was given back.
    pub(super) undecided: bool,
}

impl Pass {
    pub(super) fn new(discipline: Discipline) -> Self {
        let agenda = if let Discipline::Conservative { heads } = discipline { Some(Agenda::new(heads as usize)) } else { None };
        Self {
            head: Head::None,
            agenda,
            taken_out: Vec::new(),
            kept: Vec::new(),
            closed: SmallVec::new(),
            buckets: Vec::new(),
            tenants: Vec::new(),
            queues: Vec::new(),
            later: Some(Vec::new()),
            no_room: 0,
            misfits: Misfits::new(),
            since_asked: 0,
            ahead: [None; 2],
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

impl Scheduler {
    /// Writes down what became of the first job of a bucket, where somebody wants to know.
    pub(super) fn note(&mut self, bucket: BucketIx, verdict: &Verdict, pass: &Pass) {
        let kind = self.tree.bucket(bucket);
        let (Some(trace), Some(job)) = (&mut self.trace, kind.front()) else { return };
        let finding = match verdict {
            Verdict::Start(_) => return,
            Verdict::NoRoom | Verdict::TooLong(_) => {
                let blocked = matches!(pass.head, Head::Blocked(head) if head == bucket);
                trace.head = trace.head.or(blocked.then_some(job));
                Finding::NoRoom
            }
            Verdict::Reserved { fits: false, .. } => {
                // The first is what others would delay; those after it are told of it as well.
                trace.head = trace.head.or(Some(job));
                Finding::NoRoom
            }
            Verdict::WouldDelay(_) | Verdict::Reserved { .. } => Finding::WouldDelay,
            Verdict::Limited(barrier) => Finding::Limited(*barrier),
            Verdict::KeptBack => {
                let closed = pass.closed.iter().find(|gate| self.tree.concerns(**gate, bucket, &kind.demand.total));
                Finding::KeptBack(closed.copied())
            }
            Verdict::Later => Finding::Later,
        };
        trace.notes.push(Note { bucket, job, finding });
    }

    /// Takes those out of the pass for whom the verdict stands.
    pub(super) fn put_aside(&mut self, (bucket, job): (BucketIx, JobIx), verdict: &Verdict, pass: &mut Pass) {
        self.note(bucket, verdict, pass);
        let mut upto = None;
        let queue = self.tree.bucket(bucket).queue;
        match verdict {
            Verdict::Limited(barrier) => {
                pass.undecided = pass.undecided || self.limited_by_kept(bucket, pass);
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
            // If that was not enough for this one, nobody may.
            Verdict::WouldDelay(stay) | Verdict::TooLong(stay) => {
                upto = stay.map(Stay::within).filter(|&upto| self.tree.is_wider(bucket, upto));
            }
            Verdict::Reserved { at, .. } => {
                if let Some(key) = self.key_of(job) {
                    self.tree.remove(bucket, job, key, self.stay_of(job));
                    pass.taken_out.push(job);
                }
                self.reservations.push(Reservation { job: self.jobs[job].id, at: *at });
                return;
            }
            Verdict::Start(_) | Verdict::NoRoom => {}
        }
        if self.tree.narrow(bucket, upto) {
            pass.buckets.push(bucket);
            pass.no_room += usize::from(matches!(
                verdict,
                Verdict::Start(_) | Verdict::NoRoom | Verdict::TooLong(_) | Verdict::WouldDelay(_)
            ));
        }
        if matches!(verdict, Verdict::Limited(_) | Verdict::KeptBack) {
            let shapes = pass.limited.entry(queue).or_default();
            *shapes += 1;
            if *shapes >= self.scan_limit {
                pass.undecided = true;
                self.put_queue_aside(queue, pass);
            }
        }
    }

    /// Whether nothing but what is kept of the limits for those before it is in a job's way. Then it matters who is before it, and the order
    /// changes without anything being given back: by time, and by a job of the same shape that ranks higher.
    fn limited_by_kept(&mut self, bucket: BucketIx, pass: &Pass) -> bool {
        if pass.kept.is_empty() {
            return false;
        }
        for (kept, amounts) in &pass.kept {
            self.tree.unreserve(*kept, amounts);
        }
        let free = self.tree.barriers(bucket, &self.tree.bucket(bucket).demand.total).is_empty();
        for (kept, amounts) in &pass.kept {
            self.tree.reserve(*kept, amounts);
        }
        free
    }

    fn put_tenant_aside(&mut self, tenant: TenantIx, pass: &mut Pass) {
        self.tree.park_tenant(tenant, true);
        pass.tenants.push(tenant);
    }

    fn put_queue_aside(&mut self, queue: QueueIx, pass: &mut Pass) {
        self.tree.park_queue(queue, true);
        pass.queues.push(queue);
    }

    pub(super) fn end_pass(&mut self, pass: Pass, now: Timestamp) {
        for job in pass.taken_out {
            if let Some(key) = self.key_of(job) {
                self.tree.push(self.jobs[job].bucket, job, key, self.stay_of(job), now);
            }
        }
        for (bucket, amounts) in pass.kept {
            self.tree.unreserve(bucket, &amounts);
        }
        pass.queues.into_iter().chain(pass.later.into_iter().flatten()).for_each(|queue| self.tree.park_queue(queue, false));
        pass.tenants.into_iter().for_each(|tenant| self.tree.park_tenant(tenant, false));
        for bucket in pass.buckets {
            self.tree.narrow(bucket, Some(Stay::UNLIMITED));
        }
    }
}
