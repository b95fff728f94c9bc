//! Every call that changes a core, and what it answered, as data: what a decision log is made of, and what replays it.
//!
//! What must hold:
//! - The same configuration and the same inputs in the same order give the same answers, on every machine. So a log that was written
//!   anywhere can be played into a fresh core and compared with what that answers ([`replay`]).
//! - [`Recorded`] hands its core out for reading only: whatever changes it goes through here, so nothing can be missing from a log.
//! - Nothing is written here. A [`Tap`] is told, and must not hold up whoever tells it.

use std::ops::Deref;

use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use crate::event::{Effect, Event, Rejected, Transition};
use crate::ids::{JobId, Name, RunId};
use crate::job::{LiveJob, NewJob};
use crate::scheduler::{
    ChangeError, CohortConfig, Config, ConfigError, LostRuns, NodeConfig, NodeState, QueueConfig, Refused, RestoreError,
    Scheduler, UsageRecord,
};
use crate::state::Lifecycle;
use crate::time::Timestamp;

/// The format of [`Line`]; a reader refuses others.
pub const FORMAT: u32 = 1;

/// A call that changes a core.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Input {
    /// [`Scheduler::restore`].
    Restore(Box<LiveJob>),
    /// [`Scheduler::restore_usage`].
    RestoreUsage(Vec<UsageRecord>),
    /// [`Scheduler::submit`].
    Submit(Box<NewJob>),
    /// [`Scheduler::handle`].
    Handle {
        /// The job.
        job: JobId,
        /// What happened to it.
        event: Event,
    },
    /// [`Scheduler::tick`].
    Tick {
        /// Transitions at most.
        limit: usize,
    },
    /// [`Scheduler::plan`].
    Plan {
        /// Transitions at most.
        limit: usize,
    },
    /// [`Scheduler::set_holding`].
    SetHolding(bool),
    /// [`Scheduler::take_withdrawn`].
    TakeWithdrawn,
    /// [`Scheduler::set_queue`].
    SetQueue(Box<QueueConfig>),
    /// [`Scheduler::remove_queue`].
    RemoveQueue(Name),
    /// [`Scheduler::set_cohort`].
    SetCohort(Box<CohortConfig>),
    /// [`Scheduler::remove_cohort`].
    RemoveCohort(Name),
    /// [`Scheduler::set_node`].
    SetNode(Box<NodeConfig>),
    /// [`Scheduler::remove_node`].
    RemoveNode(Name),
    /// [`Scheduler::set_node_state`].
    SetNodeState {
        /// The node.
        node: Name,
        /// What may be done with it.
        state: NodeState,
    },
    /// [`Scheduler::set_gpu_aside`].
    SetGpuAside {
        /// The GPU.
        gpu: Name,
        /// Why it is promised to nobody; none: it may be.
        why: Option<Name>,
    },
}

/// What became of one job.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Change {
    /// The job.
    pub job: JobId,
    /// By what, as [`Event::word`] says it.
    pub by: Name,
    /// What it is now, with its placement.
    pub to: Lifecycle,
    /// What has to be done outside.
    #[serde(default, skip_serializing_if = "SmallVec::is_empty")]
    pub effects: SmallVec<[Effect; 1]>,
}

/// What a call answered.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Answer {
    /// Nothing but that it was done.
    Done,
    /// A new job's first lifecycle.
    Accepted(Lifecycle),
    /// What was changed, in this order.
    Changed(Vec<Change>),
    /// Runs that are taken back if they have not begun.
    Withdrawn(Vec<RunId>),
    /// Records that were left aside.
    Aside(usize),
    /// What became of the runs of a node that was lost.
    Lost {
        /// Those that were nowhere else.
        ended: Vec<Change>,
        /// Those that have tasks elsewhere.
        elsewhere: Vec<RunId>,
    },
    /// Nothing has changed, and why.
    Refused(String),
}

/// A call with its time and its answer.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Entry {
    /// The time that the core was given; of use that is put back, the time of the records; 0 where it is given none.
    pub at: Timestamp,
    /// The call.
    pub input: Input,
    /// The answer.
    pub answer: Answer,
}

/// How a part of a log begins: a core that knows nothing but this.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Begin {
    /// [`FORMAT`].
    pub format: u32,
    /// Of the program that wrote it.
    pub version: String,
    /// What the core was made from.
    pub config: Config,
}

/// A line of a log. A log is one part after the other; each begins with [`Line::Begin`].
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Line {
    /// A fresh core.
    Begin(Box<Begin>),
    /// A call.
    Did(Entry),
    /// The part ends here although its core went on: what follows was not written.
    Cut {
        /// Why, for people.
        why: String,
    },
}

/// Is told what goes on. Must not block for long and must not fail: it is called between decisions.
pub trait Tap: Send {
    /// A core was made.
    fn begin(&mut self, config: &Config);
    /// It was called.
    fn entry(&mut self, entry: Entry);
}

/// A core whose changes are told to a [`Tap`], where there is one.
pub struct Recorded {
    core: Scheduler,
    tap: Option<Box<dyn Tap>>,
}

impl Deref for Recorded {
    type Target = Scheduler;
    fn deref(&self) -> &Scheduler {
        &self.core
    }
}

/// Makes one method of [`Recorded`]: calls the core, and tells the tap.
macro_rules! recorded {
    ($(
        $(#[$doc:meta])*
        $name:ident($($arg:ident: $type:ty),*; $now:ident) -> $output:ty, $input:expr;
    )*) => {$(
        $(#[$doc])*
        pub fn $name(&mut self, $($arg: $type,)* $now: Timestamp) -> $output {
            let input = self.tap.is_some().then(|| $input);
            let output = self.core.$name($($arg,)* $now);
            self.tell($now, input, || output.told());
            output
        }
    )*};
}

impl Recorded {
    /// An empty core.
    ///
    /// # Errors
    /// As [`Scheduler::new`].
    pub fn new(config: Config, mut tap: Option<Box<dyn Tap>>) -> Result<Self, ConfigError> {
        let core = Scheduler::new(config.clone())?;
        if let Some(tap) = &mut tap {
            tap.begin(&config);
        }
        Ok(Self { core, tap })
    }

    recorded! {
        /// See [`Scheduler::restore`].
        ///
        /// # Errors
        /// As there.
        restore(job: LiveJob; now) -> Result<(), RestoreError>, Input::Restore(Box::new(job.clone()));
        /// See [`Scheduler::submit`].
        ///
        /// # Errors
        /// As there.
        submit(job: NewJob; now) -> Result<Lifecycle, Refused>, Input::Submit(Box::new(job.clone()));
        /// See [`Scheduler::handle`].
        ///
        /// # Errors
        /// As there.
        handle(job: JobId, event: Event; now) -> Result<Transition, Rejected>, Input::Handle { job, event: event.clone() };
        /// See [`Scheduler::set_queue`].
        ///
        /// # Errors
        /// As there.
        set_queue(config: QueueConfig; now) -> Result<(), ChangeError>, Input::SetQueue(Box::new(config.clone()));
        /// See [`Scheduler::remove_queue`].
        ///
        /// # Errors
        /// As there.
        remove_queue(name: &Name; now) -> Result<(), ChangeError>, Input::RemoveQueue(name.clone());
        /// See [`Scheduler::set_cohort`].
        ///
        /// # Errors
        /// As there.
        set_cohort(config: CohortConfig; now) -> Result<(), ChangeError>, Input::SetCohort(Box::new(config.clone()));
        /// See [`Scheduler::remove_cohort`].
        ///
        /// # Errors
        /// As there.
        remove_cohort(name: &Name; now) -> Result<(), ChangeError>, Input::RemoveCohort(name.clone());
    }

    /// See [`Scheduler::set_node`].
    ///
    /// # Errors
    /// As there.
    pub fn set_node(&mut self, config: NodeConfig) -> Result<(), ChangeError> {
        let input = self.tap.is_some().then(|| Input::SetNode(Box::new(config.clone())));
        let done = self.core.set_node(config);
        self.tell(Timestamp(0), input, || done.told());
        done
    }

    /// See [`Scheduler::remove_node`].
    ///
    /// # Errors
    /// As there.
    pub fn remove_node(&mut self, name: &Name) -> Result<(), ChangeError> {
        let done = self.core.remove_node(name);
        self.tell(Timestamp(0), Some(Input::RemoveNode(name.clone())), || done.told());
        done
    }

    /// See [`Scheduler::set_gpu_aside`].
    ///
    /// # Errors
    /// As there.
    pub fn set_gpu_aside(&mut self, uuid: &Name, why: Option<Name>) -> Result<(), ChangeError> {
        let done = self.core.set_gpu_aside(uuid, why.clone());
        self.tell(Timestamp(0), Some(Input::SetGpuAside { gpu: uuid.clone(), why }), || done.told());
        done
    }

    /// See [`Scheduler::set_node_state`].
    ///
    /// # Errors
    /// As there.
    pub fn set_node_state(&mut self, name: &Name, state: NodeState, now: Timestamp) -> Result<LostRuns, ChangeError> {
        let lost = self.core.set_node_state(name, state, now);
        self.tell(now, Some(Input::SetNodeState { node: name.clone(), state }), || lost.told());
        lost
    }

    /// See [`Scheduler::tick`]. Nothing is told where nothing was due: that changes nothing.
    pub fn tick(&mut self, now: Timestamp, limit: usize) -> Vec<Transition> {
        let made = self.core.tick(now, limit);
        let input = (self.tap.is_some() && !made.is_empty()).then_some(Input::Tick { limit });
        self.tell(now, input, || made.told());
        made
    }

    /// See [`Scheduler::plan`].
    pub fn plan(&mut self, now: Timestamp, limit: usize) -> Vec<Transition> {
        let made = self.core.plan(now, limit);
        self.tell(now, Some(Input::Plan { limit }), || made.told());
        made
    }

    /// See [`Scheduler::set_holding`].
    pub fn set_holding(&mut self, holding: bool) {
        self.core.set_holding(holding);
        self.tell(Timestamp(0), Some(Input::SetHolding(holding)), || Answer::Done);
    }

    /// See [`Scheduler::take_withdrawn`]. Nothing is told where there was nobody: that changes nothing.
    pub fn take_withdrawn(&mut self) -> Vec<RunId> {
        let runs = self.core.take_withdrawn();
        let input = (!runs.is_empty()).then_some(Input::TakeWithdrawn);
        self.tell(Timestamp(0), input, || Answer::Withdrawn(runs.clone()));
        runs
    }

    /// See [`Scheduler::restore_usage`]. The records say the time themselves.
    pub fn restore_usage(&mut self, records: &[UsageRecord]) -> usize {
        let aside = self.core.restore_usage(records);
        let input = self.tap.is_some().then(|| Input::RestoreUsage(records.to_vec()));
        let at = records.iter().map(|record| record.at).max().unwrap_or_default();
        self.tell(at, input, || Answer::Aside(aside));
        aside
    }

    fn tell(&mut self, at: Timestamp, input: Option<Input>, answer: impl FnOnce() -> Answer) {
        if let (Some(tap), Some(input)) = (&mut self.tap, input) {
            tap.entry(Entry { at, input, answer: answer() });
        }
    }
}

impl From<&Transition> for Change {
    fn from(made: &Transition) -> Self {
        Self { job: made.job, by: made.event.word().into(), to: made.to.clone(), effects: made.effects.clone() }
    }
}

/// An answer of the core as it is recorded.
trait Told {
    fn told(&self) -> Answer;
}

impl Told for () {
    fn told(&self) -> Answer {
        Answer::Done
    }
}

impl Told for Lifecycle {
    fn told(&self) -> Answer {
        Answer::Accepted(self.clone())
    }
}

impl Told for Transition {
    fn told(&self) -> Answer {
        Answer::Changed(vec![self.into()])
    }
}

impl Told for Vec<Transition> {
    fn told(&self) -> Answer {
        Answer::Changed(self.iter().map(Change::from).collect())
    }
}

impl Told for LostRuns {
    fn told(&self) -> Answer {
        Answer::Lost { ended: self.ended.iter().map(Change::from).collect(), elsewhere: self.elsewhere.clone() }
    }
}

impl<T: Told, E: std::fmt::Display> Told for Result<T, E> {
    fn told(&self) -> Answer {
        match self {
            Ok(value) => value.told(),
            Err(error) => Answer::Refused(error.to_string()),
        }
    }
}

/// Makes a recorded call on a core.
pub fn replay(core: &mut Scheduler, input: Input, at: Timestamp) -> Answer {
    match input {
        Input::Restore(job) => core.restore(*job, at).told(),
        Input::RestoreUsage(records) => Answer::Aside(core.restore_usage(&records)),
        Input::Submit(job) => core.submit(*job, at).told(),
        Input::Handle { job, event } => core.handle(job, event, at).told(),
        Input::Tick { limit } => core.tick(at, limit).told(),
        Input::Plan { limit } => core.plan(at, limit).told(),
        Input::SetHolding(holding) => {
            core.set_holding(holding);
            Answer::Done
        }
        Input::TakeWithdrawn => Answer::Withdrawn(core.take_withdrawn()),
        Input::SetQueue(config) => core.set_queue(*config, at).told(),
        Input::RemoveQueue(name) => core.remove_queue(&name, at).told(),
        Input::SetCohort(config) => core.set_cohort(*config, at).told(),
        Input::SetNode(config) => core.set_node(*config).told(),
        Input::RemoveNode(name) => core.remove_node(&name).told(),
        Input::SetNodeState { node, state } => core.set_node_state(&node, state, at).told(),
        Input::SetGpuAside { gpu, why } => core.set_gpu_aside(&gpu, why).told(),
        Input::RemoveCohort(name) => core.remove_cohort(&name, at).told(),
    }
}
