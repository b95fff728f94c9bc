//! Makes ends durable, then tells them; keeps the journal small.
//!
//! Ends that come close together share one sync. How long to wait for more is decided by whether anybody gains: while runs wait for a
//! spawn thread, or in a line, the machine has something else to do, so ends are gathered for a few milliseconds; when none waits,
//! whoever waits for this end is not kept waiting. For a moment ([`RunnerOptions::fresh`]) the start of a run that has waited in a line is
//! not told while others wait there: most of them end before, and then one report says it all.

use std::ops::Bound;
use std::sync::MutexGuard;
use std::time::Duration;

use scheduler_core::ids::RunId;
use scheduler_core::time::Timestamp;

use super::RunnerOptions;
use super::clock;
use super::journal::Record;
use super::note;
use super::output::{name_all, name_written};
use super::shared::{Shared, wait, wait_for};
use super::sys;
use super::table::{End, Run, Table, TaskState, Unread};
use crate::contract::Report;

/// Most ends that are made durable together.
const MAX_BATCH: usize = 256;
/// Pause before a journal that could not be written is tried again, in microseconds.
const RETRY_US: u64 = 1_000_000;
/// Pause before a thread that is to wait no longer is called again, in microseconds: it may not have begun to wait.
const CALL_US: u64 = 1_000;
/// What a run that is not forgotten takes in the journal, at most, by and large, in bytes.
const RUN_BYTES: u64 = 1_024;
/// Runs that are written at a time when the journal is rewritten.
const PAGE: usize = 256;

/// The thread. It ends with the process.
pub(super) fn commit_all(shared: &Shared) {
    loop {
        let (runs, unread) = gather(shared, shared.lock());
        for (run, task, streams) in &unread {
            name_written(*run, task, streams);
        }
        commit(shared, &runs);
        compact_if_due(shared);
    }
}

/// Waits for ends, and for more of them as long as that keeps nobody waiting. Meanwhile tells the starts that no end has followed.
fn gather<'a>(shared: &'a Shared, mut table: MutexGuard<'a, Table>) -> (Vec<RunId>, Vec<Unread>) {
    let mut since = None;
    loop {
        let now = clock::boot_us();
        let goes_on = table.tell_fresh(shared, now);
        if !goes_on.is_empty() {
            drop(table);
            for (run, task, streams) in &goes_on {
                name_all(*run, task, streams);
            }
            table = shared.lock();
            continue;
        }
        let calls = table.call_waiting();
        if table.to_commit.is_empty() {
            let due = table.fresh.front().map(|(due, _)| due - now);
            table = match due.into_iter().chain(calls).min() {
                Some(pause) => wait_for(&shared.settled, table, pause),
                None => wait(&shared.settled, table),
            };
            continue;
        }
        let until = *since.get_or_insert(now) + table.gather_us(&shared.options);
        if now >= until || table.to_commit.len() >= MAX_BATCH {
            return (std::mem::take(&mut table.to_commit), std::mem::take(&mut table.to_name));
        }
        table = wait_for(&shared.settled, table, until - now);
    }
}

impl Table {
    /// How long ends wait for others, in microseconds.
    fn gather_us(&self, options: &RunnerOptions) -> u64 {
        let gather = match (self.lines.held(), self.queue.is_empty()) {
            (0, true) => Duration::ZERO,
            (0, false) => options.gather,
            _ => options.gather_held,
        };
        gather.as_micros() as u64
    }

    /// One more end waits. Whoever gathers is woken for the first and for the last that go together, and when gathering is over.
    pub(super) fn wake_committer(&self, shared: &Shared) {
        let waiting = self.to_commit.len();
        if waiting == 1 || waiting == MAX_BATCH || self.gather_us(&shared.options) == 0 {
            shared.settled.notify_one();
        }
    }

    /// A run has started. That is told at once, or, while others are held, only if it goes on for a moment.
    pub(super) fn started(&mut self, shared: &Shared, run: RunId, at: Timestamp) {
        let held = self.lines.held() > 0;
        if self.live(run).is_none_or(|live| live.streams.is_none() && !(held && live.share.is_some())) {
            self.report(Report::Started { run, at });
            shared.out.notify_one();
            return;
        }
        self.fresh.push_back((clock::boot_us() + shared.options.fresh.as_micros() as u64, run));
        if self.fresh.len() == 1 && self.to_commit.is_empty() {
            shared.settled.notify_one();
        }
    }

    /// Reports the starts that have waited long enough. Gives the output of those runs, which is to be named.
    fn tell_fresh(&mut self, shared: &Shared, now: u64) -> Vec<Unread> {
        let mut unread = Vec::new();
        while let Some((_, run)) = self.fresh.pop_front_if(|(due, _)| *due <= now) {
            if let Some(waiting) = self.waiting.iter_mut().find(|waiting| waiting.run == run) {
                waiting.called = true;
            }
            let Some(live) = self.live(run) else { continue };
            let task = live.tasks.first().map(|task| task.name.clone());
            unread.extend(task.zip(live.streams.take()).map(|(task, streams)| (run, task, streams)));
            if let Some(at) = live.started_at {
                self.report(Report::Started { run, at });
                shared.out.notify_one();
            }
        }
        unread
    }
}

impl Table {
    /// Calls the threads that wait for a task and are to wait no longer. Gives when to do so again, if any is there.
    fn call_waiting(&self) -> Option<u64> {
        let mut again = None;
        for waiting in self.waiting.iter().filter(|waiting| waiting.called) {
            sys::wake(waiting.thread);
            again = Some(CALL_US);
        }
        again
    }
}

fn commit(shared: &Shared, runs: &[RunId]) {
    let table = shared.lock();
    let records: Vec<Record> = runs.iter().filter_map(|run| ended_record(*run, table.runs.get(run)?)).collect();
    drop(table);
    // Nothing is told that is not durable. While the disk is full, ends wait.
    while let Err(error) = shared.journal.append(&records).and_then(|()| shared.journal.sync()) {
        note(&format!("journal: {error}; {} ends wait for it", records.len()));
        drop(wait_for(&shared.settled, shared.lock(), RETRY_US));
    }
    let mut table = shared.lock();
    for run in runs {
        if let Some(Run::Settling(end)) = table.runs.get(run) {
            let end = end.clone();
            let report = end.report(*run);
            table.runs.insert(*run, Run::Ended(end));
            table.report(report);
        }
    }
    drop(table);
    shared.out.notify_one();
}

fn ended_record(run: RunId, state: &Run) -> Option<Record> {
    match state {
        Run::Settling(end) | Run::Ended(end) => Some(match end.clone() {
            End::Over { result, started_at, at } => Record::Ended { run, result, started_at, at },
            End::NotBegun { message, at } => Record::NotBegun { run, message, at },
        }),
        Run::Held(_) | Run::Live(_) => None,
    }
}

fn compact_if_due(shared: &Shared) {
    let length = shared.journal.length();
    if length < shared.options.compact_bytes || shared.lock().runs.len() as u64 * RUN_BYTES > length / 2 {
        return;
    }
    let mut last = None;
    let mut begun = false;
    let compacted = shared.journal.compact(|| {
        if !std::mem::replace(&mut begun, true) {
            return vec![boot_record(shared)];
        }
        page(&shared.lock(), &mut last)
    });
    if let Err(error) = compacted {
        note(&format!("journal: rewriting it: {error}"));
    }
}

/// What stands at the head of a journal, and wherever a new runner begins.
pub(super) fn boot_record(shared: &Shared) -> Record {
    Record::Boot { boot_id: shared.boot_id.clone(), pid: std::process::id() }
}

/// Records of the runs after `last`, of which there are a few more each time.
fn page(table: &Table, last: &mut Option<RunId>) -> Vec<Record> {
    let from = last.map_or(Bound::Unbounded, Bound::Excluded);
    let mut records = Vec::new();
    for (run, state) in table.runs.range((from, Bound::Unbounded)).take(PAGE) {
        *last = Some(*run);
        records.extend(ended_record(*run, state));
        if let Run::Held(_) = state {
            records.push(Record::Held { runs: vec![*run] });
        }
        let Run::Live(live) = state else { continue };
        let run = *run;
        let tasks = live.tasks.iter().map(|task| task.name.clone()).collect();
        let unnamed = live.streams.as_ref().map(|[out, _]| out.dir().to_owned());
        records.push(Record::Intent { run, uid: live.uid, tasks, share: live.share, unnamed });
        for (index, task) in live.tasks.iter().enumerate() {
            records.extend(task.made.map(|m| Record::Spawned { run, task: index, pid: m.pid, ticks: m.ticks, at: m.at }));
            if let TaskState::Exited(exit) = task.state {
                records.push(Record::Exited { run, task: index, exit });
            }
        }
        records.extend(live.ending.map(|ending| Record::Ending {
            run,
            asked: ending.asked,
            signal: ending.signal,
            deadline_us: ending.deadline_us,
        }));
    }
    records
}
