//! The loop: ends, timers, arrivals, then passes of the core until nothing more starts; then time jumps to the next of these.
//!
//! What must hold: within one instant ends come before timers, so that a job that runs exactly as long as its limit succeeds, and both
//! before arrivals, so that a newcomer sees what is free; ends of one instant are reported in the order of their starts; time never goes
//! back, and the loop ends when there is no arrival, no run and no timer left.
//!
//! A start takes no time here, and a run that is to be stopped stops at the signal.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::time::Instant;

use scheduler_core::Preemption;
use scheduler_core::event::{Event, RunResult, Transition};
use scheduler_core::ids::Attempt;
use scheduler_core::record::{Recorded, Tap};
use scheduler_core::state::{JobState, Outcome as JobOutcome};
use scheduler_core::time::{Span, Timestamp};

use crate::bound::bound;
use crate::cluster::Cluster;
use crate::error::SimulateError;
use crate::measure::Measure;
use crate::report::{Refusal, Refusals, Report};
use crate::series::Series;
use crate::setup::{Entrance, Policy, core};
use crate::workload::Workload;

/// Transitions that one call of the core may make; the rest follows in the next call.
const BATCH: usize = 4_096;
/// Passes of one instant that each stop somebody, after which the core is taken to stop and start the same jobs for ever.
const PASSES: usize = 100_000;
/// Reasons for refusals that a report lists.
const REASONS: usize = 20;

/// How a workload is simulated.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Options {
    /// How the core decides.
    pub policy: Policy,
    /// Whose runs may be ended to make room, where that is not to be as the policy says.
    pub preemption: Option<Preemption>,
    /// How many blocked jobs get a reservation under a policy that backfills. `None`: one, which is EASY backfill.
    pub reservations: Option<u32>,
    /// Of job ids; and what the report says was the seed.
    pub seed: u64,
    /// Whether to keep the state over time, for a chart.
    pub series: bool,
    /// Whether to have the core check all its books after every instant. Takes time in proportion to the unfinished jobs, each time.
    pub check: bool,
}

impl Options {
    /// This policy, seed 0, and nothing that costs anything.
    pub const fn new(policy: Policy) -> Self {
        Self { policy, preemption: None, reservations: None, seed: 0, series: false, check: false }
    }
}

/// What came out.
#[derive(Clone, PartialEq, Debug)]
pub struct Outcome {
    /// The figures.
    pub report: Report,
    /// The state over time, where it was asked for.
    pub series: Option<Series>,
}

/// How a job of the workload stands, apart from what the core knows.
#[derive(Clone, Copy, Default)]
struct Run {
    /// The attempt that runs, if any.
    attempt: Option<Attempt>,
    since: Timestamp,
    stopped: bool,
    started_before: bool,
}

struct World<'a> {
    workload: &'a Workload,
    entrance: Entrance<'a>,
    core: Recorded,
    /// Something happened at this instant.
    touched: bool,
    now: Timestamp,
    arrived: usize,
    /// When runs end, in the order of their starts; those of runs that were stopped stay until their time comes and mean nothing then.
    ends: BinaryHeap<Reverse<(Timestamp, u64, usize, Attempt)>>,
    runs: Vec<Run>,
    measure: Measure,
    accepted: Vec<usize>,
    refused: BTreeMap<String, usize>,
    completed: usize,
    timed_out: usize,
    decisions: u64,
}

/// Runs a workload to its end.
///
/// # Errors
/// Machines or queues that the core does not take; faults of the core, see [`SimulateError`].
pub fn simulate(workload: &Workload, cluster: &Cluster, options: Options) -> Result<Outcome, SimulateError> {
    simulate_recorded(workload, cluster, options, None)
}

/// As [`simulate`], and tells every decision to a tap.
///
/// # Errors
/// As there.
pub fn simulate_recorded(
    workload: &Workload,
    cluster: &Cluster,
    options: Options,
    tap: Option<Box<dyn Tap>>,
) -> Result<Outcome, SimulateError> {
    let mut world = World {
        workload,
        entrance: Entrance::new(workload, options.seed),
        core: core(workload, cluster, options, tap)?,
        touched: false,
        now: Timestamp(0),
        arrived: 0,
        ends: BinaryHeap::new(),
        runs: vec![Run::default(); workload.jobs.len()],
        measure: Measure::new(workload, cluster, options.series),
        accepted: Vec::with_capacity(workload.jobs.len()),
        refused: BTreeMap::new(),
        completed: 0,
        timed_out: 0,
        decisions: 0,
    };
    let clock = Instant::now();
    while let Some(next) = world.next() {
        world.now = next.max(world.now);
        world.measure.advance(world.now);
        world.step()?;
        world.measure.settled();
        if options.check {
            world.check()?;
        }
    }
    let real = clock.elapsed().as_secs_f64();
    world.report(cluster, options, real)
}

impl World<'_> {
    /// When something happens next.
    fn next(&self) -> Option<Timestamp> {
        let arrival = self.workload.jobs.get(self.arrived).map(|job| Timestamp(0) + job.at);
        let end = self.ends.peek().map(|Reverse((at, ..))| *at);
        self.core.next_wakeup().into_iter().chain(arrival).chain(end).min()
    }

    /// Everything that happens at this instant, once; what follows from it at the same instant comes with the next step.
    fn step(&mut self) -> Result<(), SimulateError> {
        while let Some(&Reverse((at, _, job, attempt))) = self.ends.peek()
            && at <= self.now
        {
            self.ends.pop();
            if self.runs[job].attempt == Some(attempt) {
                self.end(job, attempt)?;
            }
        }
        self.repeat(Recorded::tick)?;
        while let Some(job) = self.workload.jobs.get(self.arrived)
            && Timestamp(0) + job.at <= self.now
        {
            self.arrive(self.arrived);
            self.arrived += 1;
        }
        let mut passes = 0;
        // What a pass stops is gone at once, so that the next pass of the same instant can use its room.
        while std::mem::take(&mut self.touched) {
            passes += 1;
            if passes > PASSES {
                return Err(SimulateError::Livelock { micros: self.now.0, passes: PASSES });
            }
            self.repeat(Recorded::plan)?;
        }
        Ok(())
    }

    /// Calls the core until it has nothing more to do, and does what it says.
    fn repeat(&mut self, entry: impl Fn(&mut Recorded, Timestamp, usize) -> Vec<Transition>) -> Result<(), SimulateError> {
        loop {
            let made = entry(&mut self.core, self.now, BATCH);
            for transition in &made {
                self.follow(transition)?;
            }
            if made.len() < BATCH {
                return Ok(());
            }
        }
    }

    fn arrive(&mut self, index: usize) {
        let job = self.entrance.job(index, self.now);
        match self.core.submit(job, self.now) {
            Ok(_) => {
                self.accepted.push(index);
                self.measure.queued(&self.workload.jobs[index]);
                self.touched = true;
            }
            Err(refused) => *self.refused.entry(refused.to_string()).or_default() += 1,
        }
    }

    /// Does what a decision of the core asks for.
    fn follow(&mut self, transition: &Transition) -> Result<(), SimulateError> {
        let job = transition.seq.0 as usize;
        let attempt = transition.to.attempt;
        match transition.to.state {
            JobState::Starting { .. } => {
                self.tell(job, Event::Started { attempt, at: self.now })?;
                self.decisions += 1;
                let run = &mut self.runs[job];
                let first = !run.started_before;
                *run = Run { attempt: Some(attempt), since: self.now, stopped: false, started_before: true };
                self.measure.started(&self.workload.jobs[job], first);
                let end = self.now + self.workload.jobs[job].duration;
                self.ends.push(Reverse((end, self.decisions, job, attempt)));
            }
            JobState::Stopping { .. } if self.runs[job].attempt == Some(attempt) => {
                self.runs[job].stopped = true;
                if !matches!(transition.event, Event::TimeLimit) {
                    // Nobody cancels or requeues here: whatever else the core stops, it stops to make room.
                    self.measure.preempted(self.runs[job].since);
                }
                self.end(job, attempt)?;
            }
            JobState::Queued { .. } => {
                self.measure.queued(&self.workload.jobs[job]);
                self.touched = true;
            }
            _ => {}
        }
        Ok(())
    }

    /// A run is over: by itself, or because it was stopped.
    fn end(&mut self, index: usize, attempt: Attempt) -> Result<(), SimulateError> {
        let run = self.runs[index];
        self.runs[index].attempt = None;
        let result = if run.stopped {
            // Without grace it ends at the very instant of the order: a result of its own would count as if it had come before.
            RunResult::Lost { message: "stopped".into() }
        } else {
            RunResult::Succeeded
        };
        let job = &self.workload.jobs[index];
        self.measure.ended(job, run.since);
        let transition = self.tell(index, Event::Ended { attempt, result, at: self.now, retry_at: self.now })?;
        match transition.to.state {
            JobState::Finished { outcome, .. } => {
                self.measure.finished(job);
                if *outcome == JobOutcome::Succeeded {
                    self.completed += 1;
                } else {
                    self.timed_out += 1;
                }
            }
            JobState::Queued { .. } => self.measure.queued(job),
            _ => {}
        }
        Ok(())
    }

    /// Reports to the core what its executors would.
    fn tell(&mut self, job: usize, event: Event) -> Result<Transition, SimulateError> {
        let id = self.entrance.id(job);
        self.touched |= matches!(event, Event::Ended { .. });
        self.core.handle(id, event, self.now).map_err(|rejected| SimulateError::Report {
            job,
            micros: self.now.0,
            detail: rejected.to_string(),
        })
    }

    fn check(&self) -> Result<(), SimulateError> {
        self.core.check_invariants().map_err(|violation| SimulateError::Invariant { micros: self.now.0, violation })
    }

    fn report(self, cluster: &Cluster, options: Options, real_seconds: f64) -> Result<Outcome, SimulateError> {
        if self.measure.queued > 0 {
            let waits = |&&job: &&usize| self.core.view(self.entrance.id(job)).is_some();
            let first = self.accepted.iter().find(waits).copied().unwrap_or_default();
            return Err(SimulateError::Stuck { jobs: self.measure.queued as usize, first });
        }
        let first = self.accepted.first().map_or(Span(0), |&job| self.workload.jobs[job].at);
        let makespan = self.measure.last_end.map_or(Span(0), |end| end.since(Timestamp(0) + first));
        let makespan_seconds = makespan.0 as f64 / 1e6;
        let bound = bound(self.workload, &self.accepted, cluster, first, makespan_seconds);
        let (utilisation, jain_index) = (self.measure.utilisation(makespan), self.measure.jain());
        let (contended_jain_index, lost_work_seconds) = (self.measure.contended_jain(), self.measure.lost_seconds());
        let (preemptions, longest_queue) = (self.measure.preemptions, self.measure.longest_queue);
        let (wait, bounded_slowdown, series) = self.measure.into_parts();
        let report = Report {
            policy: options.policy,
            reservations: match options.policy {
                Policy::Fifo => 0,
                Policy::Easy | Policy::Flash => options.reservations.unwrap_or(1),
            },
            seed: options.seed,
            jobs: self.workload.jobs.len(),
            completed: self.completed,
            timed_out: self.timed_out,
            refused: refusals(self.refused),
            makespan_seconds,
            utilisation,
            wait,
            bounded_slowdown,
            jain_index,
            contended_jain_index,
            preemptions,
            lost_work_seconds,
            longest_queue,
            decisions: self.decisions,
            decisions_per_second: if real_seconds > 0.0 { self.decisions as f64 / real_seconds } else { 0.0 },
            bound,
            notes: self.workload.notes.clone(),
        };
        Ok(Outcome { report, series })
    }
}

fn refusals(counted: BTreeMap<String, usize>) -> Refusals {
    let jobs = counted.values().sum();
    let mut reasons: Vec<Refusal> = counted.into_iter().map(|(reason, jobs)| Refusal { reason, jobs }).collect();
    reasons.sort_by_key(|refusal| Reverse(refusal.jobs));
    reasons.truncate(REASONS);
    Refusals { jobs, reasons }
}
