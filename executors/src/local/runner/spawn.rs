//! The threads that make processes. A few of them, so that one program on a slow file system does not hold up the others.
//!
//! All tasks of a run are made by one thread, one after the other. If one cannot be made, or the run is being ended meanwhile, the
//! rest is not made either.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsFd;
use std::sync::MutexGuard;
use std::time::{Duration, Instant};

use rustix::process::{Pid as RawPid, PidfdFlags, pidfd_open};
use scheduler_core::event::RunResult;
use scheduler_core::ids::RunId;

use super::clock;
use super::held::task_names;
use super::journal::Record;
use super::launch::{Credentials, Launch, LaunchError, Launched, Stack, launch};
use super::note;
use super::output::{Late, Output, Streams, Unnamed};
use super::prepare::{self, Limit};
use super::shared::{Shared, wait};
use super::sys::{self, Thread};
use super::table::{Made, Pid, SpawnJob, Table, Waiting, lost, not_startable};
use super::watch::watch;
use crate::contract::{StartOrder, TaskOrder};

/// How long the groups of a user are believed: the database may be on another machine.
const GROUPS_FOR: Duration = Duration::from_secs(10);
/// The largest niceness there is.
const MAX_NICE: i32 = 19;

/// What a spawn thread keeps from one run to the next.
pub(super) struct Spawner {
    stack: Stack,
    null: File,
    nice: i32,
    limits: Vec<Limit>,
    credentials: Option<(Instant, Credentials)>,
    /// The task that was just made and that nobody waits for yet.
    made: Option<(RunId, Pid)>,
}

/// What all tasks of a run have in common.
struct Common<'a> {
    order: &'a StartOrder,
    log_dir: &'a str,
    credentials: Option<Credentials>,
    limits: Vec<Limit>,
    nice: Option<i32>,
    cgroup: Option<File>,
    device_group: Option<(File, bool)>,
}

/// Before a process is made there must be a record that one may have been. Only who has waited in a line has none yet.
fn intend(shared: &Shared, job: &SpawnJob, output: &Output) -> Result<(), RunResult> {
    let SpawnJob { order, log_dir, share: Some(share), .. } = job else { return Ok(()) };
    let unnamed = matches!(output, Output::Late(_)).then(|| log_dir.to_string());
    let intent = Record::Intent { run: order.run, uid: order.uid, tasks: task_names(order), share: Some(*share), unnamed };
    shared.journal.append([&intent]).map_err(|error| lost(&format!("the runner's journal cannot be written: {error}")))
}

/// Keeps a run from devices that are not its own. Gives the group that its tasks join for that, if there is one, and whether they have to.
fn device_group(shared: &Shared, order: &StartOrder) -> Result<Option<(File, bool)>, RunResult> {
    let Some(rule) = &order.devices else { return Ok(None) };
    match shared.gate.close(order.run, rule) {
        Ok(group) => Ok(group.map(|group| (group, rule.required))),
        Err(why) if rule.required => {
            Err(lost(&format!("it could not be kept from devices of others (gpu.device_cgroup): {why}")))
        }
        Err(why) => {
            // That nothing is ever enforced was said at the start.
            if shared.gate.access().enforced {
                note(&format!("run {} is not kept from devices of others: {why}", order.run));
            }
            Ok(None)
        }
    }
}

/// The files of a task whose output is to be named late.
fn streams(late: &Late, job: &SpawnJob, common: &Common<'_>, output: Output) -> Result<Option<Streams>, RunResult> {
    let make = || {
        let new = || Unnamed::make(late, &job.log_dir, job.order.uid, common.credentials.as_ref());
        new().and_then(|out| Ok(out.zip(new()?))).map(|pair| pair.map(|(out, err)| [out, err]))
    };
    match output {
        Output::Named => Ok(None),
        Output::Late(Some(streams)) => Ok(Some(streams)),
        Output::Late(None) => make().map_err(|error| lost(&format!("log file in {}: {error}", job.log_dir))),
    }
}

impl Spawner {
    /// `limits` are given to every task, before those of its order.
    pub(super) fn new(limits: Vec<Limit>) -> io::Result<Self> {
        let null = OpenOptions::new().read(true).write(true).open("/dev/null")?;
        let nice = rustix::process::getpriority_process(None)?;
        Ok(Self { stack: Stack::new(), null, nice, limits, credentials: None, made: None })
    }

    /// The thread. It ends with the process.
    pub(super) fn run(mut self, shared: &Shared) {
        let this = Thread::this();
        loop {
            let mut table = self.wait_for_task(shared, this);
            let job = loop {
                match table.next_job() {
                    Some(job) => break job,
                    None => table = wait(&shared.work, table),
                }
            };
            shared.room.notify_one();
            // There may be room for more than one, or for who waits in another line.
            table.wake_spawner(shared);
            if table.queue.is_empty() && table.lines.held() == 0 {
                shared.settled.notify_one();
            }
            drop(table);
            self.start(shared, job);
        }
    }

    fn start(&mut self, shared: &Shared, mut job: SpawnJob) {
        let run = job.order.run;
        let output = std::mem::replace(&mut job.output, Output::Named);
        let (problem, streams) = match intend(shared, &job, &output).and_then(|()| self.common(shared, &job)) {
            Ok(common) => match streams(&shared.late, &job, &common, output) {
                Ok(streams) => (self.tasks(shared, run, &common, streams.as_ref()), streams),
                Err(problem) => (Some(problem), None),
            },
            Err(problem) => (Some(problem), None),
        };
        shared.lock().spawning_done(shared, run, problem, streams);
    }

    /// Waits for the task that was just made to end, if it does so soon: then this thread, which is awake, starts the next of its line.
    /// Otherwise somebody else waits for it.
    ///
    /// It is called off by [`Table::tell_fresh`], together with the news that the run goes on. A wait with a time of its own takes a
    /// descriptor of the process, and to make, poll and close one costs as much as a tenth of what making the process does.
    fn wait_for_task<'a>(&mut self, shared: &'a Shared, thread: Thread) -> MutexGuard<'a, Table> {
        let mut table = shared.lock();
        let Some((run, pid)) = self.made.take() else { return table };
        // Whose output has its name already goes on. And one thread stays free for whoever is to be started at once.
        let is_fresh = table.live(run).is_some_and(|live| live.streams.is_some());
        if is_fresh && table.waiting.len() < shared.options.spawn_threads {
            table.waiting.push(Waiting { thread, run, called: false });
            drop(table);
            let ended = sys::wait_for_child_or_wake(pid);
            table = shared.lock();
            table.waiting.retain(|waiting| waiting.thread != thread);
            if ended && let Ok(Some(exit)) = sys::reap(pid) {
                table.taking = true;
                table.reaped(shared, pid, exit);
                table.taking = false;
                return table;
            }
        }
        drop(table);
        // It was not reaped: the number is its own.
        watch(shared, pid, RawPid::from_raw(pid).and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok()));
        shared.lock()
    }

    fn common<'a>(&mut self, shared: &Shared, job: &'a SpawnJob) -> Result<Common<'a>, RunResult> {
        let order = &job.order;
        let credentials = match &self.credentials {
            Some((since, known)) if Some(known.uid) == order.uid && since.elapsed() < GROUPS_FOR => Some(known.clone()),
            _ => prepare::credentials(order)?,
        };
        if let Some(found) =
            credentials.as_ref().filter(|found| self.credentials.as_ref().is_none_or(|(_, c)| c.uid != found.uid))
        {
            self.credentials = Some((Instant::now(), found.clone()));
        }
        let mut limits = self.limits.clone();
        limits.extend(prepare::limits(order)?);
        let nice = (order.nice > 0).then(|| (self.nice + order.nice).min(MAX_NICE));
        let cgroup = match &shared.cgroups {
            Some(cgroups) => {
                let cpu_millis = order.tasks.iter().map(|task| task.cpu_millis).sum();
                let unlimited = order.tasks.iter().any(|task| task.memory_bytes == 0);
                let memory_bytes = if unlimited { 0 } else { order.tasks.iter().map(|task| task.memory_bytes).sum() };
                let made = cgroups.make(order.run, cpu_millis, memory_bytes);
                Some(made.map_err(|error| lost(&format!("the run's cgroup could not be made: {error}")))?)
            }
            None => None,
        };
        let device_group = device_group(shared, order)?;
        Ok(Common { order, log_dir: &job.log_dir, credentials, limits, nice, cgroup, device_group })
    }

    /// Makes the processes of all tasks; gives what kept one from being made.
    fn tasks(&mut self, shared: &Shared, run: RunId, common: &Common<'_>, streams: Option<&Streams>) -> Option<RunResult> {
        if common.order.tasks.is_empty() {
            return Some(not_startable("the run has no tasks".to_owned()));
        }
        for (index, task) in common.order.tasks.iter().enumerate() {
            let ticks = clock::ticks(clock::boot_us());
            let mut table = shared.lock();
            let live = table.live(run)?;
            if live.ending.is_some() {
                return None;
            }
            live.began.get_or_insert(ticks);
            drop(table);

            let launched = match self.task(run, common, task, streams) {
                Ok(launched) => launched,
                Err(problem) => return Some(problem),
            };
            let ticks = (ticks, clock::ticks(launched.born_us));
            let made = Made { pid: launched.pid, ticks, at: clock::now() };
            shared.lock().task_started(shared, run, index, made);
            let record = Record::Spawned { run, task: index, pid: made.pid, ticks, at: made.at };
            if let Err(error) = shared.journal.append([&record]) {
                // It runs; a next runner would have to find it by its environment.
                note(&format!("journal: {error}"));
            }
            match streams {
                Some(_) => self.made = Some((run, made.pid)),
                None => watch(shared, made.pid, launched.descriptor),
            }
        }
        None
    }

    fn task(
        &mut self,
        run: RunId,
        common: &Common<'_>,
        task: &TaskOrder,
        streams: Option<&Streams>,
    ) -> Result<Launched, RunResult> {
        let program = prepare::program(run, task)?;
        let named;
        let [stdout, stderr] = if let Some(streams) = streams {
            streams.each_ref().map(Unnamed::file)
        } else {
            named = prepare::open_logs(common.log_dir, run, task, common.credentials.as_ref())?;
            named.each_ref()
        };
        let what = Launch {
            programs: &program.programs,
            args: &program.args,
            env: &program.env,
            working_dir: &program.working_dir,
            stdio: [self.null.as_fd(), stdout.as_fd(), stderr.as_fd()],
            credentials: common.credentials.as_ref(),
            nice: common.nice,
            rlimits: &common.limits,
            cgroup: common.cgroup.as_ref().map(AsFd::as_fd),
            device_group: common.device_group.as_ref().map(|(group, required)| (group.as_fd(), *required)),
            descriptor: streams.is_none(),
        };
        launch(&what, &mut self.stack).map_err(|failed: LaunchError| prepare::explain(common.order, task, &failed))
    }
}
