//! When each job that waits now would start, if nothing else came: the present state in a core of its own, and time let run.
//!
//! What must hold: every start is a decision of the core; a run lasts as long as its time limit, or as long as is assumed where it has none,
//! so that a forecast is as good as the limits are; nobody new arrives. Jobs are handed over as a daemon hands them over when it starts, so a
//! node that is left out takes nobody new while those that are on it run on.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use scheduler_core::event::{Event, RunResult, Transition};
use scheduler_core::ids::{Attempt, JobId};
use scheduler_core::job::LiveJob;
use scheduler_core::state::JobState;
use scheduler_core::time::{Span, Timestamp};
use scheduler_core::{Config, ConfigError, RestoreError, Scheduler};

/// Transitions that one call of the core may make.
const BATCH: usize = 4_096;
/// Instants that are looked at for each job, at most: jobs may be preempted and start again, but not for ever.
const INSTANTS_PER_JOB: usize = 100;

/// What there is at present.
#[derive(Clone, Debug)]
pub struct Present {
    /// Now.
    pub now: Timestamp,
    /// Queues, cohorts, nodes, rules.
    pub config: Config,
    /// All unfinished jobs, in the order of their submission.
    pub jobs: Vec<LiveJob>,
}

/// Why there is no forecast.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ForecastError {
    /// The core does not take the machines or queues.
    #[error("setting up the scheduler: {0}")]
    Config(#[from] ConfigError),
    /// It does not take a job.
    #[error(transparent)]
    Restore(#[from] RestoreError),
    /// It refused a report that is true, or came to no end: a fault of the scheduler.
    #[error("at {micros} microseconds: {detail}")]
    Fault {
        /// Virtual time.
        micros: i64,
        /// What happened.
        detail: String,
    },
}

/// A run that goes on.
struct Run {
    attempt: Attempt,
    stopped: bool,
}

struct World<'a> {
    core: Scheduler,
    now: Timestamp,
    lengths: BTreeMap<JobId, Option<Span>>,
    assume: Span,
    runs: BTreeMap<JobId, Run>,
    ends: BinaryHeap<Reverse<(Timestamp, u64, JobId, Attempt)>>,
    order: u64,
    starts: &'a mut BTreeMap<JobId, Timestamp>,
}

/// When each job starts that does not run yet. Those that are missing never do, as things are: held ones, and what finds no room even when
/// everything else has ended.
///
/// # Errors
/// See [`ForecastError`].
pub fn forecast(present: &Present, assume: Span) -> Result<BTreeMap<JobId, Timestamp>, ForecastError> {
    let mut starts = BTreeMap::new();
    let mut world = World {
        core: Scheduler::new(present.config.clone())?,
        now: present.now,
        lengths: present.jobs.iter().map(|job| (job.id, job.policy.time_limit)).collect(),
        assume,
        runs: BTreeMap::new(),
        ends: BinaryHeap::new(),
        order: 0,
        starts: &mut starts,
    };
    for job in &present.jobs {
        world.core.restore(job.clone(), present.now)?;
    }
    for job in &present.jobs {
        world.adopt(job)?;
    }
    let most = present.jobs.len().saturating_mul(INSTANTS_PER_JOB).saturating_add(INSTANTS_PER_JOB);
    for _ in 0..most {
        world.step()?;
        match world.next() {
            Some(next) => world.now = next.max(world.now),
            None => return Ok(starts),
        }
    }
    Err(ForecastError::Fault { micros: world.now.0, detail: format!("no end after {most} instants") })
}

impl World<'_> {
    /// Takes over what a job is doing at present.
    fn adopt(&mut self, job: &LiveJob) -> Result<(), ForecastError> {
        let attempt = job.lifecycle.attempt;
        match &job.lifecycle.state {
            JobState::Starting { .. } => {
                self.tell(job.id, Event::Started { attempt, at: self.now })?;
                self.runs(job.id, attempt, self.now);
            }
            // Without a limit nobody knows; what it has run so far says little about what is to come.
            JobState::Running { since, .. } => {
                let since = if job.policy.time_limit.is_some() { *since } else { self.now };
                self.runs(job.id, attempt, since);
            }
            JobState::Stopping { deadline, .. } => {
                self.runs.insert(job.id, Run { attempt, stopped: true });
                self.ends.push(Reverse((*deadline, self.order, job.id, attempt)));
                self.order += 1;
            }
            JobState::Waiting { .. } | JobState::Queued { .. } | JobState::Finished { .. } => {}
        }
        Ok(())
    }

    /// A run has begun.
    fn runs(&mut self, job: JobId, attempt: Attempt, since: Timestamp) {
        let length = self.lengths.get(&job).copied().flatten().unwrap_or(self.assume);
        self.runs.insert(job, Run { attempt, stopped: false });
        self.ends.push(Reverse(((since + length).max(self.now), self.order, job, attempt)));
        self.order += 1;
    }

    fn next(&self) -> Option<Timestamp> {
        let end = self.ends.peek().map(|Reverse((at, ..))| *at);
        self.core.next_wakeup().into_iter().chain(end).min()
    }

    /// Everything that happens at this instant.
    fn step(&mut self) -> Result<(), ForecastError> {
        while let Some(&Reverse((at, _, job, attempt))) = self.ends.peek()
            && at <= self.now
        {
            self.ends.pop();
            self.end(job, attempt)?;
        }
        self.repeat(Scheduler::tick)?;
        // What a pass stops is gone at once here; each of these passes stops somebody, and there are only so many.
        for _ in 0..=self.lengths.len() {
            if !self.repeat(Scheduler::plan)? {
                return Ok(());
            }
        }
        Err(ForecastError::Fault { micros: self.now.0, detail: "runs are stopped and started for ever".to_owned() })
    }

    /// True where a run was stopped.
    fn repeat(&mut self, entry: impl Fn(&mut Scheduler, Timestamp, usize) -> Vec<Transition>) -> Result<bool, ForecastError> {
        let mut stopped = false;
        loop {
            let made = entry(&mut self.core, self.now, BATCH);
            for Transition { job, to, .. } in &made {
                match to.state {
                    JobState::Starting { .. } => {
                        self.starts.entry(*job).or_insert(self.now);
                        self.tell(*job, Event::Started { attempt: to.attempt, at: self.now })?;
                        self.runs(*job, to.attempt, self.now);
                    }
                    JobState::Stopping { .. } => {
                        stopped = true;
                        if let Some(run) = self.runs.get_mut(job) {
                            run.stopped = true;
                        }
                        self.end(*job, to.attempt)?;
                    }
                    _ => {}
                }
            }
            if made.len() < BATCH {
                return Ok(stopped);
            }
        }
    }

    fn end(&mut self, job: JobId, attempt: Attempt) -> Result<(), ForecastError> {
        let Some(run) = self.runs.get(&job).filter(|run| run.attempt == attempt) else { return Ok(()) };
        // A result of its own would count as if it had come before the order to stop.
        let result = if run.stopped { RunResult::Lost { message: "stopped".into() } } else { RunResult::Succeeded };
        self.runs.remove(&job);
        self.tell(job, Event::Ended { attempt, result, at: self.now, retry_at: self.now })
    }

    fn tell(&mut self, job: JobId, event: Event) -> Result<(), ForecastError> {
        let told = self.core.handle(job, event, self.now);
        told.map(drop).map_err(|rejected| ForecastError::Fault {
            micros: self.now.0,
            detail: format!("the scheduler refused a true report of job {job}: {rejected}"),
        })
    }
}
