//! What the runner knows: its runs, whose process is whose, what waits to be spawned, told or made durable.
//!
//! One [`Table`] behind one lock, held for microseconds and never while the disk or the daemon is waited for. What happens to a run is
//! in [`lifecycle`](super::lifecycle); here are the data and what keeps them consistent:
//! - `pids` names exactly the tasks whose process has not been reaped. A process is reaped under the lock, so whatever `pids` names
//!   may be signalled by number under the lock.
//! - A run is in `timers` once if it is being ended, and in `sweeping` only if all its tasks have ended and others of it have not.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use scheduler_core::event::RunResult;
use scheduler_core::ids::{Name, RunId};
use scheduler_core::state::FailReason;
use scheduler_core::time::Timestamp;
use serde::{Deserialize, Serialize};

use super::lines::{Lines, Share, Ticket};
use super::output::{Output, Spares, Streams};
use super::sys::Thread;
use crate::contract::{Report, StartOrder};
use crate::local::protocol::Told;

/// A process id.
pub(super) type Pid = i32;

/// Most runs in the table; more are refused as lost until some are forgotten.
pub(super) const MAX_RUNS: usize = 200_000;
/// Most runs that wait for a spawn thread; the daemon's orders are not read while there are more.
pub(super) const MAX_QUEUE: usize = 4_096;

/// How a process ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Exit {
    /// With this code.
    Code(i32),
    /// By this signal.
    Signal(i32),
    /// Nobody saw: it was the child of a runner that is gone.
    Unseen,
}

/// One task of a run.
#[derive(Clone, Debug)]
pub(super) struct Task {
    /// Its name in the run.
    pub name: Name,
    /// What it is doing.
    pub state: TaskState,
    /// The process that it has or had: the leader of a session of its own.
    pub made: Option<Made>,
}

/// A process that was made for a task.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Made {
    /// Its id.
    pub pid: Pid,
    /// Between these ticks since boot it was made; `/proc/PID/stat` shows one of them.
    pub ticks: (u64, u64),
    /// When.
    pub at: Timestamp,
}

/// What a task is doing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum TaskState {
    /// It has no process yet, and never will have one if the run is being ended.
    Waiting,
    /// Its process lives, or was not reaped yet.
    Running(Pid),
    /// Its process ended.
    Exited(Exit),
}

/// A run that is being ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Ending {
    /// By an order; otherwise because one of its tasks has ended.
    pub asked: bool,
    /// What was sent.
    pub signal: i32,
    /// When SIGKILL follows, or follows again, in microseconds of the boot clock.
    pub deadline_us: u64,
    /// How often SIGKILL was sent.
    pub kills: u32,
}

/// A run that has not ended.
#[derive(Debug)]
pub(super) struct Live {
    /// Its tasks.
    pub tasks: Vec<Task>,
    /// As whom it runs, if not as the runner.
    pub uid: Option<u32>,
    /// It waits for a spawn thread or is in the hands of one: tasks may still get processes.
    pub spawning: bool,
    /// No process of it is older than this, in ticks since boot; none before its first start.
    pub began: Option<u64>,
    /// When all its tasks had been started.
    pub started_at: Option<Timestamp>,
    /// The first failure.
    pub verdict: Option<RunResult>,
    /// It is being ended.
    pub ending: Option<Ending>,
    /// Who has had the ending's signal: groups of tasks (with 0), other processes with their start times.
    pub told: BTreeSet<(Pid, u64)>,
    /// Only for a run of an earlier runner: its processes, which are no children of this one, with their start times.
    pub adopted: Option<BTreeMap<Pid, u64>>,
    /// What it has of its line, if it has waited in one.
    pub share: Option<Share>,
    /// Output of its only task, as long as it has no name.
    pub streams: Option<Streams>,
}

/// How a run ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum End {
    /// It is over.
    Over {
        /// How it ended.
        result: RunResult,
        /// When its tasks were started, if they were.
        started_at: Option<Timestamp>,
        /// When it ended.
        at: Timestamp,
    },
    /// It waited in a line and never began.
    NotBegun {
        /// Why.
        message: String,
        /// When that was known.
        at: Timestamp,
    },
}

/// A run.
#[derive(Debug)]
pub(super) enum Run {
    /// It waits in a line.
    Held(Box<Held>),
    /// Not ended.
    Live(Box<Live>),
    /// Nothing of it is left; this is not durable yet.
    Settling(End),
    /// Ended, durably, and told.
    Ended(End),
}

/// A process that came to the runner when its parent ended.
#[derive(Clone, Copy, Debug)]
pub(super) struct Orphan {
    /// Whose it is, as far as can be told.
    pub run: Option<RunId>,
    /// Start, in ticks since boot.
    pub start: u64,
}

/// A run that is to be started.
#[derive(Debug)]
pub(super) struct SpawnJob {
    /// What to start.
    pub order: StartOrder,
    /// Folder of the log files.
    pub log_dir: Arc<str>,
    /// What it has of a line. Then its intent is not written down yet.
    pub share: Option<Share>,
    /// Where its tasks write to.
    pub output: Output,
}

/// Output of a run's only task that has no name yet.
pub(super) type Unread = (RunId, Name, Streams);

/// A run that waits in a line.
#[derive(Debug)]
pub(super) struct Held {
    /// Where.
    pub ticket: Ticket,
    /// What to start when its turn comes.
    pub job: SpawnJob,
}

/// A spawn thread that waits for the only task of a run to end soon.
#[derive(Clone, Copy, Debug)]
pub(super) struct Waiting {
    /// The thread.
    pub thread: Thread,
    /// The run.
    pub run: RunId,
    /// It is to wait no longer.
    pub called: bool,
}

/// What goes to the daemon.
pub(super) enum Outgoing {
    /// Something that happened.
    Report(Report),
    /// Part of an answer.
    Told(Told),
}

/// The connection with the daemon.
pub(super) struct Connection {
    /// Which connection it is; grows with each.
    pub generation: u64,
    /// To end it from another thread.
    pub stream: Arc<UnixStream>,
    /// It has observed, so it gets reports.
    pub subscribed: bool,
    /// It knows of lines.
    pub lines: bool,
}

/// All that the runner knows.
#[derive(Default)]
pub(super) struct Table {
    /// The runs.
    pub runs: BTreeMap<RunId, Run>,
    /// Which task a process is.
    pub pids: HashMap<Pid, (RunId, usize)>,
    /// Whose session it is: the processes of tasks, also of those that have ended, of all runs that have not.
    pub sessions: HashMap<Pid, RunId>,
    /// Orphans that were met and have not been reaped.
    pub orphans: BTreeMap<Pid, Orphan>,
    /// Runs whose tasks have ended, but not everything that came from them.
    pub sweeping: BTreeSet<RunId>,
    /// When to look after runs that are being ended, in microseconds of the boot clock.
    pub timers: BTreeSet<(u64, RunId)>,
    /// Runs that wait for a spawn thread.
    pub queue: VecDeque<SpawnJob>,
    /// Who waits in which line, and what is in use there.
    pub lines: Lines,
    /// The main thread has children, or has had some: it is to wait for them.
    pub has_orphans: bool,
    /// There are tasks, or have been lately: the keeper looks for orphans of theirs.
    pub orphans_may_come: bool,
    /// The crowd's thread waits for somebody else to reap what is theirs.
    pub crowd_waits: bool,
    /// Spawn threads that wait for a task.
    pub waiting: Vec<Waiting>,
    /// The thread that has the lock takes the next run itself: nobody has to be woken for it.
    pub taking: bool,
    /// Runs whose start was not told yet, with when it is to be, in microseconds of the boot clock; oldest first.
    pub fresh: VecDeque<(u64, RunId)>,
    /// Output that waits for its name: of settling runs.
    pub to_name: Vec<Unread>,
    /// Files for output to come.
    pub spares: Spares,
    /// Settling runs, oldest first.
    pub to_commit: Vec<RunId>,
    /// What waits to be sent.
    pub outbox: VecDeque<Outgoing>,
    /// The daemon, if it is there.
    pub connection: Option<Connection>,
    /// Number of the newest connection.
    pub generation: u64,
    /// A connection's orders are being read.
    pub reading: bool,
    /// The runner is to end.
    pub closing: bool,
}

impl Live {
    /// A run that waits to be spawned.
    pub(super) fn new(tasks: Vec<Name>, uid: Option<u32>) -> Self {
        Self {
            tasks: tasks.into_iter().map(|name| Task { name, state: TaskState::Waiting, made: None }).collect(),
            uid,
            spawning: true,
            began: None,
            started_at: None,
            verdict: None,
            ending: None,
            told: BTreeSet::new(),
            adopted: None,
            share: None,
            streams: None,
        }
    }

    /// Processes of tasks that have not been seen to end.
    pub(super) fn task_pids(&self) -> impl Iterator<Item = Pid> + '_ {
        self.tasks.iter().filter_map(|task| match task.state {
            TaskState::Running(pid) => Some(pid),
            TaskState::Waiting | TaskState::Exited(_) => None,
        })
    }

    /// What became of the run, of which nothing is left.
    pub(super) fn end(&self, at: Timestamp) -> End {
        if self.share.is_some() && self.began.is_none() && self.verdict.is_none() && self.adopted.is_none() {
            return End::NotBegun { message: "it was stopped when its turn came".to_owned(), at };
        }
        End::Over { result: self.result(), started_at: self.started_at, at }
    }

    fn result(&self) -> RunResult {
        if let Some(verdict) = &self.verdict {
            return verdict.clone();
        }
        if self.tasks.iter().all(|task| task.state == TaskState::Exited(Exit::Code(0))) {
            return RunResult::Succeeded;
        }
        // Without a verdict a task is missing only if the run was told to end before all of them had been started.
        lost("it was ended before all its tasks were started")
    }
}

/// A loss.
pub(super) fn lost(message: &str) -> RunResult {
    RunResult::Lost { message: message.into() }
}

/// A failure that trying again would not mend.
pub(super) fn not_startable(message: String) -> RunResult {
    RunResult::Failed { reason: FailReason::Start { message: message.into() } }
}

/// What an exit means for the run; `None` if all is well.
pub(super) fn failure(task: &Name, exit: Exit) -> Option<RunResult> {
    match exit {
        Exit::Code(0) => None,
        Exit::Code(code) => Some(RunResult::Failed { reason: FailReason::ExitCode { task: task.clone(), code } }),
        Exit::Signal(signal) => Some(RunResult::Failed { reason: FailReason::Signal { task: task.clone(), signal } }),
        Exit::Unseen => Some(lost(&format!("the runner was killed; how task {task} ended was not seen"))),
    }
}

impl Table {
    /// The run, if it has not ended.
    pub(super) fn live(&mut self, run: RunId) -> Option<&mut Live> {
        match self.runs.get_mut(&run) {
            Some(Run::Live(live)) => Some(live),
            Some(Run::Held(_) | Run::Settling(_) | Run::Ended(_)) | None => None,
        }
    }

    /// Nobody is there, and there is nothing to look after.
    pub(super) fn is_idle(&self) -> bool {
        self.connection.is_none() && !self.reading && self.runs.is_empty()
    }
}
