//! What one turn decides: pure bookkeeping around the core's answers, no IO and no await.

use std::sync::atomic::Ordering;

use executors::Report;
use scheduler_core::event::{Effect, Event, Rejected, RunResult, Transition};
use scheduler_core::ids::{Attempt, JobId, Name, Revision, RunId};
use scheduler_core::job::{NewJob, Shape};
use scheduler_core::record::Recorded;
use scheduler_core::scheduler::Refused;
use scheduler_core::time::{Span, Timestamp};
use store::{Batch, Committed, EventRecord, JobUpdate, KeyRecord, LogEntry, Notice, NoticeKind, NoticeRecord, Submit};
use tokio::sync::oneshot;

use super::counts::Counts;
use super::fleet::{self, Fleet};
use super::idempotency::Known;
use super::notices::World;
use super::{Command, DECISIONS, Engine, STARTS, change, health, lock};
use crate::backend::{Action, BackendError, SubmitRequest, Update};
use crate::clock;
use crate::flashjobs::Compared;
use crate::objects::edit::{Change, Changed};
use crate::objects::nodes::Order;

const FIRST: Attempt = Attempt(1);

type Answer<T> = Result<T, BackendError>;
type Reply<T> = oneshot::Sender<Answer<T>>;
/// Callers, each with what it will hear.
type Waiting<T> = Vec<(Reply<T>, Answer<T>)>;

/// Who waits for the commit, and what they will hear.
#[derive(Default)]
pub(super) struct Waiters {
    submits: Waiting<Vec<JobId>>,
    acts: Waiting<()>,
    changes: Waiting<Changed>,
}

impl Waiters {
    /// The commit is durable. A caller who has left meanwhile is no fault.
    pub(super) fn tell(self) {
        for (reply, answer) in self.submits {
            let _gone = reply.send(answer);
        }
        for (reply, answer) in self.acts {
            let _gone = reply.send(answer);
        }
        for (reply, answer) in self.changes {
            let _gone = reply.send(answer);
        }
    }

    /// The commit failed: what would have been accepted is not; refusals stay what they are. Whoever changed a queue is left: the core
    /// that he would look at next has the change still.
    pub(super) fn refuse_jobs(&mut self, why: &str) {
        for (reply, answer) in self.submits.drain(..) {
            let _gone = reply.send(answer.and_then(|_| Err(BackendError::Unavailable(why.to_owned()))));
        }
        for (reply, answer) in self.acts.drain(..) {
            let _gone = reply.send(answer.and_then(|()| Err(BackendError::Unavailable(why.to_owned()))));
        }
    }

    /// The same for all.
    pub(super) fn refuse(mut self, why: &str) {
        self.refuse_jobs(why);
        for (reply, answer) in self.changes {
            let _gone = reply.send(answer.and_then(|_| Err(BackendError::Unavailable(why.to_owned()))));
        }
    }
}

/// Everything that a turn decided.
#[derive(Default)]
pub(super) struct Turn {
    pub(super) batch: Batch,
    /// Whether somebody watches; else no records are made.
    watched: bool,
    /// One for every transition of the batch; submits first. Revisions are filled in by [`number`].
    pub(super) records: Vec<EventRecord>,
    /// Whose orders about which things are carried out.
    pub(super) orders: Vec<(NoticeKind, Name, Name)>,
    pub(super) effects: Vec<Effect>,
    pub(super) waiters: Waiters,
    pub(super) counts: Counts,
    /// The reconciler is to look as soon as this is durable.
    pub(super) nudge: bool,
    /// There may be more to decide at once: a bound was reached, or it is others' turn now.
    pub(super) again: bool,
}

impl Turn {
    pub(super) fn change(&mut self, namespace: Name, transition: Transition) {
        if self.watched {
            self.records.push(EventRecord {
                revision: Revision(0),
                job: transition.job,
                namespace,
                at: transition.at,
                what: transition.event.word().into(),
                lifecycle: transition.to.clone(),
            });
        }
        self.effects.extend(transition.effects.iter().cloned());
        self.batch.changes.push(transition);
    }

    /// What was changed by order. Of nodes and GPUs is told how they stand afterwards.
    fn tell(&mut self, about: change::Subject, changed: Changed, now: Timestamp) {
        let (kind, name) = match about {
            change::Subject::Told { kind, name } => (kind, name),
            change::Subject::Ordered { kind, name, by } => return self.orders.push((kind, name, by)),
        };
        let what = match changed {
            Changed::Created => "created",
            Changed::Replaced => "changed",
            Changed::Removed => "removed",
            Changed::Nothing => return,
        };
        self.batch.notices.push(Notice {
            at: now,
            kind,
            name,
            what: what.into(),
            node: None,
            cause: None,
            by: None,
            reason: None,
        });
    }

    /// What was seen, with where it was.
    fn tell_all(&mut self, core: &Recorded, notices: Vec<Notice>) {
        let node =
            |uuid: &Name| core.nodes().find(|node| node.gpus.iter().any(|gpu| gpu.uuid == uuid)).map(|node| node.name.clone());
        self.batch.notices.extend(notices.into_iter().map(|notice| Notice { node: node(&notice.name), ..notice }));
    }

    /// Feeds one event to the core.
    pub(super) fn handle(&mut self, core: &mut Recorded, job: JobId, event: Event, now: Timestamp) -> Result<(), Rejected> {
        let namespace = core.view(job).map(|view| view.shape.namespace.clone()).ok_or(Rejected::Unknown)?;
        let transition = core.handle(job, event, now)?;
        self.change(namespace, transition);
        Ok(())
    }
}

/// Gives the records of a batch their revisions, notices the last ones.
pub(super) fn number(records: Vec<EventRecord>, notices: Vec<Notice>, committed: Committed) -> Vec<LogEntry> {
    let numbered = records.into_iter().zip(committed.first.0..);
    let jobs = numbered.map(|(record, revision)| LogEntry::Job(EventRecord { revision: Revision(revision), ..record }));
    let first = committed.last.next().0.saturating_sub(notices.len() as u64);
    let numbered = notices.into_iter().zip(first..);
    jobs.chain(numbered.map(|(notice, revision)| LogEntry::Notice(NoticeRecord { revision: Revision(revision), notice })))
        .collect()
}

impl Engine {
    /// Lets the core decide on everything that was gathered, then on what is due, then on who starts.
    pub(super) fn decide(&mut self, commands: &mut Vec<Command>, reports: &mut Vec<Report>) -> Turn {
        let now = clock::now();
        let core = self.parts.core.clone();
        let mut core = lock(&core);
        let holding = self.parts.holding.load(Ordering::Relaxed);
        if core.is_holding() != holding {
            core.set_holding(holding);
        }
        let mut turn = Turn { watched: self.parts.feed.is_watched(), ..Turn::default() };
        turn.batch.term = self.parts.store.head().term;
        // Submits first: their records have to stand before all others.
        let (submits, acts): (Vec<_>, Vec<_>) = commands.drain(..).partition(|command| matches!(command, Command::Submit { .. }));
        for command in submits.into_iter().chain(acts) {
            match command {
                Command::Submit { request, reply } => {
                    let answer = self.submit(&mut core, &mut turn, request, now);
                    turn.waiters.submits.push((reply, answer));
                }
                Command::Act { job, action, by, reply } => {
                    let answer = act(&mut core, &mut turn, job, action, by, now);
                    turn.waiters.acts.push((reply, answer));
                }
                Command::Update { job, update, reply } => {
                    let answer = self::update(&mut core, &mut turn, job, update, now);
                    turn.waiters.acts.push((reply, answer));
                }
                Command::Change { change, reply } => {
                    let is_gpu = matches!(change, Change::Gpu(..));
                    if let (Some(fleet), Change::Node(name, _)) = (&mut self.fleet, &change) {
                        fleet.forget_state(name);
                    }
                    if let Change::Node(node, Order { close: None, .. }) = &change {
                        self.rows.forget(node);
                    }
                    let told = change::subject(&change);
                    let answer = change::change(&mut core, &self.parts.seeds, &mut self.directory, &mut turn, change, now);
                    if let Ok(changed) = &answer {
                        turn.tell(told, *changed, now);
                        self.teller.touch();
                    }
                    if is_gpu {
                        self.settle_gpus(&mut core);
                    }
                    turn.waiters.changes.push((reply, answer));
                }
                Command::Gpus(observed) => self.take_gpus(&mut core, &mut turn, *observed, now),
                Command::Notices(notices) => turn.tell_all(&core, notices),
                Command::Samples(samples) => turn.batch.samples.extend(samples),
                Command::Idle { run, stop, message } => turn.idle(&mut core, run, stop, message, now),
                Command::Checked(report) => self.report(&mut core, &mut turn, report, now),
            }
        }
        for report in reports.drain(..) {
            if let Some(report) = self.known(report).and_then(|report| self.gate(&core, report)) {
                self.report(&mut core, &mut turn, report, now);
            }
        }
        let is_silent = self.settle_fleet(&mut core, &mut turn, now);
        let world = World { core: &core, directory: &self.directory, observed: &self.parts.observed, fleet: self.fleet.as_ref() };
        self.teller.settle(&world, &mut turn, now);
        let due = core.tick(now, DECISIONS);
        let begun = std::time::Instant::now();
        let starts = if is_silent { Vec::new() } else { core.plan(now, STARTS) };
        self.parts.metrics.plan_seconds.observe(begun.elapsed().as_secs_f64());
        turn.again = due.len() == DECISIONS || starts.len() == STARTS || (!is_silent && core.is_unsettled());
        for transition in due.into_iter().chain(starts) {
            let Some(namespace) = core.view(transition.job).map(|view| view.shape.namespace.clone()) else { continue };
            turn.change(namespace, transition);
        }
        turn.effects.extend(core.take_withdrawn().into_iter().map(|run| Effect::Withdraw { run }));
        if !turn.batch.changes.is_empty() {
            self.usage.touch();
        }
        turn.batch.objects.extend(self.boot.due(&core));
        turn.batch.objects.extend(self.usage.object(&core, now, false));
        turn
    }

    /// Brings the core in line with the cluster, where there is one. Whether it is silent, so that nothing may be planned.
    fn settle_fleet(&mut self, core: &mut Recorded, turn: &mut Turn, now: Timestamp) -> bool {
        let Some(fleet) = &mut self.fleet else { return false };
        let settled = fleet.settle(core, &self.directory, turn, now);
        let is_silent = fleet.silence().is_some();
        if settled.lost > 0 {
            turn.counts.ended("lost", settled.lost as u64);
            // What is left of them where somebody still answers is ended.
            turn.nudge = true;
        }
        if settled.aside.is_some() {
            self.teller.touch();
        }
        if let Some(aside) = settled.aside
            && aside != self.parts.observed.aside
        {
            self.parts.observed.aside = aside;
            self.settle_gpus(core);
        }
        is_silent
    }

    /// What no node can give may be there all the same, as long as nobody has seen the nodes.
    fn refused(&self, index: usize, refused: Refused) -> BackendError {
        match self.fleet.as_ref().and_then(Fleet::unknown).filter(|_| fleet::is_of_nodes(&refused)) {
            Some(why) => BackendError::Unavailable(format!("what there is for jobs is not known yet: {why}")),
            None => BackendError::Refused { index, refused },
        }
    }

    fn submit(
        &mut self,
        core: &mut Recorded,
        turn: &mut Turn,
        request: SubmitRequest,
        now: Timestamp,
    ) -> Result<Vec<JobId>, BackendError> {
        if let Some(key) = &request.key {
            match self.keys.look(key) {
                Some(Known::Same(jobs)) => return Ok(jobs),
                Some(Known::Other) => return Err(BackendError::KeyReused),
                None => {}
            }
        }
        for (index, job) in request.jobs.iter().enumerate() {
            core.admit(&job.shape, &job.policy).map_err(|refused| self.refused(index, refused))?;
        }
        let mut accepted = Vec::with_capacity(request.jobs.len());
        for (index, job) in request.jobs.into_iter().enumerate() {
            let (id, seq) = self.ids.next(now);
            let new = NewJob {
                id,
                seq,
                shape: job.shape,
                policy: job.policy,
                submitted_at: now,
                start_after: job.start_after,
                hold: job.hold,
            };
            let lifecycle = core.submit(new.clone(), now).map_err(|refused| self.refused(index, refused))?;
            if turn.watched {
                turn.records.push(EventRecord {
                    revision: Revision(0),
                    job: id,
                    namespace: new.shape.namespace.clone(),
                    at: now,
                    what: "submitted".into(),
                    lifecycle: lifecycle.clone(),
                });
            }
            turn.batch.submits.push(Submit {
                job: new,
                lifecycle,
                owner: job.owner,
                name: job.name,
                labels: job.labels,
                spec: job.spec,
            });
            accepted.push(id);
        }
        if let Some(key) = request.key {
            self.keys.remember(&key, accepted.clone(), std::time::Instant::now());
            turn.batch.keys.push(KeyRecord {
                scope: key.scope,
                key: key.key,
                fingerprint: key.fingerprint,
                jobs: accepted.clone(),
                at: now,
            });
        }
        Ok(accepted)
    }

    /// What is not known to be lost is not taken for lost. The executor repeats it when it is asked, which is as soon as that is known.
    fn known(&self, report: Report) -> Option<Report> {
        let waits =
            |compared: &Compared| !compared.is_done() && matches!(report, Report::Ended { result: RunResult::Lost { .. }, .. });
        if self.parts.compared.as_deref().is_some_and(waits) { None } else { Some(report) }
    }

    /// A report that changes nothing is no fault: executors repeat themselves. An end that is on record already is forgotten there,
    /// after this turn's commit, so that whatever put it on record is durable by then.
    fn report(&mut self, core: &mut Recorded, turn: &mut Turn, report: Report, now: Timestamp) {
        let mut first_after = None;
        let (run, event, ended) = match report {
            Report::Started { run, at } => {
                first_after = latency(core, run, at);
                self.in_vain.begun(run.job);
                (run, Event::Started { attempt: run.attempt, at }, None)
            }
            Report::Ended { run, result, started_at, at } => {
                self.in_vain.begun(run.job);
                let word = result_word(&result);
                let closed = core.view(run.job).filter(|view| view.lifecycle.attempt == run.attempt).and_then(|view| {
                    let node = health::node_of(&view.lifecycle.state)?;
                    let end = health::End { namespace: &view.shape.namespace, started: started_at, at, result: &result };
                    Some((node.clone(), self.rows.ended(node, end)?))
                });
                if let Some((node, why)) = closed {
                    self.close(core, turn, &node, why, now);
                }
                // Its start may have been reported to a daemon that is gone, or not at all.
                if let Some(started) = started_at {
                    let (event, first_after) =
                        (Event::Started { attempt: run.attempt, at: started }, latency(core, run, started));
                    if turn.handle(core, run.job, event, now).is_ok() {
                        turn.counts.started(first_after);
                    }
                }
                let retry_at = core.retry_at(run, now);
                (run, Event::Ended { attempt: run.attempt, result, at, retry_at }, Some(word))
            }
            Report::NotBegun { run, message, at } => {
                tracing::debug!(%run, message, "not begun");
                let retry_at = if self.fleet.is_some() { self.in_vain.again(core, run, now) } else { now };
                (run, Event::NotBegun { attempt: run.attempt, at, retry_at }, Some("notBegun"))
            }
            Report::Disturbed { message } => {
                tracing::warn!(%message, "executor disturbed");
                self.parts.nudge.notify_one();
                return;
            }
        };
        match (turn.handle(core, run.job, event, now), ended) {
            (Ok(()), Some(result)) => turn.counts.ended(result, 1),
            (Ok(()), None) => turn.counts.started(first_after),
            (Err(rejected), Some(_)) => {
                tracing::debug!(%run, %rejected, "end was on record already");
                turn.effects.push(Effect::Forget { run });
            }
            (Err(rejected), None) => tracing::debug!(%run, %rejected, "start was on record already"),
        }
    }
}

/// From the acceptance of a job to the start of a run, if that is its first.
fn latency(core: &Recorded, run: RunId, at: Timestamp) -> Option<Span> {
    core.view(run.job).filter(|_| run.attempt == FIRST).map(|view| at.since(view.submitted_at))
}

/// The label of a run's end.
const fn result_word(result: &RunResult) -> &'static str {
    match result {
        RunResult::Succeeded => "succeeded",
        RunResult::Failed { .. } => "failed",
        RunResult::Lost { .. } => "lost",
    }
}

fn act(core: &mut Recorded, turn: &mut Turn, job: JobId, action: Action, by: Name, now: Timestamp) -> Result<(), BackendError> {
    let event = match action {
        Action::Cancel => Event::Cancel { by },
        Action::Hold => Event::Hold { by },
        Action::Requeue => Event::Requeue { by },
        Action::Release => {
            let not_before = core.view(job).and_then(|view| view.start_after);
            Event::Release { by, not_before }
        }
    };
    turn.handle(core, job, event, now).map_err(BackendError::Rejected)
}

/// What the core would not take now is not taken; what it has taken is written with its spec.
fn update(core: &mut Recorded, turn: &mut Turn, job: JobId, update: Update, now: Timestamp) -> Result<(), BackendError> {
    let view = core.view(job).ok_or(BackendError::NotFound)?;
    if view.shape.queue != update.from.0 || **view.policy != update.from.1 {
        return Err(BackendError::Overtaken);
    }
    if view.shape.queue != update.queue {
        // Another queue has other limits.
        let shape = Shape { queue: update.queue.clone(), ..Shape::clone(view.shape) };
        core.admit(&shape, &update.policy).map_err(|refused| BackendError::Refused { index: 0, refused })?;
    }
    let Update { queue, policy, spec, by, .. } = update;
    turn.handle(core, job, Event::Update { by, queue, policy }, now).map_err(BackendError::Rejected)?;
    if let Some(view) = core.view(job) {
        let (shape, policy) = (view.shape.clone(), view.policy.clone());
        turn.batch.updates.push(JobUpdate { job, seq: view.seq, shape, policy, spec });
    }
    Ok(())
}

/// A run's identity from a job's present attempt.
pub(crate) fn run_of(job: JobId, lifecycle: &scheduler_core::state::Lifecycle) -> RunId {
    RunId { job, attempt: lifecycle.attempt }
}
