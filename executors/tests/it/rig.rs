//! What executor tests are written with: orders, reports that are waited for, and signals from inside a run.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use executors::{Executor, Line, Observed, Report, RunPhase, StartOrder, TaskOrder, log_file_name};
use scheduler_core::event::RunResult;
use scheduler_core::ids::{Attempt, JobId, RunId};
use scheduler_core::job::StopPolicy;
use scheduler_core::state::FailReason;
use scheduler_core::time::Span;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::unix::pipe;
use tokio::sync::mpsc;
use tokio::time::timeout;
use uuid::Uuid;

/// After this long a test that waits has failed.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);

/// A run that no other test has.
pub(crate) fn new_run() -> RunId {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    let number = u128::from(NEXT.fetch_add(1, Ordering::Relaxed)) << 64 | u128::from(std::process::id());
    RunId { job: JobId(Uuid::from_u128(number)), attempt: Attempt(1) }
}

/// A task that a shell runs.
pub(crate) fn task(name: &str, script: &str) -> TaskOrder {
    command(name, &["/bin/sh", "-c", script])
}

/// A task.
pub(crate) fn command(name: &str, command: &[&str]) -> TaskOrder {
    TaskOrder {
        name: name.into(),
        command: command.iter().map(ToString::to_string).collect(),
        env: BTreeMap::from([("PATH".to_owned(), "/usr/local/bin:/usr/bin:/bin".to_owned())]),
        working_dir: "/".to_owned(),
        cpu_millis: 1_000,
        memory_bytes: 0,
    }
}

/// An order for a new run.
pub(crate) fn order(tasks: Vec<TaskOrder>) -> StartOrder {
    StartOrder { run: new_run(), tasks, uid: None, nice: 0, rlimits: BTreeMap::new(), line: None, devices: None, pod: None }
}

/// An order for a new run of one script.
pub(crate) fn script(text: &str) -> StartOrder {
    order(vec![task("main", text)])
}

/// The order, in a line of so many CPUs.
pub(crate) fn in_line(id: u64, cpus: u64, order: StartOrder) -> StartOrder {
    StartOrder { line: Some(Line { id, cpu_millis: cpus * 1_000, memory_bytes: 0 }), ..order }
}

/// SIGTERM, and this long until SIGKILL.
pub(crate) fn stop_after(grace: Duration) -> StopPolicy {
    StopPolicy { signal: 15, grace: Span(grace.as_micros() as u64) }
}

/// The result of a task that ended with a code other than 0.
pub(crate) fn exit_code(task: &str, code: i32) -> RunResult {
    RunResult::Failed { reason: FailReason::ExitCode { task: task.into(), code } }
}

/// The result of a task that a signal ended.
pub(crate) fn signalled(task: &str, signal: i32) -> RunResult {
    RunResult::Failed { reason: FailReason::Signal { task: task.into(), signal } }
}

/// The message of a run that could not be started as asked.
pub(crate) fn start_message(result: &RunResult) -> String {
    match result {
        RunResult::Failed { reason: FailReason::Start { message } } => message.to_string(),
        other => panic!("not a start that failed: {other:?}"),
    }
}

/// The message of a run that was lost.
pub(crate) fn lost_message(result: &RunResult) -> String {
    match result {
        RunResult::Lost { message } => message.to_string(),
        other => panic!("not lost: {other:?}"),
    }
}

/// Reports, kept by run.
pub(crate) struct Inbox {
    reports: mpsc::Receiver<Report>,
    started: BTreeMap<RunId, usize>,
    ended: BTreeMap<RunId, Vec<Report>>,
    disturbed: Vec<String>,
}

impl Inbox {
    /// With the sender for an executor.
    pub(crate) fn new() -> (mpsc::Sender<Report>, Self) {
        let (sender, reports) = mpsc::channel(16);
        (sender, Self { reports, started: BTreeMap::new(), ended: BTreeMap::new(), disturbed: Vec::new() })
    }

    /// Waits for one more report.
    pub(crate) async fn next(&mut self) {
        match timeout(PATIENCE, self.reports.recv()).await.expect("a report in time").expect("an executor that lives") {
            Report::Started { run, .. } => *self.started.entry(run).or_default() += 1,
            Report::Disturbed { message } => self.disturbed.push(message),
            report @ (Report::Ended { run, .. } | Report::NotBegun { run, .. }) => {
                let reports = self.ended.entry(run).or_default();
                assert!(reports.iter().all(|earlier| *earlier == report), "two ends of one run: {reports:?}, {report:?}");
                reports.push(report);
            }
        }
    }

    /// Waits until a run has started.
    pub(crate) async fn started(&mut self, run: RunId) {
        while !self.started.contains_key(&run) {
            assert!(!self.ended.contains_key(&run), "ended without a start: {:?}", self.ended[&run]);
            self.next().await;
        }
    }

    /// Whether a start of a run has been reported so far.
    pub(crate) fn has_started(&self, run: RunId) -> bool {
        self.started.contains_key(&run)
    }

    /// How often the end of a run was reported so far.
    pub(crate) fn ends(&self, run: RunId) -> usize {
        self.ended.get(&run).map_or(0, Vec::len)
    }

    /// Waits until a run is over.
    pub(crate) async fn over(&mut self, run: RunId) -> Report {
        while !self.ended.contains_key(&run) {
            self.next().await;
        }
        self.ended[&run][0].clone()
    }

    /// Waits until a run has ended.
    pub(crate) async fn ended(&mut self, run: RunId) -> RunResult {
        match self.over(run).await {
            Report::Ended { result, .. } => result,
            other => panic!("it did not end: {other:?}"),
        }
    }

    /// Waits until it is told that a run has never begun; gives the reason.
    pub(crate) async fn not_begun(&mut self, run: RunId) -> String {
        match self.over(run).await {
            Report::NotBegun { message, .. } => message,
            other => panic!("it has begun: {other:?}"),
        }
    }

    /// How many ends were reported so far.
    pub(crate) fn all_ends(&self) -> usize {
        self.ended.len()
    }

    /// Waits until the executor has said so often that it was disturbed.
    pub(crate) async fn disturbed(&mut self, times: usize) {
        while self.disturbed.len() < times {
            self.next().await;
        }
    }
}

/// An executor and what it tells.
pub(crate) struct Rig {
    /// Under test.
    pub(crate) executor: Arc<dyn Executor>,
    /// Its reports.
    pub(crate) inbox: Inbox,
    /// For whatever a test writes.
    pub(crate) folder: PathBuf,
    /// Where tasks' output goes.
    pub(crate) logs: PathBuf,
}

impl Rig {
    /// Starts a run; gives it.
    pub(crate) async fn start(&self, order: StartOrder) -> RunId {
        let run = order.run;
        self.executor.start(vec![order]).await.unwrap();
        run
    }

    /// Starts a run and waits for its end.
    pub(crate) async fn result(&mut self, order: StartOrder) -> RunResult {
        let run = self.start(order).await;
        self.inbox.ended(run).await
    }

    /// Has short runs begin and forgotten until the runner has written its journal in `dir` anew.
    pub(crate) async fn rewrite_journal(&mut self, dir: &Path) {
        let journal = dir.join("runner/journal");
        let mut longest = 0;
        loop {
            let short = self.start(script("true")).await;
            assert_eq!(self.inbox.ended(short).await, RunResult::Succeeded);
            self.executor.forget(vec![short]).await.unwrap();
            let length = std::fs::metadata(&journal).unwrap().len();
            assert!(length < 1 << 20, "it was never rewritten");
            if length < longest {
                break;
            }
            longest = length;
        }
    }

    /// What is observed of a run.
    pub(crate) async fn phase(&self, run: RunId) -> Option<RunPhase> {
        let observed = self.executor.observe().await.unwrap();
        observed.into_iter().find(|observed| observed.run == run).map(|Observed { phase, .. }| phase)
    }

    /// What a task has written.
    pub(crate) fn log(&self, run: RunId, task: &str, stream: &str) -> String {
        let path = self.logs.join(log_file_name(run, task, stream));
        std::fs::read_to_string(&path).unwrap_or_else(|error| {
            let there: Vec<_> = std::fs::read_dir(&self.logs).unwrap().map(|entry| entry.unwrap().file_name()).collect();
            panic!("{}: {error}; there are {there:?}; disturbed: {:?}", path.display(), self.inbox.disturbed)
        })
    }

    /// A new channel from inside runs.
    pub(crate) fn signal(&self, name: &str) -> Signal {
        Signal::new(&self.folder, name)
    }
}

/// Lines that a run writes into a named pipe: what a test waits for.
pub(crate) struct Signal {
    path: PathBuf,
    lines: BufReader<pipe::Receiver>,
}

impl Signal {
    fn new(folder: &Path, name: &str) -> Self {
        let path = folder.join(name);
        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU, 0).unwrap();
        // Open for both, so that there is no end of file between two writers.
        let lines = BufReader::new(pipe::OpenOptions::new().read_write(true).open_receiver(&path).unwrap());
        Self { path, lines }
    }

    /// Where to write.
    pub(crate) fn path(&self) -> std::path::Display<'_> {
        self.path.display()
    }

    /// Waits for a line.
    pub(crate) async fn line(&mut self) -> String {
        let mut line = String::new();
        timeout(PATIENCE, self.lines.read_line(&mut line)).await.expect("a line in time").unwrap();
        line.trim().to_owned()
    }

    /// Waits for a line with a number.
    pub(crate) async fn pid(&mut self) -> i32 {
        self.line().await.parse().unwrap()
    }
}

/// Whether a process is there; one that was not reaped by its parent counts as gone.
pub(crate) fn lives(pid: i32) -> bool {
    let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else { return false };
    !stat.rsplit(')').next().unwrap().trim_start().starts_with(['Z', 'X'])
}

/// Waits until a process is gone in this sense.
pub(crate) async fn gone(pid: i32) {
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    // One that cannot be opened has been reaped.
    let Ok(process) = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::NONBLOCK) else { return };
    // Its end makes it readable, as bytes do a pipe.
    let process = pipe::Receiver::from_file_unchecked(process.into()).unwrap();
    timeout(PATIENCE, process.readable()).await.expect("its end in time").unwrap();
}

/// Waits until something is so that nobody says.
pub(crate) async fn until(so: impl Fn() -> bool) {
    let look = async {
        while !so() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    timeout(PATIENCE, look).await.expect("so in time");
}

/// Sends SIGKILL.
pub(crate) fn kill(pid: i32) {
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}
