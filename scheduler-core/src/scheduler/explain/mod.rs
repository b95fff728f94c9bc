//! Why a job is where it is, when it starts, and what would let it start at once.
//!
//! What must hold:
//! - An explanation never changes the core, and never disagrees with the next pass: what keeps a job back is what a pass over a copy of the
//!   core finds ([`sketch`]), and a pass over the same copy says whether a change would help.
//! - Under the core's lock only bounded work is done: [`Scheduler::inquire`] walks the queue of the job once and makes the copy;
//!   [`Inquiry::answer`] needs the core no more. The copy is bounded, so of a long queue only the beginning is looked at: then a job that
//!   stands further back is told who is first, and that its start is too far away to tell.

mod order;
mod project;
mod shortfall;
mod sketch;
mod suggest;
pub(in crate::scheduler) mod trace;
mod why;

pub(in crate::scheduler) use order::NAMED;
pub use why::{
    Ahead, AsideGpu, Change, Closest, Estimate, Explanation, Exposure, Gang, JobRef, NoPart, Position, Rule, Shortage, Shortfall,
    Suggestion, TakenGpu, Unknown, Why,
};

use crate::event::Event;
use crate::ids::{JobId, Name};
use crate::scheduler::Scheduler;
use crate::scheduler::explain::project::{project, victims};
use crate::scheduler::explain::sketch::{BOUNDS, Sketch};
use crate::scheduler::explain::suggest::{Subject, Trials};
use crate::scheduler::explain::trace::{Finding, Trace};
use crate::scheduler::table::JobIx;
use crate::scheduler::tree::BucketIx;
use crate::scheduler::tree::ledger::{Barrier, Counted, Gate};
use crate::state::{JobState, StateKind, StopReason, WaitFor};
use crate::time::Timestamp;

/// What was taken from the core to explain a job: all that needs it.
pub struct Inquiry {
    now: Timestamp,
    known: Explanation,
    queued: Option<Box<Queued>>,
}

/// What more is found out about a queued job.
struct Queued {
    subject: Subject,
    /// None where too much runs for a copy; then `known` is all.
    sketch: Option<Sketch>,
}

impl Scheduler {
    /// Why an unfinished job is where it is.
    pub fn explain(&self, job: JobId, now: Timestamp) -> Option<Explanation> {
        self.inquire(job, now).map(Inquiry::answer)
    }

    /// What has to be asked of the core itself: the rest of [`explain`](Self::explain) can be done elsewhere.
    pub fn inquire(&self, job: JobId, now: Timestamp) -> Option<Inquiry> {
        let index = self.jobs.find(job)?;
        let record = &self.jobs[index];
        let policy = self.policies.get(record.policy);
        let (why, estimate) = match &record.lifecycle.state {
            JobState::Waiting { on: WaitFor::Hold } => (Why::Held, Some(Estimate::Unknown(Unknown::Held))),
            JobState::Waiting { on: WaitFor::NotBefore(at) } => {
                let lost = record.lifecycle.lost;
                let retried = lost > 0 && record.start_after() != Some(*at);
                let backoff = Why::Backoff { at: *at, lost, max_attempts: policy.max_attempts };
                (if retried { backoff } else { Why::NotBefore(*at) }, Some(Estimate::NotBefore(*at)))
            }
            JobState::Queued { .. } => self.glance(index, now),
            JobState::Starting { .. } => match self.waits_in_line(index) {
                Some((node, behind, wait)) => (Why::LinedUp { node, behind, wait }, None),
                None => (Why::Starting, None),
            },
            JobState::Running { since, .. } => {
                let until = policy.time_limit.map(|limit| *since + limit);
                (Why::Running { since: *since, until, exposure: self.exposure(index) }, None)
            }
            JobState::Stopping { why, deadline, .. } => {
                let by = if let StopReason::Preempted { by, .. } = **why { self.jobs.find(by) } else { None };
                let for_job = by.map(|by| self.job_ref(by));
                (Why::Stopping { reason: StopReason::clone(why), for_job, deadline: *deadline }, None)
            }
            JobState::Finished { .. } => return None,
        };
        let known = Explanation {
            job: self.job_ref(index),
            attempt: record.lifecycle.attempt,
            why,
            position: self.position(index, now),
            estimate,
            suggestions: Vec::new(),
        };
        let queued = (record.lifecycle.state.kind() == StateKind::Queued).then(|| {
            let subject = Subject {
                id: record.id,
                seq: record.seq,
                shape: self.shape_of(record).clone(),
                policy: policy.clone(),
                submitted_at: record.submitted_at,
                start_after: record.start_after(),
                lifecycle: record.lifecycle.clone(),
            };
            Box::new(Queued { subject, sketch: self.sketch(index, BOUNDS, now) })
        });
        Some(Inquiry { now, known, queued })
    }

    /// What can be said of a queued job without a pass: what there is to say where a pass would be too much.
    fn glance(&self, index: JobIx, now: Timestamp) -> (Why, Option<Estimate>) {
        let far = Some(Estimate::Unknown(Unknown::TooFar { starts: 0, until: now }));
        let bucket = self.jobs[index].bucket;
        let demand = &self.tree.bucket(bucket).demand;
        if let Some(why) = self.hopeless(index) {
            return (why, Some(Estimate::Unknown(Unknown::Change)));
        }
        if let Some(barrier) = self.limited(bucket) {
            return (self.limit(index, &barrier), far);
        }
        let ranked = self.tree.units().iter().filter_map(|&unit| Some((self.tree.rank(unit, now)?, unit)));
        let first = ranked.max().and_then(|(_, unit)| self.tree.first(unit)).map_or(index, |(_, first)| first);
        if first != index {
            let first = self.is_ahead(first, index, now);
            return (Why::Behind { first, shortfall: Shortfall::default(), expected: None }, far);
        }
        if self.fits(demand) {
            return (Why::Scheduling, Some(Estimate::Now));
        }
        (Why::Resources { shortfall: Shortfall::default(), expected: None }, far)
    }

    /// Why it could not start even if nothing else ran, if that is so.
    fn hopeless(&self, index: JobIx) -> Option<Why> {
        if self.nodes.whole().is_empty() {
            return Some(Why::NoNodes);
        }
        let job = &self.jobs[index];
        let demand = &self.tree.bucket(job.bucket).demand;
        let shape = self.shape_of(job);
        let over = self.tree.over_limit(&shape.queue, &demand.total).is_some();
        if !over && self.fits_empty(demand) {
            return None;
        }
        let never = self.admit_tasks(shape).err().map(Why::Never);
        never.or_else(|| (!over).then(|| self.closed_for(demand)))
    }

    /// The limit that keeps jobs of a kind from starting: by what they ask for, or by what they would have where there is room for them.
    fn limited(&self, bucket: BucketIx) -> Option<Barrier> {
        let demand = &self.tree.bucket(bucket).demand;
        let asked = self.tree.barriers(bucket, &demand.total).into_iter().next();
        let packing = || self.nodes.pack(demand, self.nodes.rooms()).ok();
        asked.or_else(|| if demand.has_replicas { self.too_large(bucket, &packing()?) } else { None })
    }

    fn limit(&self, index: JobIx, barrier: &Barrier) -> Why {
        let Barrier { held, asked, bound: limit, .. } = *barrier;
        let of = self.gate_name(index, barrier.gate);
        Why::Limit { whose: barrier.whose(), of, counted: barrier.counted(), held, asked, limit }
    }

    fn gate_name(&self, index: JobIx, gate: Gate) -> Name {
        let shape = self.shape_of(&self.jobs[index]);
        match gate {
            Gate::Tenant(..) => shape.namespace.clone(),
            Gate::Queue(..) => shape.queue.clone(),
            Gate::Pool(cohort, _) => self.tree.cohort(cohort).config.name.clone(),
        }
    }

    fn exposure(&self, index: JobIx) -> Exposure {
        let job = &self.jobs[index];
        let queue = self.tree.queue(self.tree.bucket(job.bucket).queue);
        if !queue.config.preemptible {
            return Exposure::default();
        }
        let borrowed = self.active.get(job.order).is_some_and(|active| active.borrowed);
        let guaranteed = !borrowed && queue.root.is_some_and(|root| self.tree.cohort(root).bound != [None; 3]);
        Exposure {
            within_queue: self.preemption.within_queue,
            reclaim: self.preemption.reclaim && borrowed,
            across_queues: self.preemption.across_queues && !guaranteed,
        }
    }
}

impl Inquiry {
    /// The whole answer. Takes a few milliseconds at most.
    pub fn answer(self) -> Explanation {
        let Self { now, mut known, queued } = self;
        if let Some(Queued { subject, sketch: Some(sketch) }) = queued.map(|queued| *queued) {
            look_closer(&mut known, &subject, sketch, now);
        }
        known
    }
}

/// What passes over a copy say.
fn look_closer(known: &mut Explanation, subject: &Subject, mut sketch: Sketch, now: Timestamp) {
    let untouched = if Trials::allowed(&sketch) > 0 { sketch.again(now) } else { None };
    let suggestions =
        |why: &Why| untouched.as_ref().map(|untouched| Trials::new(untouched, subject, now).suggest(why)).unwrap_or_default();
    let (made, trace) = sketch.pass(now);
    let Some(index) = sketch.core.jobs.find(subject.id) else {
        // It stands so far back that it was not copied; what was seen at a glance is all.
        known.suggestions = suggestions(&known.why);
        return;
    };
    if sketch.core.jobs[index].lifecycle.state.kind() != StateKind::Queued {
        (known.why, known.estimate) = (Why::Scheduling, Some(Estimate::Now));
        return;
    }
    let asked = made.iter().any(|made| matches!(made.event, Event::Preempt { by, .. } if by == subject.id));
    known.why = match victims(&sketch, subject.id) {
        Some((victims, until)) => Why::MakingRoom { victims, until: (!asked).then_some(until) },
        None => sketch.core.found(index, &trace, now),
    };
    if matches!(known.why, Why::Never(_) | Why::NoNodes | Why::NodesClosed { .. } | Why::GpusAside { .. }) {
        known.estimate = Some(Estimate::Unknown(Unknown::Change));
        return;
    }
    if !matches!(known.why, Why::MakingRoom { .. }) {
        known.suggestions = suggestions(&known.why);
    }
    known.estimate = Some(project(&mut sketch, subject.id, now));
}

impl Scheduler {
    /// Why a pass over this copy did not start a job, by what it wrote down.
    fn found(&self, index: JobIx, trace: &Trace, now: Timestamp) -> Why {
        let bucket = self.jobs[index].bucket;
        if let Some(why) = self.hopeless(index) {
            return why;
        }
        let demand = &self.tree.bucket(bucket).demand;
        if let Some(barrier) = self.limited(bucket) {
            return self.limit(index, &barrier);
        }
        let own = trace.notes.iter().rfind(|note| note.job == index);
        let note = own.or_else(|| trace.notes.iter().rfind(|note| note.bucket == bucket));
        let head = trace.head.filter(|head| *head != index);
        let ahead = |other: JobIx| self.is_ahead(other, index, now);
        let reservation = |of: JobIx| self.reservations.iter().find(|kept| kept.job == self.jobs[of].id);
        match note.map(|note| &note.finding) {
            Some(Finding::NoRoom) if trace.head == Some(index) => {
                let expected = self.shadow(demand, now).and_then(|shadow| shadow.at);
                Why::Resources { shortfall: self.shortfall(index, now), expected }
            }
            Some(Finding::NoRoom) if let (Some(kept), Some(head)) = (reservation(index), head) => {
                Why::Behind { first: ahead(head), shortfall: self.shortfall(index, now), expected: kept.at }
            }
            Some(Finding::WouldDelay) if let Some(head) = head => {
                let shadow = || self.shadow(&self.tree.bucket(self.jobs[head].bucket).demand, now).and_then(|shadow| shadow.at);
                let at = reservation(head).map_or_else(shadow, |kept| kept.at);
                let own = usize::from(reservation(index).is_some());
                let more = self.reservations.len().saturating_sub(1 + own);
                Why::Reserved { head: ahead(head), more, at, stay: self.stay_of(index).span() }
            }
            Some(Finding::Limited(Barrier { gate, .. })) => self.kept_back(index, Some(*gate), trace, now),
            Some(Finding::KeptBack(gate)) => self.kept_back(index, *gate, trace, now),
            found => {
                let own_kind = note.map(|note| note.job).filter(|first| *first != index);
                let first = if found.is_some() {
                    head.or(own_kind)
                } else {
                    head.or(own_kind).or_else(|| self.first_noted(index, trace))
                };
                match first {
                    Some(first) => Why::Behind { first: ahead(first), shortfall: self.shortfall(index, now), expected: None },
                    None => Why::Resources { shortfall: self.shortfall(index, now), expected: None },
                }
            }
        }
    }

    /// Somebody else of whom a pass found that he cannot start.
    fn first_noted(&self, index: JobIx, trace: &Trace) -> Option<JobIx> {
        let own = self.tree.bucket(self.jobs[index].bucket).queue;
        let others = || trace.notes.iter().map(|note| note.job).filter(|job| *job != index);
        others().find(|job| self.tree.bucket(self.jobs[*job].bucket).queue == own).or_else(|| others().next())
    }

    /// A gate is closed, or what is left behind it is kept for somebody.
    fn kept_back(&self, index: JobIx, gate: Option<Gate>, trace: &Trace, now: Timestamp) -> Why {
        let closed_by = |gate: Gate| {
            trace.notes.iter().find(|note| {
                let Finding::Limited(barrier) = &note.finding else { return false };
                let queue = self.tree.bucket(note.bucket).queue;
                let pool = matches!((gate, barrier.gate),
                    (Gate::Queue(own, Counted::Amount(one)), Gate::Pool(_, other)) if own == queue && one == other);
                note.job != index && (barrier.gate == gate || pool)
            })
        };
        let first = gate.and_then(closed_by).map(|note| note.job).or(trace.head).or_else(|| self.first_noted(index, trace));
        let (Some(gate), Some(first)) = (gate, first.filter(|first| *first != index)) else {
            return Why::Resources { shortfall: self.shortfall(index, now), expected: None };
        };
        let barrier = Barrier { gate, held: 0, asked: 0, bound: 0 };
        let of = self.gate_name(index, gate);
        Why::KeptBack { first: self.is_ahead(first, index, now), whose: barrier.whose(), of, counted: barrier.counted() }
    }
}
