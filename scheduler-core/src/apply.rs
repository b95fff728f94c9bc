//! The state machine: the only place where a new [`Lifecycle`] is made.
//!
//! [`apply`] is a pure function of the lifecycle, the policy, the event and the time. What must hold:
//! - a finished job never changes, whatever arrives late;
//! - a report that speaks of another attempt than the present one changes nothing;
//! - the placement stays the same from `Starting` until the run's end, and resources are held exactly that long;
//! - a run that never began leaves its job as if it had not been placed, but for the attempt: who made it real may remember that one;
//! - every accepted end of a run, and every run that never began, has [`Effect::Forget`], so that the executor's memory of it can go.
//!
//! Where a run is being ended and its result arrives, the times decide. A run that had succeeded or failed before the order to end it
//! was given is taken as it is: neither a cancel, a requeue nor a time limit that came too late takes that away. A run that ended
//! after the order is what the order made of it, whatever it says of itself, because many programs exit with 0 on SIGTERM. A run that
//! was lost has no result of its own, so there the order decides too. The time of the order is the deadline less the grace; a
//! second order that only changes the reason leaves both as they are.

use std::sync::Arc;

use smallvec::{SmallVec, smallvec};

use crate::event::{Effect, Event, Rejected, RunResult};
use crate::ids::{Attempt, JobId, RunId};
use crate::job::{NewJob, Policy};
use crate::state::{FailReason, JobState, Lifecycle, Outcome, Placement, StateKind, StopReason, WaitFor};
use crate::time::Timestamp;

/// What must be done outside once a transition is durable.
pub type Effects = SmallVec<[Effect; 1]>;

/// The first lifecycle of a job: held, waiting for `start_after` if that is still to come, or queued. Its age counts from its
/// submission.
pub fn initial(job: &NewJob, now: Timestamp) -> Lifecycle {
    let state = match job.start_after {
        _ if job.hold => JobState::Waiting { on: WaitFor::Hold },
        Some(at) if at > now => JobState::Waiting { on: WaitFor::NotBefore(at) },
        _ => JobState::Queued { since: job.submitted_at },
    };
    Lifecycle { state, attempt: Attempt(0), lost: 0 }
}

/// What becomes of a job by an event, and what has to be done outside for it.
///
/// # Errors
/// Every [`Rejected`] but `Unknown`; nothing changes then.
pub fn apply(
    lifecycle: &Lifecycle,
    policy: &Policy,
    job: JobId,
    event: &Event,
    now: Timestamp,
) -> Result<(Lifecycle, Effects), Rejected> {
    if matches!(lifecycle.state, JobState::Finished { .. }) {
        return Err(Rejected::Finished);
    }
    let step = Step { lifecycle, policy, run: RunId { job, attempt: lifecycle.attempt }, now };
    match event {
        Event::Hold { .. } => step.hold(),
        Event::Release { not_before, .. } => step.release(*not_before),
        Event::Update { .. } => step.update(),
        Event::Due => step.due(),
        Event::Place { placement } => step.place(placement),
        Event::Started { attempt, at } => step.started(*attempt, *at),
        Event::Ended { attempt, result, at, retry_at } => step.ended(*attempt, result, *at, *retry_at),
        Event::NotBegun { attempt, at, retry_at } => step.not_begun(*attempt, *at, *retry_at),
        Event::Cancel { by } => step.cancel(event, Outcome::Cancelled { by: by.clone() }),
        Event::Requeue { .. } => step.requeue(event),
        Event::TimeLimit => step.time_limit(event),
        Event::Preempt { .. } | Event::Evict { .. } => step.make_way(event),
        Event::Warn { .. } => step.warn(),
        Event::Idle { .. } => step.idle(event),
    }
}

type Applied = Result<(Lifecycle, Effects), Rejected>;

/// One application of an event to a job that is not finished.
struct Step<'a> {
    lifecycle: &'a Lifecycle,
    policy: &'a Policy,
    run: RunId,
    now: Timestamp,
}

impl Step<'_> {
    fn hold(&self) -> Applied {
        match &self.lifecycle.state {
            JobState::Waiting { on: WaitFor::Hold } => self.already(),
            JobState::Waiting { on: WaitFor::NotBefore(_) } | JobState::Queued { .. } => {
                self.to(JobState::Waiting { on: WaitFor::Hold })
            }
            _ => self.not_here(),
        }
    }

    /// Time in hold does not count as age: whoever was held queues up anew.
    fn release(&self, not_before: Option<Timestamp>) -> Applied {
        match &self.lifecycle.state {
            JobState::Waiting { on: WaitFor::Hold } => match not_before {
                Some(at) if at > self.now => self.to(JobState::Waiting { on: WaitFor::NotBefore(at) }),
                _ => self.to(JobState::Queued { since: self.now }),
            },
            JobState::Waiting { on: WaitFor::NotBefore(_) } | JobState::Queued { .. } => self.already(),
            _ => self.not_here(),
        }
    }

    /// What it asks to be changed lies beside the lifecycle; here is only whether it is not too late.
    fn update(&self) -> Applied {
        match &self.lifecycle.state {
            state @ (JobState::Waiting { .. } | JobState::Queued { .. }) => self.to(state.clone()),
            _ => self.not_here(),
        }
    }

    /// Age counts from the time that was waited for, not from when the timer was served: lateness of the shell decides nothing.
    fn due(&self) -> Applied {
        match &self.lifecycle.state {
            JobState::Waiting { on: WaitFor::NotBefore(at) } if *at <= self.now => self.to(JobState::Queued { since: *at }),
            _ => self.not_here(),
        }
    }

    fn place(&self, placement: &Arc<Placement>) -> Applied {
        match &self.lifecycle.state {
            JobState::Queued { .. } => {
                let attempt = self.lifecycle.attempt.next();
                let state = JobState::Starting { placement: Arc::clone(placement) };
                let run = RunId { job: self.run.job, attempt };
                Ok((Lifecycle { state, attempt, lost: self.lifecycle.lost }, smallvec![Effect::Start { run }]))
            }
            _ => self.not_here(),
        }
    }

    fn started(&self, attempt: Attempt, at: Timestamp) -> Applied {
        self.same_attempt(attempt)?;
        match &self.lifecycle.state {
            JobState::Starting { placement } => {
                self.to(JobState::Running { placement: Arc::clone(placement), since: at.min(self.now) })
            }
            JobState::Running { .. } | JobState::Stopping { .. } => self.already(),
            _ => self.not_here(),
        }
    }

    fn ended(&self, attempt: Attempt, result: &RunResult, at: Timestamp, retry_at: Timestamp) -> Applied {
        self.same_attempt(attempt)?;
        let why = match &self.lifecycle.state {
            JobState::Starting { .. } | JobState::Running { .. } => None,
            JobState::Stopping { why, deadline, .. } => {
                let was_over = at <= *deadline - self.policy.stop.grace && !matches!(result, RunResult::Lost { .. });
                if was_over { None } else { Some(&**why) }
            }
            // A second report of an end that is on record: the attempt stays the present one until the next placement.
            JobState::Waiting { .. } | JobState::Queued { .. } if attempt > Attempt(0) => return self.already(),
            _ => return self.not_here(),
        };
        let finish = |outcome: Outcome| JobState::Finished { outcome: Box::new(outcome), at: at.min(self.now) };
        let mut lost = self.lifecycle.lost;
        let state = match (why, result) {
            (None, RunResult::Succeeded) => finish(Outcome::Succeeded),
            (None, RunResult::Failed { reason }) => finish(Outcome::Failed { reason: reason.clone() }),
            (Some(StopReason::Evicted { message }), _) | (None, RunResult::Lost { message }) => {
                lost = lost.saturating_add(1);
                if lost >= self.policy.max_attempts {
                    finish(Outcome::Failed { reason: FailReason::Infrastructure { message: message.clone() } })
                } else if retry_at > self.now {
                    JobState::Waiting { on: WaitFor::NotBefore(retry_at) }
                } else {
                    JobState::Queued { since: self.now }
                }
            }
            (Some(why), _) => self.stopped(why, at),
        };
        let lifecycle = Lifecycle { state, attempt: self.lifecycle.attempt, lost };
        Ok((lifecycle, smallvec![Effect::Forget { run: self.run }]))
    }

    /// What an order to end a run makes of its job once nothing of the run is left.
    fn stopped(&self, why: &StopReason, at: Timestamp) -> JobState {
        let finish = |outcome: Outcome| JobState::Finished { outcome: Box::new(outcome), at: at.min(self.now) };
        match why {
            StopReason::Cancel { by } => finish(Outcome::Cancelled { by: by.clone() }),
            StopReason::TimeLimit => finish(Outcome::Failed { reason: FailReason::TimeLimit }),
            StopReason::Idle { message } => finish(Outcome::Failed { reason: FailReason::Idle { message: message.clone() } }),
            // One that was evicted counts as a lost try only where something ran ([`ended`](Self::ended)).
            StopReason::Requeue { .. } | StopReason::Evicted { .. } => JobState::Queued { since: self.now },
            StopReason::Preempted { age_from, .. } => JobState::Queued { since: (*age_from).min(self.now) },
        }
    }

    fn not_begun(&self, attempt: Attempt, at: Timestamp, retry_at: Timestamp) -> Applied {
        self.same_attempt(attempt)?;
        let state = match &self.lifecycle.state {
            JobState::Starting { .. } if retry_at > self.now => JobState::Waiting { on: WaitFor::NotBefore(retry_at) },
            JobState::Starting { placement } => {
                JobState::Queued { since: placement.line.map_or(self.now, |line| line.since.min(self.now)) }
            }
            JobState::Stopping { why, .. } => self.stopped(why, at),
            JobState::Waiting { .. } | JobState::Queued { .. } if attempt > Attempt(0) => return self.already(),
            _ => return self.not_here(),
        };
        let (lifecycle, _) = self.to(state)?;
        Ok((lifecycle, smallvec![Effect::Forget { run: self.run }]))
    }

    fn cancel(&self, event: &Event, outcome: Outcome) -> Applied {
        match &self.lifecycle.state {
            JobState::Waiting { .. } | JobState::Queued { .. } => {
                self.to(JobState::Finished { outcome: Box::new(outcome), at: self.now })
            }
            JobState::Starting { .. } | JobState::Running { .. } => self.stop(event),
            JobState::Stopping { why, .. } if matches!(**why, StopReason::Cancel { .. }) => self.already(),
            // The run is being ended already; only what becomes of the job changes.
            JobState::Stopping { placement, deadline, .. } => match event.stop_reason() {
                Some(why) => {
                    self.to(JobState::Stopping { placement: Arc::clone(placement), why: Box::new(why), deadline: *deadline })
                }
                None => self.not_here(),
            },
            JobState::Finished { .. } => self.not_here(),
        }
    }

    fn requeue(&self, event: &Event) -> Applied {
        match &self.lifecycle.state {
            JobState::Starting { .. } | JobState::Running { .. } => self.stop(event),
            JobState::Stopping { why, .. } if matches!(**why, StopReason::Requeue { .. }) => self.already(),
            _ => self.not_here(),
        }
    }

    fn time_limit(&self, event: &Event) -> Applied {
        match (&self.lifecycle.state, self.policy.time_limit) {
            (JobState::Running { since, .. }, Some(limit)) if *since + limit <= self.now => self.stop(event),
            _ => self.not_here(),
        }
    }

    /// It is on record, and that is all.
    fn warn(&self) -> Applied {
        match &self.lifecycle.state {
            state @ JobState::Running { .. } => self.to(state.clone()),
            _ => self.not_here(),
        }
    }

    fn idle(&self, event: &Event) -> Applied {
        match &self.lifecycle.state {
            JobState::Running { .. } => self.stop(event),
            _ => self.not_here(),
        }
    }

    /// A run that is being ended for whatever reason gives what it has back anyhow.
    fn make_way(&self, event: &Event) -> Applied {
        match &self.lifecycle.state {
            JobState::Starting { .. } | JobState::Running { .. } => self.stop(event),
            _ => self.not_here(),
        }
    }

    /// From a state that holds resources to `Stopping`.
    fn stop(&self, event: &Event) -> Applied {
        let (Some(placement), Some(why)) = (self.lifecycle.state.shared_placement(), event.stop_reason()) else {
            return self.not_here();
        };
        let state = JobState::Stopping {
            placement: Arc::clone(placement),
            why: Box::new(why),
            deadline: self.now + self.policy.stop.grace,
        };
        let (lifecycle, _) = self.to(state)?;
        Ok((lifecycle, smallvec![Effect::Stop { run: self.run, policy: self.policy.stop }]))
    }

    fn same_attempt(&self, got: Attempt) -> Result<(), Rejected> {
        let present = self.lifecycle.attempt;
        if got == present { Ok(()) } else { Err(Rejected::StaleAttempt { present, got }) }
    }

    #[expect(clippy::unnecessary_wraps, reason = "the shape of every answer of a step")]
    fn to(&self, state: JobState) -> Applied {
        Ok((Lifecycle { state, attempt: self.lifecycle.attempt, lost: self.lifecycle.lost }, Effects::new()))
    }

    fn already(&self) -> Applied {
        Err(Rejected::AlreadySo { state: self.kind() })
    }

    fn not_here(&self) -> Applied {
        Err(Rejected::NotInState { state: self.kind() })
    }

    fn kind(&self) -> StateKind {
        self.lifecycle.state.kind()
    }
}
