//! When a queued job starts: passes over a copy, each when the next runs end by their limits.
//!
//! The answer is as good as what is known: runs end when their time limit and grace say at the latest, jobs that start on the way
//! likewise, and nothing is submitted, released or due meanwhile. Runs without a limit are taken to end after all others, in the order in
//! which they started; the one without whose end the job does not start is the reason why nobody knows.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::ids::JobId;
use crate::scheduler::explain::sketch::Sketch;
use crate::scheduler::explain::why::{Estimate, JobRef, Unknown};
use crate::scheduler::table::JobIx;
use crate::state::{JobState, StateKind};
use crate::time::Timestamp;

/// Records that passes may look at in all: about a millisecond's work.
const WORK: usize = 20_000;
/// Records that a start, and a pass with nothing to look at, count for.
const PASS: usize = 8;

/// What is to come: runs that end, by (time, order of start).
struct Ends {
    /// Of those that are known to end.
    known: BinaryHeap<Reverse<(Timestamp, u64)>>,
    /// Of those that may run for ever.
    unknown: BinaryHeap<Reverse<u64>>,
}

impl Ends {
    fn of(sketch: &Sketch, now: Timestamp) -> Self {
        let mut ends = Self { known: BinaryHeap::new(), unknown: BinaryHeap::new() };
        for (order, _) in sketch.core.active.iter() {
            ends.enter(sketch, order, now);
        }
        ends
    }

    fn enter(&mut self, sketch: &Sketch, order: u64, now: Timestamp) {
        let Some(active) = sketch.core.active.get(order) else { return };
        match sketch.core.end_of(active.job, now) {
            Some(end) => self.known.push(Reverse((end, order))),
            None => self.unknown.push(Reverse(order)),
        }
    }
}

/// When the job starts, from the state after a pass at `now` that did not start it. The copy is used up.
pub(super) fn project(sketch: &mut Sketch, job: JobId, mut now: Timestamp) -> Estimate {
    let mut ends = Ends::of(sketch, now);
    let (mut work, mut starts) = (0, 0);
    let mut endless = None;
    let (kinds, nodes) = (sketch.core.tree.buckets().count(), sketch.core.nodes.whole().len());
    loop {
        if let Some(Reverse((next, _))) = ends.known.peek().copied() {
            let mut ended = false;
            while let Some(Reverse((_, order))) = ends.known.peek().copied().filter(|Reverse((end, _))| *end <= next) {
                ends.known.pop();
                ended |= end_run(sketch, order, next);
            }
            // Nobody would look again then.
            if !ended {
                continue;
            }
            now = next;
        } else {
            let Some(Reverse(order)) = ends.unknown.pop() else {
                // Nothing runs any more, and still it does not start.
                return Estimate::Unknown(Unknown::Change);
            };
            endless = sketch.core.active.get(order).map(|active| job_ref(sketch, active.job));
            end_run(sketch, order, now);
        }
        let before = sketch.core.active.next_order();
        let (made, _) = sketch.pass(now);
        for made in &made {
            let begins = made.to.state.kind() == StateKind::Starting;
            starts += u64::from(begins);
            if begins && made.job == job {
                return match endless {
                    None => Estimate::Latest(now),
                    Some(job) => Estimate::Unknown(Unknown::NoTimeLimit(job)),
                };
            }
            if !begins && let Some(ended) = sketch.core.jobs.find(made.job) {
                // A victim: it ends by its grace, whatever was known of it before.
                ends.enter(sketch, sketch.core.jobs[ended].order, now);
            }
        }
        for order in before..sketch.core.active.next_order() {
            ends.enter(sketch, order, now);
        }
        work += kinds + sketch.core.active.len() + nodes + made.len() * PASS + PASS;
        if work > WORK {
            return Estimate::Unknown(Unknown::TooFar { starts, until: now });
        }
    }
}

/// Ends the run of this order, unless it is gone, or is being ended since and may take longer: a victim is entered twice.
/// True if it did.
fn end_run(sketch: &mut Sketch, order: u64, now: Timestamp) -> bool {
    let Some(active) = sketch.core.active.get(order) else { return false };
    let state = &sketch.core.jobs[active.job].lifecycle.state;
    let ends = !matches!(state, JobState::Stopping { deadline, .. } if *deadline > now);
    if ends {
        sketch.end(active.job, now);
    }
    ends
}

fn job_ref(sketch: &Sketch, job: JobIx) -> JobRef {
    let job = &sketch.core.jobs[job];
    JobRef { id: job.id, seq: job.seq }
}

/// The runs that are being ended for a job, and when the last of them is killed.
pub(super) fn victims(sketch: &Sketch, by: JobId) -> Option<(Vec<JobRef>, Timestamp)> {
    let mut until = Timestamp(i64::MIN);
    let mut victims = Vec::new();
    for active in sketch.core.active.values() {
        if let JobState::Stopping { why, deadline, .. } = &sketch.core.jobs[active.job].lifecycle.state
            && matches!(**why, crate::state::StopReason::Preempted { by: for_job, .. } if for_job == by)
        {
            until = until.max(*deadline);
            victims.push(job_ref(sketch, active.job));
        }
    }
    (!victims.is_empty()).then_some((victims, until))
}
