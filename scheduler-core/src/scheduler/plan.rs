//! A pass over the queue: who starts now, and where.
//!
//! A pass takes the first job of the order, starts it if limits and room allow, and goes on. The first job for which there is no room is
//! the *blocked head*: it gets a reservation ([`Shadow`]) and its part of the limits, and from then on a job starts only if that cannot
//! delay the head (EASY backfill). Every further job that does not fit has its bucket put aside: its followers ask for the same. One that
//! fits but would delay the head has its bucket narrowed: for the rest of the pass only those of its followers are looked at that are over
//! before the head starts. A job that a limit keeps back closes that gate for those behind it
//! ([`ledger`](crate::scheduler::tree::ledger)); it reserves no room, because room is not what it waits for. Queues whose first job would
//! borrow come after all that stay within their guarantees: what is lent would only have to be taken back.
//!
//! So a pass costs O(started x log n + shapes), and not O(queued), however many time limits there are; and it gives up after `scan_limit`
//! shapes that found no room, and on a queue after as many shapes that limits kept back. The head is always looked at first, so giving up
//! delays only backfill.
//!
//! Where preemption is on, runs are ended for the blocked head and for the first job at a gate, if that lets it start
//! ([`preempt`](crate::scheduler::preempt)); it starts when they are gone, and until then its place is kept as that of any head.
//!
//! Under [`Discipline::Strict`] a pass ends at the blocked head instead. Under [`Discipline::Conservative`] the first few jobs that cannot
//! start have reservations, not the first alone ([`agenda`](crate::scheduler::agenda)). Each is taken out of its bucket for the rest of the
//! pass, so that the next one of its shape has its turn; when there are as many as there may be, buckets are put aside and narrowed as above.
//!
//! What a pass finds and puts aside on its way is in [`pass`](crate::scheduler::pass).
//!
//! When a pass found nothing to start, the next one has nothing to look at until something is given back or another shape is queued.

use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;
use std::sync::Arc;

use smallvec::SmallVec;

use crate::event::{Event, Transition};
use crate::intern::Interner;
use crate::job::Policy;
use crate::scheduler::Scheduler;
use crate::scheduler::agenda::Agenda;
use crate::scheduler::backfill::{Run, Shadow};
use crate::scheduler::config::Discipline;
use crate::scheduler::pass::{Head, Pass, Verdict};
use crate::scheduler::place::{Demand, Packing};
use crate::scheduler::preempt::Claim;
use crate::scheduler::runs::End;
use crate::scheduler::table::{Job, JobIx, PolicyIx};
use crate::scheduler::tree::key::Rank;
use crate::scheduler::tree::ledger::Barrier;
use crate::scheduler::tree::{BucketIx, Stay, Unit};
use crate::state::{JobState, StateKind};
use crate::time::Timestamp;

/// For so many jobs a pass looks for victims at most.
const PREEMPTORS: usize = 16;

/// Room for more transitions than this is not made beforehand.
const AT_ONCE: usize = 1024;

impl Scheduler {
    /// Starts queued jobs, at most `limit`, those first for whom there is room, then whoever is lined up
    /// ([`lineup`](crate::scheduler::lineup)), and ends runs to make room where that is on; what is returned is entered already.
    pub fn plan(&mut self, now: Timestamp, limit: usize) -> Vec<Transition> {
        let mut made = Vec::new();
        self.unsettled = false;
        if !self.lineup.is_idle() {
            self.review_lines(now);
        }
        if limit == 0 || self.counts[StateKind::Queued as usize] == 0 {
            return made;
        }
        if self.exhausted {
            self.line_up(now, limit, &mut made);
            return made;
        }
        // As many as last time: growing by doubling moves each of them twice, and room for more than come has to be found first.
        made.reserve(limit.min(self.made_before));
        self.tree.pass_time(now);
        let mut fronts = self.fronts(now);
        let mut pass = Pass::new(self.discipline);
        self.reservations.clear();
        let mut exhausted = false;
        while made.len() < limit && pass.no_room < self.scan_limit {
            let Some(mut front) = fronts.peek_mut() else {
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
            let unit = front.1;
            let Some((bucket, job)) = self.tree.first(unit) else {
                PeekMut::pop(front);
                continue;
            };
            let started = match self.judge(bucket, job, now, &mut pass) {
                Verdict::Start(packing) => {
                    let started = self.start(job, bucket, packing, now);
                    self.look_ahead(unit, &mut pass);
                    started
                }
                verdict @ Verdict::NoRoom if self.discipline == Discipline::Strict && !matches!(pass.head, Head::None) => {
                    self.note(bucket, &verdict, &pass);
                    break;
                }
                verdict => {
                    if self.wants_room(bucket, &verdict, &mut pass) {
                        made.extend(self.make_room(job, now, &mut pass));
                    }
                    let no_room = matches!(verdict, Verdict::NoRoom);
                    self.put_aside((bucket, job), &verdict, &mut pass);
                    if no_room && self.is_full(&mut pass) {
                        exhausted = true;
                        break;
                    }
                    None
                }
            };
            made.extend(started);
            match self.tree.rank(unit, now) {
                Some(rank) => front.0 = rank,
                None => drop(PeekMut::pop(front)),
            }
        }
        // A reservation is only worked out when somebody fits; those that it held back may be let go by time alone.
        // So may those for whom no run would give way so far: waiting may put them before it.
        self.exhausted = exhausted && !pass.undecided && pass.preemptors == 0 && !matches!(pass.head, Head::Reserved(_));
        self.unsettled = pass.undecided && !made.is_empty() && self.tree.shares();
        self.end_pass(pass, now);
        self.made_before = made.len().min(AT_ONCE);
        if !self.lineup.is_idle() {
            self.line_up(now, limit, &mut made);
        }
        made
    }

    /// Whether another pass at the same time may start more than the last one did: it started somebody, which changed whose turn it is, and it
    /// kept others back for somebody whose turn it was.
    pub const fn is_unsettled(&self) -> bool {
        self.unsettled
    }

    /// Everybody who has a first job, by its rank.
    pub(super) fn fronts(&self, now: Timestamp) -> BinaryHeap<(Rank, Unit)> {
        self.tree.units().iter().filter_map(|&unit| Some((self.tree.rank(unit, now)?, unit))).collect()
    }

    /// Whether the first job of a bucket can start now, without delaying the blocked head and without passing anybody at a gate.
    fn judge(&mut self, bucket: BucketIx, job: JobIx, now: Timestamp, pass: &mut Pass) -> Verdict {
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
        if !kind.demand.has_replicas {
            return self.find_place(bucket, job, now, pass);
        }
        match self.find_place(bucket, job, now, pass) {
            Verdict::Start(packing) => self.too_large(bucket, &packing).map_or(Verdict::Start(packing), Verdict::Limited),
            verdict => verdict,
        }
    }

    /// The limit, if there is one, that is in the way of what a job would have there: parts that device plugins give out can be larger than
    /// what it asks for, which limits let it have.
    pub(super) fn too_large(&self, bucket: BucketIx, packing: &Packing) -> Option<Barrier> {
        let kind = self.tree.bucket(bucket);
        if !kind.demand.has_replicas || !self.tree.is_limited(kind.queue) {
            return None;
        }
        self.tree.barriers(bucket, &self.nodes.held(&kind.demand, packing)).into_iter().next()
    }

    /// Whether, and where, a job can start now without delaying the blocked head. The first one for which there is no room becomes the head.
    fn find_place(&mut self, bucket: BucketIx, job: JobIx, now: Timestamp, pass: &mut Pass) -> Verdict {
        let kind = self.tree.bucket(bucket);
        let fits = pass.misfits.unless_known(&kind.demand, || self.nodes.find(&kind.demand).ok());
        if pass.agenda.is_some() {
            return self.find_beside(bucket, job, fits, now, pass);
        }
        let Some(packing) = fits else {
            // What would not fit even if nothing else ran waits for other nodes, not for other jobs: it reserves nothing.
            if matches!(pass.head, Head::None) && self.nodes.pack(&kind.demand, self.nodes.idle()).is_ok() {
                let total = kind.demand.total;
                pass.head = Head::Blocked(bucket);
                pass.kept.push((bucket, total));
                self.tree.reserve(bucket, &total);
            }
            return Verdict::NoRoom;
        };
        self.reserve_for_head(now, pass);
        let demand = &self.tree.bucket(bucket).demand;
        match &mut pass.head {
            Head::Reserved(shadow) => {
                let admitted = shadow.admit(demand, self.stay_of(job).span(), packing, &self.nodes, now);
                let upto = shadow.at.map(|at| at.since(now));
                admitted.map_or(Verdict::WouldDelay(upto), Verdict::Start)
            }
            Head::None | Head::Blocked(_) | Head::Hopeless => Verdict::Start(packing),
        }
    }

    /// Works out the reservation of the blocked head, if that was not needed so far.
    fn reserve_for_head(&mut self, now: Timestamp, pass: &mut Pass) {
        if let Head::Blocked(blocked) = pass.head {
            self.know_ends();
            pass.head = match self.shadow(&self.tree.bucket(blocked).demand, now) {
                Some(shadow) => Head::Reserved(shadow),
                None => Head::Hopeless,
            };
        }
    }

    fn start(&mut self, job: JobIx, bucket: BucketIx, packing: Packing, now: Timestamp) -> Option<Transition> {
        let mut placement = self.nodes.placement(&self.tree.bucket(bucket).demand, &packing);
        if self.is_holding() {
            placement.line = self.place_in_line(job, &packing, now);
        }
        self.placing = packing;
        self.jobs.expect_reports(job);
        let made = self.change(job, Event::Place { placement: Arc::new(placement) }, now).ok();
        self.placing.clear();
        made
    }

    /// Whether runs may be ended for this job: it is the blocked head, or passes nobody at the gates.
    fn wants_room(&self, bucket: BucketIx, verdict: &Verdict, pass: &mut Pass) -> bool {
        let first = match verdict {
            Verdict::NoRoom => matches!(pass.head, Head::Blocked(head) if head == bucket),
            Verdict::Reserved { .. } => pass.agenda.as_ref().is_some_and(|agenda| agenda.len() == 1),
            Verdict::Limited(barrier) => {
                let demand = &self.tree.bucket(bucket).demand;
                let total = &demand.total;
                // Who only gets more than he asks for waits for what others give back by themselves: whom to end is worked out from what is
                // asked for.
                let by_asked = !demand.has_replicas || !self.tree.barriers(bucket, total).is_empty();
                by_asked && barrier.can_open() && !pass.closed.iter().any(|&gate| self.tree.concerns(gate, bucket, total))
            }
            Verdict::Start(_) | Verdict::WouldDelay(_) | Verdict::KeptBack | Verdict::Later => false,
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
        let extra = pass.agenda.as_ref().filter(|_| own.is_none()).and_then(Agenda::extra);
        let beside = if let Head::Reserved(shadow) = &pass.head { Some(shadow.extra()) } else { extra.as_ref() };
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

    /// What is held for a job that does not fit now. `None` if it would not fit even after everything that runs has ended.
    pub(super) fn shadow(&self, demand: &Demand, now: Timestamp) -> Option<Shadow> {
        Shadow::new(demand, &self.nodes, || self.runs(now))
    }

    /// What runs have, in the order of their latest ends.
    pub(super) fn runs(&self, now: Timestamp) -> impl Iterator<Item = Run<'_>> {
        self.active.by_end(now, |active| latest_end(&self.jobs[active.job], &self.policies))
    }

    /// Brings the order in which runs end up to date, before something is worked out from it.
    pub(super) fn know_ends(&mut self) {
        let Self { active, jobs, policies, .. } = self;
        active.know_ends(|active| latest_end(&jobs[active.job], policies));
    }
}

/// When a job that holds resources has given them back at the latest, if its limits say so.
pub(super) fn latest_end(job: &Job, policies: &Interner<PolicyIx, Policy>) -> End {
    match (&job.lifecycle.state, Stay::of(policies.get(job.policy)).span()) {
        (JobState::Stopping { deadline, .. }, _) => End::At(*deadline),
        (JobState::Running { since, .. }, Some(stay)) => End::At(*since + stay),
        (_, Some(stay)) => End::In(stay),
        (_, None) => End::Never,
    }
}
